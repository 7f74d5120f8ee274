//! The command line of Pressroom; see `pressroom --help`.

use std::{io::Write as _, process::ExitCode, time::Duration};

use anyhow::Context as _;
use clap::Parser as _;
use pressroom::{
    api,
    cli::{Cli, Command},
    commands,
    config::{Configuration as _, DevConfig, EverySetting},
    lifecycle::Logged,
};

/// Maximum time to wait for standard error to accept the message.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            if !error.is::<Logged>() {
                let line = format!("{error:#}").replace('\n', " ");
                telemetry::print_error(format!("pressroom: {line}\n"));
                telemetry::flush_output(FLUSH_TIMEOUT);
            }
            ExitCode::FAILURE
        }
    }
}

fn run() -> anyhow::Result<()> {
    load_dotenv()?;
    let Cli { command, settings } = Cli::parse();
    let before = &settings;
    match command.unwrap_or_else(|| Command::Dev(settings.clone().cast())) {
        Command::Dev(given) => commands::dev(given.read(before)?),
        Command::Serve(given) => commands::serve(given.read(before)?),
        Command::Worker(given) => commands::worker(given.read(before)?),
        Command::Migrate(given) => commands::migrate(given.read(before)?),
        Command::Healthcheck { ready, settings } => commands::healthcheck(settings.read(before)?, ready),
        Command::Tasks { command, settings } => commands::tasks(settings.read(before)?, &command),
        #[cfg(feature = "observatory")]
        Command::Observatory(given) => commands::observatory(given.read(before)?),
        #[cfg(feature = "observatory")]
        Command::Traces { command, settings } => commands::traces(&settings.read(before)?, &command),
        #[cfg(feature = "observatory")]
        Command::Logs { command, settings } => commands::logs(&settings.read(before)?, &command),
        Command::Openapi => print(&api::openapi()),
        Command::Config { embedded, settings } => {
            let mut reader = settings.reader(before);
            if embedded {
                DevConfig::read(&mut reader)?;
            } else {
                EverySetting::read(&mut reader)?;
            }
            print(&reader.to_string())
        }
    }
}

/// Loads `.env` from the working directory or its nearest ancestor that has such a file.
fn load_dotenv() -> anyhow::Result<()> {
    let folder = std::env::current_dir().context("cannot read the path of the working directory")?;
    let mut paths = folder.ancestors().map(|folder| folder.join(".env"));
    let Some(path) = paths.find(|path| path.is_file()) else {
        return Ok(());
    };
    match dotenvy::from_path(&path) {
        // The line may contain a secret, so the message does not quote it.
        Err(dotenvy::Error::LineParse(line, _)) => {
            let line = line.lines().next().unwrap_or_default().trim();
            let text = std::fs::read_to_string(&path).unwrap_or_default();
            let before = text.lines().take_while(|own| own.trim() != line).count();
            anyhow::bail!(
                ".env: line {} of {} is not of the form NAME=value",
                before + 1,
                path.display()
            )
        }
        result => result.with_context(|| format!(".env: cannot read {}", path.display())),
    }
}

fn print(text: &str) -> anyhow::Result<()> {
    match writeln!(std::io::stdout(), "{}", text.trim_end()) {
        // The reader closed the pipe, as `head` does.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        result => Ok(result?),
    }
}

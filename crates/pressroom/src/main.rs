//! The command line of Pressroom; see `pressroom --help`.

use std::{
    io::{IsTerminal as _, Write as _},
    process::ExitCode,
};

use anyhow::Context as _;
use clap::Parser as _;
use pressroom::{
    api,
    cli::{Cli, Command},
    commands,
    config::{Configuration as _, DevConfig, EverySetting},
};

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // The log, on standard output, has already shown the error on the same terminal.
            let on_terminal = std::io::stdout().is_terminal() && std::io::stderr().is_terminal();
            if !(on_terminal && error.is::<commands::Logged>()) {
                let line = format!("{error:#}").replace('\n', " ");
                let _ = writeln!(std::io::stderr(), "pressroom: {line}");
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
        Command::Healthcheck(given) => commands::healthcheck(given.read(before)?),
        Command::Tasks { command, settings } => commands::tasks(settings.read(before)?, &command),
        #[cfg(feature = "observatory")]
        Command::Observatory(given) => commands::observatory(given.read(before)?),
        Command::Traces { command, settings } => commands::traces(&settings.read(before)?, &command),
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

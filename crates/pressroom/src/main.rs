//! The command line of Pressroom; see `pressroom --help`.

use std::{io::Write as _, process::ExitCode};

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
            // One line for any cause: this is what an operator sees first.
            let line = format!("{error:#}").replace('\n', " ");
            let _ = writeln!(std::io::stderr(), "pressroom: {line}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> anyhow::Result<()> {
    match dotenvy::dotenv() {
        Ok(_) => {}
        Err(error) if error.not_found() => {}
        // The error quotes the line, which may contain a secret.
        Err(_) => anyhow::bail!(".env: cannot be read; write each line as NAME=value"),
    }
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

fn print(text: &str) -> anyhow::Result<()> {
    match writeln!(std::io::stdout(), "{}", text.trim_end()) {
        // The reader of the pipe has closed it.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        result => Ok(result?),
    }
}

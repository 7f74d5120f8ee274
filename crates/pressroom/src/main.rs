//! The command line of Pressroom; see `pressroom --help`.

use std::{io::Write as _, process::ExitCode, time::Duration};

use anyhow::Context as _;
use clap::Parser as _;
use pressroom::{
    api,
    cli::{Cli, Command},
    commands,
    config::{
        ConfigError, Configuration as _, DevConfig, Dotenv, EverySetting, check_encoding, misspelt_variables,
    },
    lifecycle::Logged,
};

/// Maximum time to wait for standard error to accept the message.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    match load_dotenv().and_then(|dotenv| run().map_err(|error| with_place(error, &dotenv))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            if !error.is::<Logged>() {
                print_error(&format!("{error:#}").replace('\n', " "));
            }
            ExitCode::FAILURE
        }
    }
}

fn run() -> anyhow::Result<()> {
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
        #[cfg(feature = "mcp")]
        Command::Mcp { command, settings } => commands::mcp(&settings.read(before)?, &command),
        Command::Openapi => print(&api::openapi()),
        Command::Config { embedded, settings } => {
            let (_, reader) = settings.read_with(before, |reader| match embedded {
                true => DevConfig::read(reader).map(|_| ()),
                false => EverySetting::read(reader).map(|_| ()),
            })?;
            print(&reader.to_string())
        }
    }
}

/// Loads `.env`, and warns about its repeated and all misspelt variables.
fn load_dotenv() -> anyhow::Result<Dotenv> {
    let folder = std::env::current_dir().context("cannot read the path of the working directory")?;
    let dotenv = Dotenv::load(&folder)?;
    check_encoding()?;
    for warning in dotenv.warnings.iter().cloned().chain(misspelt_variables(&dotenv)) {
        print_error(&format!("warning: {warning}"));
    }
    Ok(dotenv)
}

/// Adds the line of `.env` that an invalid value is from.
fn with_place(error: anyhow::Error, dotenv: &Dotenv) -> anyhow::Error {
    let invalid = error
        .downcast_ref::<ConfigError>()
        .filter(|invalid| !invalid.is_option);
    match invalid.and_then(|invalid| dotenv.place(invalid.variable)) {
        Some(place) => anyhow::anyhow!("{error:#} ({place})"),
        None => error,
    }
}

/// Prints a line to standard error.
fn print_error(line: &str) {
    telemetry::print_error(format!("pressroom: {line}\n"));
    telemetry::flush_output(FLUSH_TIMEOUT);
}

fn print(text: &str) -> anyhow::Result<()> {
    match writeln!(std::io::stdout(), "{}", text.trim_end()) {
        // The reader closed the pipe, as `head` does.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        result => Ok(result?),
    }
}

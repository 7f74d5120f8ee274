//! The command line of Pressroom; see `pressroom --help`.

use std::{io::Write as _, process::ExitCode};

use clap::Parser as _;
use pressroom::{
    api,
    cli::{Cli, Command},
    commands,
    config::{Config, Mode},
};

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // One line, whatever the cause: this is what an operator sees first.
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
        // The error quotes the line, which may hold a secret.
        Err(_) => anyhow::bail!(".env: cannot be read; each line must be NAME=value"),
    }
    let Cli { command, options } = Cli::parse();
    match command.unwrap_or(Command::Dev) {
        Command::Dev => commands::dev(Config::load(Mode::Dev, options)?),
        Command::Serve => commands::serve(Config::load(Mode::Serve, options)?),
        Command::Worker => commands::worker(Config::load(Mode::Worker, options)?),
        Command::Migrate => commands::migrate(&Config::load(Mode::Migrate, options)?),
        Command::Healthcheck => commands::healthcheck(&Config::load(Mode::Probe, options)?),
        Command::Tasks(command) => commands::tasks(&Config::load(Mode::Tasks, options)?, &command),
        Command::Observatory => commands::observatory(Config::load(Mode::Observatory, options)?),
        Command::Traces(command) => commands::traces(&Config::load(Mode::Probe, options)?, &command),
        Command::Logs(command) => commands::logs(&Config::load(Mode::Probe, options)?, &command),
        Command::Openapi => print(&api::openapi()),
        Command::Config { embedded } => {
            let mode = if embedded { Mode::Dev } else { Mode::Serve };
            print(&Config::load(mode, options)?.to_string())
        }
    }
}

fn print(text: &str) -> anyhow::Result<()> {
    match writeln!(std::io::stdout(), "{}", text.trim_end()) {
        // The reader has seen enough.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        result => Ok(result?),
    }
}

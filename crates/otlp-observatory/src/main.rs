//! The program `otlp-observatory`; see `otlp-observatory --help`.

use std::{io::ErrorKind, process::ExitCode, time::Duration};

use anyhow::Context as _;
use clap::{Arg, ArgMatches, Args as _, Command, FromArgMatches as _};
use otlp_observatory::{
    Observatory,
    cli::{
        self, Logs, OBSERVATORY_HOST, OBSERVATORY_MEMORY, OBSERVATORY_PORT, SETTINGS, Setting, SettingError,
        Traces, Values,
    },
};
use telemetry::{Export, LogFormat, LogOutput, Service, Telemetry};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

const NAME: &str = env!("CARGO_PKG_NAME");

/// Exit code after a second signal: 128 + SIGTERM, as shells report it.
const ABORTED: i32 = 143;

/// Maximum time to write the remaining log output.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

const LOG_OUTPUT: Setting = Setting {
    variable: "LOG_OUTPUT",
    option: "log-output",
    value_name: "NAME",
    default: Some("stdout"),
    help: "Stream for log lines: stdout, stderr or off; RUST_LOG sets their levels",
};

const LOG_FORMAT: Setting = Setting {
    variable: "LOG_FORMAT",
    option: "log-format",
    value_name: "NAME",
    default: Some("auto"),
    help: "Format of log lines: text, json, or auto for text on a terminal and JSON otherwise",
};

fn main() -> ExitCode {
    match run(&command().get_matches()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            let line = format!("{error:#}").replace('\n', " ");
            telemetry::print_error(format!("{NAME}: {line}\n"));
            telemetry::flush_output(FLUSH_TIMEOUT);
            ExitCode::FAILURE
        }
    }
}

/// Whether the reader of a pipe, such as `head`, has closed it.
fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let error = error.downcast_ref::<std::io::Error>();
    error.is_some_and(|error| error.kind() == ErrorKind::BrokenPipe)
}

fn command() -> Command {
    let pages = [OBSERVATORY_HOST, OBSERVATORY_PORT];
    let traces = Traces::augment_args(Command::new("traces")).about("Print traces from an observatory");
    let logs = Logs::augment_args(Command::new("logs")).about("Print log records from an observatory");
    Command::new(NAME)
        .version(env!("CARGO_PKG_VERSION"))
        .about("Receive OTLP and show traces, logs and metrics in a browser")
        .args_conflicts_with_subcommands(true)
        .args(SETTINGS.iter().chain(&[LOG_OUTPUT, LOG_FORMAT]).map(option))
        .subcommand(traces.args(pages.iter().map(option)))
        .subcommand(logs.args(pages.iter().map(option)))
}

/// Returns the option for a setting, which also reads the variable.
fn option(setting: &Setting) -> Arg {
    let default = setting.default.map(|default| format!(" [default: {default}]"));
    Arg::new(setting.variable)
        .long(setting.option)
        .env(setting.variable)
        .hide_env_values(true)
        .value_name(setting.value_name)
        .help_heading("Settings (each also an environment variable)")
        .help(format!("{}{}", setting.help, default.unwrap_or_default()))
}

/// Values given as options or variables. An empty value counts as unset.
struct Given<'a>(&'a ArgMatches);

impl Values for Given<'_> {
    fn read<T>(
        &mut self,
        setting: Setting,
        parse: impl FnOnce(&str) -> Result<(T, String), String>,
    ) -> Result<Option<T>, SettingError> {
        let given = self.0.get_one::<String>(setting.variable).map(String::as_str);
        let given = given.filter(|text| !text.trim().is_empty()).or(setting.default);
        let read = given.map(parse).transpose().map_err(|problem| SettingError {
            variable: setting.variable,
            problem,
        })?;
        Ok(read.map(|(value, _)| value))
    }
}

fn run(matches: &ArgMatches) -> anyhow::Result<()> {
    let Some((name, matches)) = matches.subcommand() else {
        return serve(&mut Given(matches));
    };
    let pages = cli::pages(&mut Given(matches))?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        match name {
            "traces" => cli::traces(pages, &Traces::from_arg_matches(matches)?).await,
            _ => cli::logs(pages, &Logs::from_arg_matches(matches)?).await,
        }
    })
}

/// Runs an observatory until SIGTERM or Ctrl-C; it exports no telemetry about itself.
fn serve(values: &mut Given<'_>) -> anyhow::Result<()> {
    let config = cli::config(values, OBSERVATORY_MEMORY)?;
    let service = Service {
        export: Export::Never,
        log_output: choice(
            values,
            LOG_OUTPUT,
            &[
                ("stdout", LogOutput::Stdout),
                ("stderr", LogOutput::Stderr),
                ("off", LogOutput::Off),
            ],
        )?,
        log_format: choice(
            values,
            LOG_FORMAT,
            &[
                ("auto", LogFormat::Auto),
                ("text", LogFormat::Text),
                ("json", LogFormat::Json),
            ],
        )?,
        ..Service::new(NAME, env!("CARGO_PKG_VERSION"))
    };
    let _telemetry = Telemetry::builder(service).init()?;
    let runtime = tokio::runtime::Runtime::new().context("cannot start the async runtime")?;
    runtime.block_on(async {
        let shutdown = CancellationToken::new();
        stop_on_signal(shutdown.clone())?;
        cli::warn_without_login(config.pages);
        let observatory = Observatory::bind(config.clone())
            .await
            .map_err(|error| cli::cannot_listen(&config, &error))?;
        let forward = config.forward.as_ref();
        cli::welcome(observatory.addresses(), forward.map(|forward| &forward.endpoint));
        Ok(observatory.run(shutdown).await?)
    })
}

/// Reads the name of one of `choices`.
fn choice<T: Copy>(values: &mut Given<'_>, setting: Setting, choices: &[(&str, T)]) -> anyhow::Result<T> {
    let value = values.read(setting, |text| {
        let found = choices.iter().find(|(name, _)| *name == text.trim());
        let names: Vec<_> = choices.iter().map(|(name, _)| *name).collect();
        let problem = || format!("{:?} is not one of {}", text.trim(), names.join(", "));
        found
            .map(|(_, value)| (*value, String::new()))
            .ok_or_else(problem)
    })?;
    value.context("a setting without a default")
}

/// Cancels `shutdown` on SIGTERM or SIGINT; a second signal ends the process.
fn stop_on_signal(shutdown: CancellationToken) -> std::io::Result<()> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            if shutdown.is_cancelled() {
                telemetry::exit(ABORTED);
            }
            telemetry::info!("signal received, stopping");
            shutdown.cancel();
        }
    });
    Ok(())
}

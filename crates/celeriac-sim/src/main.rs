//! Runs the simulation: one seed, a range of seeds, or a script of faults.

use std::{
    error::Error,
    fs,
    io::{self, Write as _},
    path::PathBuf,
    process::ExitCode,
    time::{Duration, Instant},
};

use celeriac_sim::{
    faults::{self, Step},
    run::{Outcome, Plan, run},
};
use clap::Parser;
use tracing_subscriber::EnvFilter;

/// Deterministic simulation of celeriac.
#[derive(Debug, Parser)]
struct Options {
    /// First seed
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Number of seeds, ascending
    #[arg(long, default_value_t = 1)]
    count: u64,
    /// Simulated time with tasks and faults, in seconds
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Number of workers
    #[arg(long, default_value_t = 2)]
    workers: u64,
    /// Number of tasks
    #[arg(long, default_value_t = 40)]
    tasks: u64,
    /// Script of faults, a step a line, instead of those of the seed
    #[arg(long)]
    faults: Option<PathBuf>,
    /// Stop at the first seed that fails
    #[arg(long)]
    until_failure: bool,
    /// Print the whole history
    #[arg(long)]
    history: bool,
    /// Print celeriac's log records that match a filter, such as `celeriac=debug`
    #[arg(long)]
    log: Option<String>,
    /// Remove the faults of a failing run that it does not need
    #[arg(long)]
    shrink: bool,
}

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let options = Options::parse();
    if let Some(filter) = &options.log {
        let filter = EnvFilter::try_new(filter)?;
        tracing_subscriber::fmt()
            .with_env_filter(filter)
            .without_time()
            .with_writer(io::stderr)
            .init();
    }
    let kept = options.faults.as_ref().map(fs::read_to_string).transpose()?;
    let kept: Option<Vec<Step>> = kept.map(|text| faults::script(&text)).transpose()?;
    let mut out = io::stdout().lock();
    let (began, mut simulated, mut injected, mut failed) = (Instant::now(), Duration::ZERO, 0, 0);
    for seed in options.seed..options.seed + options.count {
        let length = Duration::from_secs(options.seconds);
        let faults = kept
            .clone()
            .unwrap_or_else(|| faults::draw(seed, length, options.workers));
        let mut plan = Plan {
            seed,
            faults,
            length,
            workers: options.workers,
            tasks: options.tasks,
            record: false,
        };
        let mut outcome = run(&plan);
        simulated += outcome.length;
        injected += plan.faults.len();
        failed += u64::from(!outcome.account.violations.is_empty());
        if options.shrink && !outcome.account.violations.is_empty() {
            (plan, outcome) = shrink(plan, outcome);
        }
        report(&mut out, &options, &plan, &outcome)?;
        if failed > 0 && options.until_failure {
            break;
        }
    }
    if options.count > 1 {
        writeln!(
            out,
            "{} seeds, {failed} failed; {injected} faults, {:.0} s simulated in {:.1} s",
            options.count,
            simulated.as_secs_f64(),
            began.elapsed().as_secs_f64()
        )?;
    }
    Ok(if failed > 0 {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

/// Removes faults as long as the run fails without them.
fn shrink(mut plan: Plan, mut outcome: Outcome) -> (Plan, Outcome) {
    let mut position = 0;
    while position < plan.faults.len() {
        let mut shorter = plan.clone();
        shorter.faults.remove(position);
        let without = run(&shorter);
        if without.account.violations.is_empty() {
            position += 1;
        } else {
            (plan, outcome) = (shorter, without);
        }
    }
    (plan, outcome)
}

fn report(out: &mut impl io::Write, options: &Options, plan: &Plan, outcome: &Outcome) -> io::Result<()> {
    let failed = !outcome.account.violations.is_empty();
    if options.history {
        for record in &outcome.records {
            writeln!(out, "{record}")?;
        }
    }
    let ends: Vec<String> = outcome
        .account
        .ends
        .iter()
        .map(|(end, count)| format!("{count} {end}"))
        .collect();
    writeln!(
        out,
        "seed {} {}: {}; {} faults in {:.0} s; hash {:016x}",
        plan.seed,
        if failed { "FAILED" } else { "ok" },
        ends.join(", "),
        plan.faults.len(),
        outcome.length.as_secs_f64(),
        outcome.hash
    )?;
    if failed {
        for step in &plan.faults {
            writeln!(out, "  {step}")?;
        }
        for violation in &outcome.account.violations {
            writeln!(out, "  VIOLATION {violation}")?;
        }
    }
    Ok(())
}

//! Scripts of faults. A script is text, so that a failing one can be kept, shortened and replayed.

use std::{fmt, str::FromStr, time::Duration};

use crate::rng::Rng;

/// Time or event at which a fault happens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum When {
    /// Time since the start, in milliseconds.
    Time(u64),
    /// The arrival of a process's request at the server: the fault precedes it, or follows its execution and
    /// precedes its reply.
    Request {
        process: String,
        number: u64,
        executed: bool,
    },
}

/// Data with which the server restarts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Restart {
    Everything,
    Nothing,
    /// Data of this many milliseconds before the crash.
    Older(u64),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// The process dies and is replaced after some milliseconds. What it has sent is delivered, unless `power`
    /// fails.
    Crash { process: String, power: bool, down: u64 },
    /// Bytes are held back for some milliseconds.
    Partition {
        process: String,
        to_server: bool,
        from_server: bool,
        length: u64,
    },
    /// Latency is multiplied for some milliseconds.
    Slow {
        process: String,
        factor: u64,
        length: u64,
    },
    /// All connections of the process break; bytes on the way are lost.
    Cut { process: String },
    /// The server stops and restarts after some milliseconds.
    Restart { down: u64, data: Restart },
    /// The clock of the server is set.
    ServerClock { milliseconds: i64 },
    /// The wall clock of all processes is set.
    Clock { milliseconds: i64 },
    /// The server forgets its scripts.
    FlushScripts,
}

/// A fault and its time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    pub when: When,
    pub fault: Fault,
}

/// Draws the faults of a run: they begin after 3 seconds and end before `length`.
#[must_use]
pub fn draw(seed: u64, length: Duration, workers: u64) -> Vec<Step> {
    let mut rng = Rng::new(seed, 1);
    let last = u64::try_from(length.as_millis()).unwrap_or(u64::MAX);
    let count = rng.range(1, 4 + last / 10_000);
    // Some runs have one kind of fault, which is easier to survive for a bug that another kind would hide.
    let kinds: &[u64] = &match rng.range(0, 4) {
        0 => vec![0],
        1 => vec![0, 1, 2, 3],
        2 => vec![4, 5, 6, 7],
        _ => vec![0, 1, 2, 3, 4, 5, 6, 7],
    };
    let steps = (0..count).map(|_| step(&mut rng, last, workers, kinds));
    steps.collect()
}

/// Reads a script: a step a line, apart from empty lines and comments.
///
/// # Errors
/// Returns the first line that is not a step.
pub fn script(text: &str) -> Result<Vec<Step>, String> {
    let lines = text.lines().map(str::trim);
    lines
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(str::parse)
        .collect()
}

fn step(rng: &mut Rng, last: u64, workers: u64, kinds: &[u64]) -> Step {
    let process = format!("w{}", rng.range(1, workers + 1));
    let any = if rng.percent(15) {
        "c1".to_owned()
    } else {
        process.clone()
    };
    let length = rng.pick(&[200, 1500, 5000, 9000, 20_000]);
    let length = rng.range(length / 2, length);
    let fault = match rng.pick(kinds) {
        0 => {
            let (power, down) = (rng.percent(50), rng.range(100, 12_000));
            Fault::Crash {
                process: process.clone(),
                power,
                down,
            }
        }
        1 => {
            let side = rng.range(0, 3);
            let (to_server, from_server) = (side != 0, side != 1);
            Fault::Partition {
                process: any,
                to_server,
                from_server,
                length,
            }
        }
        2 => Fault::Slow {
            process: any,
            factor: rng.pick(&[10, 100, 1000]),
            length,
        },
        3 => Fault::Cut { process: any },
        4 => {
            let data = match rng.range(0, 4) {
                0 => Restart::Nothing,
                1 => Restart::Everything,
                _ => Restart::Older(rng.range(100, 10_000)),
            };
            Fault::Restart {
                down: rng.range(50, 4000),
                data,
            }
        }
        5 => Fault::ServerClock {
            milliseconds: step_of(rng, 4_000_000),
        },
        // Postpones tasks with an `eta` by its size.
        6 => Fault::Clock {
            milliseconds: step_of(rng, 60_000),
        },
        _ => Fault::FlushScripts,
    };
    let when = if rng.percent(50) && matches!(fault, Fault::Crash { .. } | Fault::Cut { .. }) {
        let (number, executed) = (rng.range(20, last / 100), rng.percent(50));
        When::Request {
            process,
            number,
            executed,
        }
    } else {
        When::Time(rng.range(3000, last))
    };
    Step { when, fault }
}

fn step_of(rng: &mut Rng, largest: i64) -> i64 {
    let size = rng.pick(&[500, 8000, 30_000, largest]);
    if rng.percent(50) { size } else { -size }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.when {
            When::Time(at) => write!(f, "at {at} ")?,
            When::Request {
                process,
                number,
                executed,
            } => {
                let side = if *executed { "after" } else { "before" };
                write!(f, "{side} {process} {number} ")?;
            }
        }
        match &self.fault {
            Fault::Crash { process, power, down } => {
                write!(
                    f,
                    "crash {process} {} {down}",
                    if *power { "power" } else { "kill" }
                )
            }
            Fault::Partition {
                process,
                to_server,
                from_server,
                length,
            } => {
                let direction = match (to_server, from_server) {
                    (true, true) => "both",
                    (true, false) => "to-server",
                    _ => "from-server",
                };
                write!(f, "partition {process} {direction} {length}")
            }
            Fault::Slow {
                process,
                factor,
                length,
            } => write!(f, "slow {process} {factor} {length}"),
            Fault::Cut { process } => write!(f, "cut {process}"),
            Fault::Restart { down, data } => match data {
                Restart::Everything => write!(f, "restart everything {down}"),
                Restart::Nothing => write!(f, "restart nothing {down}"),
                Restart::Older(age) => write!(f, "restart older {down} {age}"),
            },
            Fault::ServerClock { milliseconds } => write!(f, "server-clock {milliseconds}"),
            Fault::Clock { milliseconds } => write!(f, "clock {milliseconds}"),
            Fault::FlushScripts => write!(f, "flush-scripts"),
        }
    }
}

impl FromStr for Step {
    type Err = String;

    fn from_str(line: &str) -> Result<Self, String> {
        let words: Vec<&str> = line.split_whitespace().collect();
        parse(&words).ok_or_else(|| format!("not a step of a script of faults: {line}"))
    }
}

fn parse(words: &[&str]) -> Option<Step> {
    let (when, rest) = match words {
        ["at", at, rest @ ..] => (When::Time(at.parse().ok()?), rest),
        [side @ ("before" | "after"), process, number, rest @ ..] => {
            let (process, number) = ((*process).to_owned(), number.parse().ok()?);
            (
                When::Request {
                    process,
                    number,
                    executed: *side == "after",
                },
                rest,
            )
        }
        _ => return None,
    };
    let fault = match rest {
        ["crash", process, kind @ ("power" | "kill"), down] => {
            let (process, down) = ((*process).to_owned(), down.parse().ok()?);
            Fault::Crash {
                process,
                power: *kind == "power",
                down,
            }
        }
        [
            "partition",
            process,
            direction @ ("both" | "to-server" | "from-server"),
            length,
        ] => Fault::Partition {
            process: (*process).to_owned(),
            to_server: *direction != "from-server",
            from_server: *direction != "to-server",
            length: length.parse().ok()?,
        },
        ["slow", process, factor, length] => {
            let (process, factor) = ((*process).to_owned(), factor.parse().ok()?);
            Fault::Slow {
                process,
                factor,
                length: length.parse().ok()?,
            }
        }
        ["cut", process] => Fault::Cut {
            process: (*process).to_owned(),
        },
        ["restart", "everything", down] => Fault::Restart {
            down: down.parse().ok()?,
            data: Restart::Everything,
        },
        ["restart", "nothing", down] => Fault::Restart {
            down: down.parse().ok()?,
            data: Restart::Nothing,
        },
        ["restart", "older", down, age] => Fault::Restart {
            down: down.parse().ok()?,
            data: Restart::Older(age.parse().ok()?),
        },
        ["server-clock", milliseconds] => Fault::ServerClock {
            milliseconds: milliseconds.parse().ok()?,
        },
        ["clock", milliseconds] => Fault::Clock {
            milliseconds: milliseconds.parse().ok()?,
        },
        ["flush-scripts"] => Fault::FlushScripts,
        _ => return None,
    };
    Some(Step { when, fault })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_is_read_as_it_is_printed() {
        for seed in 0..200 {
            for step in draw(seed, Duration::from_secs(300), 3) {
                assert_eq!(step.to_string().parse(), Ok(step));
            }
        }
    }
}

//! Numbers and durations out of text, refused with the variable's name.

use std::{str::FromStr, time::Duration};

use super::ConfigError;

pub(super) fn hours(
    variable: &'static str,
    given: Option<&str>,
    default: &str,
) -> Result<Duration, ConfigError> {
    duration(variable, given, default, 3600.0, "a number of hours above 0")
}

pub(super) fn seconds(
    variable: &'static str,
    given: Option<&str>,
    default: &str,
) -> Result<Duration, ConfigError> {
    duration(variable, given, default, 1.0, "a number of seconds above 0")
}

/// Seconds of which none is an answer too, and the default.
pub(super) fn delay(variable: &'static str, given: Option<&str>) -> Result<Duration, ConfigError> {
    const EXPECTED: &str = "a number of seconds, from 0";
    let number: f64 = parse(variable, given, "0", EXPECTED)?;
    Duration::try_from_secs_f64(number)
        .ok()
        .filter(|delay| *delay <= Duration::from_hours(1))
        .ok_or_else(|| ConfigError::new(variable, format!("{number} is not {EXPECTED}, an hour at most")))
}

fn duration(
    variable: &'static str,
    given: Option<&str>,
    default: &str,
    unit: f64,
    expected: &str,
) -> Result<Duration, ConfigError> {
    let number: f64 = parse(variable, given, default, expected)?;
    // A year is as good as for ever, and stays clear of overflow wherever it is added to a time.
    Duration::try_from_secs_f64(number * unit)
        .ok()
        .filter(|duration| !duration.is_zero() && *duration <= Duration::from_hours(24 * 366))
        .ok_or_else(|| ConfigError::new(variable, format!("{number} is not {expected}, a year at most")))
}

/// A number of bytes, as `1048576`, `1024KiB`, `1MiB` or `1GiB`.
pub(super) fn size(
    variable: &'static str,
    given: Option<&str>,
    default: &str,
    least: u64,
) -> Result<u64, ConfigError> {
    const UNITS: [(&str, u64); 3] = [("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30)];
    let text = given.unwrap_or(default).trim();
    let (number, unit) = UNITS
        .into_iter()
        .find_map(|(name, unit)| Some((text.strip_suffix(name)?, unit)))
        .unwrap_or((text, 1));
    let size = number.trim_end().parse::<u64>().ok();
    size.and_then(|number| number.checked_mul(unit))
        .filter(|size| *size >= least)
        .ok_or_else(|| {
            let problem = format!("{text:?} is not a size from {least} bytes, as 64MiB or 1GiB");
            ConfigError::new(variable, problem)
        })
}

pub(super) fn parse<T: FromStr>(
    variable: &'static str,
    given: Option<&str>,
    default: &str,
    expected: &str,
) -> Result<T, ConfigError> {
    let text = given.unwrap_or(default).trim();
    text.parse()
        .map_err(|_| ConfigError::new(variable, format!("{text:?} is not {expected}")))
}

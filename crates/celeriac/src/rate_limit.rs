//! Rate limits of tasks, in Celery's notation.

use std::{str::FromStr, time::Duration};

use thiserror::Error;

/// Maximum interval between two runs: one day, in seconds.
const MAX_INTERVAL: f64 = 86_400.0;

/// Maximum rate at which each worker starts a task, such as `10/s`, `100/m` or `3.5/h`; `10` is `10/s`.
///
/// ```
/// use celeriac::{RateLimit, TaskOptions};
///
/// let options = TaskOptions::new().rate_limit("100/m".parse::<RateLimit>()?);
/// # Ok::<(), celeriac::InvalidRate>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RateLimit {
    /// Text the limit was parsed from.
    text: String,
    /// Time between the starts of two runs.
    pub(crate) interval: Duration,
}

/// Error for a text that is not a rate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("expected a positive number per second, minute or hour, such as 10/s, 100/m or 3.5/h")]
pub struct InvalidRate;

impl RateLimit {
    /// Parses a rate limit. Returns `None` for zero, which means no limit.
    pub(crate) fn parse(text: &str) -> Result<Option<Self>, InvalidRate> {
        let (number, unit) = text.split_once('/').unwrap_or((text, "s"));
        let seconds = match unit {
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return Err(InvalidRate),
        };
        let number: f64 = number.trim().parse().map_err(|_| InvalidRate)?;
        if !(number.is_finite() && number >= 0.0) {
            return Err(InvalidRate);
        }
        Ok((number > 0.0).then(|| Self {
            text: text.to_owned(),
            interval: Duration::from_secs_f64((seconds / number).clamp(1e-9, MAX_INTERVAL)),
        }))
    }

    /// Returns the text the limit was parsed from.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl FromStr for RateLimit {
    type Err = InvalidRate;

    fn from_str(text: &str) -> Result<Self, InvalidRate> {
        Self::parse(text)?.ok_or(InvalidRate)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_parsed_as_in_celery() {
        let interval = |text: &str| RateLimit::parse(text).map(|rate| rate.map(|rate| rate.interval));
        assert_eq!(interval("10"), Ok(Some(Duration::from_millis(100))));
        assert_eq!(interval("10/s"), Ok(Some(Duration::from_millis(100))));
        assert_eq!(interval("120/m"), Ok(Some(Duration::from_millis(500))));
        assert_eq!(interval("0.5/h"), Ok(Some(Duration::from_secs(7200))));
        assert_eq!(interval("0"), Ok(None));
        assert_eq!(interval("0/m"), Ok(None));
        for wrong in ["", "x", "1/d", "-1/s", "inf", "nan/s", "1/s/s"] {
            assert_eq!(interval(wrong), Err(InvalidRate), "{wrong}");
        }
    }
}

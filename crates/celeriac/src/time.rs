//! Times in Celery's format, ISO 8601 with microseconds and `+00:00`. Parsing also accepts other offsets, `Z`,
//! and times without an offset, which are UTC as in Celery.

use std::time::Duration;

use jiff::{Timestamp, civil::DateTime, tz::TimeZone};

/// Formats a time as `2026-11-22T06:51:26.372432+00:00`.
pub(crate) fn format(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%S%.6f+00:00").to_string()
}

/// Parses a time in any form that Celery accepts; returns `None` for anything else.
pub(crate) fn parse(text: &str) -> Option<Timestamp> {
    if let Ok(time) = text.parse::<Timestamp>() {
        return Some(time);
    }
    let naive: DateTime = text.parse().ok()?;
    naive.to_zoned(TimeZone::UTC).ok().map(|zoned| zoned.timestamp())
}

/// Returns `now` plus a duration, or the latest possible time if the sum overflows.
pub(crate) fn later(now: Timestamp, duration: Duration) -> Timestamp {
    now.checked_add(duration).unwrap_or(Timestamp::MAX)
}

/// Returns the whole milliseconds from `now` until `time`, or 0 if `time` is past.
pub(crate) fn milliseconds_until(time: Timestamp, now: Timestamp) -> i128 {
    (time.as_nanosecond() - now.as_nanosecond()).max(0) / 1_000_000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_accepted_form_gives_the_same_instant() {
        let expected = "2026-11-22T06:51:26.372432Z".parse::<Timestamp>().unwrap();
        for text in [
            "2026-11-22T06:51:26.372432+00:00",
            "2026-11-22T06:51:26.372432Z",
            "2026-11-22T06:51:26.372432",
            "2026-11-22T08:51:26.372432+02:00",
        ] {
            assert_eq!(parse(text), Some(expected), "{text}");
        }
        assert_eq!(format(expected), "2026-11-22T06:51:26.372432+00:00");
    }

    #[test]
    fn invalid_text_is_rejected() {
        assert_eq!(parse("garbage"), None);
        assert_eq!(parse(""), None);
    }
}

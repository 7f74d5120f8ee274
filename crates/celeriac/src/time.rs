//! Times as Celery writes them: ISO 8601 with microseconds and `+00:00`. Read more generously: any offset,
//! `Z`, or none at all (which Celery takes as UTC).

use jiff::{Timestamp, civil::DateTime, tz::TimeZone};

/// `2026-11-22T06:51:26.372432+00:00`.
pub(crate) fn format(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%S%.6f+00:00").to_string()
}

/// Reads what [`format`] writes and the other forms Celery accepts; `None` for anything else.
pub(crate) fn parse(text: &str) -> Option<Timestamp> {
    if let Ok(time) = text.parse::<Timestamp>() {
        return Some(time);
    }
    let naive: DateTime = text.parse().ok()?;
    naive.to_zoned(TimeZone::UTC).ok().map(|zoned| zoned.timestamp())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_accepted_form_is_the_same_instant() {
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
    fn garbage_is_no_time() {
        assert_eq!(parse("garbage"), None);
        assert_eq!(parse(""), None);
    }
}

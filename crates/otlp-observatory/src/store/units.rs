//! Durations as text, such as `1.5s`.

/// Units of durations.
pub(crate) const DURATION_UNITS: [(&str, f64); 7] = [
    ("ns", 1e0),
    ("us", 1e3),
    ("µs", 1e3),
    ("ms", 1e6),
    ("s", 1e9),
    ("m", 6e10),
    ("h", 3.6e12),
];

/// Units of ages.
pub(crate) const AGE_UNITS: [(&str, f64); 4] = [("s", 1e9), ("m", 6e10), ("h", 3.6e12), ("d", 8.64e13)];

/// Parses a non-negative number followed by one of `units`, and returns nanoseconds.
pub(crate) fn nanoseconds(text: &str, units: &[(&str, f64)]) -> Option<u64> {
    let digits = text.find(|letter: char| !letter.is_ascii_digit() && letter != '.')?;
    let (number, unit) = text.split_at(digits);
    let (_, size) = units.iter().find(|(name, _)| *name == unit)?;
    let number: f64 = number.parse().ok()?;
    // The conversion saturates.
    Some((number * size).round() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_parsed_with_their_units() {
        let units = [("us", 1e3), ("ms", 1e6), ("s", 1e9)];
        for (text, expected) in [
            ("250us", Some(250_000)),
            ("10ms", Some(10_000_000)),
            ("1.5s", Some(1_500_000_000)),
            ("0s", Some(0)),
            ("99999999999999999999s", Some(u64::MAX)),
            ("10", None),
            ("ms", None),
            ("-1s", None),
            ("1e3s", None),
            ("1.2.3s", None),
            ("10 ms", None),
            ("10h", None),
            ("infs", None),
            ("", None),
        ] {
            assert_eq!(nanoseconds(text, &units), expected, "{text}");
        }
    }
}

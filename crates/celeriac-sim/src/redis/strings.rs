//! Numbers as Redis reads and prints them.

use super::reply::Reply;

pub(super) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

pub(super) fn int(bytes: &[u8]) -> Result<i64, Reply> {
    let parsed = std::str::from_utf8(bytes).ok().and_then(|text| text.parse().ok());
    parsed.ok_or_else(|| Reply::error("ERR value is not an integer or out of range"))
}

pub(super) fn float(bytes: &[u8]) -> Result<f64, Reply> {
    let parsed = std::str::from_utf8(bytes).ok().and_then(|text| text.parse().ok());
    let number = parsed.filter(|number: &f64| !number.is_nan());
    number.ok_or_else(|| Reply::error("ERR value is not a valid float"))
}

/// Formats a number like C's `%.17g`, as Redis 7.0 does.
pub(super) fn number(value: f64) -> String {
    if value.is_infinite() {
        return if value > 0.0 { "inf" } else { "-inf" }.to_owned();
    }
    if value == value.trunc() && value.abs() < 1e17 {
        return format!("{value:.0}").replace("-0", if value == 0.0 { "0" } else { "-0" });
    }
    let scientific = format!("{value:.16e}");
    let (mantissa, exponent) = scientific.split_once('e').expect("the format has an exponent");
    let exponent: i32 = exponent.parse().expect("the exponent is a number");
    let trimmed = |text: &str| text.trim_end_matches('0').trim_end_matches('.').to_owned();
    if (-4..17).contains(&exponent) {
        let decimals = usize::try_from(16 - exponent).unwrap_or_default();
        return trimmed(&format!("{value:.decimals$}"));
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{}e{sign}{:02}", trimmed(mantissa), exponent.abs())
}

/// Returns the positions of `start..=end` in a sequence, where negative positions count from the end.
pub(super) fn range(start: i64, end: i64, length: usize) -> std::ops::Range<usize> {
    let length = i64::try_from(length).unwrap_or(i64::MAX);
    let absolute = |position: i64| if position < 0 { position + length } else { position };
    let (start, end) = (absolute(start).max(0), absolute(end).min(length - 1));
    if start > end {
        return 0..0;
    }
    start as usize..end as usize + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_print_like_c() {
        let cases = [
            (1732000000.123456, "1732000000.123456"),
            (10.5, "10.5"),
            (0.1, "0.10000000000000001"),
            (-3.0, "-3"),
            (0.0, "0"),
            (1e20, "1e+20"),
            (1.5e-7, "1.4999999999999999e-07"),
        ];
        for (value, expected) in cases {
            assert_eq!(number(value), expected);
        }
    }
}

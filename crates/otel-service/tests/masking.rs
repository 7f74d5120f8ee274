//! Masking of generated addresses within generated text.
#![cfg(test)]

use std::fmt::Write as _;

use otel_service::mask;

/// A pseudo-random number generator (xorshift), which makes failures reproducible by their seed.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % limit as u64) as usize
    }

    fn of<'a>(&mut self, choices: &[&'a str]) -> &'a str {
        choices[self.below(choices.len())]
    }

    fn text(&mut self, choices: &[&str], min: usize, max: usize) -> String {
        let length = min + self.below(max - min + 1);
        (0..length).map(|_| self.of(choices)).collect()
    }
}

const LETTERS: [&str; 25] = [
    "a", "B", "z", "0", "9", "_", "+", "-", ".", "ö", "ж", "木", "%61", "é", "'", "=", "&", "?", "/", "{",
    "}", "|", "!", "#", "$",
];
const LABEL: [&str; 8] = ["a", "b", "x", "1", "com", "de", "ü", "例"];
const TOP: [&str; 5] = ["com", "example", "рф", "de", "xn--p1ai"];
/// Text that may surround an address without being part of it.
const AROUND: [&str; 16] = [
    " ", "\n", ",", ";", "<", ">", "(", ")", "[", "]", ":", "\"", "→", "、", "\t", "word ",
];

fn local(random: &mut Random) -> String {
    random.text(&LETTERS, 1, 12)
}

fn domain(random: &mut Random) -> String {
    let mut domain = random.text(&LABEL, 1, 4);
    for _ in 0..random.below(2) {
        domain.push('.');
        domain.push_str(&random.text(&LABEL, 1, 4));
    }
    domain.push('.');
    domain.push_str(random.of(&TOP));
    domain
}

#[test]
fn no_address_remains_and_nothing_else_changes() {
    for seed in 1..=20_000_u64 {
        let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let (mut text, mut expected) = (String::new(), String::new());
        let mut addresses = Vec::new();
        for _ in 0..1 + random.below(4) {
            let around = random.text(&AROUND, 1, 6);
            let (local, domain) = (local(&mut random), domain(&mut random));
            let sign = random.of(&["@", "@", "%40", "%2540"]);
            let kept: String = if local.chars().count() > 2 {
                local.chars().take(2).collect()
            } else {
                String::new()
            };
            write!(text, "{around}{local}{sign}{domain}").unwrap();
            write!(expected, "{around}{kept}***{sign}{domain}").unwrap();
            addresses.push(format!("{local}{sign}{domain}"));
        }
        // A quote before an address belongs to a quoted local part only if it is next to the at sign.
        let end = random.text(&AROUND, 0, 4);
        text.push_str(&end);
        expected.push_str(&end);
        let masked = mask(&text);
        assert_eq!(masked, expected, "seed {seed}: {text:?}");
        assert_eq!(mask(&masked), expected, "seed {seed}: masking twice, {text:?}");
        for address in addresses {
            assert!(!masked.contains(&address), "seed {seed}: {address} in {masked:?}");
        }
    }
}

#[test]
fn masking_arbitrary_text_twice_changes_nothing() {
    let parts = [
        "a",
        "b",
        ".",
        "@",
        "%40",
        "%",
        "25",
        "40",
        "*",
        "'",
        "\"",
        "-",
        "[",
        "]",
        "localhost",
        "cc",
        "/",
        " ",
        "→",
        "ö",
        "1",
        "%2e",
        "%5B",
        "%5D",
        "***",
        "=40",
        "\\x40",
        "&#64;",
        "&#x40",
        "\\100",
        "://",
        ":",
        "\u{ff20}",
        "Basic ",
        "dXNlcjpodW50ZXIy",
        "-----BEGIN PRIVATE KEY-----",
        "Bearer ",
        "eyJ",
        "abcdefgh",
        "sk_",
        "REDACTED",
    ];
    for seed in 1..=50_000_u64 {
        let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let text = random.text(&parts, 1, 24);
        let masked = mask(&text);
        assert_eq!(mask(&masked), masked, "seed {seed}: {text:?}");
    }
}

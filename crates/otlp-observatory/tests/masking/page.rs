//! The page `docs/masking.md`: what leaves, and why the process, the observatory and the collector differ.

use std::{fmt::Write as _, path::Path};

use crate::Texts;
use crate::forms::{FORMS, Form};
use crate::places::PLACES;

/// Texts that left the process, the observatory and the collector.
pub struct Results(pub [Texts; 3]);

const SYSTEMS: [&str; 3] = ["process", "observatory", "collector"];

/// Place whose texts are in the table of forms.
const PLAIN: &str = "log: text body";

/// Reasons why the results of a place differ from the table of forms.
const REASONS: &[(&str, &str)] = &[
    ("span: list", LIST),
    ("log: map attribute", LIST),
    ("link: tracestate", LINK),
    ("link: attribute", LINK),
    ("link: attribute key", LINK),
    ("log: map within a map body", NESTED),
    ("log: list body", NESTED),
    (
        "log: bytes body",
        "The collector treats bytes as their base64 text.",
    ),
    (
        "log: map within a map body, key",
        "No processor of the collector reaches the keys of inner maps.",
    ),
    (
        "exemplar: attribute",
        "The process records no attributes with its exemplars.",
    ),
];

const LIST: &str = "The collector's `transform` does not reach into values. Its `redaction` replaces a match by `****`, and \
                    a list or map that had something to mask becomes JSON text.";
const LINK: &str =
    "No processor of the collector reaches the content of links. The process and the observatory mask it.";
const NESTED: &str = "The collector's `transform` reaches the first level only; `redaction` replaces a match in deeper \
                      levels by `****`.";

/// Fate of the texts in a place, compared with the table of forms.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Outcome {
    /// The same as in the table.
    Same,
    /// `****` replaces everything that is masked in the table.
    Replaced,
    Unmasked,
    /// The place does not exist.
    Absent,
}

impl Outcome {
    fn shown(self) -> &'static str {
        match self {
            Self::Same => "masked",
            Self::Replaced => "`****`",
            Self::Unmasked => "**not masked**",
            Self::Absent => "no such place",
        }
    }
}

/// Checks all results, and compares the page with the one in the repository.
pub fn check(results: &Results) {
    let plain = PLACES.iter().position(|place| place.name == PLAIN).unwrap();
    let table: Vec<[&str; 3]> = (0..FORMS.len())
        .map(|form| [0, 1, 2].map(|system| results.0[system][plain][form].as_deref().unwrap()))
        .collect();
    let page = format!(
        "{INTRODUCTION}{}{}{POINTS}",
        forms(&table),
        places(results, &table)
    );
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/masking.md");
    #[expect(clippy::disallowed_methods, reason = "the environment selects writing")]
    if std::env::var("MASKING_TABLE").is_ok_and(|mode| mode == "write") {
        std::fs::write(&path, &page).unwrap();
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(
        page, written,
        "docs/masking.md differs; MASKING_TABLE=write replaces it"
    );
}

const INTRODUCTION: &str = "\
# Masking

E-mail addresses and tokens are masked in the process that records telemetry, in the observatory, and in the OpenTelemetry
Collector with [`config/otel-config.yaml`](../config/otel-config.yaml). The tables list what leaves each of them. The test
`masking` of `crates/otlp-observatory` runs all three, the collector as the real program, and fails if a result is not as
listed or if a difference has no reason. It writes this page when `MASKING_TABLE` is `write`.

Everything that registration accepts as an address is masked, even if it is the name of a file or a repository. Slugs are
part of URLs and remain, even those of titles with an address.

## Forms

The results are those of the body of a log record. The observatory masks like the process; `=` means that the collector
does, too.

";

const POINTS: &str = "
## Points

A point of a metric is identified by its attributes, so points whose attributes mask alike become one point. The process
and the observatory add counts, sums and buckets, keep the exemplars of all points, and of a gauge keep the value measured
last. The collector (`aggregate_on_attributes`) keeps the largest value of a gauge and the exemplars of the first of
several sums, places buckets of exponential histograms with different offsets only approximately, and merges neither
points of different times nor those of summaries, which no SDK sends.
";

fn forms(table: &[[&str; 3]]) -> String {
    let mut out =
        "| form | text | process, observatory | collector | reason |\n| --- | --- | --- | --- | --- |\n"
            .to_owned();
    for (form, [process, observatory, collector]) in FORMS.iter().zip(table) {
        assert_eq!(process, observatory, "{}", form.name);
        assert_masked(form, process);
        let same = process == collector;
        assert_eq!(
            same,
            form.why.is_empty(),
            "{}: {process} and {collector}",
            form.name
        );
        writeln!(
            out,
            "| {} | {} | {} | {} | {} |",
            form.name,
            code(form.text),
            code(process),
            if same { "=".to_owned() } else { code(collector) },
            form.why
        )
        .unwrap();
    }
    out
}

fn assert_masked(form: &Form, masked: &str) {
    if form.secret.is_empty() {
        assert_eq!(masked, form.text, "{}", form.name);
    } else {
        assert!(!masked.contains(form.secret), "{}: {masked}", form.name);
    }
}

fn code(text: &str) -> String {
    // Invisible characters and those with a meaning in tables.
    let text = text.replace('\u{200b}', "<U+200B>").replace('|', "\\|");
    format!("`{text}`")
}

fn places(results: &Results, table: &[[&str; 3]]) -> String {
    let mut out = "
## Places

*masked* stands for the result in the table above.

| place | process | observatory | collector | reason |
| --- | --- | --- | --- | --- |
"
    .to_owned();
    for (index, place) in PLACES.iter().enumerate() {
        let outcomes = [0, 1, 2].map(|system| {
            let texts = &results.0[system][index];
            let expected: Vec<&str> = table.iter().map(|row| row[system]).collect();
            outcome(texts, &expected)
                .unwrap_or_else(|unexpected| panic!("{}, {}: {unexpected:#?}", place.name, SYSTEMS[system]))
        });
        let reason = REASONS.iter().find(|(name, _)| *name == place.name);
        let differs = outcomes != [Outcome::Same; 3];
        assert_eq!(differs, reason.is_some(), "{}: {outcomes:?}", place.name);
        let [process, observatory, collector] = outcomes.map(Outcome::shown);
        let reason = reason.map_or("", |(_, reason)| reason);
        writeln!(
            out,
            "| {} | {process} | {observatory} | {collector} | {reason} |",
            place.name
        )
        .unwrap();
    }
    out
}

/// Returns the outcome in a place, or the texts that fit none.
fn outcome(texts: &[Option<String>], table: &[&str]) -> Result<Outcome, Vec<String>> {
    if texts.iter().all(Option::is_none) {
        return Ok(Outcome::Absent);
    }
    let fits = |outcome: Outcome| {
        move |(index, text): (usize, &Option<String>)| {
            // `tracestate` cannot contain some forms.
            let Some(text) = text.as_deref() else { return true };
            let form = &FORMS[index];
            match outcome {
                Outcome::Same => text == table[index],
                Outcome::Unmasked => text == form.text,
                Outcome::Replaced if table[index] == form.text => text == form.text,
                Outcome::Replaced => text.contains("****") && !text.contains(form.secret),
                Outcome::Absent => false,
            }
        }
    };
    let texts = || texts.iter().enumerate();
    [Outcome::Same, Outcome::Replaced, Outcome::Unmasked]
        .into_iter()
        .find(|outcome| texts().all(fits(*outcome)))
        .ok_or_else(|| {
            texts()
                .filter(|(index, text)| text.as_deref().is_some_and(|text| text != table[*index]))
                .map(|(index, text)| {
                    format!("{}: {text:?}, in the table {:?}", FORMS[index].name, table[index])
                })
                .collect()
        })
}

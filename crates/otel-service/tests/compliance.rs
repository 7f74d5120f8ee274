//! The compliance table: every supported feature names its tests, which must exist, and the table in the documentation
//! is generated from the same file.
#![cfg(test)]

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

const MATRIX: &str = include_str!("compliance/matrix.txt");

const HEAD: &str = "# Compliance with the OpenTelemetry specification

<!-- Generated from crates/otel-service/tests/compliance/matrix.txt by a test of otel-service. -->

The rows of the specification's [compliance matrix][matrix] as of 2026-08-19, and what a user of
[otel-service](../crates/otel-service/README.md) gets. The crate adds to the SDK for Rust, whose API it offers; a row is
about both together. Attributes of log records have every type of the specification; those of spans, scopes, resources and
points have the types of the SDK for Rust, which have neither maps nor bytes nor lists of several types.

[matrix]: https://github.com/open-telemetry/opentelemetry-specification/blob/main/spec-compliance-matrix.md

Y: supported, with the tests that show it. P: partly supported. N: not supported. A test fails if a named test does not exist.
";

#[derive(Debug)]
enum Line<'a> {
    Section(&'a str),
    Group(&'a str),
    Row {
        name: &'a str,
        optional: &'a str,
        status: &'a str,
        /// Names of tests, or a reason.
        detail: &'a str,
    },
}

fn lines() -> impl Iterator<Item = Line<'static>> {
    let lines = MATRIX
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.map(|line| {
        if let Some(section) = line.strip_prefix("[section] ") {
            return Line::Section(section);
        }
        if let Some(group) = line.strip_prefix("[group] ") {
            return Line::Group(group);
        }
        let fields: Vec<&str> = line.split(" | ").collect();
        let [name, optional, status, detail] = fields[..] else {
            panic!("{line} has {} fields", fields.len());
        };
        Line::Row {
            name,
            optional,
            status,
            detail,
        }
    })
}

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && !path.ends_with("target") {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// Returns the names of all test functions of the crates.
fn tests() -> BTreeSet<String> {
    let mut files = Vec::new();
    for folder in ["crates/otel-service", "crates/otlp-recorder", "tests/stranger"] {
        sources(&workspace().join(folder), &mut files);
    }
    let mut tests = BTreeSet::new();
    for file in files {
        let source = fs::read_to_string(file).unwrap();
        let mut is_test = false;
        for line in source.lines().map(str::trim) {
            is_test |= line.starts_with("#[test]") || line.starts_with("#[tokio::test");
            let function = line.strip_prefix("async ").unwrap_or(line).strip_prefix("fn ");
            if let Some((name, _)) = function.and_then(|function| function.split_once('(')) {
                if is_test {
                    tests.insert(name.to_owned());
                }
                is_test = false;
            }
        }
    }
    tests
}

#[test]
fn every_supported_feature_names_tests_that_exist() {
    let tests = tests();
    assert!(tests.len() > 250, "{}", tests.len());
    let mut rows = 0;
    for line in lines() {
        let Line::Row {
            name, status, detail, ..
        } = line
        else {
            continue;
        };
        rows += 1;
        match status {
            "Y" => {
                assert!(!detail.is_empty(), "{name} names no test");
                for test in detail.split(' ') {
                    assert!(tests.contains(test), "{name}: there is no test {test}");
                }
            }
            "N" | "P" => assert!(
                detail.contains(' ') || detail == "deprecated",
                "{name} has no reason"
            ),
            other => panic!("{name} is {other}"),
        }
    }
    // The number of rows of the specification's matrix.
    assert_eq!(rows, 326);
}

fn table() -> String {
    let mut table = HEAD.to_owned();
    let count = |wanted: &str| {
        let rows = lines().filter(|line| matches!(line, Line::Row { status, .. } if *status == wanted));
        rows.count()
    };
    let (yes, partly, no) = (count("Y"), count("P"), count("N"));
    writeln!(table, "\n{yes} rows are Y, {partly} are P, {no} are N.").unwrap();
    for line in lines() {
        match line {
            Line::Section(name) => write!(
                table,
                "\n## {name}\n\n| feature | optional | | tests or reason |\n| --- | --- | --- | --- |\n"
            ),
            Line::Group(name) => writeln!(table, "| **{name}** | | | |"),
            Line::Row {
                name,
                optional,
                status,
                detail,
            } => {
                let optional = if optional == "-" { "" } else { optional };
                let shown: Vec<String> = match status {
                    "Y" => detail.split(' ').map(|test| format!("`{test}`")).collect(),
                    _ => vec![detail.to_owned()],
                };
                writeln!(table, "| {name} | {optional} | {status} | {} |", shown.join(", "))
            }
        }
        .unwrap();
    }
    table
}

#[test]
fn the_table_in_the_documentation_is_current() {
    let path = workspace().join("docs/opentelemetry-compliance.md");
    if std::env::var_os("UPDATE_COMPLIANCE").is_some() {
        fs::write(&path, table()).unwrap();
    }
    let current = fs::read_to_string(path).unwrap_or_default();
    assert!(
        current == table(),
        "run UPDATE_COMPLIANCE=1 cargo test -p otel-service --test compliance"
    );
}

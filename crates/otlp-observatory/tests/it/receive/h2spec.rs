//! h2spec, the conformance tests of HTTP/2, against both receiving ports.

use std::{collections::BTreeMap, net::SocketAddr, process::Command};

use crate::support::Running;

/// Paths of requests. The first is answered with a body as soon as the head has arrived, the second without a body after
/// the end of the request. Cases that need the other one are skipped, or race with the answer.
const PATHS: [&str; 2] = [
    "/v1/traces",
    "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
];

/// Cases that pass with neither path. The port also speaks HTTP/1.1, so it answers an invalid preface with status 400
/// before it closes the connection; h2spec expects it to close without a word.
const EXPECTED: [&str; 1] = ["3.5. HTTP/2 Connection Preface: Sends invalid connection preface"];

const CASES: usize = 146;

#[tokio::test(flavor = "multi_thread")]
async fn both_ports_conform_to_http_2() {
    let observatory = Running::start().await;
    for address in [observatory.addresses.http, observatory.addresses.grpc.unwrap()] {
        let results = PATHS.map(|path| tokio::task::spawn_blocking(move || results(address, path)));
        let mut passed = BTreeMap::new();
        for result in results {
            for (case, has_passed) in result.await.unwrap() {
                *passed.entry(case).or_insert(false) |= has_passed;
            }
        }
        assert_eq!(passed.len(), CASES);
        let others: Vec<_> = passed.into_iter().filter(|(_, passed)| !passed).collect();
        assert_eq!(others, EXPECTED.map(|case| (case.to_owned(), false)), "{address}");
    }
    observatory.stop().await.unwrap();
}

/// Runs h2spec and returns the cases, each with its section, and whether they passed.
#[expect(clippy::disallowed_methods, reason = "the environment names the program")]
fn results(address: SocketAddr, path: &str) -> Vec<(String, bool)> {
    let program = std::env::var("TEST_H2SPEC").expect("TEST_H2SPEC must name h2spec; scripts/test sets it");
    let port = address.port().to_string();
    let output = Command::new(program)
        .args([
            "--strict",
            "--timeout=3",
            "--host=127.0.0.1",
            "--port",
            &port,
            "--path",
            path,
        ])
        .output()
        .unwrap();
    let output = String::from_utf8(output.stdout).unwrap();
    let (output, _) = output.split_once("\nFailures:").unwrap_or((&output, ""));
    let mut section = "";
    let mut cases = Vec::new();
    for line in output.lines().map(str::trim) {
        // The result of a case replaces the line on which the case started.
        match line.split_once('\r') {
            Some((case, result)) => {
                let (_, title) = case.split_once(": ").expect("cases are numbered");
                cases.push((
                    format!("{section}: {title}"),
                    result.trim_start().starts_with('✔'),
                ));
            }
            None if line.starts_with(|first: char| first.is_ascii_digit()) => section = line,
            None => {}
        }
    }
    cases
}

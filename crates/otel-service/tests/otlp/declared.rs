//! Checks everything that scenarios send against the telemetry registry: names, types, units, kinds and
//! instruments.

use std::collections::BTreeSet;
use std::sync::LazyLock;
use std::time::Duration;

use otel_service::{KeyValue, Span};
use telemetry_registry::{Finding, Layout, Problem, Registry};

use crate::support::{self, Behaviour, Collector};

/// The project's registry, plus the names that only scenarios use.
pub static REGISTRY: LazyLock<Registry> = LazyLock::new(|| {
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../config/telemetry-registry.yaml"
    );
    let layout = Layout::read(std::path::Path::new(path)).unwrap();
    Registry::load_with(&layout, &[("names", include_str!("names.yaml"))]).unwrap()
});

/// Spans of the service that scenarios imitate with incomplete attributes.
const IMITATED: [&str; 3] = ["span article.", "span job.", "span user."];

/// Returns the findings that fail a test.
pub fn serious(findings: &BTreeSet<Finding>) -> Vec<String> {
    findings
        .iter()
        .filter(|finding| {
            let imitated = IMITATED.iter().any(|name| finding.item.starts_with(name));
            !imitated || !matches!(finding.problem, Problem::Missing(_) | Problem::NotAllowed(_))
        })
        .map(Finding::to_string)
        .collect()
}

#[test]
fn an_undeclared_name_is_found() {
    let test = "declared::an_undeclared_name_is_found";
    let prepare = || {
        let collector = Collector::start(Behaviour::Accepts);
        let endpoint = ("OTEL_EXPORTER_OTLP_ENDPOINT".to_owned(), collector.url());
        (collector, vec![endpoint])
    };
    let run = support::run_prepared(test, prepare, || {
        static SECRETS: otel_service::Counter =
            otel_service::counter("scenario.secrets", "{secret}", "Undeclared.");
        static PIECES: otel_service::Counter =
            otel_service::counter("scenario.pieces", "{pie}", "Pieces, with the wrong unit.");
        let telemetry = otel_service::init(support::SERVICE).unwrap();
        support::block_on(async {
            Span::internal("scenario.work")
                .attribute(KeyValue::new("scenario.secret", "x"))
                .attribute(KeyValue::new("http.response.status_code", "200"))
                .run(async {
                    SECRETS.add(1, &[]);
                    PIECES.add(1, &[]);
                    Ok::<_, support::Problem>(())
                })
                .await
                .unwrap();
        });
        telemetry.shutdown(Duration::from_secs(10)).unwrap();
    });
    let Some((collector, _)) = run else { return };
    assert_eq!(
        serious(&collector.take_unchecked().findings),
        [
            "metric scenario.pieces: the unit is declared as \"{piece}\" but is \"{pie}\"",
            "metric scenario.secrets: is not declared",
            "span scenario.work: the attribute http.response.status_code is not declared for this item",
            "span scenario.work: the attribute http.response.status_code is declared as int but is string",
            "span scenario.work: the attribute scenario.secret is not declared",
        ]
    );
}

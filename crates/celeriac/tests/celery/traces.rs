//! One trace across languages: Python's Celery instrumentation and `celeriac::otel` read each other's
//! headers.

use std::collections::HashMap;

use serde_json::{Value, json};

use crate::{
    celery::Python, journal::Journal, process::WorkerProcess, server::Server, support::eventually,
    with_every_celery,
};

with_every_celery! {
    a_trace_continues_from_python_to_rust_and_back
}

async fn a_trace_continues_from_python_to_rust_and_back(python: Python) {
    let server = Server::start();
    let journal = Journal::new(&format!("traces-{}", python.celery));
    let telemetry = [
        ("OTEL_TRACES_EXPORTER", "console"),
        ("OTEL_BSP_SCHEDULE_DELAY", "50"),
    ];
    let rust = WorkerProcess::start_with(&server.url(), "traced", &journal, &["rust"], &telemetry);
    let queue = ["--queues", "python"];
    let _python = python
        .worker(&server.url(), &queue, &[("TEST_CELERY_TRACES", "1")])
        .await;
    let mut client = python.client(&server.url());
    client.run("trace()").await;

    for (first, second, chain) in [
        (
            "rust",
            "python",
            ["apply_async/relay", "celery.run", "celery.send_task", "run/add"],
        ),
        (
            "python",
            "rust",
            ["apply_async/relay", "run/relay", "apply_async/add", "celery.run"],
        ),
    ] {
        let relayed = format!(
            "app.AsyncResult(relay.apply_async(['{second}'], queue='{first}').get(timeout=20)).get(timeout=20)"
        );
        assert_eq!(client.run(&relayed).await, json!(5), "Celery {}", python.celery);
        let expected: Vec<&str> = chain.to_vec();
        eventually(
            &format!("{expected:?} in one trace (Celery {})", python.celery),
            async || {
                let spans = spans(&server, &rust);
                chains(&spans).contains(&expected).then_some(())
            },
        )
        .await;
    }
}

/// Returns the spans of all three processes, by id.
fn spans(server: &Server, rust: &WorkerProcess) -> HashMap<String, Value> {
    let python: Vec<String> = redis::cmd("LRANGE")
        .arg("spans")
        .arg(0)
        .arg(-1)
        .query(&mut server.connection())
        .unwrap();
    let log = rust.log();
    let lines = python.iter().map(String::as_str).chain(log.lines());
    lines
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter(|line| line["span"].is_string())
        .map(|span| (span["span_id"].as_str().unwrap().to_owned(), span))
        .collect()
}

/// Returns, for each span without children, the names of its ancestors in the same trace and its own, root
/// first.
fn chains(spans: &HashMap<String, Value>) -> Vec<Vec<&str>> {
    let parents: Vec<&Value> = spans.values().map(|span| &span["parent_span_id"]).collect();
    let leaves = spans.values().filter(|span| !parents.contains(&&span["span_id"]));
    leaves
        .map(|leaf| {
            let above = std::iter::successors(Some(leaf), |span| {
                let parent = spans.get(span["parent_span_id"].as_str()?)?;
                (parent["trace_id"] == leaf["trace_id"]).then_some(parent)
            });
            let mut names: Vec<&str> = above.map(|span| span["span"].as_str().unwrap()).collect();
            names.reverse();
            names
        })
        .collect()
}

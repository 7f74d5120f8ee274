//! Pages in Chromium: the observatory's pages and the API's documentation. The scripts in `tests/browser` perform
//! the steps.

use std::{ffi::OsStr, path::Path, process::Command};

use crate::support::{
    postgres_server::free_port,
    process::{self, required, succeeds},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_observatorys_pages_work_in_a_browser() {
    let (pages, otlp) = (free_port().to_string(), free_port().to_string());
    let variables = [
        ("OBSERVATORY_PORT", pages.as_str()),
        ("OBSERVATORY_OTLP_HTTP_PORT", otlp.as_str()),
        // With the default interval, the test would wait for the metrics page.
        ("OTEL_METRIC_EXPORT_INTERVAL", "500"),
    ];
    let folder = process::Folder::new();
    let (mut process, api) = process::start_api(&[], &variables, folder.path()).await;
    let screenshots = Path::new(env!("CARGO_TARGET_TMPDIR")).join("screenshots");
    run(
        "observatory.mjs",
        &[
            format!("http://{api}").as_ref(),
            format!("http://127.0.0.1:{pages}").as_ref(),
            format!("http://127.0.0.1:{otlp}").as_ref(),
            screenshots.as_ref(),
        ],
    );
    assert!(process.terminate().await.success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_documentation_page_sends_each_parameter_where_it_belongs() {
    let folder = process::Folder::new();
    let (mut process, api) = process::start_api(&[], &[], folder.path()).await;
    run("docs.mjs", &[format!("http://{api}").as_ref()]);
    assert!(process.terminate().await.success());
}

/// Runs a script, which exits with an error at the first failed step.
fn run(script: &str, arguments: &[&OsStr]) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/browser")
        .join(script);
    let mut node = Command::new("node");
    node.arg(script)
        .args(arguments)
        .arg(required("TEST_BROWSER"))
        .arg(required("TEST_BROWSER_MODULES"));
    succeeds(&mut node);
}

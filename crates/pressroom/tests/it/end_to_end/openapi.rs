//! The OpenAPI document: validators accept it, generated clients run the tour of docs/api.md, and schemathesis
//! finds no difference between the document and the server. `tests/contract` has the clients' code and the
//! tools' versions.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
};

use super::installation::Installation;
use crate::support::{
    process::{self, Folder, required, succeeds},
    raw,
};

const DOCUMENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/openapi.json");
const FILES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/contract");

#[test]
fn two_validators_accept_the_document() {
    succeeds(python().args(["-m", "openapi_spec_validator", DOCUMENT]));
    let cli = modules().join("@seriousme/openapi-schema-validator/bin/validate-api-cli.js");
    let printed = succeeds(Command::new("node").arg(cli).arg(DOCUMENT));
    assert!(printed.contains("\"valid\": true"), "{printed}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_generated_python_client_runs_the_tour() {
    let (folder, client) = (Folder::new(), "pressroom_client");
    let config = folder.path().join("config.yml");
    std::fs::write(&config, "post_hooks: []\n").unwrap();
    let mut generate = python();
    generate
        .args(["-m", "openapi_python_client", "generate", "--path", DOCUMENT])
        .args([
            "--meta",
            "none",
            "--fail-on-warning",
            "--output-path",
            client,
            "--config",
        ])
        .arg(config);
    succeeds(generate.current_dir(folder.path()));
    let (mut process, api) = start(folder.path()).await;
    succeeds(
        python()
            .arg(Path::new(FILES).join("tour.py"))
            .arg(format!("http://{api}"))
            .env("PYTHONPATH", folder.path()),
    );
    assert!(process.terminate().await.success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_generated_typescript_client_runs_the_tour() {
    let folder = Folder::new();
    std::os::unix::fs::symlink(modules(), folder.path().join("node_modules")).unwrap();
    for file in ["package.json", "tour.ts"] {
        std::fs::copy(Path::new(FILES).join(file), folder.path().join(file)).unwrap();
    }
    let run = |script: &str, arguments: &[&str]| {
        let mut command = Command::new("node");
        succeeds(command.arg(script).args(arguments).current_dir(folder.path()))
    };
    let generator = "node_modules/openapi-typescript/bin/cli.js";
    run(
        generator,
        &[
            DOCUMENT,
            "--output",
            "schema.d.ts",
            "--additional-properties=false",
        ],
    );
    let options = "--strict --module nodenext --target es2022 --types node --skipLibCheck";
    let mut arguments: Vec<&str> = options.split(' ').collect();
    arguments.push("tour.ts");
    run("node_modules/typescript/bin/tsc", &arguments);
    let (mut process, api) = start(folder.path()).await;
    run("tour.js", &[&format!("http://{api}")]);
    assert!(process.terminate().await.success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn schemathesis_finds_no_difference_on_sqlite() {
    let folder = Folder::new();
    let (mut process, api) = start(folder.path()).await;
    fuzz(api, folder.path()).await;
    assert!(process.terminate().await.success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn schemathesis_finds_no_difference_on_postgresql() {
    let installation = Installation::new().await;
    let (mut process, api) = installation.serve_with(&[("RATE_LIMIT", "off")]).await;
    fuzz(api, installation.folder()).await;
    assert!(process.terminate().await.success());
}

/// Starts embedded mode without rate limits.
async fn start(folder: &Path) -> (process::Process, SocketAddr) {
    process::start_api(&[], &[("RATE_LIMIT", "off")], folder).await
}

/// Runs schemathesis with all its checks. The logout has a token of its own, which it revokes.
async fn fuzz(api: SocketAddr, folder: &Path) {
    let mut schemathesis = python();
    schemathesis
        .args(["-m", "schemathesis.cli", "--config-file"])
        .arg(Path::new(FILES).join("schemathesis.toml"))
        .args(["run", DOCUMENT, "--url", &format!("http://{api}")])
        .env("SCHEMATHESIS_HOOKS", Path::new(FILES).join("hooks.py"))
        .env("TOKEN", raw::register(api, "fuzzer@example.com").await)
        .env("LOGOUT_TOKEN", raw::register(api, "logout@example.com").await)
        .current_dir(folder);
    tokio::task::spawn_blocking(move || succeeds(&mut schemathesis))
        .await
        .unwrap();
}

fn python() -> Command {
    Command::new(required("TEST_CONTRACT_PYTHON"))
}

fn modules() -> PathBuf {
    required("TEST_CONTRACT_MODULES")
}

//! Shell commands of a page of documentation, which tests run unchanged and in order.

use std::{ffi::OsString, path::Path, process::Command};

use super::postgres_server::binaries;

/// Returns the shell blocks of a page. Each must be followed by the comment that names the test.
///
/// # Panics
/// Panics if a block lacks the comment, or the page has no block.
pub fn commands(page: &str, test: &str) -> String {
    let file = test.split_once("tests/it/").unwrap().1;
    let claim = format!("<!-- run by: crates/pressroom/tests/it/{file} -->");
    let mut blocks = Vec::new();
    for block in page.split("\n```sh\n").skip(1) {
        let (commands, rest) = block.split_once("\n```\n").unwrap();
        assert!(
            rest.starts_with(&claim),
            "no comment names the test of\n{commands}"
        );
        blocks.push(commands);
    }
    assert!(!blocks.is_empty());
    blocks.join("\n")
}

/// Returns a shell that runs a script, with the program under test and PostgreSQL's tools on its path. It stops at the
/// first failure.
pub fn shell(script: &str) -> Command {
    let programs = Path::new(env!("CARGO_BIN_EXE_pressroom")).parent().unwrap();
    let mut path = OsString::from(programs);
    for folders in [binaries().into_os_string(), std::env::var_os("PATH").unwrap()] {
        path.push(":");
        path.push(folders);
    }
    let mut shell = Command::new("bash");
    shell
        .args(["-c", &format!("set -eu -o pipefail\n{script}")])
        .env_clear()
        .env("PATH", path);
    shell
}

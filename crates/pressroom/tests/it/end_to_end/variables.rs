//! Environment variables and the file `.env`: precedence, misspelt names, and values that no setting may have.

use std::{
    ffi::OsStr,
    os::unix::{ffi::OsStrExt as _, fs::PermissionsExt as _},
    process::Command,
};

use crate::support::process::{self, Folder};

/// Runs `pressroom config --embedded` with this `.env`; returns whether it succeeds, and its two outputs.
fn config(dotenv: &str, arguments: &[&str], variables: &[(&str, &str)]) -> (bool, String, String) {
    let folder = Folder::new();
    std::fs::write(folder.path().join(".env"), dotenv).unwrap();
    let arguments = [&["config", "--embedded"], arguments].concat();
    let output = process::pressroom(&arguments, variables, folder.path())
        .output()
        .unwrap();
    let [stdout, stderr] = [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap());
    let folder = folder.path().canonicalize().unwrap();
    (
        output.status.success(),
        stdout,
        stderr.replace(folder.to_str().unwrap(), "FOLDER"),
    )
}

#[test]
fn settings_are_read_from_a_dotenv_file_and_the_environment_takes_precedence() {
    let dotenv = "\u{feff}PORT=8123\r\n export  JWT_EXPIRATION_HOURS = '2' # two\r\nSMTP_FROM=\"Press <p@x.example>\"\r\n";
    let (_, printed, warnings) = config(dotenv, &[], &[("PORT", "8124")]);
    assert!(printed.contains("PORT=8124\n"), "{printed}");
    assert!(printed.contains("JWT_EXPIRATION_HOURS=2\n"), "{printed}");
    assert!(printed.contains("SMTP_FROM=Press <p@x.example>\n"), "{printed}");
    assert_eq!(warnings, "");
}

#[test]
fn an_error_in_the_dotenv_file_names_the_line() {
    let name = |text: &str| config(text, &[], &[]).2;
    let syntax = name("# key\n\nSECRET_KEY hunter2 'unfinished\n");
    assert_eq!(
        syntax,
        "pressroom: .env: line 3 of FOLDER/.env is not of the form NAME=value\n"
    );
    let blank = name("PORT=1\nSMTP_FROM=hunter2 <p@x.example>\n");
    assert!(
        blank.starts_with("pressroom: .env: line 2 of FOLDER/.env cannot be parsed; put quotes"),
        "{blank}"
    );
    assert!(!blank.contains("hunter2"), "{blank}");
    let value = name("# ports\r\n\r\nPORT=80o\r\n");
    assert_eq!(
        value,
        "pressroom: PORT: \"80o\" is not a port number (line 3 of FOLDER/.env)\n"
    );

    // Not the value of the file.
    let file = "PORT=8000\n";
    for (arguments, variables) in [(&["--port", "80o"][..], &[][..]), (&[], &[("PORT", "80o")])] {
        let (_, _, message) = config(file, arguments, variables);
        assert_eq!(message, "pressroom: PORT: \"80o\" is not a port number\n");
    }
}

#[test]
fn a_misspelt_variable_is_reported_once_and_without_its_value() {
    let file = "PORT=8000\nSMTP_URI=smtp://me:hunter2@x\nPORT=9000\n";
    let variables = [
        ("DATABSE_URL", "postgresql://me:hunter2@x/y"),
        ("trusted_proxies", "10.0.0.0/8"),
        ("OTLE_SERVICE_NAME", "x"),
        ("WEBHOOK_UR", " "),
        ("POSTGRES_PASSWORD", "hunter2"),
        ("HOSTNAME", "x"),
    ];
    let (success, _, warnings) = config(file, &[], &variables);
    assert!(success, "{warnings}");
    assert_eq!(
        warnings.lines().collect::<Vec<_>>(),
        [
            "pressroom: warning: PORT is in lines 1 and 3 of FOLDER/.env; the first one applies",
            "pressroom: warning: DATABSE_URL has no effect; did you mean DATABASE_URL?",
            "pressroom: warning: OTLE_SERVICE_NAME has no effect; did you mean OTEL_SERVICE_NAME?",
            "pressroom: warning: SMTP_URI (line 2 of FOLDER/.env) has no effect; did you mean SMTP_URL?",
            "pressroom: warning: trusted_proxies has no effect; did you mean TRUSTED_PROXIES?",
        ]
    );
}

#[test]
fn a_value_that_is_no_line_of_text_is_rejected_by_name() {
    let key = "0123456789abcdef0123456789hunter2\n";
    let (_, _, message) = config("", &[], &[("SECRET_KEY", key)]);
    assert_eq!(
        message,
        "pressroom: SECRET_KEY: contains a control character, U+000A; remove it\n"
    );
    let (_, _, message) = config("DATA_DIR=x\n\nHOST=\"localhost\\n\"\n", &[], &[]);
    let expected =
        "pressroom: HOST: contains a control character, U+000A; remove it (line 3 of FOLDER/.env)\n";
    assert_eq!(message, expected);
    let (_, _, message) = config("", &["--smtp-from", "a\u{85}@x.example"], &[]);
    assert_eq!(
        message,
        "pressroom: SMTP_FROM: contains a control character, U+0085; remove it\n"
    );

    let folder = Folder::new();
    let mut command = process::pressroom(&["config", "--embedded"], &[], folder.path());
    let output = command
        .env("PORT", OsStr::from_bytes(b"80\xff"))
        .output()
        .unwrap();
    assert_eq!(
        String::from_utf8_lossy(&output.stderr),
        "pressroom: PORT: is not valid UTF-8\n"
    );
}

/// Runs the commands that create `.env`.
#[test]
fn only_the_owner_can_read_the_env_file_that_the_documentation_creates() {
    let sample = include_str!("../../../../../.env.example");
    let page = include_str!("../../../../../docs/deployment.md");
    let blocks = page.split("```sh\n").skip(1);
    let blocks: Vec<_> = blocks
        .map(|block| block.split("```").next().unwrap())
        .filter(|block| block.contains(".env.example > .env"))
        .collect();
    assert!(!blocks.is_empty());
    for block in blocks {
        let (commands, _) = block.split_once(" > .env\n").unwrap();
        let folder = Folder::new();
        std::fs::write(folder.path().join(".env.example"), sample).unwrap();
        let script = format!("set -eu; umask 022; {commands} > .env");
        let status = Command::new("bash")
            .args(["-c", &script])
            .current_dir(folder.path())
            .status();
        assert!(status.unwrap().success(), "{script}");
        let file = folder.path().join(".env");
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        let written = std::fs::read_to_string(file).unwrap();
        assert!(!written.contains("SECRET_KEY=replace-me"), "the key is generated");
    }
}

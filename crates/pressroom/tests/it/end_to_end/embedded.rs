//! Embedded mode: a single process without other servers.
#![expect(clippy::disallowed_methods, reason = "tests query the tables directly")]

use base64::{Engine as _, engine::general_purpose::STANDARD};
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde_json::{Value, json};
use sha2::Sha256;

use crate::support::{
    eventually, mail::MailServer, postgres_server::free_port, process, raw, webhook::Webhook,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_process_loses_no_accepted_task() {
    let folder = process::Folder::new();
    let mail_address = std::net::SocketAddr::from(([127, 0, 0, 1], free_port()));
    let mail_url = format!("smtp://{mail_address}");
    let variables = [
        ("SMTP_URL", mail_url.as_str()),
        ("SMTP_FROM", "press@example.com"),
    ];

    // Without a mail server, the task is accepted and attempted but cannot complete.
    let (mut process, api) = process::start_api(&[], &variables, folder.path()).await;
    let alice = raw::register(api, "alice@example.com").await;
    let bob = raw::register(api, "bob@example.com").await;
    let create = async |api, title: &str| {
        let body = json!({"title": title, "body": "x"});
        let response = raw::request(api, "POST", "/api/articles/", Some(&alice), Some(&body)).await;
        assert_eq!(response.status, 201);
        response.json()["slug"].as_str().unwrap().to_owned()
    };
    let first = create(api, "First").await;
    let favorite = format!("/api/articles/{first}/favorite");
    let response = raw::request(api, "POST", &favorite, Some(&bob), None).await;
    assert_eq!(response.status, 200);
    create(api, "Second").await;
    eventually("the first attempt", async || {
        process
            .output()
            .contains("notification not delivered")
            .then_some(())
    })
    .await;
    process.kill();

    let mail = MailServer::start_at(mail_address).await;
    let (mut process, api) = process::start_api(&[], &variables, folder.path()).await;
    let received = eventually("the mail", async || {
        let received = mail.received();
        (!received.is_empty()).then_some(received)
    })
    .await;
    assert_eq!(received.len(), 1);
    assert_eq!(received[0].recipient, "bob@example.com");
    assert!(received[0].text.contains("Second"), "{}", received[0].text);

    // The account and its token have survived too.
    let me = raw::request(api, "GET", "/api/user", Some(&alice), None).await;
    assert_eq!(me.status, 200);
    assert!(process.terminate().await.success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_start_prints_the_start_up_message_and_nothing_else() {
    let folder = process::Folder::new();
    let (mut process, api) = process::start_api(&[], &[], folder.path()).await;
    process.wait_for_output("Stop with Ctrl-C.\n\n").await;
    // The worker runs: it has picked up a task by the time that the task's record is logged.
    let alice = raw::register(api, "alice@example.com").await;
    let body = json!({"title": "First", "body": "x"});
    raw::request(api, "POST", "/api/articles/", Some(&alice), Some(&body)).await;
    process.wait_for_output("Notifications sent").await;
    let printed = process.output();
    let (message, records) = printed.split_once("Stop with Ctrl-C.\n\n").unwrap();
    assert!(message.starts_with("\nPressroom is running"), "{message}");
    for line in ["API", "Docs", "Telemetry", "OTLP"] {
        assert!(
            message.contains(&format!("  {line:<10} http://localhost:")),
            "{message}"
        );
    }
    let messages: Vec<String> = records
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["message"].to_string())
        .collect();
    assert!(messages[0].contains("User registered"), "{messages:?}");
    assert!(process.terminate().await.success());
}

/// Does what `docker run -e APP_ENV=development ... dev` does, without a container: published ports lead to another
/// address than 127.0.0.1, here 127.0.0.2, and the data is in the image's only writable folder.
#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn embedded_mode_is_reachable_with_the_environment_of_the_image() {
    let image = include_str!("../../../../../Dockerfile");
    let (_, last_stage) = image.rsplit_once("\nFROM ").unwrap();
    let variables: Vec<(&str, &str)> = last_stage
        .lines()
        .filter_map(|line| line.strip_prefix("ENV "))
        .flat_map(str::split_whitespace)
        .map(|variable| variable.split_once('=').unwrap())
        .collect();
    let data = variables.iter().find(|(name, _)| *name == "DATA_DIR").unwrap().1;
    assert!(last_stage.contains(&format!("--chown=65532:65532 {data} {data}\n")));
    let refused = process::run(&["dev"], &variables);
    let message = String::from_utf8(refused.stderr).unwrap();
    assert!(message.contains("set APP_ENV to development"), "{message}");

    let folder = process::Folder::new();
    let (port, pages) = (free_port(), free_port());
    let (port_text, pages_text) = (port.to_string(), pages.to_string());
    let own = [
        ("APP_ENV", "development"),
        ("DATA_DIR", folder.path().to_str().unwrap()),
        ("PORT", &port_text),
        ("OBSERVATORY_PORT", &pages_text),
    ];
    let mut process = process::start("image", &["dev"], &[&variables[..], &own].concat(), folder.path());
    for (port, target) in [(port, "/api/health/ready"), (pages, "/status")] {
        let address = std::net::SocketAddr::from(([127, 0, 0, 2], port));
        process.wait_for_ok(address, target).await;
    }
    assert!(folder.path().join("secret_key").exists());
    assert!(process.terminate().await.success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn errors_carry_the_callers_trace_id_whether_sampled_or_not() {
    const TRACE_ID: &str = "0af7651916cd43dd8448eb211c80319c";
    let folder = process::Folder::new();
    let (_process, api) = process::start_api(&[], &[], folder.path()).await;
    for (target, flags) in [
        ("/api/nowhere", "00"),
        ("/api/articles/none", "01"),
        ("/api/user", "00"),
    ] {
        let request = format!(
            "GET {target} HTTP/1.1\r\nHost: x\r\ntraceparent: 00-{TRACE_ID}-b7ad6b7169203331-{flags}\r\n\r\n"
        );
        let response = raw::send(api, request.as_bytes()).await;
        assert_eq!(response.json()["error"]["trace_id"], TRACE_ID, "{target}");
        let response = response.header("traceresponse").unwrap();
        assert!(response.starts_with(&format!("00-{TRACE_ID}-")), "{response}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_update_is_delivered_to_the_webhook_as_a_signed_request() {
    const SECRET: &str = "the receiver's secret";
    let webhook = Webhook::start().await;
    let folder = process::Folder::new();
    let url = webhook.url();
    let variables = [("WEBHOOK_URL", url.as_str()), ("WEBHOOK_SECRET", SECRET)];
    let (process, api) = process::start_api(&[], &variables, folder.path()).await;
    let alice = raw::register(api, "alice@example.com").await;
    let bob = raw::register(api, "bob@example.com").await;
    raw::register(api, "carol@example.com").await;
    let body = json!({"title": "Liked", "body": "x"});
    let article = raw::request(api, "POST", "/api/articles/", Some(&alice), Some(&body))
        .await
        .json();
    let target = format!("/api/articles/{}", article["slug"].as_str().unwrap());
    // Authors are not notified of their own articles.
    for token in [&alice, &bob] {
        let response = raw::request(api, "POST", &format!("{target}/favorite"), Some(token), None).await;
        assert_eq!(response.status, 200);
    }
    let response = raw::request(
        api,
        "PUT",
        &target,
        Some(&alice),
        Some(&json!({"title": "Better"})),
    )
    .await;
    assert_eq!(response.status, 200);

    let received = eventually("the second attempt", async || {
        let received = webhook.received();
        (received.len() >= 2).then_some(received)
    })
    .await;
    assert_eq!(received[0].header("webhook-id"), received[1].header("webhook-id"));
    let last = &received[1];
    let notification: Value = serde_json::from_str(&last.body).unwrap();
    assert_eq!(notification["type"], "article.updated");
    assert_eq!(notification["data"]["article"]["title"], "Better");
    assert_eq!(notification["data"]["recipient"]["email"], "bob@example.com");
    assert!(last.headers.contains_key("traceparent"));

    let signed = format!(
        "{}.{}.{}",
        last.header("webhook-id"),
        last.header("webhook-timestamp"),
        last.body
    );
    let mac = Hmac::<Sha256>::new_from_slice(SECRET.as_bytes())
        .unwrap()
        .chain_update(signed);
    let signature = format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()));
    assert_eq!(last.header("webhook-signature"), signature);

    eventually("the task to complete", async || {
        process.output().contains("notifications.sent\":1").then_some(())
    })
    .await;
    assert_eq!(webhook.received().len(), 2, "nobody else is notified");
    assert!(!process.output().contains("hunter2"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_are_notified_of_one_edit_per_hour_and_of_a_limited_number_of_articles() {
    let webhook = Webhook::start().await;
    let folder = process::Folder::new();
    let url = webhook.url();
    let variables = [
        ("WEBHOOK_URL", url.as_str()),
        ("WEBHOOK_SECRET", "a secret of the receiver's"),
        ("RATE_LIMIT_NOTIFY_AUTHOR", "3"),
    ];
    let (process, api) = process::start_api(&[], &variables, folder.path()).await;
    let alice = raw::register(api, "alice@example.com").await;
    let readers = [
        raw::register(api, "bob@example.com").await,
        raw::register(api, "carol@example.com").await,
    ];
    let create = async |title: &str| {
        let body = json!({"title": title, "body": "x"});
        let created = raw::request(api, "POST", "/api/articles/", Some(&alice), Some(&body)).await;
        assert_eq!(created.status, 201);
        created
    };
    let created = create("Liked").await;
    let target = format!("/api/articles/{}", created.json()["slug"].as_str().unwrap());
    for reader in &readers {
        let favorite = format!("{target}/favorite");
        let response = raw::request(api, "POST", &favorite, Some(reader), None).await;
        assert_eq!(response.status, 200);
    }
    let edit = async |body: Value| {
        let response = raw::request(api, "PUT", &target, Some(&alice), Some(&body)).await;
        assert_eq!(response.status, 200);
    };
    for _ in 0..5 {
        for same in [
            json!({}),
            json!({"title": "Liked", "description": "", "body": "x"}),
        ] {
            edit(same).await;
        }
    }
    for i in 0..10 {
        edit(json!({"body": format!("edit {i}")})).await;
    }
    for title in ["Second", "Third", "Fourth", "Fifth"] {
        create(title).await;
    }
    // In embedded mode, a task remains in the outbox until it is done.
    eventually("all tasks to finish", async || {
        let database = rusqlite::Connection::open(folder.path().join("data/pressroom.db")).unwrap();
        let tasks = database.query_row("SELECT count(*) FROM outbox", [], |row| row.get::<_, i64>(0));
        (tasks.unwrap() == 0).then_some(())
    })
    .await;
    // The receiver rejects the first request, which is retried with the same id.
    let ids = |kind: &str| {
        let received = webhook.received().into_iter();
        let of_kind = received.filter(|request| request.body.contains(kind));
        let ids: std::collections::BTreeSet<String> = of_kind
            .map(|request| request.header("webhook-id").to_owned())
            .collect();
        ids.len()
    };
    let sent = (ids("article.updated"), ids("article.created"));
    assert!(sent.0 == 2 || sent.0 == 0, "one edit for two readers: {sent:?}");
    assert_eq!(sent.0 + sent.1, 6, "three events for two readers: {sent:?}");
    process
        .wait_for_output("no notifications sent, because the author has reached the limit")
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_data_folder_is_used_by_one_process_at_a_time() {
    let folder = process::Folder::new();
    let (_first, _) = process::start_api(&[], &[], folder.path()).await;
    let port = free_port().to_string();
    let second = process::pressroom(&[], &[("PORT", port.as_str())], folder.path())
        .output()
        .unwrap();
    let message = String::from_utf8(second.stderr).unwrap();
    assert!(!second.status.success());
    assert!(
        message.starts_with("pressroom: DATA_DIR: another process uses"),
        "{message}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_another_process_locks_is_not_ready_until_it_is_unlocked() {
    let folder = process::Folder::new();
    let file = folder.path().join("pressroom.db");
    let url = format!("sqlite://{}", file.display());
    let (_process, api) = process::start_api(&[], &[("DATABASE_URL", &url)], folder.path()).await;
    let alice = raw::register(api, "alice@example.com").await;
    let ready = async |status| {
        eventually("the readiness", async || {
            let response = raw::request(api, "GET", "/api/health/ready", None, None).await;
            (response.status == status).then_some(response)
        })
        .await
    };
    ready(200).await;
    let other = rusqlite::Connection::open(&file).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let response = ready(503).await.json();
    let message = response["error"]["message"].as_str().unwrap();
    assert!(message.contains("another process has locked"), "{response}");
    let body = json!({"title": "First", "body": "x"});
    let write = async || raw::request(api, "POST", "/api/articles/", Some(&alice), Some(&body)).await;
    assert_eq!(write().await.status, 503);
    for target in ["/api/articles/", "/api/user", "/api/health/live"] {
        let response = raw::request(api, "GET", target, Some(&alice), None).await;
        assert_eq!(response.status, 200, "{target}");
    }
    other.execute_batch("ROLLBACK").unwrap();
    ready(200).await;
    assert_eq!(write().await.status, 201);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_log_of_a_failed_task_has_the_trace_id_of_its_request() {
    let folder = process::Folder::new();
    // Nothing listens on port 9.
    let variables = [
        ("SMTP_URL", "smtp://127.0.0.1:9"),
        ("SMTP_FROM", "press@example.com"),
    ];
    let (process, api) = process::start_api(&[], &variables, folder.path()).await;
    let alice = raw::register(api, "alice@example.com").await;
    // Like the reference implementation, the API accepts this address, but no mail can be sent to it.
    let bob = raw::register(api, "bob@b.com\u{2028}").await;
    let create = async |title: &str| {
        let body = json!({"title": title, "body": "x"});
        raw::request(api, "POST", "/api/articles/", Some(&alice), Some(&body)).await
    };
    let first = create("First").await.json();
    let favorite = format!("/api/articles/{}/favorite", first["slug"].as_str().unwrap());
    raw::request(api, "POST", &favorite, Some(&bob), None).await;
    let second = create("Second").await;
    let trace_id = second.header("traceresponse").unwrap().split('-').nth(1).unwrap();
    eventually("the log line of the failed attempt", async || {
        let output = process.output();
        let mut lines = output
            .lines()
            .filter(|line| line.contains("task will be retried"));
        lines.any(|line| line.contains(trace_id)).then_some(())
    })
    .await;
}

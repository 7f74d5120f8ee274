//! Embedded mode: one process, nothing else.

use serde_json::json;

use crate::support::{eventually, mail::MailServer, postgres_server::free_port, process, raw};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_loses_no_accepted_task() {
    let folder = process::Folder::new();
    let mail_address = std::net::SocketAddr::from(([127, 0, 0, 1], free_port()));
    let mail_url = format!("smtp://{mail_address}");
    let variables = [
        ("SMTP_URL", mail_url.as_str()),
        ("SMTP_FROM", "press@example.com"),
    ];

    // No mail server yet: the task is accepted and tried, and cannot end.
    let (mut process, api) = process::start_api(&[], &variables, folder.path()).await;
    let alice = raw::register(api, "alice@example.com").await;
    let bob = raw::register(api, "bob@example.com").await;
    let create = async |api, title: &str| {
        let body = json!({"title": title, "body": "x"});
        let answer = raw::request(api, "POST", "/api/articles/", Some(&alice), Some(&body)).await;
        assert_eq!(answer.status, 201);
        answer.json()["slug"].as_str().unwrap().to_owned()
    };
    let first = create(api, "First").await;
    let favorite = format!("/api/articles/{first}/favorite");
    let answer = raw::request(api, "POST", &favorite, Some(&bob), None).await;
    assert_eq!(answer.status, 200);
    create(api, "Second").await;
    eventually("the first try", async || {
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

    // The account and its token outlived the process, too.
    let me = raw::request(api, "GET", "/api/user", Some(&alice), None).await;
    assert_eq!(me.status, 200);
    assert!(process.terminate().await.success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn errors_carry_the_callers_trace_sampled_or_not() {
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
        let answer = raw::send(api, request.as_bytes()).await;
        assert_eq!(answer.json()["error"]["trace_id"], TRACE_ID, "{target}");
        let response = answer.header("traceresponse").unwrap();
        assert!(response.starts_with(&format!("00-{TRACE_ID}-")), "{response}");
    }
}

//! Tests of sending: the backend's replies, batches, retries and time-outs.

use std::{collections::BTreeMap, time::Duration};

use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTracePartialSuccess, ExportTraceServiceResponse,
};
use prost::Message as _;

use super::{super::*, backend::Reply, *};

const ENOUGH: Duration = Duration::from_secs(20);

#[tokio::test]
async fn requests_are_compressed_and_have_the_headers() {
    let (backend, scratch) = (Backend::start().await, Scratch::new());
    let forwarder = start(&Forwarding {
        endpoint: backend.url("/in/?key=1"),
        headers: vec![("x-api-key".to_owned(), Secret::new("the key"))],
        ..forwarding_to(&backend, &scratch)
    });
    forwarder.accept(&one(1));
    until("it arrives", || !backend.requests_to("/in/v1/traces").is_empty()).await;
    let request = backend.requests_to("/in/v1/traces").remove(0);
    assert_eq!(request.header("x-api-key"), "the key");
    assert_eq!(request.header("content-encoding"), "gzip");
    assert_eq!(request.header("content-type"), "application/x-protobuf");
    assert_eq!(request.header("authorization"), "");
    assert_eq!(request.decompressed(), one(1).encode());
}

#[tokio::test]
async fn waiting_requests_are_sent_as_one() {
    let (backend, scratch) = (Backend::start().await, Scratch::new());
    let timing = Timing {
        linger: Duration::from_secs(60),
        ..quick_timing()
    };
    let forwarder = Forwarder::start_with(&forwarding_to(&backend, &scratch), timing).unwrap();
    for id in 0..10 {
        forwarder.accept(&one(id));
    }
    forwarder.finish(ENOUGH).await;
    let requests = backend.requests_to("/v1/traces");
    assert_eq!(requests.len(), 1);
    assert_eq!(requests[0].spans(), Vec::from_iter(0..10));
    assert_eq!(forwarder.status().sent.spans, 10);
    assert_eq!(forwarder.status().queued_bytes, 0);
}

#[tokio::test]
async fn a_full_batch_does_not_wait() {
    let (backend, scratch) = (Backend::start().await, Scratch::new());
    let timing = Timing {
        linger: Duration::from_secs(3600),
        batch_bytes: 10_000,
        ..quick_timing()
    };
    let forwarder = Forwarder::start_with(&forwarding_to(&backend, &scratch), timing).unwrap();
    for id in 0..11 {
        forwarder.accept(&long(id, 1000));
    }
    until("it arrives", || !backend.requests_to("/v1/traces").is_empty()).await;
    let first = backend.requests_to("/v1/traces").remove(0);
    assert!(
        first.decompressed().len() <= 10_000,
        "{}",
        first.decompressed().len()
    );
    assert!(first.spans().len() > 5, "{:?}", first.spans());
}

#[tokio::test]
async fn every_signal_has_its_path_and_its_count() {
    let (backend, scratch) = (Backend::start().await, Scratch::new());
    let forwarder = start(&forwarding_to(&backend, &scratch));
    forwarder.accept(&one(1));
    forwarder.accept(&log("started"));
    forwarder.accept(&contents::gauge(&[1, 2, 3]));
    forwarder.finish(ENOUGH).await;
    for path in ["/v1/traces", "/v1/logs", "/v1/metrics"] {
        assert_eq!(backend.requests_to(path).len(), 1, "{path}");
    }
    let sent = forwarder.status().sent;
    assert_eq!((sent.spans, sent.logs, sent.points), (1, 1, 3));
}

#[tokio::test]
async fn retry_after_is_respected() {
    for (status, requested) in [(503, "1"), (429, "1"), (503, "Sun, 06 Nov 1994 08:49:38 GMT")] {
        let (backend, scratch) = (Backend::start().await, Scratch::new());
        let busy = Reply::status(status)
            .header("retry-after", requested)
            .header("date", "Sun, 06 Nov 1994 08:49:37 GMT");
        backend.reply(busy);
        let forwarder = start(&forwarding_to(&backend, &scratch));
        forwarder.accept(&one(1));
        until("the request is accepted", || backend.accepted() == set([1])).await;
        let requests = backend.requests_to("/v1/traces");
        let waited = requests[1].at - requests[0].at;
        assert!(
            waited >= Duration::from_secs(1),
            "{status} {requested}: {waited:?}"
        );
        assert_eq!(requests.len(), 2);
    }
}

#[tokio::test]
async fn retry_after_is_limited() {
    for requested in ["18446744073709551615", "Sun, 06 Nov 2094 08:49:37 GMT"] {
        let (backend, scratch) = (Backend::start().await, Scratch::new());
        backend.reply(Reply::status(503).header("retry-after", requested));
        let timing = Timing {
            max_retry_after: Duration::from_millis(20),
            ..quick_timing()
        };
        let forwarder = Forwarder::start_with(&forwarding_to(&backend, &scratch), timing).unwrap();
        forwarder.accept(&one(1));
        until("the request is accepted", || backend.accepted() == set([1])).await;
    }
}

#[tokio::test]
async fn temporary_failures_are_retried_and_reported_meanwhile() {
    for status in [429, 502, 503, 504, 302, 307, 401, 403] {
        let (backend, scratch) = (Backend::start().await, Scratch::new());
        for _ in 0..4 {
            backend.reply(Reply::status(status).header("location", "/elsewhere"));
        }
        let forwarder = start(&forwarding_to(&backend, &scratch));
        forwarder.accept(&one(1));
        until("the failure is reported", || {
            let error = forwarder.status().last_error;
            error.is_some_and(|error| error == format!("the backend responded with HTTP {status}"))
        })
        .await;
        assert!(forwarder.status().failing_since_unix_nano.is_some());
        until("the request is accepted", || forwarder.status().sent.spans == 1).await;
        assert_eq!(backend.requests_to("/v1/traces").len(), 5, "{status}");
        assert_eq!(backend.requests_to("/elsewhere").len(), 0);
        let after = forwarder.status();
        assert_eq!((after.failing_since_unix_nano, after.last_error), (None, None));
        assert_eq!(after.dropped_requests, 0);
    }
}

#[tokio::test]
async fn a_backend_that_is_down_is_retried_until_it_is_up() {
    let (mut backend, scratch) = (Backend::down().await, Scratch::new());
    let forwarder = start(&forwarding_to(&backend, &scratch));
    forwarder.accept(&one(1));
    until("the failure is reported", || {
        forwarder.status().last_error.is_some()
    })
    .await;
    let error = forwarder.status().last_error.unwrap();
    assert!(error.starts_with("cannot reach the backend: "), "{error}");
    backend.up().await;
    until("the request is accepted", || backend.accepted() == set([1])).await;
}

#[tokio::test]
async fn a_backend_that_does_not_respond_is_retried() {
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let scratch = Scratch::new();
    let forwarding = Forwarding {
        endpoint: format!("http://{}", silent.local_addr().unwrap())
            .parse()
            .unwrap(),
        ..forwarding_to(&Backend::down().await, &scratch)
    };
    let timing = Timing {
        request_timeout: Duration::from_millis(30),
        ..quick_timing()
    };
    let forwarder = Forwarder::start_with(&forwarding, timing).unwrap();
    forwarder.accept(&one(1));
    for _ in 0..2 {
        let _connection = silent.accept().await.unwrap();
        until("the failure is reported", || {
            let error = forwarder.status().last_error;
            error.as_deref() == Some("the backend did not respond in time")
        })
        .await;
    }
}

#[tokio::test]
async fn a_reply_that_is_not_http_is_retried() {
    use tokio::io::AsyncWriteExt as _;

    let garbage = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let scratch = Scratch::new();
    let forwarding = Forwarding {
        endpoint: format!("http://{}", garbage.local_addr().unwrap())
            .parse()
            .unwrap(),
        ..forwarding_to(&Backend::down().await, &scratch)
    };
    let forwarder = start(&forwarding);
    forwarder.accept(&one(1));
    for _ in 0..3 {
        let (mut connection, _) = garbage.accept().await.unwrap();
        connection
            .write_all(b"\x15\x03\x01\x00\x02nothing\r\n\r\n")
            .await
            .unwrap();
    }
    assert_eq!(forwarder.status().dropped_requests, 0);
    assert!(forwarder.status().queued_bytes > 0);
}

#[tokio::test]
async fn a_success_with_an_unreadable_body_is_a_success() {
    let (backend, scratch) = (Backend::start().await, Scratch::new());
    backend.reply(Reply::status(200).body(vec![0xff; 100]));
    backend.reply(Reply::status(200).body(vec![0; 1 << 20]));
    let forwarder = start(&forwarding_to(&backend, &scratch));
    for id in 1..=2 {
        forwarder.accept(&one(id));
        until("the request is accepted", || forwarder.status().sent.spans == id).await;
    }
    assert_eq!(backend.requests_to("/v1/traces").len(), 2);
}

#[tokio::test]
async fn items_that_the_backend_rejects_are_counted() {
    let (backend, scratch) = (Backend::start().await, Scratch::new());
    let partial = ExportTraceServiceResponse {
        partial_success: Some(ExportTracePartialSuccess {
            rejected_spans: 2,
            error_message: "too old".to_owned(),
        }),
    };
    backend.reply(Reply::status(200).body(partial.encode_to_vec()));
    let forwarder = start(&forwarding_to(&backend, &scratch));
    forwarder.accept(&spans((0..5).map(span).collect()));
    until("the request is accepted", || forwarder.status().sent.spans == 3).await;
    assert_eq!(forwarder.status().rejected_items, 2);
    forwarder.finish(ENOUGH).await;
    assert_eq!(backend.requests_to("/v1/traces").len(), 1);
}

#[tokio::test]
async fn rejected_requests_are_dropped_and_counted() {
    for status in [400, 404, 413, 500] {
        let (backend, scratch) = (Backend::start().await, Scratch::new());
        backend.reply(Reply::status(status));
        let forwarder = start(&forwarding_to(&backend, &scratch));
        forwarder.accept(&one(1));
        until("the request is dropped", || {
            forwarder.status().dropped_requests == 1
        })
        .await;
        let error = forwarder.status().last_error;
        assert_eq!(error, Some(format!("the backend responded with HTTP {status}")));
        forwarder.accept(&one(2));
        until("the next request is accepted", || {
            forwarder.status().sent.spans == 1
        })
        .await;
        assert_eq!(backend.accepted(), set([2]));
        assert_eq!(forwarder.status().last_error, None);
    }
}

#[tokio::test]
async fn rejected_requests_slow_down_sending() {
    let (backend, scratch) = (Backend::start().await, Scratch::new());
    backend.decide(|_| Some(404));
    let timing = Timing {
        min_back_off: Duration::from_millis(200),
        ..quick_timing()
    };
    let forwarder = Forwarder::start_with(&forwarding_to(&backend, &scratch), timing).unwrap();
    for dropped in 1..=2 {
        forwarder.accept(&one(dropped));
        until("the request is dropped", || {
            forwarder.status().dropped_requests == dropped
        })
        .await;
    }
    let requests = backend.requests_to("/v1/traces");
    let waited = requests[1].at - requests[0].at;
    assert!(waited >= Duration::from_millis(100), "{waited:?}");
}

#[tokio::test]
async fn only_the_rejected_request_of_a_batch_is_dropped() {
    let (backend, scratch) = (Backend::start().await, Scratch::new());
    backend.decide(|spans| spans.contains(&37).then_some(400));
    let timing = Timing {
        linger: Duration::from_secs(60),
        ..quick_timing()
    };
    let forwarder = Forwarder::start_with(&forwarding_to(&backend, &scratch), timing).unwrap();
    for id in 0..64 {
        forwarder.accept(&one(id));
    }
    forwarder.finish(ENOUGH).await;
    assert_eq!(backend.accepted(), set((0..64).filter(|id| *id != 37)));
    assert_eq!(forwarder.status().dropped_requests, 1);
    let requests = backend.requests_to("/v1/traces").len();
    assert!(requests <= 24, "{requests} requests to find one of 64");
}

#[tokio::test]
async fn without_failures_nothing_is_sent_twice() {
    let (backend, scratch) = (Backend::start().await, Scratch::new());
    let forwarder = start(&forwarding_to(&backend, &scratch));
    for id in 0..200 {
        forwarder.accept(&one(id));
        if id % 20 == 0 {
            until("the request is accepted", || backend.accepted().contains(&id)).await;
        }
    }
    forwarder.finish(ENOUGH).await;
    let mut times = BTreeMap::<u64, usize>::new();
    for request in backend.requests_to("/v1/traces") {
        for id in request.spans() {
            *times.entry(id).or_default() += 1;
        }
    }
    assert_eq!(times.len(), 200);
    assert!(times.values().all(|times| *times == 1), "{times:?}");
}

#[tokio::test]
async fn a_blocked_signal_does_not_stop_the_others() {
    let (backend, scratch) = (Backend::start().await, Scratch::new());
    backend.decide(|_| Some(503));
    let forwarder = start(&Forwarding {
        queue_limit: 64 << 10,
        ..forwarding_to(&backend, &scratch)
    });
    // Traces use up their share of the queue.
    let mut id = 0;
    while forwarder.status().dropped_requests == 0 {
        forwarder.accept(&long(id, 1000));
        id += 1;
    }
    for number in 0..10 {
        forwarder.accept(&log(&"x".repeat(2000)));
        until("logs are accepted", || forwarder.status().sent.logs == number + 1).await;
    }
    assert_eq!(forwarder.status().sent.spans, 0);
}

#[tokio::test]
async fn nothing_is_sent_to_https_before_the_server_is_verified() {
    use tokio::io::AsyncReadExt as _;

    let server = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = server.local_addr().unwrap().port();
    let scratch = Scratch::new();
    let forwarder = start(&Forwarding {
        endpoint: format!("https://localhost:{port}").parse().unwrap(),
        ..forwarding_to(&Backend::down().await, &scratch)
    });
    forwarder.accept(&one(1));
    let (mut connection, _) = server.accept().await.unwrap();
    let mut start = [0; 6];
    connection.read_exact(&mut start).await.unwrap();
    // A handshake record with a ClientHello.
    assert_eq!((start[0], start[5]), (22, 1));
    drop(connection);
    until("the failure is reported", || {
        forwarder.status().last_error.is_some()
    })
    .await;
    assert!(forwarder.status().queued_bytes > 0);
}

#[tokio::test]
async fn an_unsafe_address_is_an_error_at_start() {
    let (backend, scratch) = (Backend::down().await, Scratch::new());
    let endpoint = |url: &str| Forwarding {
        endpoint: url.parse().unwrap(),
        ..forwarding_to(&backend, &scratch)
    };
    let error = |forwarding: &Forwarding| Forwarder::start(forwarding).unwrap_err().to_string();
    assert_eq!(
        error(&endpoint("http://scout.example/")),
        "the endpoint for forwarding must be https; http is allowed only for loopback hosts"
    );
    assert!(error(&endpoint("ftp://localhost/")).contains("https"));
    assert!(error(&endpoint("http://127.0.0.1.example/")).contains("https"));
    let user = error(&endpoint("https://user:pass@scout.example/"));
    assert!(user.contains("user name") && !user.contains("pass@"), "{user}");
    let mut tokens = with_tokens(&backend, &scratch);
    tokens.credentials.as_mut().unwrap().token_url = "http://scout.example/".parse().unwrap();
    assert!(error(&tokens).starts_with("the token URL for forwarding must be https"));
    let mut header = forwarding_to(&backend, &scratch);
    header.headers = vec![("x-key".to_owned(), Secret::new("a\nb"))];
    let text = error(&header);
    assert!(text.contains("x-key") && !text.contains('\n'), "{text}");
    for fine in ["http://localhost:1/", "http://[::1]:1/", "http://127.1.2.3:1/"] {
        let forwarder = Forwarder::start(&endpoint(fine)).unwrap();
        forwarder.finish(Duration::ZERO).await;
    }
}

#[tokio::test]
async fn finishing_respects_its_deadline() {
    let (backend, scratch) = (Backend::down().await, Scratch::new());
    let timing = Timing {
        min_back_off: Duration::from_secs(3600),
        max_back_off: Duration::from_secs(3600),
        ..quick_timing()
    };
    let forwarder = Forwarder::start_with(&forwarding_to(&backend, &scratch), timing).unwrap();
    forwarder.accept(&one(1));
    until("the failure is reported", || {
        forwarder.status().last_error.is_some()
    })
    .await;
    // Returns before the deadline, since the next attempt would be after it.
    let finished = tokio::time::timeout(ENOUGH, forwarder.finish(Duration::from_secs(60)));
    finished.await.unwrap();
    assert!(forwarder.status().queued_bytes > 0);
}

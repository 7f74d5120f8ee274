use std::time::Duration;

use serde_json::json;

use super::*;

const WIRE: &str = include_str!("../../tests/vectors/message.json");

fn wire() -> String {
    WIRE.trim().to_owned()
}

/// The recorded message with one part replaced.
fn with(change: impl FnOnce(&mut Value)) -> Vec<u8> {
    let mut value: Value = serde_json::from_str(&wire()).unwrap();
    change(&mut value);
    serde_json::to_vec(&value).unwrap()
}

fn with_body(body: &str) -> Vec<u8> {
    with(|message| message["body"] = STANDARD.encode(body).into())
}

#[test]
fn a_message_recorded_from_celery_is_encoded_byte_for_byte() {
    let message = Message::decode(wire().as_bytes()).unwrap();
    assert_eq!(message.headers.task, "app.jobs.tasks.send_article_notification");
    assert_eq!(message.args, vec![json!(1), json!("created")]);
    assert_eq!(
        message.headers.extra["traceparent"],
        "00-ba82e96eee5c73383c5a3143e20f9373-5c45f19cca06da6a-03"
    );
    assert_eq!(message.encode(), wire());
}

#[test]
fn a_retry_changes_the_headers_celery_changes_and_keeps_unknown_ones() {
    let raw = with(|message| {
        message["headers"]["tenant"] = json!({"id": 7});
        message["headers"]["redelivered"] = json!(true);
        message["properties"]["delivery_info"]["redelivered"] = json!(true);
    });
    let first = Message::decode(&raw).unwrap();
    assert!(first.redelivered());
    let eta = "2026-11-22T06:51:26.372432Z".parse().unwrap();
    let next = Message::decode(first.retry(eta).encode().as_bytes()).unwrap();
    assert_eq!(next.headers.id, first.headers.id);
    assert_eq!(next.headers.retries, 1);
    assert_eq!(next.headers.parent_id.as_deref(), Some(first.headers.id.as_str()));
    assert_eq!(next.headers.eta, Some(eta));
    assert_eq!(next.headers.extra["tenant"], json!({"id": 7}));
    assert!(!next.redelivered());
    assert_ne!(next.properties.delivery_tag, first.properties.delivery_tag);
}

#[test]
fn marking_as_redelivered_changes_nothing_else() {
    let marked = mark_redelivered(wire().as_bytes()).unwrap();
    assert!(Message::decode(marked.as_bytes()).unwrap().redelivered());
    assert_eq!(
        marked.replace(", \"redelivered\": true", ""),
        wire(),
        "only the two marks are added"
    );
    assert_eq!(mark_redelivered(b"not json"), None);
}

#[test]
fn incomplete_messages_are_accepted_as_by_celery() {
    let minimal_headers = with(|message| {
        message["headers"] = json!({"task": "t", "id": "1"});
    });
    let minimal_properties = with(|message| {
        let properties = &message["properties"];
        message["properties"] = json!({
            "body_encoding": "base64",
            "delivery_tag": properties["delivery_tag"],
            "delivery_info": properties["delivery_info"],
        });
    });
    let plain_body = with(|message| {
        message["properties"]
            .as_object_mut()
            .unwrap()
            .remove("body_encoding");
        message["body"] = json!(r#"[[1, "created"], {}, {}]"#);
    });
    let no_embed = with_body(r#"[[1, "created"], {}, null]"#);
    let null_ignore_result = with(|message| message["headers"]["ignore_result"] = Value::Null);
    let null_timelimit = with(|message| message["headers"]["timelimit"] = Value::Null);
    for raw in [
        minimal_headers,
        minimal_properties,
        plain_body,
        no_embed,
        null_ignore_result,
        null_timelimit,
    ] {
        let message = Message::decode(&raw).unwrap();
        assert_eq!(
            message.args,
            vec![json!(1), json!("created")],
            "{}",
            String::from_utf8_lossy(&raw)
        );
        assert_eq!(message.headers.retries, 0);
        assert_eq!(
            Message::decode(message.encode().as_bytes()).unwrap().args,
            message.args
        );
    }
}

#[test]
fn protocol_1_is_read_as_protocol_2() {
    let raw = with(|message| {
        message["headers"] = json!({});
        message["body"] = STANDARD
            .encode(
                json!({"task": "t", "id": "3d17", "args": [6, "v1"], "kwargs": {}, "retries": 2, "eta": null,
                    "expires": null, "utc": true, "callbacks": null, "errbacks": null, "timelimit": [300, null],
                    "taskset": null, "chord": null})
                .to_string(),
            )
            .into();
    });
    let message = Message::decode(&raw).unwrap();
    assert_eq!(
        (message.headers.task.as_str(), message.headers.id.as_str()),
        ("t", "3d17")
    );
    assert_eq!(message.args, vec![json!(6), json!("v1")]);
    assert_eq!(message.headers.retries, 2);
    assert_eq!(message.headers.timelimit.hard, Some(Duration::from_secs(300)));
    assert!(message.headers.extra.is_empty());
}

#[test]
fn every_kind_of_poison_has_its_reason() {
    let remove = |part: &'static str, key: &'static str| {
        with(|message| {
            message[part].as_object_mut().unwrap().remove(key);
        })
    };
    let header = |name: &'static str, value: Value| with(|message| message["headers"][name] = value);
    let cases: Vec<(Vec<u8>, &str)> = vec![
        (
            b"not json at all".to_vec(),
            "the message is not a JSON object: Syntax error at line 1 column 2",
        ),
        (b"[]".to_vec(), "the message is not a JSON object"),
        (b"\xff\xfe".to_vec(), "the message is not a JSON object"),
        (
            with(|message| message["body"] = json!("%%%notb64")),
            "the body is not base64",
        ),
        (
            with(|message| message["body"] = json!(17)),
            "body is missing or has the wrong type",
        ),
        (with_body("{not json"), "the body is not JSON"),
        (
            with(|message| message["content-type"] = json!("application/x-python-serialize")),
            "content type \"application/x-python-serialize\" is not accepted; send the task with the serializer json",
        ),
        (
            with(|message| message["content-type"] = json!("application/unknown")),
            "content type",
        ),
        (
            with(|message| message["content-encoding"] = json!("binary")),
            "content encoding",
        ),
        (
            with(|message| message["properties"]["body_encoding"] = json!("rot13")),
            "body encoding",
        ),
        (
            with(|message| message["properties"]["body_encoding"] = json!(2)),
            "properties.body_encoding is missing or has the wrong type",
        ),
        (
            with_body("[[], {}]"),
            "the body is not [args, kwargs, embed]: expected three parts",
        ),
        (
            with_body("17"),
            "the body is not [args, kwargs, embed]: expected a list",
        ),
        (with_body(r#"[{"a": 1}, {}, {}]"#), "args is not a list"),
        (with_body("[[], null, {}]"), "kwargs is not an object"),
        (with_body("[[], {}, 1]"), "embed is not an object"),
        (
            header("compression", json!("application/x-brotli")),
            "compression \"application/x-brotli\" is not supported",
        ),
        (
            header("compression", json!("application/x-gzip")),
            "the body cannot be decompressed: corrupt deflate stream",
        ),
        (remove("headers", "id"), "headers.id is missing"),
        (remove("headers", "task"), "headers.task is missing"),
        (
            header("eta", json!("garbage")),
            "the header eta is not an ISO 8601 time",
        ),
        (
            header("expires", json!("garbage")),
            "the header expires is not an ISO 8601 time",
        ),
        (
            header("retries", json!("2")),
            "the header retries is not a non-negative integer",
        ),
        (
            header("timelimit", json!([-1, null])),
            "the header timelimit is not a pair",
        ),
        (
            header("timelimit", json!("soon")),
            "the header timelimit is not a pair",
        ),
        (
            remove("properties", "delivery_info"),
            "properties.delivery_info is missing",
        ),
        (
            remove("properties", "delivery_tag"),
            "properties.delivery_tag is missing",
        ),
        (
            with(|message| {
                message.as_object_mut().unwrap().remove("properties");
            }),
            "properties is missing",
        ),
        (
            with(|message| {
                message.as_object_mut().unwrap().remove("headers");
            }),
            "headers is missing",
        ),
    ];
    for (raw, expected) in cases {
        let poison = Message::decode(&raw).expect_err(expected);
        assert!(
            poison.to_string().contains(expected),
            "got {poison:?}, expected {expected:?}"
        );
        assert!(
            !poison.to_string().contains("created"),
            "a reason must not quote the message's content"
        );
    }
}

#[test]
fn an_accepted_message_can_be_encoded_again() {
    // `priority` and `exchange` are always written, so they must not also be kept as extra members.
    let raw = with(|message| {
        message["properties"]["priority"] = json!("high");
        message["properties"]["delivery_info"]["exchange"] = json!(7);
    });
    let message = Message::decode(&raw).unwrap();
    let written: Value = serde_json::from_str(&message.encode()).unwrap();
    assert_eq!(written["properties"]["priority"], 0);
    assert_eq!(written["properties"]["delivery_info"]["exchange"], "");
    assert_eq!(Message::decode(message.encode().as_bytes()).unwrap(), message);
}

#[test]
fn an_accepted_message_can_be_marked_as_redelivered() {
    // The decoder also validates members it does not use.
    for unread in [b"\"\xff\"".as_slice(), b"1e999", b"[[\"\\ud800\"]]"] {
        for key in ["unknown", "body"] {
            let raw = [
                b"{\"",
                key.as_bytes(),
                b"\": ",
                unread,
                b", ",
                &wire().as_bytes()[1..],
            ]
            .concat();
            assert_eq!(mark_redelivered(&raw), None);
            let poison = Message::decode(&raw).unwrap_err();
            assert!(
                matches!(poison.reason, PoisonReason::NotJson(_)),
                "{key} {poison}"
            );
        }
    }
}

#[test]
fn the_last_of_duplicate_keys_wins_for_reading_and_for_marking() {
    let raw = wire().replacen(
        r#""eta": null"#,
        r#""eta": 17, "retries": 9, "eta": "2026-11-22T06:51:26+00:00", "eta": null"#,
        1,
    );
    let message = Message::decode(raw.as_bytes()).unwrap();
    assert_eq!((message.headers.eta, message.headers.retries), (None, 0));
    let marked = mark_redelivered(raw.as_bytes()).unwrap();
    let marked = Message::decode(marked.as_bytes()).unwrap();
    assert_eq!((marked.headers.eta, marked.headers.retries), (None, 0));
}

#[test]
fn poison_keeps_the_task_name_and_id_of_its_message() {
    let poison = Message::decode(&with_body("[[], {}]")).unwrap_err();
    assert_eq!(
        poison.task_id.as_deref(),
        Some("9b83d466-f412-4357-8563-2b2dedf45e4e")
    );
    assert_eq!(
        poison.task.as_deref(),
        Some("app.jobs.tasks.send_article_notification")
    );
}

#[test]
fn numbers_beyond_64_bits_and_nan_pass_unchanged() {
    let body = r#"[[18446744073709551616, NaN], {"a": -Infinity}, {"callbacks": null, "errbacks": null, "chain": null, "chord": null}]"#;
    let mut message = Message::decode(&with_body(body)).unwrap();
    message.headers.extra.insert(
        "x".to_owned(),
        serde_json::to_value("1180591620717411303424".parse::<crate::ExactNumber>().unwrap()).unwrap(),
    );
    let encoded = message.encode();
    assert!(encoded.contains(r#""x": 1180591620717411303424"#), "{encoded}");
    assert_eq!(Message::decode(encoded.as_bytes()).unwrap(), message);
    let envelope: Value = serde_json::from_str(&encoded.replace("1180591620717411303424", "1")).unwrap();
    assert_eq!(
        STANDARD.decode(envelope["body"].as_str().unwrap()).unwrap(),
        body.as_bytes()
    );
}

#[test]
fn a_compressed_body_stays_compressed_in_a_retry() {
    let message = Message::decode(wire().as_bytes()).unwrap();
    let mut compressed = message.clone();
    let method = Value::from(crate::Compression::Zlib.content_type());
    compressed.headers.extra.insert("compression".to_owned(), method);
    let encoded = compressed.encode();
    assert_ne!(encoded, message.encode());
    let decoded = Message::decode(encoded.as_bytes()).unwrap();
    assert_eq!(decoded, compressed);
    let retry = decoded.retry(Timestamp::UNIX_EPOCH).encode();
    assert_eq!(Message::decode(retry.as_bytes()).unwrap().args, message.args);
}

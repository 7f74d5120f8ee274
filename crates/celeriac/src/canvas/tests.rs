//! Compares the messages of canvases with those of Celery 5.7.0 (`tests/vectors/canvas.json`). Random ids are
//! compared by the order of their occurrence.

use std::{collections::HashMap, sync::Arc, time::Duration};

use jiff::Timestamp;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::{Canvas, Kind, Node, SendContext, Sender, chain, chord, group};
use crate::{Client, Exchange, MemoryBroker, Message, Publication, Signature};

fn context(origin: &str) -> SendContext<'_> {
    SendContext::new(
        Timestamp::UNIX_EPOCH,
        origin,
        "f1171170-4bbf-3b10-9841-54eaf3fcf09b",
    )
}

fn sender(origin: &str) -> Sender<'_> {
    Sender {
        context: context(origin),
        publication: Publication::default(),
    }
}

/// Returns the messages of a canvas, in the format of the vectors.
fn sent(canvas: Canvas) -> Value {
    let mut sender = sender("gen1@vm");
    let result = sender.apply(canvas.0, &[], Map::new()).unwrap();
    let decoded = |message: &Message| {
        let mut envelope: Value = serde_json::from_str(&message.encode()).unwrap();
        envelope["body"] = json!([message.args, message.kwargs, message.embed]);
        let headers = envelope["headers"].as_object_mut().unwrap();
        headers.shift_remove("origin");
        headers.shift_remove("ignore_result");
        envelope
    };
    let sizes = &sender.publication.chord_sizes;
    let kept = sizes
        .iter()
        .map(|(id, size)| (format!("celery-taskset-meta-{id}.s"), json!(size)));
    json!({
        "result": result.as_tuple(),
        "messages": sender.publication.messages.iter().map(decoded).collect::<Vec<_>>(),
        "kept": kept.collect::<Map<_, _>>(),
    })
}

/// Replaces every random id with the number of its first occurrence, and removes options without effect
/// (null, and a flag that Celery leaves in the body of a nested chord) and the time left until a message
/// expires, which depends on the time of sending.
fn normal(value: &Value, ids: &mut HashMap<String, String>) -> Value {
    match value {
        Value::String(text) => json!(renamed(text, ids)),
        Value::Array(values) => values.iter().map(|value| normal(value, ids)).collect(),
        Value::Object(map) => {
            let mut keys: Vec<_> = map.keys().collect();
            // The keys of stored groups are ids in varying order, so these groups come last, when all ids
            // have numbers.
            keys.sort_by_key(|key| (*key == "kept", key.as_str()));
            let mut normalised = Map::new();
            for key in keys {
                let mut value = normal(&map[key], ids);
                if key == "options" {
                    let options = value.as_object_mut().unwrap();
                    options.retain(|name, option| !option.is_null() && name != "add_to_parent");
                }
                if key != "expiration" {
                    normalised.insert(renamed(key, ids), value);
                }
            }
            Value::Object(normalised)
        }
        other => other.clone(),
    }
}

fn renamed(text: &str, ids: &mut HashMap<String, String>) -> String {
    let bare = text
        .trim_start_matches("celery-taskset-meta-")
        .trim_end_matches(".s");
    if bare.parse::<Uuid>().is_err() {
        return text.to_owned();
    }
    let next = format!("id {}", ids.len());
    let name = ids.entry(bare.to_owned()).or_insert(next);
    text.replace(bare, name)
}

fn add(numbers: &[i64]) -> Signature {
    Signature::new("add").args(numbers.iter().copied().map(Value::from).collect())
}

fn total() -> Signature {
    Signature::new("total")
}

#[test]
fn every_canvas_is_sent_as_celery_sends_it() {
    let recorded: Value = serde_json::from_str(include_str!("../../tests/vectors/canvas.json")).unwrap();
    let options = add(&[1, 2])
        .queue("other")
        .priority(3)
        .expires("2120-01-01T00:00:00Z".parse().unwrap())
        .eta("2119-01-01T00:00:00Z".parse().unwrap())
        .time_limit(Duration::from_secs(10))
        .soft_time_limit(Duration::from_millis(2500))
        .header("traceparent", "00-x")
        .max_retries(Some(5));
    let links = add(&[1, 2])
        .on_success(add(&[3]).queue("other"))
        .on_success(add(&[4]).immutable())
        .on_error(total());
    let parts = || -> Vec<Canvas> { vec![add(&[1, 2]).into(), add(&[3, 4]).then(add(&[5]))] };
    let inner: Vec<Canvas> = vec![chord([add(&[1, 1]), add(&[2, 2])], total()), add(&[3, 3]).into()];
    let canvases: Vec<(&str, Canvas)> = vec![
        ("options", options.into()),
        ("links", links.into()),
        (
            "chain",
            chain([add(&[1, 2]), add(&[3]).queue("other"), add(&[4, 5]).immutable()]),
        ),
        ("group", group(parts())),
        ("chord", chord(parts(), total())),
        (
            "chord with links",
            chord(
                [add(&[1, 2]), add(&[3, 4])],
                total().on_success(add(&[1])).on_error(add(&[2])),
            ),
        ),
        (
            "chain with a group",
            add(&[1, 1])
                .then(group([add(&[2]), add(&[3])]))
                .then(total())
                .then(add(&[9])),
        ),
        (
            "chain that ends in a group",
            add(&[1, 1]).then(group([add(&[2]), add(&[3])])),
        ),
        ("chord in a chord", chord(inner, total())),
    ];
    assert_eq!(canvases.len(), recorded["sent"].as_object().unwrap().len());
    for (name, canvas) in canvases {
        let ours = normal(&sent(canvas), &mut HashMap::new());
        let theirs = normal(&recorded["sent"][name], &mut HashMap::new());
        assert_eq!(ours, theirs, "{name}\n{ours:#}\n{theirs:#}");
    }
}

#[test]
fn a_signature_becomes_the_message_celery_would_send() {
    let recorded = include_str!("../../tests/vectors/message.json").trim();
    let expected = Message::decode(recorded.as_bytes()).unwrap();
    let signature = Signature::new("app.jobs.tasks.send_article_notification")
        .id("9b83d466-f412-4357-8563-2b2dedf45e4e")
        .arg(1)
        .arg("created")
        .header(
            "traceparent",
            "00-ba82e96eee5c73383c5a3143e20f9373-5c45f19cca06da6a-03",
        );
    let mut sent = signature.into_message(&context("gen31693@vm"));
    sent.properties
        .delivery_tag
        .clone_from(&expected.properties.delivery_tag);
    assert_eq!(sent.encode(), recorded);
}

#[test]
fn expiry_is_a_header_and_a_property_and_never_negative() {
    let now: Timestamp = "2026-11-22T06:00:00Z".parse().unwrap();
    let expiration = |expires| {
        let context = SendContext { now, ..context("o") };
        let message = Signature::new("t").expires(expires).into_message(&context);
        message.properties.expiration
    };
    assert_eq!(expiration(now + Duration::from_secs(2)).as_deref(), Some("2000"));
    assert_eq!(expiration(now - Duration::from_secs(2)).as_deref(), Some("0"));
}

#[test]
fn an_encoded_signature_can_be_decoded() {
    let canvas = chord(
        [add(&[1]).then(add(&[2])), group([add(&[3])])],
        total().then(add(&[4])),
    )
    .on_error(add(&[5]))
    .then(group([add(&[6]).immutable().queue("q")]));
    assert_eq!(Node::decode(&canvas.0.encode()), Ok(canvas.0));
}

#[test]
fn an_invalid_signature_is_an_error() {
    for garbage in [
        json!(null),
        json!("add"),
        json!({}),
        json!({"task": 1}),
        json!({"task": "t", "args": {}}),
        json!({"task": "t", "kwargs": []}),
        json!({"task": "t", "options": 1}),
        json!({"task": "t", "subtask_type": "spiral"}),
        json!({"task": "t", "subtask_type": "chain"}),
        json!({"task": "t", "subtask_type": "group", "kwargs": {"tasks": [1]}}),
        json!({"task": "t", "subtask_type": "chord", "kwargs": {"header": []}}),
    ] {
        assert!(Node::decode(&garbage).is_err(), "{garbage}");
    }
}

#[test]
fn an_oversized_canvas_is_rejected() {
    let send = |canvas: Canvas| sender("o").apply(canvas.0, &[], Map::new());
    let steps = |count| chain((0..count).map(|number| add(&[number])));
    assert!(send(steps(1000)).is_ok());
    assert!(send(steps(1001)).is_err());
    let body = total().arg("x".repeat(1024 * 1024));
    let large = chord((0..300).map(|number| add(&[number])), body);
    assert!(send(large).is_err(), "the copies of the body are too large");
}

#[test]
fn options_of_the_wrong_type_are_an_error() {
    for (name, value) in [
        ("countdown", json!("soon")),
        ("eta", json!(5)),
        ("expires", json!("never")),
        ("retries", json!(-1)),
        ("priority", json!("high")),
        ("time_limit", json!([])),
    ] {
        let mut node = Canvas::from(add(&[1])).0;
        node.set(name, value);
        assert!(sender("o").apply(node, &[], Map::new()).is_err(), "{name}");
    }
}

#[test]
fn a_canvas_sets_the_queue_of_tasks_that_name_none_and_links_its_last_task() {
    let canvas = chord([add(&[1]).queue("own"), add(&[2])], total())
        .then(add(&[3]))
        .on_success(add(&[4]).immutable())
        .queue("q")
        .priority(5);
    let Kind::Chain(steps) = &canvas.0.kind else {
        panic!()
    };
    let Kind::Chord(chord) = &steps[0].kind else {
        panic!()
    };
    let queues: Vec<_> = chord.header.iter().map(|task| task.text("queue")).collect();
    assert_eq!(queues, [Some("own"), Some("q")]);
    assert_eq!(chord.body.text("queue"), Some("q"));
    assert_eq!(steps[1].text("queue"), Some("q"));
    assert_eq!(chord.body.options["priority"], 5);
    assert_eq!(steps[1].options["link"][0]["args"], json!([4]));
}

#[test]
fn arguments_of_a_canvas_precede_those_of_the_tasks_that_run_first() {
    let args = |task: &Value| task["args"].clone();
    let encoded = |canvas: Canvas| canvas.args([json!(0)]).0.encode()["kwargs"].clone();
    let chain = encoded(add(&[1]).then(add(&[2])));
    assert_eq!(
        [args(&chain["tasks"][0]), args(&chain["tasks"][1])],
        [json!([0, 1]), json!([2])]
    );
    let nested = encoded(group([
        chord([add(&[1]), add(&[2]).immutable()], total()),
        add(&[3]).into(),
    ]));
    let header = &nested["tasks"][0]["kwargs"]["header"];
    assert_eq!([args(&header[0]), args(&header[1])], [json!([0, 1]), json!([2])]);
    assert_eq!(args(&nested["tasks"][0]["kwargs"]["body"]), json!([]));
    assert_eq!(args(&nested["tasks"][1]), json!([0, 3]));
}

#[test]
fn a_route_applies_to_signatures_without_a_destination_and_may_lead_to_an_exchange() {
    let broker = Arc::new(MemoryBroker::new(1));
    let client = Client::new(broker)
        .route("reports.*", "reports")
        .route_to_exchange("news.*", &Exchange::topic("topics"), "a.b")
        .route_to_exchange("all.*", &Exchange::fanout("fan-out"), "")
        .default_queue("rest");
    let sent = |signature: Signature| {
        let info = client.message(signature).properties.delivery_info;
        (info.exchange, info.routing_key, info.is_fanout)
    };
    let to = |exchange: &str, routing_key: &str, is_fanout| {
        (exchange.to_owned(), routing_key.to_owned(), is_fanout)
    };
    assert_eq!(sent(Signature::new("reports.daily")), to("", "reports", false));
    assert_eq!(sent(Signature::new("news.daily")), to("topics", "a.b", false));
    assert_eq!(
        sent(Signature::new("news.daily").queue("own")),
        to("", "own", false)
    );
    let direct = Signature::new("news.daily").exchange(Exchange::direct("direct"), "key");
    assert_eq!(sent(direct), to("direct", "key", false));
    assert_eq!(sent(Signature::new("all.news")), to("fan-out", "", true));
    assert_eq!(sent(Signature::new("other")), to("", "rest", false));
    assert_eq!(
        sent(Signature::map("news.daily", [1])),
        to("topics", "a.b", false)
    );
    assert_eq!(
        sent(Signature::starmap("reports.daily", [json!([1, 2])])),
        to("", "reports", false)
    );
}

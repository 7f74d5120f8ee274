//! Masking on the way of telemetry: in the process that records it, in the observatory, and in the real collector with the
//! delivered configuration. Every place that takes text is tried with every form of address and token, and
//! `docs/masking.md` lists what leaves; with `MASKING_TABLE=write`, this test writes the page.
#![cfg(test)]

mod collector;
mod forms;
mod merging;
mod page;
mod places;
mod process;
mod sink;
#[path = "../it/support.rs"]
#[expect(dead_code, reason = "the other tests use the rest")]
mod support;

use serde_json::Value;

use collector::Collector;
use forms::FORMS;
use page::Results;
use places::{PLACES, SIGNALS};
use sink::Sink;
use support::{Running, client, config, within};

/// Text of each place, by place and form; `None` for a place that does not exist.
type Texts = Vec<Vec<Option<String>>>;

/// Finds the texts of all places; `groups` has the groups of each signal, one for each form.
fn texts(groups: &[Vec<Value>; 3]) -> Texts {
    let of_place = |place: &places::Place| {
        let signal = SIGNALS.iter().position(|signal| *signal == place.signal).unwrap();
        groups[signal].iter().map(|group| (place.find)(group)).collect()
    };
    PLACES.iter().map(of_place).collect()
}

/// Sends all forms in all places to `endpoint`.
async fn send_all(endpoint: &str) {
    for (index, form) in FORMS.iter().enumerate() {
        for (signal, request) in places::requests(index, form.text) {
            send(endpoint, signal, &request).await;
        }
    }
}

async fn send(endpoint: &str, signal: &str, request: &Value) {
    let request = client()
        .post(format!("{endpoint}/v1/{signal}"))
        .header("content-type", "application/json")
        .body(request.to_string());
    let response = within(request.send()).await.unwrap();
    assert_eq!(response.status(), 200, "{signal}");
}

/// Starts an observatory that forwards to `sink`.
async fn observatory(sink: &Sink, queue: &str) -> Running {
    let queue = std::env::temp_dir().join(format!("observatory-masking-{}-{queue}", std::process::id()));
    let _ = std::fs::remove_dir_all(&queue);
    let forwarding =
        otlp_observatory::Forwarding::new(sink.url().parse().unwrap(), queue).queue_limit(16 << 20);
    Running::start_with(config().forward(forwarding)).await
}

#[tokio::test]
async fn what_leaves_the_process_the_observatory_and_the_collector_is_documented() {
    let from_observatory = Sink::start().await;
    let observatory = observatory(&from_observatory, "forms").await;
    send_all(&observatory.http("")).await;
    let from_collector = Sink::start().await;
    let collector = Collector::start(&from_collector).await;
    send_all(&collector.url).await;

    let process = texts(&process::groups());
    let observatory_texts = texts(&from_observatory.groups(FORMS.len()).await);
    let collector_texts = texts(&from_collector.groups(FORMS.len()).await);
    observatory.stop().await.unwrap();
    page::check(&Results([process, observatory_texts, collector_texts]));
}

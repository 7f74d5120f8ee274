//! Points whose attributes mask alike leave as one point.

use serde_json::{Value, json};

use crate::collector::Collector;
use crate::sink::Sink;
use crate::support::{client, within};
use crate::{observatory, send};

const START: &str = "1795342907000000000";
const END: &str = "1795342908000000000";

/// Returns a metric with three points of `alina`, `albert` and `bob`; `content` is added to each.
fn metric(name: &str, kind: &str, aggregation: &Value, content: impl Fn(u64) -> Value) -> Value {
    let people = ["alina", "albert", "bob"].iter().zip([3, 4, 5]);
    let points = people.map(|(person, number)| {
        let mut point = content(number);
        point["attributes"] =
            json!([{"key": "who", "value": {"stringValue": format!("{person}@mail.example")}}]);
        point["startTimeUnixNano"] = json!(START);
        point["timeUnixNano"] = json!(END);
        point
    });
    let mut data = aggregation.clone();
    data["dataPoints"] = points.collect();
    json!({"name": name, kind: data})
}

fn request() -> Value {
    let (delta, cumulative) = (
        json!({"aggregationTemporality": 1}),
        json!({"aggregationTemporality": 2}),
    );
    let counter = json!({"aggregationTemporality": 2, "isMonotonic": true});
    let number = |number| json!({"asInt": number});
    let histogram = |number| json!({"count": number, "sum": number, "bucketCounts": [number, 0], "explicitBounds": [1.0]});
    let exponential = |number| {
        let buckets = json!({"offset": 2, "bucketCounts": [number]});
        json!({"count": number, "sum": number, "scale": 1, "positive": buckets})
    };
    let metrics = [
        metric("counter", "sum", &counter, number),
        metric("counter.delta", "sum", &delta, number),
        metric("up_down", "sum", &cumulative, number),
        metric(
            "fraction",
            "sum",
            &counter,
            |number| json!({"asDouble": number as f64 / 2.0}),
        ),
        metric("gauge", "gauge", &json!({}), number),
        metric("histogram", "histogram", &cumulative, histogram),
        metric("histogram.delta", "histogram", &delta, histogram),
        metric("exponential", "exponentialHistogram", &cumulative, exponential),
        metric("exponential.delta", "exponentialHistogram", &delta, exponential),
    ];
    json!({"resourceMetrics": [{
        "resource": {"attributes": [{"key": "service.name", "value": {"stringValue": "shop"}}]},
        "scopeMetrics": [{"metrics": metrics}],
    }]})
}

/// Values of the merged points and of the other ones.
const EXPECTED: [(&str, &str); 9] = [
    ("counter", "al: 7, bo: 5"),
    ("counter.delta", "al: 7, bo: 5"),
    ("exponential", "al: 7 of 7, bo: 5 of 5"),
    ("exponential.delta", "al: 7 of 7, bo: 5 of 5"),
    ("fraction", "al: 3.5, bo: 2.5"),
    ("gauge", "al: 4, bo: 5"),
    ("histogram", "al: 7 of 7, bo: 5 of 5"),
    ("histogram.delta", "al: 7 of 7, bo: 5 of 5"),
    ("up_down", "al: 7, bo: 5"),
];

/// Waits for the metrics and shows their points.
async fn received(sink: &Sink) -> Vec<(String, String)> {
    let metrics = sink
        .when(|requests| {
            let metrics = requests
                .iter()
                .find_map(|request| request["resourceMetrics"].as_array());
            Some(metrics?[0]["scopeMetrics"][0]["metrics"].as_array()?.clone())
        })
        .await;
    let mut shown: Vec<_> = metrics.iter().map(shown).collect();
    shown.sort();
    shown
}

fn shown(metric: &Value) -> (String, String) {
    let kinds = ["sum", "gauge", "histogram", "exponentialHistogram"];
    let points = kinds
        .iter()
        .find_map(|kind| metric[*kind]["dataPoints"].as_array())
        .unwrap();
    let mut points: Vec<String> = points.iter().map(point).collect();
    points.sort();
    (metric["name"].as_str().unwrap().to_owned(), points.join(", "))
}

fn point(point: &Value) -> String {
    let who = point["attributes"][0]["value"]["stringValue"].as_str().unwrap();
    let who = who.strip_suffix("***@mail.example").unwrap();
    let text = |value: &Value| value.to_string().trim_matches('"').to_owned();
    let buckets = [&point["bucketCounts"], &point["positive"]["bucketCounts"]];
    if let Some(counts) = buckets.iter().find_map(|counts| counts.as_array()) {
        let number = |value: &Value| text(value).parse::<u64>().unwrap();
        let counted: u64 = counts.iter().map(number).sum();
        return format!("{who}: {counted} of {}", text(&point["count"]));
    }
    let value = ["asInt", "asDouble"]
        .iter()
        .find(|field| !point[**field].is_null());
    format!("{who}: {}", text(&point[*value.unwrap()]))
}

#[tokio::test]
async fn points_that_mask_alike_leave_the_observatory_and_the_collector_as_one() {
    let expected = EXPECTED.map(|(name, points)| (name.to_owned(), points.to_owned()));

    let sink = Sink::start().await;
    let observatory = observatory(&sink, "merging").await;
    send(&observatory.http(""), "metrics", &request()).await;
    assert_eq!(received(&sink).await, expected);
    observatory.stop().await.unwrap();

    let sink = Sink::start().await;
    let collector = Collector::start(&sink).await;
    send(&collector.url, "metrics", &request()).await;
    assert_eq!(received(&sink).await, expected);

    let scraped = loop {
        let response = within(client().get(&collector.prometheus).send()).await.unwrap();
        let text = response.text().await.unwrap();
        if text.contains("counter_total{") {
            break text;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    };
    let counted: Vec<f64> = scraped
        .lines()
        .filter(|line| line.starts_with("counter_total{") && line.contains("al***@mail.example"))
        .filter_map(|line| line.split_once("} ")?.1.split(' ').next()?.parse().ok())
        .collect();
    assert_eq!(counted, [7.0], "{scraped}");
}

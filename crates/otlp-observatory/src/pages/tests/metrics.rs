//! What API.md says about metrics.

use opentelemetry_proto::tonic::{
    common::v1::KeyValue,
    metrics::v1::{
        AggregationTemporality, Exemplar, ExponentialHistogram, ExponentialHistogramDataPoint, Gauge,
        Histogram, HistogramDataPoint, Metric, NumberDataPoint, Sum, Summary, SummaryDataPoint, exemplar,
        exponential_histogram_data_point::Buckets, metric::Data, number_data_point,
        summary_data_point::ValueAtQuantile,
    },
};

use super::*;
use crate::store::fixture::text;

const SECOND: u64 = 1_000_000_000;
const DELTA: i32 = AggregationTemporality::Delta as i32;
const CUMULATIVE: i32 = AggregationTemporality::Cumulative as i32;

fn empty() -> Arc<Store> {
    Arc::new(Store::new(64 << 20))
}

fn insert(store: &Store, service: &str, data: Data) {
    let metric = Metric {
        name: "m".to_owned(),
        data: Some(data),
        ..Metric::default()
    };
    store.insert_at(metrics_of(service, vec![metric]), NOW);
}

/// Returns a point of a sum or gauge, which started at [`NOW`]; `at` is in seconds after that.
fn number(attributes: &[(&str, &str)], at: u64, value: number_data_point::Value) -> NumberDataPoint {
    NumberDataPoint {
        attributes: attributes.iter().map(|(key, value)| text(key, value)).collect(),
        start_time_unix_nano: NOW,
        time_unix_nano: NOW + at * SECOND,
        value: Some(value),
        ..NumberDataPoint::default()
    }
}

fn int(attributes: &[(&str, &str)], at: u64, value: i64) -> NumberDataPoint {
    number(attributes, at, number_data_point::Value::AsInt(value))
}

fn double(at: u64, value: f64) -> NumberDataPoint {
    number(&[], at, number_data_point::Value::AsDouble(value))
}

fn sum(temporality: i32, is_monotonic: bool, data_points: Vec<NumberDataPoint>) -> Data {
    Data::Sum(Sum {
        data_points,
        aggregation_temporality: temporality,
        is_monotonic,
    })
}

fn gauge(data_points: Vec<NumberDataPoint>) -> Data {
    Data::Gauge(Gauge { data_points })
}

/// Returns a point with bounds of 1 and 2.5 and the sum of 0.5 for each observation.
fn observed(attributes: Vec<KeyValue>, at: u64, counts: [u64; 3]) -> HistogramDataPoint {
    let count = counts.iter().sum();
    HistogramDataPoint {
        attributes,
        start_time_unix_nano: NOW,
        time_unix_nano: NOW + at * SECOND,
        count,
        sum: Some(count as f64 / 2.0),
        explicit_bounds: vec![1.0, 2.5],
        bucket_counts: counts.to_vec(),
        ..HistogramDataPoint::default()
    }
}

fn histogram(temporality: i32, data_points: Vec<HistogramDataPoint>) -> Data {
    Data::Histogram(Histogram {
        data_points,
        aggregation_temporality: temporality,
    })
}

async fn get(store: &Arc<Store>, query: &str) -> Value {
    let router = explorer(store.clone(), [127, 0, 0, 1]);
    let (status, json) = get_json(router, &format!("/metrics/m?{query}")).await;
    assert_eq!(status, StatusCode::OK, "{json}");
    json
}

async fn refusal(store: &Arc<Store>, query: &str) -> String {
    let router = explorer(store.clone(), [127, 0, 0, 1]);
    let (status, json) = get_json(router, &format!("/metrics/m?{query}")).await;
    assert_eq!(status, StatusCode::BAD_REQUEST, "{json}");
    json["error"].to_string()
}

/// Returns a field of the points of the first series.
fn field(json: &Value, name: &str) -> Value {
    let points = json["series"][0]["points"].as_array().expect("points");
    points.iter().map(|point| point[name].clone()).collect()
}

/// Returns an attribute of all series.
fn attributes(json: &Value, name: &str) -> Value {
    let series = json["series"].as_array().expect("series");
    series.iter().map(|one| one["attributes"][name].clone()).collect()
}

#[tokio::test]
async fn integers_are_exact() {
    let huge = |offset: i64| (1_i64 << 62) + offset;
    let points = || {
        (1..=3)
            .map(|at| int(&[], at, huge(at as i64)))
            .collect::<Vec<_>>()
    };
    let text = json!([huge(1).to_string(), huge(2).to_string(), huge(3).to_string()]);
    for data in [
        sum(CUMULATIVE, true, points()),
        sum(CUMULATIVE, false, points()),
        gauge(points()),
    ] {
        let store = empty();
        insert(&store, "a", data);
        let json = get(&store, "").await;
        assert_eq!(field(&json, "value"), text);
        assert_eq!(json["series"][0]["total"], json!({"value": huge(3).to_string()}));
    }
    let store = empty();
    insert(&store, "a", sum(CUMULATIVE, true, points()));
    assert_eq!(
        field(&get(&store, "").await, "rate")[1],
        1.0,
        "of numbers that one double represents"
    );
    let store = empty();
    insert(
        &store,
        "a",
        gauge(vec![
            int(&[], 1, 5),
            double(2, 0.1),
            double(3, f64::NAN),
            int(&[], 4, i64::MIN),
        ]),
    );
    let expected = json!([5, 0.1, "NaN", i64::MIN.to_string()]);
    assert_eq!(field(&get(&store, "").await, "value"), expected);
}

#[tokio::test]
async fn cumulative_and_delta_sums_have_the_same_values_and_rates() {
    let big = (1_i64 << 53) + 1;
    for is_monotonic in [true, false] {
        let (cumulative, delta) = (empty(), empty());
        let totals = [big, big + 3, big + 3, 2 * big];
        let changes = [big, 3, 0, big - 3];
        let points = |values: [i64; 4]| (1..).zip(values).map(|(at, value)| int(&[], at, value)).collect();
        insert(&cumulative, "a", sum(CUMULATIVE, is_monotonic, points(totals)));
        let mut points: Vec<_> = points(changes);
        for (index, point) in points.iter_mut().enumerate() {
            point.start_time_unix_nano = NOW + index as u64 * SECOND;
        }
        insert(&delta, "a", sum(DELTA, is_monotonic, points));
        let (cumulative, delta) = (get(&cumulative, "").await, get(&delta, "").await);
        assert_eq!(cumulative["series"], delta["series"]);
        assert_eq!(
            field(&delta, "value"),
            json!(totals.map(|total| total.to_string()))
        );
        let rates = field(&delta, "rate");
        match is_monotonic {
            true => assert_eq!((&rates[1], &rates[2]), (&json!(3.0), &json!(0.0))),
            false => assert_eq!(rates[1], Value::Null),
        }
    }
}

#[tokio::test]
async fn values_of_delta_sums_survive_the_eviction_of_points() {
    let store = empty();
    for at in 1..=1_000 {
        insert(&store, "a", sum(DELTA, true, vec![int(&[], at, 2)]));
    }
    let json = get(&store, "").await;
    assert_eq!(json["series"][0]["total"], json!({"value": 2_000}));
    assert_eq!(field(&json, "value")[719], 2_000);
    assert_eq!(field(&json, "value")[0], 2 * 281);
    let from = NOW + 990 * SECOND;
    let json = get(&store, &format!("from={from}")).await;
    assert_eq!(
        field(&json, "value"),
        json!((990..=1_000).map(|at| 2 * at).collect::<Vec<_>>())
    );
    assert_eq!(
        field(&json, "rate")[0],
        json!(2.0 / 990.0),
        "since the start that the sender states"
    );
}

#[tokio::test]
async fn a_reset_counts_from_zero_and_an_old_start_has_no_rate() {
    let store = empty();
    let old = |at, value| NumberDataPoint {
        start_time_unix_nano: 1,
        ..int(&[], at, value)
    };
    insert(
        &store,
        "a",
        sum(CUMULATIVE, true, vec![old(1, 100), old(2, 110), old(3, 5)]),
    );
    let json = get(&store, "").await;
    assert_eq!(field(&json, "rate")[0], Value::Null);
    assert_eq!(field(&json, "rate")[1], 10.0);
    assert!(field(&json, "rate")[2].as_f64().is_some_and(|rate| rate > 0.0));
    assert_eq!(field(&json, "value"), json!([100, 110, 5]));

    let store = empty();
    let mut first = observed(Vec::new(), 1, [5, 0, 0]);
    first.start_time_unix_nano = 1;
    let second = HistogramDataPoint {
        start_time_unix_nano: 1,
        ..observed(Vec::new(), 2, [7, 0, 0])
    };
    insert(&store, "a", histogram(CUMULATIVE, vec![first, second]));
    let json = get(&store, "").await;
    assert_eq!(field(&json, "count"), json!([2]), "the first point is omitted");
    assert_eq!(json["series"][0]["total"]["count"], 7);
}

#[tokio::test]
async fn the_largest_series_are_returned_however_old_they_are() {
    let store = empty();
    insert(
        &store,
        "a",
        sum(CUMULATIVE, true, vec![int(&[("k", "THE HOT ONE")], 1, 100_000)]),
    );
    for number in 0..4_999 {
        let user = format!("user-{number}");
        insert(
            &store,
            "a",
            sum(CUMULATIVE, true, vec![int(&[("k", &user)], 2, 1 + number % 7)]),
        );
    }
    let json = get(&store, "").await;
    assert_eq!(json["series"].as_array().map(Vec::len), Some(100));
    assert_eq!(attributes(&json, "k")[0], "THE HOT ONE");
    assert_eq!(json["series"][1]["total"], json!({"value": 7}));
    assert_eq!(
        (&json["total_series"], &json["matches"][0]["series"]),
        (&json!(5_000), &json!(5_000))
    );
    let json = get(&store, "limit=3").await;
    assert_eq!(
        (json["series"].as_array().map(Vec::len), &json["total_series"]),
        (Some(3), &json!(5_000))
    );
    let json = get(&store, "attribute=k=user-6").await;
    assert_eq!(
        (attributes(&json, "k"), &json["total_series"]),
        (json!(["user-6"]), &json!(1))
    );
    assert!(refusal(&store, "limit=0").await.contains("limit"));
}

#[tokio::test]
async fn delta_series_are_ordered_by_the_sum_of_their_points() {
    let store = empty();
    for at in 1..=10 {
        insert(&store, "a", sum(DELTA, true, vec![int(&[("k", "often")], at, 2)]));
    }
    insert(&store, "a", sum(DELTA, true, vec![int(&[("k", "once")], 11, 19)]));
    assert_eq!(attributes(&get(&store, "").await, "k"), json!(["often", "once"]));

    let store = empty();
    let k = |value| vec![text("k", value)];
    for at in 1..=3 {
        insert(
            &store,
            "a",
            histogram(DELTA, vec![observed(k("often"), at, [2, 0, 0])]),
        );
    }
    insert(
        &store,
        "a",
        histogram(DELTA, vec![observed(k("once"), 4, [5, 0, 0])]),
    );
    let json = get(&store, "").await;
    assert_eq!(attributes(&json, "k"), json!(["often", "once"]));
    assert_eq!(json["series"][0]["total"]["count"], 6);
}

#[tokio::test]
async fn points_of_histograms_describe_the_observations_since_the_previous_point() {
    let extremes = |point: HistogramDataPoint, min, max| HistogramDataPoint {
        min: Some(min),
        max: Some(max),
        ..point
    };
    let store = empty();
    let points = vec![
        extremes(observed(Vec::new(), 10, [10, 0, 0]), 0.25, 0.75),
        extremes(observed(Vec::new(), 20, [10, 0, 10]), 0.25, 9.0),
        extremes(observed(Vec::new(), 30, [10, 0, 10]), 0.25, 9.0),
    ];
    insert(&store, "a", histogram(CUMULATIVE, points));
    let json = get(&store, "").await;
    let at = |seconds: u64| (NOW + seconds * SECOND).to_string();
    assert_eq!(
        json["series"][0]["points"],
        json!([
            {"time_unix_nano": at(10), "rate": 1.0, "p50": 0.5, "p95": 0.95, "p99": 0.99, "count": 10, "sum": 5.0,
             "mean": 0.5, "min": 0.25, "max": 0.75},
            {"time_unix_nano": at(20), "rate": 1.0, "p50": 2.5, "p95": 2.5, "p99": 2.5,
             "above": ["p50", "p95", "p99"], "count": 10, "sum": 5.0, "mean": 0.5, "min": null, "max": null},
            {"time_unix_nano": at(30), "rate": 0.0, "p50": null, "p95": null, "p99": null, "count": 0, "sum": 0.0,
             "mean": null, "min": null, "max": null},
        ])
    );
    let total = json!({"count": 20, "sum": 10.0, "mean": 0.5, "min": 0.25, "max": 9.0});
    assert_eq!(json["series"][0]["total"], total);

    let store = empty();
    let later = |at, counts, min, max| HistogramDataPoint {
        start_time_unix_nano: NOW + (at - 10) * SECOND,
        ..extremes(observed(Vec::new(), at, counts), min, max)
    };
    let points = vec![later(10, [10, 0, 0], 0.25, 0.75), later(20, [0, 0, 10], 3.0, 9.0)];
    insert(&store, "a", histogram(DELTA, points));
    let json = get(&store, "").await;
    assert_eq!(
        (field(&json, "min"), field(&json, "max")),
        (json!([0.25, 3.0]), json!([0.75, 9.0]))
    );
    assert_eq!(json["series"][0]["total"], total);
    let json = get(&store, &format!("from={}", NOW + 15 * SECOND)).await;
    assert_eq!(
        (field(&json, "count"), &json["series"][0]["total"]),
        (json!([10]), &total)
    );
}

#[tokio::test]
async fn histograms_without_buckets_have_a_mean() {
    let store = empty();
    let point = HistogramDataPoint {
        explicit_bounds: Vec::new(),
        bucket_counts: Vec::new(),
        ..observed(Vec::new(), 10, [4, 0, 0])
    };
    insert(&store, "a", histogram(CUMULATIVE, vec![point]));
    let json = get(&store, "heatmap=true").await;
    let point = &json["series"][0]["points"][0];
    assert_eq!(
        (&point["p95"], &point["mean"], &point["count"]),
        (&Value::Null, &json!(0.5), &json!(4))
    );
    assert_eq!(json["heatmap"]["buckets"], json!([]));
}

#[tokio::test]
async fn exponential_histograms_and_summaries_are_described() {
    let store = empty();
    let point = ExponentialHistogramDataPoint {
        start_time_unix_nano: NOW,
        time_unix_nano: NOW + 10 * SECOND,
        count: 4,
        sum: Some(8.0),
        min: Some(1.0),
        max: Some(3.5),
        positive: Some(Buckets {
            offset: 0,
            bucket_counts: vec![2, 2],
        }),
        ..ExponentialHistogramDataPoint::default()
    };
    insert(
        &store,
        "a",
        Data::ExponentialHistogram(ExponentialHistogram {
            data_points: vec![point],
            aggregation_temporality: CUMULATIVE,
        }),
    );
    let json = get(&store, "heatmap=true").await;
    assert_eq!(json["type"], "exponential_histogram");
    let total = json!({"count": 4, "sum": 8.0, "mean": 2.0, "min": 1.0, "max": 3.5});
    assert_eq!(
        (&json["series"][0]["total"], &field(&json, "p50")),
        (&total, &json!([2.0]))
    );
    assert_eq!(
        json["heatmap"]["buckets"],
        json!([{"from": 1.0, "to": 2.0}, {"from": 2.0, "to": 4.0}])
    );
    assert_eq!(json["heatmap"]["columns"][0]["counts"], json!([2, 2]));

    let store = empty();
    let point = SummaryDataPoint {
        time_unix_nano: NOW,
        count: 4,
        sum: 8.0,
        quantile_values: vec![ValueAtQuantile {
            quantile: 0.5,
            value: 1.5,
        }],
        ..SummaryDataPoint::default()
    };
    let summary = Summary {
        data_points: vec![point],
    };
    insert(&store, "a", Data::Summary(summary));
    let json = get(&store, "heatmap=true").await;
    assert_eq!(
        json["series"][0]["points"][0],
        json!({"time_unix_nano": NOW.to_string(), "count": 4, "sum": 8.0, "mean": 2.0, "quantiles": {"0.5": 1.5}})
    );
    assert_eq!(json.get("heatmap"), None);
    assert!(refusal(&store, "by=k").await.contains("summaries"));
}

#[tokio::test]
async fn series_are_combined_by_attribute() {
    let store = empty();
    let at = |at, values: [i64; 3]| {
        let [one, two, three] = values;
        vec![
            int(&[("route", "/a"), ("code", "1")], at, one),
            int(&[("route", "/a"), ("code", "2")], at, two),
            int(&[("route", "/b")], at, three),
        ]
    };
    for second in 1..=3 {
        let value = second as i64;
        insert(
            &store,
            "a",
            sum(CUMULATIVE, true, at(second * 10, [value, 10 * value, 5 * value])),
        );
    }
    let json = get(&store, "by=route").await;
    assert_eq!(
        (&json["aggregate"], &json["total_series"]),
        (&json!("sum"), &json!(2))
    );
    assert_eq!(attributes(&json, "route"), json!(["/a", "/b"]));
    let [a, b] = [&json["series"][0], &json["series"][1]];
    assert_eq!((&a["combines"], &b["combines"]), (&json!(2), &json!(1)));
    assert_eq!(
        (&a["total"], &a["scope"], &a["resource"]),
        (&json!({"value": 33}), &json!(""), &json!({}))
    );
    assert_eq!(field(&json, "value"), json!([11, 22, 33]));
    assert_eq!(field(&json, "rate"), json!([1.1, 1.1, 1.1]));
    let json = get(&store, "by=route&aggregate=avg").await;
    assert_eq!(
        (field(&json, "value"), &json["aggregate"]),
        (json!([5.5, 11, 16.5]), &json!("avg"))
    );
    let json = get(&store, "by=route&aggregate=max&limit=1").await;
    assert_eq!(
        (field(&json, "value"), json["series"].as_array().map(Vec::len)),
        (json!([10, 20, 30]), Some(1))
    );
    let json = get(&store, "by=route&by=code").await;
    assert_eq!(json["total_series"], 3);
    assert_eq!(
        json["series"][0]["attributes"],
        json!({"code": "2", "route": "/a"})
    );
    let json = get(&store, "aggregate=sum").await;
    assert_eq!(
        (field(&json, "value"), &json["series"][0]["combines"]),
        (json!([16, 32, 48]), &json!(3))
    );
    assert_eq!(
        get(&store, "by=service.name").await["series"][0]["attributes"],
        json!({"service.name": "a"})
    );
    assert!(
        refusal(&store, "aggregate=median")
            .await
            .contains("`sum`, `avg` or `max`")
    );
}

#[tokio::test]
async fn gauges_are_averaged_and_late_series_keep_their_value() {
    let store = empty();
    let of = |k, at, value| int(&[("k", k)], at, value);
    insert(
        &store,
        "a",
        gauge(vec![
            of("x", 10, 1),
            of("x", 20, 1),
            of("x", 30, 1),
            of("x", 40, 1),
        ]),
    );
    insert(&store, "a", gauge(vec![of("y", 10, 3), of("y", 20, 5)]));
    let json = get(&store, "aggregate=sum").await;
    assert_eq!(field(&json, "value"), json!([4, 6, 6, 1]));
    let json = get(&store, "by=none").await;
    assert_eq!(
        (field(&json, "value"), &json["aggregate"]),
        (json!([2, 3, 3, 1]), &json!("avg"))
    );
}

#[tokio::test]
async fn a_group_has_at_most_241_points() {
    let store = empty();
    let points = (1..=700).map(|at| int(&[], at, at as i64)).collect();
    insert(&store, "a", gauge(points));
    let points = field(&get(&store, "aggregate=max").await, "value");
    let points = points.as_array().expect("points");
    assert!((200..=241).contains(&points.len()), "{}", points.len());
    assert_eq!(points.last(), Some(&json!(700)));
}

#[tokio::test]
async fn histograms_are_merged() {
    let store = empty();
    let k = |value| vec![text("k", value)];
    insert(
        &store,
        "a",
        histogram(
            CUMULATIVE,
            vec![observed(k("x"), 10, [10, 0, 0]), observed(k("y"), 10, [0, 10, 0])],
        ),
    );
    let json = get(&store, "aggregate=sum&heatmap=true").await;
    let point = &json["series"][0]["points"][0];
    assert_eq!(
        (&point["count"], &point["p50"], &point["p99"]),
        (&json!(20), &json!(1.0), &json!(2.47))
    );
    assert_eq!(json["series"][0]["total"]["count"], 20);
    assert_eq!(
        json["heatmap"],
        json!({
            "step_seconds": 10.0,
            "buckets": [{"from": 0.0, "to": 1.0}, {"from": 1.0, "to": 2.5}],
            "columns": [{"time_unix_nano": (NOW + 10 * SECOND).to_string(), "counts": [10, 10]}],
        })
    );
    assert!(
        refusal(&store, "aggregate=avg")
            .await
            .contains("`sum` for histograms")
    );
    let other = HistogramDataPoint {
        explicit_bounds: vec![7.0, 8.0],
        ..observed(k("z"), 10, [0, 0, 1])
    };
    insert(&store, "a", histogram(CUMULATIVE, vec![other]));
    let json = get(&store, "aggregate=sum&heatmap=true").await;
    let point = &json["series"][0]["points"][0];
    assert_eq!((&point["count"], &point["p50"]), (&json!(21), &Value::Null));
    assert_eq!(json["heatmap"]["buckets"], json!([]));
    let json = get(&store, "attribute=k=z&heatmap=true").await;
    assert_eq!(json["heatmap"]["buckets"], json!([{"from": 8.0, "to": null}]));
    assert!(refusal(&store, "heatmap=1").await.contains("`true` or `false`"));
}

#[tokio::test]
async fn exemplars_are_those_of_the_listed_series() {
    let store = empty();
    let with = |k, value| NumberDataPoint {
        exemplars: vec![Exemplar {
            time_unix_nano: NOW,
            value: Some(exemplar::Value::AsInt(value)),
            ..Exemplar::default()
        }],
        ..int(&[("k", k)], 1, value)
    };
    let huge = (1 << 62) + 1;
    insert(
        &store,
        "a",
        sum(CUMULATIVE, true, vec![with("x", 7), with("y", huge)]),
    );
    let json = get(&store, "limit=1").await;
    assert_eq!(json["exemplars"].as_array().map(Vec::len), Some(1));
    assert_eq!(json["exemplars"][0]["value"], huge.to_string());
    assert_eq!(
        get(&store, "").await["exemplars"].as_array().map(Vec::len),
        Some(2)
    );
    assert_eq!(get(&store, "aggregate=sum").await["exemplars"], json!([]));
}

#[tokio::test]
async fn the_first_match_or_that_of_the_service_is_described() {
    let store = empty();
    insert(&store, "b", gauge(vec![int(&[], 1, 1)]));
    insert(
        &store,
        "a",
        gauge(vec![int(&[("k", "1")], 1, 2), int(&[("k", "2")], 1, 2)]),
    );
    insert(&store, "a", sum(CUMULATIVE, true, vec![int(&[], 1, 3)]));
    let json = get(&store, "").await;
    let matches = json["matches"].as_array().expect("matches").iter();
    let matches: Vec<_> = matches
        .map(|found| {
            (
                found["service"].as_str(),
                found["type"].as_str(),
                found["series"].as_u64(),
            )
        })
        .collect();
    let of = |service, kind, series| (Some(service), Some(kind), Some(series));
    assert_eq!(
        matches,
        [of("a", "counter", 1), of("a", "gauge", 2), of("b", "gauge", 1)]
    );
    assert_eq!(
        (&json["service"], &json["type"]),
        (&json!("a"), &json!("counter"))
    );
    let json = get(&store, "service=b").await;
    assert_eq!(
        (&json["service"], &json["series"][0]["total"]),
        (&json!("b"), &json!({"value": 1}))
    );
}

#[tokio::test]
async fn instruments_beyond_the_maximum_are_counted() {
    let store = empty();
    let many = (0..1_003).map(|number| counted(&format!("m{number}"), "/", NOW, 1));
    store.insert_at(metrics_of("a", many.collect()), NOW);
    let (_, json) = get_json(explorer(store, [127, 0, 0, 1]), "/metrics").await;
    assert_eq!(
        (json["instruments"].as_array().map(Vec::len), &json["left_out"]),
        (Some(1_000), &json!(3))
    );
}

#[tokio::test]
async fn exported_metrics_are_shown_identically_after_they_are_received_again() {
    let exponential = ExponentialHistogramDataPoint {
        start_time_unix_nano: NOW,
        time_unix_nano: NOW + 10 * SECOND,
        count: 4,
        sum: Some(8.0),
        positive: Some(Buckets {
            offset: 0,
            bucket_counts: vec![2, 2],
        }),
        ..ExponentialHistogramDataPoint::default()
    };
    let quantile = SummaryDataPoint {
        time_unix_nano: NOW,
        count: 4,
        sum: 8.0,
        quantile_values: vec![ValueAtQuantile {
            quantile: 0.5,
            value: 1.5,
        }],
        ..SummaryDataPoint::default()
    };
    let with_exemplar = NumberDataPoint {
        exemplars: vec![Exemplar {
            time_unix_nano: NOW,
            span_id: vec![1; 8],
            trace_id: vec![2; 16],
            value: Some(exemplar::Value::AsDouble(0.5)),
            ..Exemplar::default()
        }],
        ..int(&[("k", "x")], 1, 7)
    };
    let observed = |at, counts| observed(vec![text("k", "x")], at, counts);
    let kinds = [
        sum(
            CUMULATIVE,
            true,
            vec![
                with_exemplar,
                int(&[("k", "x")], 3, (1 << 62) + 1),
                int(&[], 1, 2),
            ],
        ),
        sum(DELTA, true, vec![int(&[], 1, 3), int(&[], 2, 4)]),
        sum(CUMULATIVE, false, vec![double(1, 0.1), double(2, -3.5)]),
        gauge(vec![double(1, 1.5), int(&[("k", "x")], 2, -9)]),
        histogram(CUMULATIVE, vec![observed(1, [1, 2, 3]), observed(2, [2, 3, 4])]),
        histogram(DELTA, vec![observed(1, [0, 2, 3])]),
        Data::ExponentialHistogram(ExponentialHistogram {
            data_points: vec![exponential],
            aggregation_temporality: CUMULATIVE,
        }),
        Data::Summary(Summary {
            data_points: vec![quantile],
        }),
    ];
    for data in kinds {
        let original = empty();
        insert(&original, "a", data.clone());
        insert(&original, "b", data);
        // More than a piece has before its size is checked.
        let many = (0..40).map(|number| counted(&format!("m{number}"), "/", NOW, number));
        original.insert_at(metrics_of("a", many.collect()), NOW);
        let router = explorer(original.clone(), [127, 0, 0, 1]);
        let (status, _, body) = send(router.clone(), request("/export")).await;
        assert_eq!(status, StatusCode::OK);
        let copy = empty();
        copy.insert_at(receive::decode_json(Signal::Metrics, body.as_bytes()), NOW);
        assert_eq!(copy.usage().kept.points, original.usage().kept.points);
        for page in ["/metrics", "/metrics/m", "/metrics/m?service=b", "/metrics/m39"] {
            let (_, mut expected) = get_json(router.clone(), page).await;
            let (_, mut json) = get_json(explorer(copy.clone(), [127, 0, 0, 1]), page).await;
            for json in [&mut expected, &mut json] {
                json["generation"] = Value::Null;
            }
            assert_eq!(json, expected, "{page}");
        }
    }
}

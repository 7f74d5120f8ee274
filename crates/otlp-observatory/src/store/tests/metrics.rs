//! Metric series and their points.

use opentelemetry_proto::tonic::metrics::v1::metric::Data;

use super::LIMIT;
use crate::store::{
    SeriesSearch, Store,
    fixture::{NOW, counted, metrics, text},
    readings::{Sample, SampleValue},
};

/// Returns the values of a counter, by series.
fn values(store: &Store, name: &str) -> Vec<Vec<f64>> {
    let search = SeriesSearch {
        name: Some(name.to_owned()),
        ..SeriesSearch::default()
    };
    let value = |sample: &Sample| match sample.value {
        SampleValue::Counter { value, .. } => value.to_f64(),
        ref other => panic!("{other:?}"),
    };
    let (_, series) = store.samples(&store.query(&search, 0..=u64::MAX), 100);
    series
        .iter()
        .map(|series| series.samples.iter().map(value).collect())
        .collect()
}

#[test]
fn a_series_keeps_its_newest_points_and_is_removed_with_the_last() {
    let store = Store::new(LIMIT);
    store.insert_at(metrics("app", vec![counted("old", "/", NOW, 1)]), NOW);
    for round in 0..2_000 {
        store.insert_at(
            metrics("app", vec![counted("busy", "/", NOW + round, round as i64)]),
            NOW + round,
        );
    }
    assert_eq!(
        values(&store, "old"),
        [[1.0]],
        "below the limit, points of other series evict nothing"
    );
    let busy: Vec<_> = (2_000 - 720..2_000).map(|round| round as f64).collect();
    assert_eq!(values(&store, "busy"), [busy]);
    assert_eq!(store.usage().kept.points, 721);

    for round in 0..5_000 {
        let route = format!("/{round}");
        store.insert_at(metrics("app", vec![counted("many", &route, NOW, 1)]), NOW);
    }
    assert!(
        values(&store, "old").is_empty(),
        "the oldest point is evicted with its series"
    );
    let usage = store.usage();
    assert_eq!(usage.kept.points + usage.evicted.points, 7_001);
    assert!(usage.kept.series > 100, "{}", usage.kept.series);
}

#[test]
fn the_order_of_attributes_does_not_matter() {
    let store = Store::new(LIMIT);
    let with = |attributes| {
        let mut metric = counted("requests", "/", NOW, 1);
        if let Some(Data::Sum(sum)) = &mut metric.data {
            sum.data_points[0].attributes = attributes;
        }
        metrics("app", vec![metric])
    };
    store.insert_at(with(vec![text("a", "1"), text("b", "2")]), NOW);
    store.insert_at(with(vec![text("b", "2"), text("a", "1")]), NOW);
    store.insert_at(with(vec![text("a", "1"), text("b", "3")]), NOW);
    assert_eq!(store.usage().kept.series, 2);
}

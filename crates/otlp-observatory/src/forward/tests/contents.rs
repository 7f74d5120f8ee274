//! Tests of the forwarded content of an export.

use opentelemetry_proto::tonic::{
    collector::metrics::v1::ExportMetricsServiceRequest,
    common::v1::{AnyValue, InstrumentationScope, any_value::Value},
    metrics::v1::{Gauge, Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics, metric::Data},
    resource::v1::Resource,
};
use prost::Message as _;

use super::{super::content::content, *};

/// Returns a gauge with a point at each of `times`.
pub(super) fn gauge(times: &[u64]) -> Export {
    let points = times.iter().map(|time| NumberDataPoint {
        time_unix_nano: *time,
        ..NumberDataPoint::default()
    });
    Export::Metrics(ExportMetricsServiceRequest {
        resource_metrics: vec![ResourceMetrics {
            scope_metrics: vec![ScopeMetrics {
                metrics: vec![Metric {
                    name: "depth".to_owned(),
                    data: Some(Data::Gauge(Gauge {
                        data_points: points.collect(),
                    })),
                    ..Metric::default()
                }],
                schema_url: "https://example.com/scope".to_owned(),
                ..ScopeMetrics::default()
            }],
            schema_url: "https://example.com/resource".to_owned(),
            ..ResourceMetrics::default()
        }],
    })
}

fn with(id: u64, attributes: &[(&str, &str)]) -> Span {
    Span {
        attributes: attributes.iter().map(|(key, value)| text(key, value)).collect(),
        ..span(id)
    }
}

fn traces(request: &[u8]) -> Vec<ResourceSpans> {
    ExportTraceServiceRequest::decode(request).unwrap().resource_spans
}

#[test]
fn an_export_is_encoded_unchanged() {
    let resource = Some(Resource {
        attributes: vec![text("service.name", "shop")],
        dropped_attributes_count: 3,
        ..Resource::default()
    });
    let Export::Traces(mut two_groups) = spans(vec![span(1), span(2)]) else {
        unreachable!()
    };
    two_groups.resource_spans.push(ResourceSpans {
        resource: resource.clone(),
        scope_spans: vec![
            ScopeSpans {
                scope: Some(InstrumentationScope {
                    name: "http".to_owned(),
                    ..InstrumentationScope::default()
                }),
                spans: (3..500).map(span).collect(),
                schema_url: "https://example.com/scope".to_owned(),
            },
            ScopeSpans::default(),
        ],
        schema_url: "https://example.com/resource".to_owned(),
    });
    for (export, items) in [
        (Export::Traces(two_groups), 499),
        (log("started"), 1),
        (gauge(&[1, 2]), 2),
    ] {
        let content = content(&export, None, 4).unwrap();
        assert_eq!(content.request[..4], [0; 4]);
        assert_eq!(content.request[4..], export.encode());
        assert_eq!(content.items, items);
    }
}

#[test]
fn spans_of_health_checks_are_not_forwarded() {
    let healthy = [
        ("url.path", "/health"),
        ("url.path", "/api/health"),
        ("url.path", "/healthz"),
        ("url.path", "/health/"),
        ("http.route", "/api/healthz/live"),
        ("http.target", "/health?full=1"),
    ];
    let others = [
        ("url.path", "/health?full=1"),
        ("url.path", "/healthy"),
        ("url.path", "/v1/health"),
        ("url.path", "health"),
        ("http.route", "/api/api/health"),
        ("http.target", "/healthcheck"),
        ("http.url", "/health"),
    ];
    let all = healthy.iter().chain(&others).zip(0..);
    let export = spans(all.map(|(attribute, id)| with(id, &[*attribute])).collect());
    let content = content(&export, None, 0).unwrap();
    let kept: Vec<u64> = traces(&content.request)[0].scope_spans[0]
        .spans
        .iter()
        .map(|span| u64::from_be_bytes(span.span_id.clone().try_into().unwrap()))
        .collect();
    let first = healthy.len() as u64;
    assert_eq!(kept, Vec::from_iter(first..first + others.len() as u64));
    assert_eq!(content.items as usize, others.len());
}

#[test]
fn a_path_that_is_not_a_string_is_not_a_health_check() {
    let mut number = span(1);
    number.attributes.push(KeyValue {
        key: "url.path".to_owned(),
        value: Some(AnyValue {
            value: Some(Value::IntValue(1)),
        }),
        ..KeyValue::default()
    });
    assert_eq!(content(&spans(vec![number]), None, 0).unwrap().items, 1);
}

#[test]
fn an_export_without_items_is_not_forwarded() {
    let health = spans(vec![with(1, &[("url.path", "/health")])]);
    for export in [health, spans(vec![]), gauge(&[])] {
        assert!(content(&export, Some("test"), 0).is_none(), "{export:?}");
    }
}

#[test]
fn a_resource_with_only_health_checks_is_not_forwarded() {
    let Export::Traces(mut export) = spans(vec![with(1, &[("url.path", "/health")])]) else {
        unreachable!()
    };
    let other = spans(vec![span(2)]);
    let Export::Traces(other) = other else {
        unreachable!()
    };
    export.resource_spans.extend(other.resource_spans);
    let content = content(&Export::Traces(export), None, 0).unwrap();
    assert_eq!(content.request, one(2).encode());
}

#[test]
fn the_configured_environment_replaces_that_of_the_sender() {
    let Export::Traces(mut export) = one(1) else {
        unreachable!()
    };
    export.resource_spans[0].resource = Some(Resource {
        attributes: vec![
            text("deployment.environment", "theirs"),
            text("service.name", "shop"),
        ],
        ..Resource::default()
    });
    let Export::Traces(without_resource) = one(2) else {
        unreachable!()
    };
    export.resource_spans.extend(without_resource.resource_spans);
    let content = content(&Export::Traces(export), Some("staging"), 0).unwrap();
    let environment = [
        text("deployment.environment.name", "staging"),
        text("deployment.environment", "staging"),
    ];
    let resources: Vec<Vec<KeyValue>> = traces(&content.request)
        .into_iter()
        .map(|group| group.resource.unwrap().attributes)
        .collect();
    assert_eq!(
        resources,
        [
            [&[text("service.name", "shop")], &environment[..]].concat(),
            environment.to_vec()
        ]
    );
}

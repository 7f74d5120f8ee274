//! The effects of the standard variables on a process.

mod destinations;
mod exceptions;
mod http;
mod preferences;
mod propagation;
mod proxies;
mod security;
mod timing;
mod trace_context;

use std::time::Duration;

use ::http::{Request, Response};
use otel_service::{HttpLayer, InitError, Span};
use tower::{Layer, ServiceExt};

use crate::support::{self, Behaviour, Problem, json_lines, value};

/// Signals in the spelling of variables, with their paths.
const SIGNALS: [(&str, &str); 3] = [
    ("TRACES", "/v1/traces"),
    ("METRICS", "/v1/metrics"),
    ("LOGS", "/v1/logs"),
];

/// A deadline that a working shutdown does not reach.
const LONG: Duration = Duration::from_secs(20);

fn set(name: &str, value: impl Into<String>) -> (String, String) {
    (name.to_owned(), value.into())
}

/// Returns the per-signal variable.
fn own(signal: &str, name: &str) -> String {
    format!("OTEL_EXPORTER_OTLP_{signal}_{name}")
}

/// Records a span, a measurement and a log record.
fn one_of_each() {
    static ONES: otel_service::Counter = otel_service::counter("ones", "{one}", "Ones.");
    support::block_on(Span::internal("one").run(async {
        ONES.add(1, &[]);
        tracing::info!("one");
        Ok::<_, Problem>(())
    }))
    .unwrap();
}

/// Runs the shortest scenario: one item of each signal, all delivered.
fn record() {
    let telemetry = support::init().unwrap();
    one_of_each();
    telemetry.shutdown(LONG).unwrap();
}

/// Runs a request that has an inner span; returns the trace id within the request and its `traceresponse`, which is
/// empty if the response has none.
fn request(traceparent: Option<&str>) -> (String, String) {
    support::block_on(async {
        let service = HttpLayer::new(|_| Some("/")).layer(tower::service_fn(|_: Request<()>| async {
            Span::internal("inner")
                .run(async {
                    tracing::info!("inside");
                    Ok::<_, Problem>(Response::new(otel_service::current_trace_id().unwrap()))
                })
                .await
        }));
        let mut request = Request::new(());
        if let Some(traceparent) = traceparent {
            let headers = request.headers_mut();
            headers.insert("traceparent", traceparent.parse().unwrap());
        }
        let (head, body) = support::read(service.oneshot(request)).await;
        let given = head.headers.get("traceresponse");
        (body, given.map_or("", |value| value.to_str().unwrap()).to_owned())
    })
}

#[test]
fn a_disabled_sdk_sends_nothing_and_still_has_trace_ids() {
    let name = "variables::a_disabled_sdk_sends_nothing_and_still_has_trace_ids";
    let run = support::run(name, Behaviour::Accepts, &[("OTEL_SDK_DISABLED", "true")], || {
        let telemetry = support::init().unwrap();
        let (seen, given) = request(None);
        assert_eq!((seen.len(), &*given), (32, ""));
        let (seen, given) = request(Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"));
        assert_eq!((&*seen, &*given), ("0af7651916cd43dd8448eb211c80319c", ""));
        telemetry.shutdown(Duration::from_secs(5)).unwrap();
    });
    if let Some(run) = run {
        assert_eq!(run.received.requests, 0);
        assert_eq!(json_lines(&run.stdout).len(), 2);
    }
}

#[test]
fn a_disabled_sdk_passes_on_the_context_of_the_caller_unchanged() {
    let name = "variables::a_disabled_sdk_passes_on_the_context_of_the_caller_unchanged";
    let environment = [
        ("OTEL_SDK_DISABLED", "true"),
        ("OTEL_PROPAGATORS", "tracecontext,baggage,b3"),
    ];
    support::run(name, Behaviour::Accepts, &environment, || {
        let telemetry = support::init().unwrap();
        let sent = |received: &[(&'static str, &'static str)]| {
            let service = tower::service_fn(|_: Request<()>| async {
                // The context is passed on unchanged, with or without spans.
                let inner = otel_service::without_spans(
                    Span::internal("inner").run(async { Ok::<_, Problem>(otel_service::inject_context()) }),
                );
                let mut sent = inner.await.unwrap();
                sent.sort();
                Ok::<_, Problem>(Response::new(format!("{sent:?}")))
            });
            let mut request = Request::builder().uri("/orders");
            for (name, value) in received {
                request = request.header(*name, *value);
            }
            let layer = HttpLayer::new(|_| None);
            let response = layer.layer(service).oneshot(request.body(()).unwrap());
            let (head, body) = support::block_on(support::read(response));
            assert!(!head.headers.contains_key("traceresponse"));
            body
        };
        let context = [
            ("b3", "0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-1"),
            (
                "traceparent",
                "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            ),
        ];
        assert_eq!(sent(&context), format!("{context:?}"));
        // A decision of the caller not to sample is passed on as well.
        let unsampled = [
            ("b3", "0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-0"),
            (
                "traceparent",
                "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00",
            ),
        ];
        assert_eq!(sent(&unsampled), format!("{unsampled:?}"));
        assert_eq!(sent(&[]), "[]");
        telemetry.shutdown(Duration::from_secs(5)).unwrap();
    });
}

#[test]
fn work_without_spans_keeps_the_decision_of_the_caller() {
    let name = "variables::work_without_spans_keeps_the_decision_of_the_caller";
    support::run(name, Behaviour::Accepts, &[], || {
        let telemetry = support::init().unwrap();
        let caller = [
            (
                "traceparent",
                "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            ),
            ("tracestate", "v=1"),
        ];
        let cx = otel_service::extract_context(caller);
        let attached = cx.attach();
        let inner = async { otel_service::inject_context() };
        let sent = support::block_on(otel_service::without_spans(inner));
        drop(attached);
        let mut sent: Vec<_> = sent.iter().map(|(name, value)| (&**name, &**value)).collect();
        sent.sort_unstable();
        assert_eq!(sent, caller);
        telemetry.shutdown(Duration::from_secs(5)).unwrap();
    });
}

#[test]
fn the_exporter_none_disables_a_signal() {
    let name = "variables::the_exporter_none_disables_a_signal";
    let run = support::run(
        name,
        Behaviour::Accepts,
        &[
            ("OTEL_TRACES_EXPORTER", "none"),
            ("OTEL_METRICS_EXPORTER", "none"),
            ("OTEL_SERVICE_NAME", "renamed"),
        ],
        || {
            let telemetry = support::init().unwrap();
            request(None);
            telemetry.shutdown(Duration::from_secs(5)).unwrap();
        },
    );
    if let Some(run) = run {
        assert!(run.received.spans.is_empty() && run.received.metrics.is_empty());
        assert_eq!(run.received.log("inside").trace_id.len(), 16);
        let resource = &run.received.resources[0].attributes;
        assert_eq!(value(resource, "service.name").as_deref(), Some("\"renamed\""));
    }
}

#[test]
fn the_configured_sampler_is_used() {
    let name = "variables::the_configured_sampler_is_used";
    let run = support::run(
        name,
        Behaviour::Accepts,
        &[("OTEL_TRACES_SAMPLER", "parentbased_always_off")],
        || {
            let telemetry = support::init().unwrap();
            let (_, given) = request(None);
            // Not sampled; the trace id is random.
            assert!(given.ends_with("-02"), "{given}");
            let (_, given) = request(Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"));
            assert!(given.ends_with("-01"), "{given}");
            telemetry.shutdown(Duration::from_secs(5)).unwrap();
        },
    );
    if let Some(run) = run {
        let mut names = run.received.span_names();
        names.sort_unstable();
        assert_eq!(names, ["GET /", "inner"]);
    }
}

#[test]
fn invalid_values_cause_warnings() {
    let name = "variables::invalid_values_cause_warnings";
    let run = support::run(
        name,
        Behaviour::Accepts,
        &[
            ("RUST_LOG", "==="),
            ("OTEL_TRACES_SAMPLER", "dice"),
            ("OTEL_EXPORTER_OTLP_CERTIFICATE", "/does/not/exist"),
            ("OTEL_EXPORTER_OTLP_COMPRESSION", "brotli"),
            ("OTEL_BSP_MAX_QUEUE_SIZE", "many"),
            ("OTEL_METRIC_EXPORT_INTERVAL", "x"),
        ],
        || {
            let telemetry = support::init().unwrap();
            let again = support::init();
            assert!(matches!(again, Err(InitError::AlreadyInitialised)));
            request(None);
            telemetry.shutdown(Duration::from_secs(5)).unwrap();
        },
    );
    if let Some(run) = run {
        run.received.span("inner");
        for variable in [
            "RUST_LOG",
            "OTEL_TRACES_SAMPLER",
            "OTEL_EXPORTER_OTLP_CERTIFICATE",
        ] {
            let warned = json_lines(&run.stdout)
                .iter()
                .any(|line| line["level"] == "WARN" && line["message"].as_str().unwrap().contains(variable));
            assert!(warned, "no warning for {variable}: {}", run.stdout);
        }
    }
}

#[test]
fn bodies_are_compressed_if_configured() {
    let name = "variables::bodies_are_compressed_if_configured";
    let run = support::run(
        name,
        Behaviour::Accepts,
        &[("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip")],
        || {
            let telemetry = support::init().unwrap();
            request(None);
            telemetry.shutdown(Duration::from_secs(5)).unwrap();
        },
    );
    if let Some(run) = run {
        let compressed = &run.received.compressed;
        assert_eq!((compressed.len(), run.received.requests), (3, 3));
        assert!(compressed.iter().all(|body| body.starts_with(&[0x1f, 0x8b])));
    }
}

#[test]
fn set_up_and_shutdown_work_inside_an_async_runtime() {
    let name = "variables::set_up_and_shutdown_work_inside_an_async_runtime";
    let run = support::run(name, Behaviour::Accepts, &[], || {
        support::block_on(async {
            let telemetry = support::init().unwrap();
            tracing::info!("inside");
            let stopped = tokio::task::spawn_blocking(|| telemetry.shutdown(Duration::from_secs(5))).await;
            stopped.unwrap().unwrap();
        });
    });
    if let Some(run) = run {
        run.received.log("inside");
    }
}

#[test]
fn b3_headers_are_propagated_if_configured() {
    let name = "variables::b3_headers_are_propagated_if_configured";
    support::run(name, Behaviour::Accepts, &[("OTEL_PROPAGATORS", "b3")], || {
        let telemetry = support::init().unwrap();
        let header = "0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-1".to_owned();
        let headers = support::block_on(
            Span::internal("inner")
                .parent(otel_service::extract_context([("B3", &*header)]))
                .run(async { Ok::<_, Problem>(otel_service::inject_context()) }),
        )
        .unwrap();
        assert_eq!(headers.len(), 1);
        assert_eq!(headers[0].0, "b3");
        assert!(headers[0].1.starts_with("0af7651916cd43dd8448eb211c80319c-"));
        telemetry.shutdown(Duration::from_secs(5)).unwrap();
    });
}

#[test]
fn the_console_exporter_prints_spans_and_metrics() {
    let name = "variables::the_console_exporter_prints_spans_and_metrics";
    let run = support::run(
        name,
        Behaviour::Accepts,
        &[
            ("OTEL_TRACES_EXPORTER", "console"),
            ("OTEL_METRICS_EXPORTER", "console"),
            ("OTEL_LOGS_EXPORTER", "console"),
        ],
        || {
            let telemetry = support::init().unwrap();
            request(None);
            telemetry.shutdown(Duration::from_secs(5)).unwrap();
        },
    );
    if let Some(run) = run {
        assert_eq!(run.received.requests, 0);
        let lines = json_lines(&run.stdout);
        let find = |key: &str, name: &str| {
            lines
                .iter()
                .find(|line| line[key] == name)
                .unwrap_or_else(|| panic!("no {key} {name}: {}", run.stdout))
        };
        let server = find("span", "GET /");
        assert_eq!(server["kind"], "server");
        assert_eq!(server["attributes"]["http.response.status_code"], 200);
        assert_eq!(find("span", "inner")["parent_span_id"], server["span_id"]);
        assert_eq!(find("message", "inside")["trace_id"], server["trace_id"]);
        assert_eq!(find("metric", "http_requests_total")["points"][0]["value"], 1);
        assert_eq!(
            find("metric", "http.server.request.duration")["points"][0]["count"],
            1
        );
    }
}

#[test]
fn an_untraced_request_has_no_spans_with_any_sampler() {
    let name = "variables::an_untraced_request_has_no_spans_with_any_sampler";
    let run = support::run(
        name,
        Behaviour::Accepts,
        &[("OTEL_TRACES_SAMPLER", "always_on")],
        || {
            let telemetry = support::init().unwrap();
            support::block_on(async {
                let service = HttpLayer::new(|_| None)
                    .untraced_paths(|path| path == "/health")
                    .layer(tower::service_fn(|_: Request<()>| {
                        Span::internal("ping").run(async { Ok::<_, Problem>(Response::new(String::new())) })
                    }));
                let request = Request::builder().uri("/health").body(()).unwrap();
                service.oneshot(request).await.unwrap();
            });
            telemetry.shutdown(Duration::from_secs(5)).unwrap();
        },
    );
    if let Some(run) = run {
        assert_eq!(run.received.span_names(), Vec::<&str>::new());
        assert_eq!(run.received.numbers("http_requests_total").len(), 1);
    }
}

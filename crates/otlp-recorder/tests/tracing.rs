//! Spans of `tracing` beside spans of the OpenTelemetry API: parents, attributes, status.
#![cfg(test)]
#![cfg(feature = "tracing")]

use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use opentelemetry::logs::AnyValue;
use opentelemetry::trace::{SpanKind, TraceContextExt};
use opentelemetry::{Context, InstrumentationScope};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::{Span, span, status::StatusCode};
use otlp_recorder::{CONTEXT_TARGET, CustomExporter, Pipeline, Request, SpanLayer, SpanStart, Tracer};
use prost::Message as _;
use tracing::field::Empty;
use tracing::{Event, Instrument as _, Subscriber, error, error_span, info_span, instrument, warn};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::{self, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;

/// A received span and the name of its scope.
#[derive(Debug)]
struct Received {
    scope: String,
    span: Span,
}

impl Received {
    fn attribute(&self, key: &str) -> Option<&Value> {
        let attribute = self.span.attributes.iter().find(|attribute| attribute.key == key);
        attribute?.value.as_ref()?.value.as_ref()
    }

    fn text(&self, key: &str) -> Option<&str> {
        match self.attribute(key)? {
            Value::StringValue(text) => Some(text),
            other => panic!("{key} is {other:?}"),
        }
    }

    fn status(&self) -> (StatusCode, &str) {
        let status = self.span.status.as_ref();
        status.map_or((StatusCode::Unset, ""), |status| (status.code(), &status.message))
    }
}

/// The spans that a program exported.
#[derive(Debug)]
struct Spans(Vec<Received>);

impl Spans {
    fn get(&self, name: &str) -> &Received {
        let mut named = self.0.iter().filter(|received| received.span.name == name);
        let found = named
            .next()
            .unwrap_or_else(|| panic!("no span {name} in {self:?}"));
        assert!(named.next().is_none(), "several spans {name}");
        found
    }

    /// Returns the names of a span and of its ancestors, up to the root.
    fn path(&self, name: &str) -> Vec<&str> {
        let mut span = &self.get(name).span;
        let mut path = vec![span.name.as_str()];
        while !span.parent_span_id.is_empty() {
            let parent = self
                .0
                .iter()
                .find(|parent| parent.span.span_id == span.parent_span_id);
            let parent = &parent
                .unwrap_or_else(|| panic!("the parent of {} is missing", span.name))
                .span;
            assert_eq!(parent.trace_id, span.trace_id);
            path.push(&parent.name);
            span = parent;
        }
        path
    }
}

/// Runs `work` with a subscriber that has the layer returned by `configure`, and returns the exported spans.
async fn spans_with(configure: impl FnOnce(SpanLayer) -> SpanLayer, work: impl AsyncFnOnce(Tracer)) -> Spans {
    let requests = Arc::new(Mutex::new(Vec::<Request>::new()));
    let kept = Arc::clone(&requests);
    let keep = move |request: &Request| {
        kept.lock().unwrap().push(request.clone());
        Ok(())
    };
    let pipeline = Pipeline::builder()
        .spans(CustomExporter::new("memory", keep))
        .start();
    let layer = configure(SpanLayer::new(pipeline.recorder()));
    let guard = tracing_subscriber::registry().with(layer).set_default();
    work(
        pipeline
            .recorder()
            .tracer(InstrumentationScope::builder("api").build()),
    )
    .await;
    drop(guard);
    pipeline.shutdown(Duration::from_secs(5)).unwrap();
    let mut spans = Vec::new();
    for request in requests.lock().unwrap().iter() {
        let request = ExportTraceServiceRequest::decode(request.protobuf().clone()).unwrap();
        for scope in request
            .resource_spans
            .iter()
            .flat_map(|resource| &resource.scope_spans)
        {
            spans.extend(scope.spans.iter().map(|span| {
                Received {
                    scope: scope
                        .scope
                        .as_ref()
                        .map(|scope| scope.name.clone())
                        .unwrap_or_default(),
                    span: span.clone(),
                }
            }));
        }
    }
    Spans(spans)
}

async fn spans(work: impl AsyncFnOnce(Tracer)) -> Spans {
    spans_with(|layer| layer, work).await
}

/// Runs `work` in a span of the OpenTelemetry API, across its awaits.
async fn within<T>(tracer: &Tracer, name: &'static str, work: impl Future<Output = T>) -> T {
    let cx = Context::map_current(|parent| {
        let start = SpanStart::new(name, SpanKind::Internal);
        parent.with_span(tracer.start(parent, start, |_| ()))
    });
    let mut work = pin!(work);
    std::future::poll_fn(|task| {
        let _attached = cx.clone().attach();
        work.as_mut().poll(task)
    })
    .await
}

#[instrument(fields(otel.kind = "client"), err)]
async fn library_call(item: u64, who: &str) -> Result<(), std::io::Error> {
    tokio::task::yield_now().await;
    match item {
        0 => Err(std::io::Error::other("no such item")),
        _ => Ok(()),
    }
}

#[tokio::test(flavor = "current_thread")]
async fn spans_of_both_apis_nest_across_awaits_and_tasks() {
    let spans = spans(async |tracer| {
        let inner = async {
            library_call(7, "alice").await.unwrap();
            let task = async {
                tokio::task::yield_now().await;
                within(&tracer.clone(), "api in a task", tokio::task::yield_now()).await;
            };
            let sibling = async { within(&tracer, "api beside it", tokio::task::yield_now()).await };
            let task = task.instrument(info_span!("task"));
            tokio::join!(task, sibling);
        };
        let middle = async {
            let span = info_span!("tracing within api");
            within(&tracer, "api within tracing", inner)
                .instrument(span)
                .await;
        };
        within(&tracer, "root", middle).await;
        info_span!("another root");
    })
    .await;
    assert_eq!(
        spans.path("library_call"),
        ["library_call", "api within tracing", "tracing within api", "root"]
    );
    assert_eq!(
        spans.path("api in a task")[..3],
        ["api in a task", "task", "api within tracing"]
    );
    assert_eq!(
        spans.path("api beside it")[..2],
        ["api beside it", "api within tracing"]
    );
    assert_eq!(spans.path("another root"), ["another root"]);
    let call = spans.get("library_call");
    assert_eq!(call.span.kind(), span::SpanKind::Client);
    assert_eq!(call.scope, "tracing");
    assert_eq!(call.attribute("item"), Some(&Value::IntValue(7)));
    assert_eq!(call.text("who"), Some("alice"));
    assert!(call.text("code.file.path").unwrap().ends_with("tests/tracing.rs"));
    assert!(matches!(
        call.attribute("code.line.number"),
        Some(Value::IntValue(1..))
    ));
    assert_eq!(call.attribute("otel.kind"), None);
    assert_eq!(call.status(), (StatusCode::Unset, ""));
    assert_eq!(spans.get("task").span.kind(), span::SpanKind::Internal);
}

#[tokio::test]
async fn a_spawned_task_keeps_its_parent_if_it_is_instrumented() {
    let spans = spans(async |tracer| {
        let outer = info_span!("outer");
        let spawned = async move { within(&tracer, "api", tokio::task::yield_now()).await };
        let dispatched = tracing::instrument::WithSubscriber::with_current_subscriber(
            spawned.instrument(info_span!(parent: &outer, "spawned")),
        );
        drop(outer);
        tokio::spawn(dispatched).await.unwrap();
        assert!(!Context::current().has_active_span());
    })
    .await;
    assert_eq!(spans.path("api"), ["api", "spawned", "outer"]);
}

#[tokio::test(flavor = "current_thread")]
async fn a_context_span_carries_the_context_to_another_thread() {
    let spans = spans(async |tracer| {
        let carried = within(&tracer, "api", async {
            error_span!(target: CONTEXT_TARGET, "context")
        })
        .await;
        let dispatch = tracing::dispatcher::get_default(Clone::clone);
        let work = move || {
            tracing::dispatcher::with_default(&dispatch, || {
                carried.in_scope(|| {
                    error!("not an error of the carried span");
                    info_span!("in a thread").in_scope(|| ());
                });
            });
        };
        std::thread::spawn(work).join().unwrap();
    })
    .await;
    assert_eq!(spans.path("in a thread"), ["in a thread", "api"]);
    assert_eq!(spans.get("api").status(), (StatusCode::Unset, ""));
    assert_eq!(spans.0.len(), 2);
}

#[tokio::test(flavor = "current_thread")]
async fn fields_set_the_name_the_status_and_later_attributes() {
    let spans = spans(async |tracer| {
        let renamed = info_span!(
            "static",
            otel.name = "GET /{id}",
            late = Empty,
            otel.status_code = Empty,
            otel.status_message = Empty
        );
        renamed.record("late", 1.5);
        renamed.record("otel.status_code", "ERROR");
        renamed.record("otel.status_message", "refused");
        library_call(0, "bob").await.unwrap_err();
        info_span!("failed").in_scope(|| error!("it broke"));
        let handled = info_span!("handled");
        handled.in_scope(|| {
            let cx = Context::current_with_span(tracer.start(
                &Context::current(),
                SpanStart::new("inner", SpanKind::Internal),
                |_| (),
            ));
            let _attached = cx.attach();
            error!("this concerns the inner span");
        });
        let other = info_span!(parent: None, "other");
        handled.follows_from(&other);
    })
    .await;
    let renamed = spans.get("GET /{id}");
    assert_eq!(renamed.attribute("late"), Some(&Value::DoubleValue(1.5)));
    assert_eq!(renamed.status(), (StatusCode::Error, "refused"));
    let failed = spans.get("library_call");
    assert_eq!(failed.status(), (StatusCode::Error, "no such item"));
    assert_eq!(spans.get("failed").status(), (StatusCode::Error, ""));
    let handled = spans.get("handled");
    assert_eq!(handled.status(), (StatusCode::Unset, ""));
    assert_eq!(handled.span.links[0].span_id, spans.get("other").span.span_id);
}

#[tokio::test(flavor = "current_thread")]
async fn errors_are_messages_of_exceptions_and_set_the_status() {
    let spans = spans(async |_| {
        let root = std::io::Error::other("root");
        let error = &root as &dyn std::error::Error;
        drop(info_span!("given", error, other = 1));
        drop(info_span!("given number", err = 5));
        drop(info_span!("given list", err = ?["a", "b"]));
        let late = info_span!("late", err = Empty);
        late.record("err", tracing::field::debug(&root));
        let late = info_span!("late list", error = Empty);
        late.record("error", tracing::field::debug(["a", "b"]));
        info_span!("flag", error = Empty).record("error", true);
        info_span!("no flag", error = Empty).record("error", false);
        info_span!("fine", error = Empty, otel.status_code = "ok").record("error", "retried");
        info_span!("event").in_scope(|| error!(err = %root, error.type = "io.other", "it broke"));
        info_span!("exception")
            .in_scope(|| error!(exception.type = "io", exception.message = "gone", "it broke"));
        info_span!("warned").in_scope(|| warn!(error, "it broke"));
    })
    .await;
    let debug = r#"Custom { kind: Other, error: "root" }"#;
    let (unset, failed) = (StatusCode::Unset, StatusCode::Error);
    for (name, message, status, description) in [
        ("given", Some("root"), unset, ""),
        ("given number", Some("5"), unset, ""),
        ("given list", Some(r#"["a","b"]"#), unset, ""),
        ("late", Some(debug), failed, debug),
        ("late list", Some(r#"["a","b"]"#), failed, r#"["a","b"]"#),
        ("flag", None, failed, ""),
        ("no flag", None, unset, ""),
        ("fine", Some("retried"), StatusCode::Ok, ""),
        ("event", None, failed, "root"),
        ("exception", None, failed, "gone"),
        ("warned", None, unset, ""),
    ] {
        let span = spans.get(name);
        assert_eq!(span.status(), (status, description), "{name}");
        assert_eq!(span.text("exception.message"), message, "{name}");
        // `error` is the namespace of `error.type`.
        assert!(span.attribute("error").is_none() && span.attribute("err").is_none());
    }
    assert_eq!(spans.get("event").text("error.type"), Some("io.other"));
    assert_eq!(spans.get("exception").text("error.type"), Some("io"));
    assert_eq!(spans.get("given").attribute("other"), Some(&Value::IntValue(1)));
}

#[tokio::test(flavor = "current_thread")]
async fn a_skipped_context_and_suppressed_telemetry_record_no_spans() {
    #[derive(Debug)]
    struct Skipped;

    let skipping = |layer: SpanLayer| layer.skip_if(|cx| cx.get::<Skipped>().is_some());
    let spans = spans_with(skipping, async |tracer| {
        let cx = Context::current_with_value(Skipped);
        let attached = cx.attach();
        info_span!("skipped").in_scope(|| info_span!("inner").in_scope(|| ()));
        drop(attached);
        let suppressed = Context::enter_telemetry_suppressed_scope();
        info_span!("suppressed").in_scope(|| ());
        drop(suppressed);
        within(&tracer, "kept", async {}).await;
    })
    .await;
    assert_eq!(spans.0.len(), 1, "{spans:?}");
}

#[test]
fn a_thread_that_exits_within_a_span_does_not_abort() {
    let pipeline = Pipeline::builder().start();
    let subscriber = tracing_subscriber::registry().with(SpanLayer::new(pipeline.recorder()));
    let dispatch = tracing::Dispatch::new(subscriber);
    let thread = std::thread::spawn(move || {
        tracing::dispatcher::with_default(&dispatch, || {
            std::mem::forget(info_span!("entered").entered());
        });
    });
    thread.join().unwrap();
    pipeline.shutdown(Duration::from_secs(1)).unwrap();
}

type Fields = Vec<(&'static str, AnyValue)>;

/// Keeps the fields of the current span at each event.
#[derive(Clone, Default)]
struct FieldsAtEvents(Arc<Mutex<Vec<Fields>>>);

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for FieldsAtEvents {
    fn on_event(&self, _: &Event<'_>, cx: layer::Context<'_, S>) {
        let span = cx.lookup_current().unwrap();
        self.0.lock().unwrap().push(SpanLayer::fields(&span));
    }
}

#[test]
fn fields_that_are_recorded_later_are_kept_and_redacted() {
    let pipeline = Pipeline::builder()
        .spans(CustomExporter::new("test", |_| Ok(())))
        .redact(|text| text.replace("secret", "***").into())
        .start();
    let events = FieldsAtEvents::default();
    let subscriber = tracing_subscriber::registry()
        .with(SpanLayer::new(pipeline.recorder()).keep_fields())
        .with(events.clone())
        .set_default();
    let long = "x".repeat(1_000);
    info_span!(
        "a",
        otel.kind = "server",
        first = "secret",
        second = Empty,
        third = Empty
    )
    .in_scope(|| {
        tracing::info!("at the start");
        tracing::Span::current()
            .record("second", 7)
            .record("third", &long);
        tracing::Span::current().record("second", "a secret");
        tracing::info!("later");
    });
    drop(subscriber);
    let seen = events.0.lock().unwrap();
    assert_eq!(seen[0], [("first", AnyValue::from("***"))]);
    // A value that replaces another one comes last.
    let later = [("first", "***"), ("third", &long), ("second", "a ***")];
    assert_eq!(
        seen[1],
        later.map(|(name, text)| (name, AnyValue::from(text.to_owned())))
    );
}

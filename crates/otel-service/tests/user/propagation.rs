//! Propagators of the program, and the environment of child processes.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use opentelemetry::baggage::BaggageExt as _;
use opentelemetry::propagation::text_map_propagator::FieldIter;
use opentelemetry::propagation::{Extractor, Injector, TextMapPropagator};
use otel_service::testing::{self, InMemory};
use otel_service::{Context, Service, Span, Telemetry};

#[test]
fn a_carrier_lists_its_keys() {
    #[derive(Debug)]
    struct Listing(Arc<Mutex<Vec<String>>>);
    impl TextMapPropagator for Listing {
        fn inject_context(&self, _: &Context, _: &mut dyn Injector) {}

        fn extract_with_context(&self, cx: &Context, carrier: &dyn Extractor) -> Context {
            self.0
                .lock()
                .unwrap()
                .extend(carrier.keys().into_iter().map(str::to_owned));
            cx.clone()
        }

        fn fields(&self) -> FieldIter<'_> {
            FieldIter::new(&[])
        }
    }

    const CHILD: &str = "LISTING";
    let test = "propagation::a_carrier_lists_its_keys";
    if std::env::var_os(CHILD).is_none() {
        // A process of its own, because propagators are global.
        let mut child = std::process::Command::new(std::env::current_exe().unwrap());
        let output = child.args([test, "--exact"]).env(CHILD, "1").output().unwrap();
        let shown = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && shown.contains("1 passed"), "{shown}");
        return;
    }
    let listed = Arc::new(Mutex::new(Vec::new()));
    let builder = Telemetry::builder(Service::new("listing", "0")).propagator(Listing(Arc::clone(&listed)));
    let _telemetry = builder.exporter(InMemory::default().exporter()).init().unwrap();
    otel_service::extract_context([("x-own", "1"), ("x-other", "2")]);
    assert_eq!(*listed.lock().unwrap(), ["x-own", "x-other"]);
}

#[test]
fn the_environment_carries_a_context_to_a_child_process() {
    const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    if std::env::var_os("TRACEPARENT").is_none() {
        let child = std::process::Command::new(std::env::current_exe().unwrap())
            .args([
                "propagation::the_environment_carries_a_context_to_a_child_process",
                "--exact",
            ])
            .envs([("TRACEPARENT", PARENT), ("BAGGAGE", "tenant=blue")])
            .output()
            .unwrap();
        let output = String::from_utf8_lossy(&child.stdout);
        assert!(child.status.success() && output.contains("1 passed"), "{output}");
        return;
    }
    let telemetry = testing::telemetry();
    let cx = otel_service::environment_context();
    assert_eq!(cx.baggage().get("tenant").unwrap().as_str(), "blue");
    let attached = cx.attach();
    Span::internal("child").in_scope(|| {
        let variables: BTreeMap<_, _> = otel_service::context_variables().into_iter().collect();
        assert!(variables["TRACEPARENT"].starts_with("00-0af7651916cd43dd8448eb211c80319c-"));
        assert!(!variables["TRACEPARENT"].contains("b7ad6b7169203331"));
        assert_eq!(variables["BAGGAGE"], "tenant=blue");
    });
    drop(attached);
    let spans = telemetry.spans("0af7651916cd43dd8448eb211c80319c");
    assert_eq!(spans[0].parent_span_id, 0xb7ad_6b71_6920_3331_u64.to_be_bytes());
}

//! Telemetry in memory, for tests of the telemetry that a program records.
//!
//! ```
//! use otel_service::{Counter, KeyValue, Span, counter, testing};
//! # use std::convert::Infallible;
//! # async fn example() {
//!
//! static LOGINS: Counter = counter("auth.login.attempts", "{attempt}", "Login attempts.");
//!
//! let telemetry = testing::telemetry();
//! let trace_id = telemetry
//!     .in_trace(async {
//!         LOGINS.add(1, &[KeyValue::new("status", "success")]);
//!         Span::internal("user.login").run(async { Ok::<_, Infallible>(()) }).await.unwrap();
//!     })
//!     .await;
//! let spans = telemetry.spans(&trace_id);
//! assert_eq!(spans[0].name, "user.login");
//! # }
//! ```

use std::panic;
use std::pin::pin;
use std::sync::OnceLock;
use std::time::Duration;

use opentelemetry::Context;
use opentelemetry::trace::{SpanContext, TraceContextExt, TraceFlags, TraceState};
use opentelemetry_proto::tonic::logs::v1::LogRecord;
use opentelemetry_proto::tonic::metrics::v1::Metric;
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_sdk::trace::{IdGenerator, RandomIdGenerator};
pub use otlp_recorder::InMemory;

use crate::context::within;
use crate::init::Telemetry;
use crate::service::{LogOutput, Service};

/// Time limit of an export to memory; a working program never reaches it.
const DEADLINE: Duration = Duration::from_secs(30);

/// The telemetry of a test process.
#[derive(Debug)]
pub struct TestTelemetry {
    telemetry: Telemetry,
    memory: InMemory,
}

/// Sets up the telemetry of this process on the first call, and returns it. All signals are kept in memory, instead of
/// going to the exporters that the environment selects, and nothing is written to standard output. Panics are
/// recorded and also printed as before, because a test fails with one.
///
/// The tests of a process share the telemetry; [`TestTelemetry::in_trace`] keeps their spans and log records apart.
///
/// # Panics
///
/// Panics if the program has set up telemetry or a `tracing` subscriber itself.
pub fn telemetry() -> &'static TestTelemetry {
    static TELEMETRY: OnceLock<TestTelemetry> = OnceLock::new();
    TELEMETRY.get_or_init(|| {
        let memory = InMemory::default();
        let service = Service {
            log_output: LogOutput::Off,
            ..Service::new("test", "0")
        };
        let print = panic::take_hook();
        let telemetry = Telemetry::builder(service).exporter(memory.exporter()).init();
        let telemetry = telemetry.expect("nothing else sets up telemetry in this process");
        let record = panic::take_hook();
        panic::set_hook(Box::new(move |panic| {
            print(panic);
            record(panic);
        }));
        TestTelemetry { telemetry, memory }
    })
}

impl TestTelemetry {
    /// Runs `work` in a new sampled trace, and returns the trace id as 32 hexadecimal digits.
    pub async fn in_trace<T>(&self, work: impl Future<Output = T>) -> String {
        let ids = RandomIdGenerator::default();
        let trace_id = ids.new_trace_id();
        let (flags, state) = (TraceFlags::SAMPLED, TraceState::default());
        let remote = SpanContext::new(trace_id, ids.new_span_id(), flags, true, state);
        within(&Context::new().with_remote_span_context(remote), pin!(work)).await;
        trace_id.to_string()
    }

    /// Returns the ended spans of a trace.
    #[must_use]
    pub fn spans(&self, trace_id: &str) -> Vec<Span> {
        let mut spans = self.flushed().spans();
        spans.retain(|span| hex(&span.trace_id) == trace_id);
        spans
    }

    /// Returns the log records of a trace.
    #[must_use]
    pub fn log_records(&self, trace_id: &str) -> Vec<LogRecord> {
        let mut records = self.flushed().log_records();
        records.retain(|record| hex(&record.trace_id) == trace_id);
        records
    }

    /// Returns the current metrics of the process.
    #[must_use]
    pub fn metrics(&self) -> Vec<Metric> {
        self.flushed().metrics()
    }

    /// Exports everything recorded so far, and returns the memory.
    ///
    /// # Panics
    ///
    /// Panics if a callback of an instrument takes too long.
    pub fn flushed(&self) -> &InMemory {
        self.telemetry
            .flush(DEADLINE)
            .expect("an export to memory succeeds");
        &self.memory
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

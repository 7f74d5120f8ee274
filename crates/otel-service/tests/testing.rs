//! The telemetry of a test process and its panics.
#![cfg(test)]

use std::panic::{catch_unwind, set_hook};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use otel_service::testing;

static PRINTED: AtomicUsize = AtomicUsize::new(0);

#[test]
fn a_panic_is_recorded_and_printed_as_before() {
    set_hook(Box::new(|_| {
        PRINTED.fetch_add(1, Relaxed);
    }));
    let telemetry = testing::telemetry();
    catch_unwind(|| panic!("a constant")).unwrap_err();
    assert_eq!(PRINTED.load(Relaxed), 1);
    let records = telemetry.flushed().log_records();
    let has_message = |record: &&_| format!("{record:?}").contains("a constant");
    assert_eq!(records.iter().filter(has_message).count(), 1);
}

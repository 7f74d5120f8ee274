//! Tests of the whole store: limits, searches, metrics and time windows.

mod bounds;
mod clocks;
mod compare;
mod map;
mod metrics;
mod order;
mod repeats;
mod search;
mod window;

use super::{LogSearch, Store, StoredRecord, TraceId, TraceSearch, fixture};
use opentelemetry_proto::tonic::{common::v1::any_value::Value, logs::v1::LogRecord};
use prost::Message as _;

const LIMIT: usize = 1 << 20;

/// Returns the trace id for a number.
fn id(number: u64) -> TraceId {
    TraceId::from_bytes(&fixture::trace_id(number)).expect("an id")
}

/// Returns the hexadecimal numbers of the traces found, newest first.
fn found(store: &Store, search: &TraceSearch) -> Vec<String> {
    let search = TraceSearch {
        limit: 500,
        ..search.clone()
    };
    let found = store.search_traces(&search);
    let numbers = found.entries.iter().map(|trace| trace.trace_id.to_string());
    numbers.map(|id| id.trim_start_matches('0').to_owned()).collect()
}

fn bodies(store: &Store, search: &LogSearch) -> Vec<String> {
    let search = LogSearch {
        limit: 500,
        ..search.clone()
    };
    let body = |record: &StoredRecord| {
        let record = LogRecord::decode(&*record.encoded).expect("a valid record");
        match record.body.and_then(|body| body.value) {
            Some(Value::StringValue(body)) => body,
            other => panic!("{other:?}"),
        }
    };
    store.search_logs(&search).entries.iter().map(body).collect()
}

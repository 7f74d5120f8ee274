//! Telemetry that is kept on disk, seen through the pages' explorer.

mod filters;
mod large;

use std::{path::PathBuf, sync::Arc, time::Duration};

use super::*;
use crate::{
    config::Addresses,
    ingest::Received,
    pages::Explorer,
    store::{
        LogSearch, TraceSearch,
        fixture::{MS, NOW, failed, record, records, span, spans},
    },
};

/// Database that is removed at the end of a test.
struct File(PathBuf);

impl File {
    fn new(name: &str) -> Self {
        let file = Self(std::env::temp_dir().join(format!("archive-{name}-{}", std::process::id())));
        file.remove();
        file
    }

    fn remove(&self) {
        for suffix in ["", "-wal", "-shm"] {
            let _ = std::fs::remove_file(format!("{}{suffix}", self.0.display()));
        }
    }

    fn keep(&self) -> Keep {
        Keep::new(&self.0).max_age(Duration::from_secs(u64::MAX / 2_000_000_000))
    }
}

impl Drop for File {
    fn drop(&mut self) {
        self.remove();
    }
}

/// Starts an observatory's memory and archive.
fn start(keep: &Keep, memory: usize) -> Explorer {
    let archive = Arc::new(Archive::open(keep, memory).expect("a database"));
    let store = Arc::new(Store::new(memory));
    archive.restore(&store);
    let address = std::net::SocketAddr::from(([127, 0, 0, 1], 1));
    Explorer {
        store,
        archive: Some(archive),
        addresses: Addresses {
            http: address,
            grpc: None,
            health: None,
            pages: address,
        },
        received: Arc::new(Received::default()),
        forwarder: None,
        first_steps: crate::first_steps::FirstSteps::default(),
    }
}

fn insert(explorer: &Explorer, export: Export, now: u64) {
    let archive = explorer.archive.as_ref().expect("an archive");
    archive.write(&export, now);
    explorer.store.insert_at(export, now);
}

/// Inserts traces of two spans from two services and one record, one for each number, a second apart.
fn insert_traces(explorer: &Explorer, numbers: std::ops::Range<u64>) {
    for number in numbers {
        let time = NOW + number * 1_000 * MS;
        let at = |mut span: opentelemetry_proto::tonic::trace::v1::Span| {
            span.start_time_unix_nano = time + span.start_time_unix_nano - NOW;
            span.end_time_unix_nano = time + span.end_time_unix_nano - NOW;
            span
        };
        let child = at(span(number, 2, 1, "step"));
        let child = if number % 10 == 0 { failed(child) } else { child };
        insert(explorer, spans("worker", vec![child]), time);
        insert(
            explorer,
            spans("app", vec![at(span(number, 1, 0, &format!("root {number}")))]),
            time,
        );
        let mut log = record(number, 9, &format!("log {number}"));
        log.time_unix_nano = time;
        insert(explorer, records("app", vec![log]), time);
    }
}

fn number(id: TraceId) -> u64 {
    u64::from_str_radix(&id.to_string(), 16).expect("a number")
}

/// Returns the numbers of all traces on all pages.
fn all_traces(explorer: &Explorer, search: &TraceSearch) -> Vec<u64> {
    let mut search = search.clone();
    let mut numbers = Vec::new();
    loop {
        let page = explorer.search_traces(&search);
        numbers.extend(page.entries.iter().map(|trace| number(trace.trace_id)));
        match page.next {
            Some(next) => search.before = Some(next),
            None => return numbers,
        }
    }
}

fn all_records(explorer: &Explorer) -> Vec<u64> {
    let mut search = LogSearch {
        limit: 7,
        ..LogSearch::default()
    };
    let mut times = Vec::new();
    loop {
        let page = explorer.search_logs(&search);
        times.extend(
            page.entries
                .iter()
                .map(|record| (record.time - NOW) / (1_000 * MS)),
        );
        match page.next {
            Some(next) => search.before = Some(next),
            None => return times,
        }
    }
}

fn flush(explorer: &Explorer) {
    explorer.archive.as_ref().expect("an archive").finish();
}

const PAGE: TraceSearch = TraceSearch {
    service: None,
    name: None,
    status: None,
    min_duration: None,
    max_duration: None,
    attributes: Vec::new(),
    text: None,
    query: None,
    from: None,
    to: None,
    before: None,
    above: None,
    limit: 7,
};

#[test]
fn what_memory_evicts_and_what_earlier_processes_kept_is_listed_once_and_in_order() {
    let file = File::new("lists");
    let memory = 64 << 10;
    let explorer = start(&file.keep(), memory);
    insert_traces(&explorer, 1..200);
    flush(&explorer);
    let expected: Vec<u64> = (1..200).rev().collect();
    let check = |explorer: &Explorer, expected: &[u64]| {
        assert_eq!(all_traces(explorer, &PAGE), expected);
        assert_eq!(all_records(explorer), expected);
        for number in [1, 100, 199] {
            let id = crate::store::fixture::trace_id(number);
            let trace = explorer
                .trace(TraceId::from_bytes(&id).expect("an id"), false)
                .expect("kept");
            assert_eq!((trace.spans.len(), trace.logs.len()), (2, 1), "{number}");
            assert_eq!(&*trace.summary.root.name, format!("root {number}"));
        }
        for id in expected.iter().step_by(5) {
            let query = crate::store::parse_query(&format!("trace={id:032x}"), crate::store::Subject::Spans);
            let one = TraceSearch {
                query: Some(query.expect("a query")),
                ..PAGE
            };
            assert_eq!(all_traces(explorer, &one), [*id]);
        }
        let failed = TraceSearch {
            status: Some(crate::store::StatusFilter::Error),
            service: Some("worker".to_owned()),
            ..PAGE
        };
        let tens: Vec<u64> = expected
            .iter()
            .copied()
            .filter(|number| number % 10 == 0)
            .collect();
        assert_eq!(all_traces(explorer, &failed), tens);
    };
    assert!(explorer.store.usage().evicted.spans > 0);
    check(&explorer, &expected);
    drop(explorer);

    // Another process.
    let explorer = start(&file.keep(), memory);
    assert!(
        explorer.store.usage().kept.spans > 0,
        "the newest part is in memory"
    );
    check(&explorer, &expected);
    insert_traces(&explorer, 200..220);
    flush(&explorer);
    check(&explorer, &(1..220).rev().collect::<Vec<_>>());
}

#[test]
fn the_oldest_is_removed_beyond_the_bounds_of_size_and_age() {
    let file = File::new("bounds");
    let explorer = start(&file.keep(), 1 << 20);
    insert_traces(&explorer, 1..500);
    flush(&explorer);
    let connection = Connection::open(&file.0).expect("a database");
    let rows = || {
        connection
            .query_row("SELECT count(*) FROM items", [], |row| row.get::<_, u64>(0))
            .expect("a count")
    };
    assert_eq!(rows(), 3 * 499);
    writer::enforce(&connection, &file.keep().max_bytes(200 << 10)).expect("removed");
    assert!((100..1_400).contains(&rows()), "{}", rows());
    let explorer = start(&file.keep(), 1 << 20);
    let kept = all_traces(&explorer, &PAGE);
    assert_eq!(kept.first(), Some(&499));
    assert!(kept.len() < 499);
    // All of it arrived in the future, so nothing is too old yet.
    let before = rows();
    writer::enforce(&connection, &file.keep().max_age(Duration::from_secs(60))).expect("nothing removed");
    assert_eq!(rows(), before);
    connection
        .execute(
            "UPDATE items SET arrived = 5 WHERE number < (SELECT max(number) FROM items)",
            [],
        )
        .expect("aged");
    writer::enforce(&connection, &file.keep().max_age(Duration::from_secs(60))).expect("removed");
    assert_eq!(rows(), 1);
}

#[test]
fn clear_removes_what_is_kept() {
    let file = File::new("clear");
    let explorer = start(&file.keep(), 1 << 20);
    insert_traces(&explorer, 1..5);
    explorer.store.clear();
    explorer.archive.as_ref().expect("an archive").clear();
    insert_traces(&explorer, 5..6);
    flush(&explorer);
    drop(explorer);
    let explorer = start(&file.keep(), 1 << 20);
    assert_eq!(all_traces(&explorer, &PAGE), [5]);
}

#[test]
fn exports_include_what_only_the_file_has() {
    let file = File::new("export");
    let explorer = start(&file.keep(), 64 << 10);
    insert_traces(&explorer, 1..3);
    assert!(explorer.memory_since().is_none(), "memory has everything");
    insert_traces(&explorer, 3..200);
    flush(&explorer);
    assert!(explorer.memory_since().is_some());
    let mut lines = Vec::new();
    let mut progress = crate::store::Progress::default();
    while let Some(piece) = explorer.export_piece(&mut progress) {
        lines.push(serde_json::to_string(&piece.expect("a piece")).expect("JSON"));
    }
    let text = lines.join("\n");
    for number in 1..200 {
        for part in [format!("\"root {number}\""), format!("\"log {number}\"")] {
            assert_eq!(text.matches(&part).count(), 1, "{part}");
        }
    }
    assert_eq!(text.matches("\"step\"").count(), 199);
    let first = TraceId::from_bytes(&crate::store::fixture::trace_id(1)).expect("an id");
    let piece = serde_json::to_string(&explorer.export_trace(first).expect("kept")).expect("JSON");
    assert!(piece.contains("\"root 1\"") && piece.contains("\"step\"") && piece.contains("\"log 1\""));
}

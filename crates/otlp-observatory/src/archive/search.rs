//! Lists of the archive. Rows are visited in order of time; the telemetry of each is put into a store of its own, so that the
//! same searches apply to memory and disk.

use std::time::{Duration, Instant};

use rusqlite::params;

use super::{Archive, decoded, rows::stored};
use crate::{
    export::Signal,
    store::{
        LogSearch, SearchPage, Store, StoredRecord, StoredTrace, TimePosition, TraceId, TraceSearch,
        TraceSummary,
    },
};

/// Maximum duration of a search.
const MAX_SEARCH_TIME: Duration = Duration::from_millis(250);

/// Limit of a store that holds one trace; the searches bound their results.
const UNLIMITED: usize = usize::MAX / 16;

/// Row of the archive without its body.
struct Visited {
    position: TimePosition,
    trace: Option<TraceId>,
}

impl Archive {
    /// Returns a trace; `None` if it is not in the archive.
    pub(crate) fn stored_trace(&self, id: TraceId, align: bool) -> rusqlite::Result<Option<StoredTrace>> {
        let store = Store::new(UNLIMITED);
        for signal in [Signal::Traces, Signal::Logs] {
            for (export, arrived) in self.trace(id, signal)? {
                store.insert_at(export, arrived);
            }
        }
        Ok(store.trace(id, align))
    }

    /// Returns the traces below `before` that match `search`, newest first. A trace is at the position of its earliest row.
    pub(crate) fn search_traces(
        &self,
        search: &TraceSearch,
        before: TimePosition,
        limit: usize,
    ) -> rusqlite::Result<SearchPage<TraceSummary>> {
        let one = TraceSearch {
            before: None,
            above: None,
            limit: 1,
            ..search.clone()
        };
        self.collect(Signal::Traces, before, limit, |visited| {
            let Some(id) = visited
                .trace
                .filter(|id| self.is_first(*id, visited.position).unwrap_or(true))
            else {
                return Ok(None);
            };
            let store = Store::new(UNLIMITED);
            for (export, arrived) in self.trace(id, Signal::Traces)? {
                store.insert_at(export, arrived);
            }
            let Some(mut summary) = store.search_traces(&one).entries.pop() else {
                return Ok(None);
            };
            summary.logs = self.count_records(id)?;
            Ok(Some(summary))
        })
    }

    /// Returns the records below `before` that match `search`, newest first.
    pub(crate) fn search_logs(
        &self,
        search: &LogSearch,
        before: TimePosition,
        limit: usize,
    ) -> rusqlite::Result<SearchPage<StoredRecord>> {
        let one = LogSearch {
            before: None,
            above: None,
            after: None,
            limit: 1,
            ..search.clone()
        };
        self.collect(Signal::Logs, before, limit, |visited| {
            if search.trace.is_some() && visited.trace != search.trace {
                return Ok(None);
            }
            let body = self.reader().query_row(
                "SELECT body FROM items WHERE number = ?1",
                [stored(visited.position.number)],
                |row| row.get::<_, Vec<u8>>(0),
            )?;
            let store = Store::new(UNLIMITED);
            if let Some(export) = decoded(Signal::Logs as u8, &body) {
                store.insert_at(export, visited.position.time);
            }
            Ok(store.search_logs(&one).entries.pop())
        })
    }

    fn collect<T>(
        &self,
        signal: Signal,
        mut before: TimePosition,
        limit: usize,
        mut visit: impl FnMut(&Visited) -> rusqlite::Result<Option<T>>,
    ) -> rusqlite::Result<SearchPage<T>> {
        let deadline = Instant::now() + MAX_SEARCH_TIME;
        let mut entries = Vec::new();
        loop {
            let visited = self.rows_before(signal, before)?;
            if visited.is_empty() {
                return Ok(SearchPage { entries, next: None });
            }
            for row in visited {
                if entries.len() == limit || Instant::now() >= deadline {
                    let next = Some(before);
                    return Ok(SearchPage { entries, next });
                }
                entries.extend(visit(&row)?);
                before = row.position;
            }
        }
    }

    /// Returns some of the rows below `before`, newest first.
    fn rows_before(&self, signal: Signal, before: TimePosition) -> rusqlite::Result<Vec<Visited>> {
        let reader = self.reader();
        let mut rows = reader.prepare_cached(
            "SELECT time, number, trace FROM items WHERE signal = ?1 AND (time, number) < (?2, ?3)
             ORDER BY time DESC, number DESC LIMIT 100",
        )?;
        let before = params![signal as u8, stored(before.time), stored(before.number)];
        let rows = rows.query_map(before, |row| {
            Ok(Visited {
                position: TimePosition {
                    time: row.get::<_, i64>(0)?.cast_unsigned(),
                    number: row.get::<_, i64>(1)?.cast_unsigned(),
                },
                trace: row
                    .get::<_, Option<Vec<u8>>>(2)?
                    .as_deref()
                    .and_then(TraceId::from_bytes),
            })
        })?;
        rows.collect()
    }

    /// Whether no row of the trace is earlier than the one at `position`.
    fn is_first(&self, id: TraceId, position: TimePosition) -> rusqlite::Result<bool> {
        let reader = self.reader();
        let mut earlier = reader.prepare_cached(
            "SELECT 1 FROM items WHERE trace = ?1 AND signal = ?2 AND (time, number) < (?3, ?4)",
        )?;
        let TimePosition { time, number } = position;
        let found = earlier.exists(params![
            id.as_bytes(),
            Signal::Traces as u8,
            stored(time),
            stored(number)
        ])?;
        Ok(!found)
    }

    fn count_records(&self, id: TraceId) -> rusqlite::Result<u64> {
        self.reader()
            .prepare_cached("SELECT count(*) FROM items WHERE trace = ?1 AND signal = ?2")?
            .query_row(params![id.as_bytes(), Signal::Logs as u8], |row| row.get(0))
    }
}

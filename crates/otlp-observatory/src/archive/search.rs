//! Lists of the archive. The summaries of traces, or records, are visited in order of time. What may match is put into a
//! store of its own, so that the same searches apply to memory and disk.

use std::time::{Duration, Instant};

use rusqlite::{Connection, OptionalExtension as _, Row, Statement, ToSql, params};

use super::{Archive, MAX_TRACE, blocks::BlockFilter, decoded, read_trace, rows::stored};
use crate::{
    export::Signal,
    store::{
        LogSearch, SearchPage, Store, StoredRecord, StoredTrace, TimePosition, TraceId, TraceSearch,
        TraceSummary,
    },
};

/// Maximum duration of a search.
const MAX_SEARCH_TIME: Duration = Duration::from_millis(250);

/// Maximum size of the records on a page of results, in bytes. Further results are on the next page.
const MAX_RESULT_BYTES: usize = 4 << 20;

impl Archive {
    /// Returns a trace; `None` if it is not in the archive.
    pub(crate) fn stored_trace(&self, id: TraceId, align: bool) -> rusqlite::Result<Option<StoredTrace>> {
        Ok(self.read_whole_trace(id)?.trace(id, align))
    }

    /// Reads a trace with its records into a store of its own.
    pub(super) fn read_whole_trace(&self, id: TraceId) -> rusqlite::Result<Store> {
        let (store, reader) = (Store::new(MAX_TRACE), self.readers.get()?);
        for signal in [Signal::Traces, Signal::Logs] {
            read_trace(&reader, id, signal, &store)?;
        }
        Ok(store)
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
        let reader = self.readers.get()?;
        let found = |id: TraceId| {
            let store = Store::new(MAX_TRACE);
            read_trace(&reader, id, Signal::Traces, &store)?;
            let mut summary = store.search_traces(&one).entries.pop();
            if let Some(summary) = &mut summary {
                summary.logs = count_records(&reader, id)?;
            }
            Ok(summary)
        };
        let hint = search.hint();
        if let Some(id) = hint.trace
            && let Some(position) = trace_position(&reader, id)?
        {
            let found = if position < before { found(id)? } else { None };
            let entries = found.into_iter().collect();
            return Ok(SearchPage { entries, next: None });
        }
        let mut blocks = BlockFilter::new(&reader, &hint.grams);
        let (least, from) = (stored(hint.min_duration), stored(search.from.unwrap_or(0)));
        let mut summaries = reader.prepare_cached(
            "SELECT time, number, first, failed, longest, latest FROM traces INDEXED BY traces_by_time
             WHERE (time, number) < (?1, ?2) ORDER BY time DESC, number DESC",
        )?;
        let mut trace = reader.prepare_cached("SELECT trace FROM traces WHERE first = ?1")?;
        let before = not_after(search.to, before);
        collect(
            &mut summaries,
            &[],
            before,
            limit,
            |_| 0,
            |row| {
                let first = row.get(2)?;
                if hint.failed && !row.get::<_, bool>(3)?
                    || row.get::<_, i64>(4)? < least
                    || row.get::<_, i64>(5)? < from
                    || !blocks.accepts(first)?
                {
                    return Ok(None);
                }
                let id: Vec<u8> = trace.query_row([first], |row| row.get(0))?;
                TraceId::from_bytes(&id).map_or(Ok(None), found)
            },
        )
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
        let reader = self.readers.get()?;
        let hint = search.hint();
        let mut blocks = BlockFilter::new(&reader, &hint.grams);
        let mut body = reader.prepare_cached("SELECT body FROM items WHERE number = ?1")?;
        let visit = |row: &Row<'_>| {
            let position = position(row)?;
            let number = stored(position.number);
            if !blocks.accepts(number)? {
                return Ok(None);
            }
            let store = Store::new(MAX_TRACE);
            body.query_row([number], |row| {
                if let Some(export) = decoded(Signal::Logs as u8, row.get_ref(0)?.as_blob()?) {
                    store.insert_at(export, position.time);
                }
                Ok(())
            })?;
            Ok(store.search_logs(&one).entries.pop())
        };
        let size = |record: &StoredRecord| record.encoded.len() + record.source.len();
        let before = not_after(search.to, before);
        let (signal, from) = (Signal::Logs as u8, stored(search.from.unwrap_or(0)));
        if let Some(id) = hint.trace {
            let mut records = reader.prepare_cached(
                "SELECT time, number FROM items INDEXED BY items_by_trace
                 WHERE (time, number) < (?1, ?2) AND signal = ?3 AND time >= ?4 AND trace = ?5
                 ORDER BY time DESC, number DESC",
            )?;
            collect(
                &mut records,
                &[&signal, &from, &id.as_bytes()],
                before,
                limit,
                size,
                visit,
            )
        } else {
            let mut records = reader.prepare_cached(
                "SELECT time, number FROM items INDEXED BY items_by_time
                 WHERE (time, number) < (?1, ?2) AND signal = ?3 AND time >= ?4
                 ORDER BY time DESC, number DESC",
            )?;
            collect(&mut records, &[&signal, &from], before, limit, size, visit)
        }
    }
}

/// Collects at most `limit` results from the rows that `query` returns below a position, newest first. `size` returns the
/// size of a result. At least one row is visited, even if the query takes long to return it.
fn collect<T>(
    query: &mut Statement<'_>,
    parameters: &[&dyn ToSql],
    mut before: TimePosition,
    limit: usize,
    size: impl Fn(&T) -> usize,
    mut visit: impl FnMut(&Row<'_>) -> rusqlite::Result<Option<T>>,
) -> rusqlite::Result<SearchPage<T>> {
    let deadline = Instant::now() + MAX_SEARCH_TIME;
    let (time, number) = (stored(before.time), stored(before.number));
    let mut parameters: Vec<&dyn ToSql> = parameters.to_vec();
    parameters.splice(..0, [&time as &dyn ToSql, &number]);
    let mut rows = query.query(&*parameters)?;
    let mut entries = Vec::new();
    let mut bytes = 0;
    let mut is_first = true;
    while let Some(row) = rows.next()? {
        let is_late = Instant::now() >= deadline && !is_first;
        if entries.len() == limit || bytes > MAX_RESULT_BYTES || is_late {
            let next = Some(before);
            return Ok(SearchPage { entries, next });
        }
        if let Some(entry) = visit(row)? {
            bytes += size(&entry);
            entries.push(entry);
        }
        before = position(row)?;
        is_first = false;
    }
    Ok(SearchPage { entries, next: None })
}

/// Returns the position in the first two columns.
fn position(row: &Row<'_>) -> rusqlite::Result<TimePosition> {
    Ok(TimePosition {
        time: row.get::<_, i64>(0)?.cast_unsigned(),
        number: row.get::<_, i64>(1)?.cast_unsigned(),
    })
}

/// Returns `before`, or the position after everything until the time `to` if that is lower. Nothing begins after its
/// position.
fn not_after(to: Option<u64>, before: TimePosition) -> TimePosition {
    let end = to.map(|time| TimePosition {
        time,
        number: u64::MAX,
    });
    end.map_or(before, |end| end.min(before))
}

/// Returns the position of a trace; `None` if it is not in the archive.
fn trace_position(reader: &Connection, id: TraceId) -> rusqlite::Result<Option<TimePosition>> {
    reader
        .prepare_cached("SELECT time, number FROM traces WHERE trace = ?1")?
        .query_row([id.as_bytes()], position)
        .optional()
}

fn count_records(reader: &Connection, id: TraceId) -> rusqlite::Result<u64> {
    reader
        .prepare_cached(
            "SELECT count(*) FROM items INDEXED BY items_by_trace WHERE trace = ?1 AND signal = ?2",
        )?
        .query_row(params![id.as_bytes(), Signal::Logs as u8], |row| row.get(0))
}

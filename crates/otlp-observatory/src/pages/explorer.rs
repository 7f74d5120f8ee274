//! Inputs of the pages.

use std::{io, sync::Arc};

use crate::{
    archive::Archive,
    config::Addresses,
    first_steps::FirstSteps,
    forward::Forwarder,
    ingest::Received,
    store::{
        ExportPiece, LogSearch, Progress, SearchPage, Store, StoredRecord, StoredTrace, TraceId, TraceSearch,
        TraceSummary, UnixNano,
    },
};

#[cfg(feature = "keep")]
use crate::store::{TimePosition, now};

/// Data and addresses that the pages show.
pub(crate) struct Explorer {
    pub(crate) store: Arc<Store>,
    /// `None` if telemetry is in memory only.
    pub(crate) archive: Option<Arc<Archive>>,
    pub(crate) addresses: Addresses,
    pub(crate) received: Arc<Received>,
    /// `None` if forwarding is disabled.
    pub(crate) forwarder: Option<Forwarder>,
    pub(crate) first_steps: FirstSteps,
}

#[cfg(not(feature = "keep"))]
impl Explorer {
    pub(crate) fn trace(&self, id: TraceId, align: bool) -> Option<StoredTrace> {
        self.store.trace(id, align)
    }

    pub(crate) fn export_trace(&self, id: TraceId) -> Option<ExportPiece> {
        self.store.export_trace(id)
    }

    pub(crate) fn export_piece(&self, progress: &mut Progress) -> Option<io::Result<ExportPiece>> {
        self.store.export_piece(progress).map(Ok)
    }

    pub(crate) fn memory_since(&self) -> Option<UnixNano> {
        None
    }

    pub(crate) fn search_traces(&self, search: &TraceSearch) -> SearchPage<TraceSummary> {
        self.store.search_traces(search)
    }

    pub(crate) fn search_logs(&self, search: &LogSearch) -> SearchPage<StoredRecord> {
        self.store.search_logs(search)
    }
}

/// Memory is complete above the latest time that it has evicted or not read after a restart. Lists continue below that time
/// in the archive, which has everything.
#[cfg(feature = "keep")]
impl Explorer {
    /// Returns a trace from memory, or from the archive if that has more of it.
    pub(crate) fn trace(&self, id: TraceId, align: bool) -> Option<StoredTrace> {
        let stored = self.store.trace(id, align);
        let Some(archive) = &self.archive else {
            return stored;
        };
        if stored.is_some() && self.memory_since().is_none() {
            return stored;
        }
        let archived = unless_failed(archive.stored_trace(id, align), None);
        let spans = |trace: &Option<StoredTrace>| trace.as_ref().map_or(0, |trace| trace.spans.len());
        if spans(&archived) > spans(&stored) {
            archived
        } else {
            stored
        }
    }

    /// Returns a trace from the archive if there is one and memory may lack it, or else from memory.
    pub(crate) fn export_trace(&self, id: TraceId) -> Option<ExportPiece> {
        let archive = self.archive.as_ref().filter(|_| self.memory_since().is_some());
        let archived = archive.and_then(|archive| unless_failed(archive.export_trace(id), None));
        archived.or_else(|| self.store.export_trace(id))
    }

    /// Returns the telemetry after `progress`, and advances it; `None` at the end.
    pub(crate) fn export_piece(&self, progress: &mut Progress) -> Option<io::Result<ExportPiece>> {
        match self.archive.as_ref().filter(|_| self.memory_since().is_some()) {
            Some(archive) => archive
                .export_piece(progress)
                .map_err(io::Error::other)
                .transpose(),
            None => self.store.export_piece(progress).map(Ok),
        }
    }

    /// Returns the time before which only the archive has everything; `None` if memory has it, too.
    pub(crate) fn memory_since(&self) -> Option<UnixNano> {
        let missing_until = self.archive.as_ref()?.missing_until();
        let (traces, logs) = self.store.evicted_until();
        let until = missing_until.max(traces).max(logs);
        (until > 0).then(|| UnixNano(until.min(now())))
    }

    pub(crate) fn search_traces(&self, search: &TraceSearch) -> SearchPage<TraceSummary> {
        let (evicted_until, _) = self.store.evicted_until();
        let above = |above, before| {
            self.store.search_traces(&TraceSearch {
                above,
                before,
                ..search.clone()
            })
        };
        let Some(archive) = &self.archive else {
            return above(None, search.before);
        };
        let below = |before, limit| archive.search_traces(search, before, limit);
        continued(
            evicted_until.max(archive.missing_until()),
            search.before,
            search.limit,
            above,
            below,
        )
    }

    pub(crate) fn search_logs(&self, search: &LogSearch) -> SearchPage<StoredRecord> {
        let (_, evicted_until) = self.store.evicted_until();
        let above = |above, before| {
            self.store.search_logs(&LogSearch {
                above,
                before,
                ..search.clone()
            })
        };
        // Records that arrived after another one are in memory.
        let Some(archive) = self.archive.as_ref().filter(|_| search.after.is_none()) else {
            return above(None, search.before);
        };
        let below = |before, limit| archive.search_logs(search, before, limit);
        continued(
            evicted_until.max(archive.missing_until()),
            search.before,
            search.limit,
            above,
            below,
        )
    }
}

/// Returns a page that starts in memory above the time `until`, and continues in the archive.
#[cfg(feature = "keep")]
fn continued<T>(
    until: u64,
    before: Option<TimePosition>,
    limit: usize,
    above: impl FnOnce(Option<u64>, Option<TimePosition>) -> SearchPage<T>,
    below: impl FnOnce(TimePosition, usize) -> rusqlite::Result<SearchPage<T>>,
) -> SearchPage<T> {
    if until == 0 {
        return above(None, before);
    }
    let border = TimePosition {
        time: until,
        number: u64::MAX,
    };
    let mut page = match before {
        Some(before) if before <= border => SearchPage {
            entries: Vec::new(),
            next: None,
        },
        _ => above(Some(until), before),
    };
    if page.next.is_none() && page.entries.len() < limit {
        let before = before.map_or(border, |before| before.min(border));
        let none = SearchPage {
            entries: Vec::new(),
            next: None,
        };
        let archived = unless_failed(below(before, limit - page.entries.len()), none);
        page.entries.extend(archived.entries);
        page.next = archived.next;
    } else if page.next.is_none() {
        page.next = Some(border);
    }
    page
}

#[cfg(feature = "keep")]
fn unless_failed<T>(result: rusqlite::Result<T>, otherwise: T) -> T {
    result.unwrap_or_else(|error| {
        telemetry::warn!(%error, "cannot read kept telemetry");
        otherwise
    })
}

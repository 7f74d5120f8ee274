//! Problems in stored telemetry: errors, repeated and slow operations, and traces that contradict themselves. Every
//! request inspects the newest traces and records, as far as the time limit allows; nothing is stored.
//!
//! Most detectors use the index only. A span is decoded if it failed, was slow, or is one of many equal ones.

mod errors;
mod groups;
mod pools;
mod records;
mod restarts;
mod statement;
#[cfg(test)]
mod tests;
mod traces;

use std::{cell::RefCell, sync::Arc};

use serde::Serialize;

pub(crate) use self::groups::{Kind, Problem};
pub(super) use self::pools::{INSTRUMENTS as POOL_INSTRUMENTS, MAX_SERIES as MAX_POOLS};
use self::{groups::Groups, restarts::Restarts, traces::Inspector};
use super::{
    fair_lock::FairLock, ids::UnixNano, logs::Logs, search::SearchPage, selection::SeriesSamples,
    traces::Traces,
};

/// Selection of problems.
#[derive(Clone, Debug, Default)]
pub(crate) struct ProblemSearch {
    pub(crate) since: Since,
    pub(crate) service: Option<String>,
    pub(crate) kind: Option<Kind>,
    pub(crate) limit: usize,
}

/// Time from which problems are listed. A problem that did not occur before is new.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) enum Since {
    /// Every stored occurrence.
    #[default]
    Ever,
    Time(u64),
    /// The latest start of each service.
    Restart,
}

/// Problems with the starts of the services.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Problems {
    /// Whether every stored trace and record was inspected.
    complete: bool,
    /// Number of problems, including those beyond the limit.
    total: usize,
    /// Largest of each kind first.
    pub(crate) problems: Vec<Problem>,
    services: Vec<Started>,
}

/// Service with the time at which its newest instance was first seen.
#[derive(Clone, Debug, Serialize)]
struct Started {
    service: Arc<str>,
    started_unix_nano: UnixNano,
    /// Whether an earlier instance was seen.
    restarted: bool,
}

/// Returns the problems at `now`; `pools` are series of [`POOL_INSTRUMENTS`]. A trace that may still be incomplete has no lost parents.
pub(super) fn problems(
    traces: &FairLock<Traces>,
    logs: &FairLock<Logs>,
    pools: &[SeriesSamples],
    search: &ProblemSearch,
    now: u64,
) -> Problems {
    let found = RefCell::new((Groups::default(), Restarts::default()));
    let of_traces = SearchPage::<()>::collect(traces, None, 1, |traces, before, visit| {
        let (groups, restarts) = &mut *found.borrow_mut();
        let mut inspector = Inspector::new(traces, groups, restarts, now);
        let at_end = traces.before(before).all(|(number, trace)| {
            inspector.inspect(trace);
            visit(number, None)
        });
        inspector.finish();
        at_end
    });
    let of_logs = SearchPage::<()>::collect(logs, None, 1, |logs, before, visit| {
        let (groups, _) = &mut *found.borrow_mut();
        logs.before(None, before).all(|(sequence, entry)| {
            records::inspect(logs, entry, groups);
            visit(sequence, None)
        })
    });
    let (mut groups, restarts) = found.into_inner();
    for series in pools {
        pools::inspect(series, &mut groups);
    }
    let since = |service: &Arc<str>| match search.since {
        Since::Ever => 0,
        Since::Time(time) => time,
        Since::Restart => restarts.of(service).unwrap_or(0),
    };
    let mut problems = groups.into_problems(since);
    problems.retain(|problem| {
        let is_of_service = |service: &String| service == &*problem.service;
        search.service.as_ref().is_none_or(is_of_service)
            && search.kind.is_none_or(|kind| kind == problem.kind)
    });
    let total = problems.len();
    problems.truncate(search.limit);
    Problems {
        complete: of_traces.next.is_none() && of_logs.next.is_none(),
        total,
        problems,
        services: restarts.into_rows(|service, started, restarted| Started {
            service,
            started_unix_nano: UnixNano(started),
            restarted,
        }),
    }
}

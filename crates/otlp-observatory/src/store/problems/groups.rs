//! Occurrences of problems, grouped by kind, service and subject.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};

use serde::{Deserialize, Serialize};

use crate::store::ids::{SpanId, TraceId, UnixNano};

/// Maximum number of groups. Further ones are not counted.
const MAX_GROUPS: usize = 5_000;

/// Maximum number of traces named as examples.
const MAX_EXAMPLES: usize = 3;

/// Character that stands for a number in a subject.
pub(super) const NUMBER: char = '\u{1}';

/// Maximum number of traces with failed spans that are remembered.
const MAX_FAILED_TRACES: usize = 100_000;

/// Maximum length of a title, in characters.
const MAX_TITLE: usize = 240;

/// Kind of a problem, the gravest first.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Kind {
    /// Spans failed.
    Error,
    FailedTask,
    /// The same message failed again and again.
    PoisonMessage,
    /// The same call was repeated after failures.
    RetryStorm,
    /// No connection was available.
    PoolExhausted,
    /// Operations waited for a connection.
    PoolWait,
    /// The status contradicts the response or the exceptions.
    WrongStatus,
    /// Equal statements or calls were made one by one.
    NPlusOne,
    SlowStatement,
    SlowRequest,
    SlowCall,
    SlowTask,
    /// Messages waited in a queue.
    QueueDelay,
    /// A message was processed more than once.
    DuplicateMessage,
    /// The parents of spans are missing.
    LostParent,
    /// Spans begin before their parents.
    ClockSkew,
    /// Telemetry has no service name.
    UnnamedService,
    /// Log records report errors without a failed span.
    ErrorLog,
}

impl Kind {
    /// Parses the name that the JSON has.
    pub(crate) fn parse(name: &str) -> Option<Self> {
        serde_json::from_value(name.into()).ok()
    }
}

/// Group of equal occurrences.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Problem {
    pub(crate) kind: Kind,
    pub(crate) title: String,
    pub(crate) service: Arc<str>,
    /// Number of occurrences: spans, or log records.
    pub(crate) count: u64,
    /// Number of traces.
    traces: u64,
    /// Whether no occurrence is older than the start of the selection.
    #[serde(rename = "new")]
    pub(crate) is_new: bool,
    first_seen_unix_nano: UnixNano,
    last_seen_unix_nano: UnixNano,
    /// Sum of the durations.
    total_ns: u64,
    /// Longest duration, wait or skew.
    pub(crate) max_ns: u64,
    /// Newest traces, at most three.
    pub(crate) trace_ids: Vec<TraceId>,
    /// Span in the first of these traces.
    span_id: Option<SpanId>,
}

/// One or more occurrences in a trace.
#[derive(Clone, Debug)]
pub(super) struct Occurrence {
    pub(super) kind: Kind,
    pub(super) service: Arc<str>,
    /// Title, with [`NUMBER`] in place of the largest number of occurrences in one trace.
    pub(super) subject: String,
    pub(super) count: u64,
    pub(super) time: u64,
    pub(super) total: u64,
    pub(super) max: u64,
    pub(super) trace: Option<TraceId>,
    pub(super) span: Option<SpanId>,
}

#[derive(Debug)]
struct Group {
    count: u64,
    most: u64,
    traces: u64,
    first: u64,
    last: u64,
    total: u64,
    max: u64,
    examples: Vec<(TraceId, Option<SpanId>)>,
    last_trace: Option<TraceId>,
}

/// Failures of a message, by its service and id.
pub(super) type Message = (Arc<str>, String);

#[derive(Debug, Default)]
pub(super) struct Groups {
    groups: HashMap<(Kind, Arc<str>, String), Group>,
    /// Executions of messages, with the number of those that failed.
    messages: HashMap<Message, Executions>,
    failed_traces: HashSet<TraceId>,
}

/// Executions of a message.
#[derive(Debug, Default)]
pub(super) struct Executions {
    /// Label of the task.
    task: Arc<str>,
    failed: Vec<Execution>,
    succeeded: Vec<Execution>,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Execution {
    pub(super) time: u64,
    pub(super) duration: u64,
    pub(super) trace: TraceId,
    pub(super) span: SpanId,
}

/// Number of failures from which a message is poison.
const POISON_FAILURES: usize = 3;

/// Maximum number of messages whose executions are compared.
const MAX_MESSAGES: usize = 50_000;

/// Maximum number of executions kept of a message.
const MAX_EXECUTIONS: usize = 1_000;

impl Groups {
    pub(super) fn add(&mut self, one: Occurrence) {
        let key = (one.kind, one.service, clip(&one.subject));
        let is_full = self.groups.len() >= MAX_GROUPS;
        if is_full && !self.groups.contains_key(&key) {
            return;
        }
        let group = self.groups.entry(key).or_insert(Group {
            count: 0,
            most: 0,
            traces: 0,
            first: one.time,
            last: one.time,
            total: 0,
            max: 0,
            examples: Vec::new(),
            last_trace: None,
        });
        group.count += one.count;
        group.most = group.most.max(one.count);
        group.first = group.first.min(one.time);
        group.last = group.last.max(one.time);
        group.total = group.total.saturating_add(one.total);
        group.max = group.max.max(one.max);
        if let Some(trace) = one.trace.filter(|trace| group.last_trace != Some(*trace)) {
            group.last_trace = Some(trace);
            group.traces += 1;
            let is_known = group.examples.iter().any(|(known, _)| *known == trace);
            if !is_known && group.examples.len() < MAX_EXAMPLES {
                group.examples.push((trace, one.span));
            }
        }
    }

    pub(super) fn add_failed_trace(&mut self, trace: TraceId) {
        if self.failed_traces.len() < MAX_FAILED_TRACES {
            self.failed_traces.insert(trace);
        }
    }

    /// Whether a trace has a failed span.
    pub(super) fn has_failed(&self, trace: TraceId) -> bool {
        self.failed_traces.contains(&trace)
    }

    /// Counts an execution of a message.
    pub(super) fn add_execution(
        &mut self,
        message: Message,
        task: &Arc<str>,
        failed: bool,
        execution: Execution,
    ) {
        if self.messages.len() >= MAX_MESSAGES && !self.messages.contains_key(&message) {
            return;
        }
        let executions = self.messages.entry(message).or_default();
        executions.task = task.clone();
        let list = if failed {
            &mut executions.failed
        } else {
            &mut executions.succeeded
        };
        if list.len() < MAX_EXECUTIONS {
            list.push(execution);
        }
    }

    /// Returns the problems that occurred at `since(service)` or later: the largest of each kind, then the second
    /// largest of each kind, and so on.
    pub(super) fn into_problems(mut self, since: impl Fn(&Arc<str>) -> u64) -> Vec<Problem> {
        self.count_messages();
        let mut by_kind: BTreeMap<Kind, Vec<Problem>> = BTreeMap::new();
        for ((kind, service, subject), group) in self.groups {
            let since = since(&service);
            if group.last < since {
                continue;
            }
            let problem = Problem {
                kind,
                title: subject.replace(NUMBER, &group.most.to_string()),
                service,
                count: group.count,
                traces: group.traces,
                is_new: since > 0 && group.first >= since,
                first_seen_unix_nano: UnixNano(group.first),
                last_seen_unix_nano: UnixNano(group.last),
                total_ns: group.total,
                max_ns: group.max,
                span_id: group.examples.first().and_then(|(_, span)| *span),
                trace_ids: group.examples.into_iter().map(|(trace, _)| trace).collect(),
            };
            by_kind.entry(kind).or_default().push(problem);
        }
        let mut ranked = Vec::new();
        for (kind, mut problems) in by_kind {
            problems.sort_by(|a, b| {
                let by_size = (b.is_new, b.count, b.total_ns).cmp(&(a.is_new, a.count, a.total_ns));
                by_size.then_with(|| a.title.cmp(&b.title))
            });
            let problems = problems.into_iter().enumerate();
            ranked.extend(problems.map(|(rank, problem)| ((rank, kind), problem)));
        }
        ranked.sort_by_key(|(rank, _)| *rank);
        ranked.into_iter().map(|(_, problem)| problem).collect()
    }

    /// Adds the messages that failed repeatedly, or that were processed more than once.
    fn count_messages(&mut self) {
        for ((service, _), executions) in std::mem::take(&mut self.messages) {
            let Executions {
                task,
                failed,
                succeeded,
            } = executions;
            let (kind, subject, all) = if failed.len() >= POISON_FAILURES {
                (
                    Kind::PoisonMessage,
                    format!("a message of {task} failed {NUMBER} times"),
                    failed,
                )
            } else if succeeded.len() > 1 {
                (
                    Kind::DuplicateMessage,
                    format!("a message of {task} was processed {NUMBER} times"),
                    succeeded,
                )
            } else {
                continue;
            };
            let latest = all.iter().max_by_key(|execution| execution.time);
            for (index, execution) in all.iter().enumerate() {
                self.add(Occurrence {
                    kind,
                    service: service.clone(),
                    subject: subject.clone(),
                    // The whole message is one occurrence with a number; the others only extend its times.
                    count: if index == 0 { all.len() as u64 } else { 0 },
                    time: execution.time,
                    total: execution.duration,
                    max: execution.duration,
                    trace: latest.map(|latest| latest.trace),
                    span: latest.map(|latest| latest.span),
                });
            }
        }
    }
}

/// Returns `text` on one line, with at most [`MAX_TITLE`] characters.
fn clip(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(MAX_TITLE) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}

//! Requests and tasks of a window of time: how many, how many failed, how long they took. Worked out from the index when
//! asked: spans are not decoded, and nothing is kept for it while nobody looks.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use serde::Serialize;

use super::{
    UnixNano,
    gated::Gated,
    latency::{self, Latencies, Percentiles},
    shape::{Role, Shape},
    traces::{Status, Traces},
};

/// How many points the series have.
const STEPS: u64 = 60;

/// How many routes, and tasks, are told at most: the most frequent.
const MAX_ROWS: usize = 500;

#[derive(Clone, Debug, Serialize)]
pub(crate) struct Overview {
    window_seconds: f64,
    services: Vec<Service>,
    routes: Vec<Route>,
    tasks: Vec<Task>,
    series: Series,
}

#[derive(Clone, Debug, Serialize)]
struct Service {
    service: Arc<str>,
    #[serde(flatten)]
    requests: Requests,
    last_seen_unix_nano: UnixNano,
}

#[derive(Clone, Debug, Serialize)]
struct Route {
    service: Arc<str>,
    route: Arc<str>,
    #[serde(flatten)]
    requests: Requests,
}

#[derive(Clone, Copy, Debug, Serialize)]
struct Requests {
    requests: usize,
    rate: f64,
    errors: usize,
    #[serde(flatten)]
    percentiles: Percentiles,
}

#[derive(Clone, Debug, Serialize)]
struct Task {
    service: Arc<str>,
    task: Arc<str>,
    states: BTreeMap<Arc<str>, usize>,
    rate: f64,
    #[serde(flatten)]
    percentiles: Percentiles,
}

#[derive(Clone, Debug, Serialize)]
struct Series {
    step_seconds: f64,
    start_unix_nano: UnixNano,
    requests: Vec<usize>,
    errors: Vec<usize>,
    p95_ns: Vec<Option<u64>>,
}

/// The spans of one shape in the window.
struct Seen {
    service: Arc<str>,
    shape: Shape,
    latest: u64,
    /// Of requests and tasks only.
    spans: Vec<SeenSpan>,
}

struct SeenSpan {
    moment: u64,
    duration: u64,
    failed: bool,
}

/// The runs of a task.
#[derive(Default)]
struct Runs {
    latencies: Latencies,
    states: BTreeMap<Arc<str>, usize>,
}

/// The overview of the `window` nanoseconds before `now`.
pub(crate) fn overview(traces: &Gated<Traces>, window: u64, now: u64) -> Overview {
    let start = now.saturating_sub(window);
    let seen = seen_since(&traces.read(), start);
    let seconds = window as f64 / 1e9;

    let mut services: HashMap<Arc<str>, (Latencies, u64)> = HashMap::new();
    let mut routes: HashMap<(Arc<str>, Arc<str>), Latencies> = HashMap::new();
    let mut tasks: HashMap<(Arc<str>, Arc<str>), Runs> = HashMap::new();
    let step = window.div_ceil(STEPS).max(1);
    let mut steps = vec![Latencies::default(); STEPS as usize];
    for seen in seen {
        let (requests, latest) = services.entry(seen.service.clone()).or_default();
        *latest = seen.latest.max(*latest);
        match &seen.shape.role {
            Role::Request { .. } => {
                let route = routes.entry((seen.service, seen.shape.route())).or_default();
                for span in seen.spans {
                    requests.add(span.duration, span.failed);
                    route.add(span.duration, span.failed);
                    let step = (span.moment - start) / step;
                    steps[step.min(STEPS - 1) as usize].add(span.duration, span.failed);
                }
            }
            Role::Task { task, state, .. } => {
                let task = task.as_ref().unwrap_or(&seen.shape.name).clone();
                let runs = tasks.entry((seen.service, task)).or_default();
                for span in seen.spans {
                    runs.latencies.add(span.duration, span.failed);
                    let by_status = || if span.failed { "FAILURE" } else { "SUCCESS" }.into();
                    *runs
                        .states
                        .entry(state.clone().unwrap_or_else(by_status))
                        .or_default() += 1;
                }
            }
            _ => {}
        }
    }

    Overview {
        window_seconds: seconds,
        services: most_frequent(
            services,
            |(requests, _)| requests.count(),
            |service, (requests, latest)| Service {
                service,
                requests: Requests::of(requests, seconds),
                last_seen_unix_nano: UnixNano(latest),
            },
        ),
        routes: most_frequent(routes, Latencies::count, |(service, route), requests| Route {
            service,
            route,
            requests: Requests::of(requests, seconds),
        }),
        tasks: most_frequent(
            tasks,
            |runs| runs.latencies.count(),
            |(service, task), runs| Task {
                service,
                task,
                states: runs.states,
                rate: runs.latencies.count() as f64 / seconds,
                percentiles: runs.latencies.percentiles(),
            },
        ),
        series: Series {
            step_seconds: step as f64 / 1e9,
            start_unix_nano: UnixNano(start),
            requests: steps.iter().map(Latencies::count).collect(),
            errors: steps.iter().map(Latencies::errors).collect(),
            p95_ns: steps.into_iter().map(|step| step.percentiles().p95_ns).collect(),
        },
    }
}

/// What there is of each shape since `start`, copied out.
fn seen_since(traces: &Traces, start: u64) -> Vec<Seen> {
    let mut by_shape: Vec<Option<Seen>> = Vec::new();
    by_shape.resize_with(traces.shapes.slots(), || None);
    for trace in traces.since(start) {
        for span in trace.spans.iter().filter(|span| span.moment >= start) {
            let seen = by_shape[span.shape.index()].get_or_insert_with(|| {
                let shape = traces.shapes.get(span.shape);
                Seen {
                    service: traces.origins.get(shape.origin).service.clone(),
                    shape: shape.clone(),
                    latest: 0,
                    spans: Vec::new(),
                }
            });
            seen.latest = seen.latest.max(span.moment);
            if let Role::Request { .. } | Role::Task { .. } = seen.shape.role {
                seen.spans.push(SeenSpan {
                    moment: span.moment,
                    duration: span.duration,
                    failed: span.status == Status::Error,
                });
            }
        }
    }
    by_shape.into_iter().flatten().collect()
}

impl Requests {
    fn of(latencies: Latencies, seconds: f64) -> Self {
        Self {
            requests: latencies.count(),
            rate: latencies.count() as f64 / seconds,
            errors: latencies.errors(),
            percentiles: latencies.percentiles(),
        }
    }
}

/// The rows of `groups`, the most frequent first.
fn most_frequent<K: Ord, V, R>(
    groups: HashMap<K, V>,
    count: impl Fn(&V) -> usize,
    row: impl Fn(K, V) -> R,
) -> Vec<R> {
    let groups = latency::most_frequent(groups.into_iter().collect(), MAX_ROWS, count);
    groups.into_iter().map(|(key, value)| row(key, value)).collect()
}

//! Overview of a time window: counts, errors and latencies of requests and tasks. The overview is computed
//! from the index for each request: spans are not decoded, and no aggregates are stored.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use serde::Serialize;

use super::{
    UnixNano,
    fair_lock::FairLock,
    latency::{Latencies, Percentiles, most_frequent},
    span_class::{Role, SpanClass},
    traces::Traces,
};

/// Number of steps in the time series.
const STEPS: u64 = 60;

/// Maximum length of each list; the most frequent services, routes and tasks are returned.
const MAX_ROWS: usize = 500;

#[derive(Clone, Debug, Serialize)]
pub(crate) struct Overview {
    window_seconds: f64,
    services: Vec<Service>,
    routes: Vec<Route>,
    tasks: Vec<Task>,
    left_out: LeftOut,
    series: Series,
}

/// Number of rows beyond the maximum.
#[derive(Clone, Copy, Debug, Serialize)]
struct LeftOut {
    services: usize,
    routes: usize,
    tasks: usize,
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

/// Spans of one class in the window.
struct ClassSample {
    service: Arc<str>,
    class: SpanClass,
    latest: u64,
    /// Empty unless the class is a request or a task.
    latencies: Latencies,
}

/// Returns the overview of the `window` nanoseconds before `now`.
pub(crate) fn overview(traces: &FairLock<Traces>, window: u64, now: u64) -> Overview {
    let start = now.saturating_sub(window);
    let step = window.div_ceil(STEPS).max(1);
    let (samples, steps) = samples_since(&traces.read(), start, step);
    let seconds = window as f64 / 1e9;

    let mut services = HashMap::<_, (Latencies, u64)>::new();
    let mut routes = HashMap::<_, Latencies>::new();
    let mut tasks = HashMap::<_, (Latencies, BTreeMap<Arc<str>, usize>)>::new();
    for sample in samples {
        let (requests, latest) = services.entry(sample.service.clone()).or_default();
        *latest = sample.latest.max(*latest);
        match &sample.class.role {
            Role::Request { .. } => {
                requests.append(sample.latencies.clone());
                let route = routes.entry((sample.service, sample.class.route())).or_default();
                route.append(sample.latencies);
            }
            Role::Task { task, state, .. } => {
                let task = task.as_ref().unwrap_or(&sample.class.name).clone();
                let (latencies, states) = tasks.entry((sample.service, task)).or_default();
                let (count, failed) = (sample.latencies.count(), sample.latencies.errors());
                let counts = match state {
                    Some(state) => vec![(state.clone(), count)],
                    None => vec![("FAILURE".into(), failed), ("SUCCESS".into(), count - failed)],
                };
                for (state, count) in counts.into_iter().filter(|(_, count)| *count > 0) {
                    *states.entry(state).or_default() += count;
                }
                latencies.append(sample.latencies);
            }
            _ => {}
        }
    }

    let beyond = |rows: usize| rows.saturating_sub(MAX_ROWS);
    Overview {
        window_seconds: seconds,
        left_out: LeftOut {
            services: beyond(services.len()),
            routes: beyond(routes.len()),
            tasks: beyond(tasks.len()),
        },
        services: most_frequent(
            services,
            MAX_ROWS,
            |(requests, _)| requests.count(),
            |service, (requests, latest)| Service {
                service,
                requests: Requests::of(requests, seconds),
                last_seen_unix_nano: UnixNano(latest),
            },
        ),
        routes: most_frequent(
            routes,
            MAX_ROWS,
            Latencies::count,
            |(service, route), requests| Route {
                service,
                route,
                requests: Requests::of(requests, seconds),
            },
        ),
        tasks: most_frequent(
            tasks,
            MAX_ROWS,
            |(latencies, _)| latencies.count(),
            |(service, task), (latencies, states)| Task {
                service,
                task,
                states,
                rate: latencies.count() as f64 / seconds,
                percentiles: latencies.percentiles(),
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

/// Returns the spans since `start` by class, and the requests by step.
fn samples_since(traces: &Traces, start: u64, step: u64) -> (Vec<ClassSample>, Vec<Latencies>) {
    let mut steps = vec![Latencies::default(); STEPS as usize];
    let mut by_class: Vec<Option<ClassSample>> = Vec::new();
    by_class.resize_with(traces.classes.slots(), || None);
    for trace in traces.since(start) {
        for span in trace.spans.iter().filter(|span| span.effective_end >= start) {
            let sample = by_class[span.class.index()].get_or_insert_with(|| {
                let class = traces.classes.get(span.class);
                ClassSample {
                    service: traces.sources.get(class.source).service.clone(),
                    class: class.clone(),
                    latest: 0,
                    latencies: Latencies::default(),
                }
            });
            sample.latest = sample.latest.max(span.effective_end);
            if let Role::Request { .. } = sample.class.role {
                let step = ((span.effective_end - start) / step).min(STEPS - 1);
                steps[step as usize].add(span.duration, span.failed);
            }
            if let Role::Request { .. } | Role::Task { .. } = sample.class.role {
                sample.latencies.add(span.duration, span.failed);
            }
        }
    }
    (by_class.into_iter().flatten().collect(), steps)
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

//! Queries about the worker and its held and postponed tasks. Messages are decoded only when a query arrives, so
//! queries cost running tasks nothing.

use std::{collections::BTreeSet, sync::Arc};

use serde_json::{Map, Value, json};

use super::reply::{Failure, MethodResult};
use crate::{
    broker::Delivery,
    message::Message,
    repr, system,
    task_id::TaskId,
    worker::{Shared, inflight::Entry},
};

/// Message size, in bytes, above which arguments are reported as shortened text instead of JSON.
const MAX_JSON_SIZE: usize = 4096;
/// Maximum number of postponed tasks that a query returns.
const MAX_POSTPONED: usize = 1000;

pub(super) fn active(shared: &Shared) -> Value {
    tasks(shared, |entry| entry.started_at().is_some())
        .map(|(entry, message)| info(shared, &entry, &message))
        .collect()
}

pub(super) fn reserved(shared: &Shared) -> Value {
    tasks(shared, |entry| entry.started_at().is_none())
        .filter(|(_, message)| !message.is_early(system::now()))
        .map(|(entry, message)| info(shared, &entry, &message))
        .collect()
}

/// Returns the tasks that wait for their `eta`: those that the worker holds, and the earliest postponed tasks of its
/// queues.
pub(super) async fn scheduled(shared: &Shared) -> MethodResult {
    let held: Vec<_> = tasks(shared, |entry| entry.started_at().is_none()).collect();
    let postponed = shared.broker.postponed(&shared.queues(), MAX_POSTPONED).await;
    let postponed = postponed.map_err(|error| Failure::Other(error.to_string()))?;
    let postponed: Vec<_> = postponed
        .into_iter()
        .filter_map(|delivery| Some((delivery.message().ok()?, delivery)))
        .collect();
    // A task that is just being postponed is in both lists.
    let ids: BTreeSet<&TaskId> = postponed.iter().map(|(message, _)| &message.headers.id).collect();
    let held = held.iter().filter(|(entry, _)| !ids.contains(&entry.id));
    let held = held.map(|(entry, message)| (message, info(shared, entry, message)));
    let postponed = postponed
        .iter()
        .map(|(message, delivery)| (message, described_task(shared, delivery, None, message)));
    let scheduled = held
        .chain(postponed)
        .filter(|(message, _)| message.is_early(system::now()))
        .map(|(message, request)| {
            json!({
                "eta": message.headers.eta.map(crate::time::format),
                "priority": 6,
                "request": request,
            })
        });
    Ok(scheduled.collect())
}

pub(super) async fn query_task(shared: &Shared, ids: &[String]) -> MethodResult {
    let wanted: BTreeSet<&str> = ids.iter().map(String::as_str).collect();
    let found = tasks(shared, |entry| wanted.contains(entry.id.as_str())).map(|(entry, message)| {
        let started = entry.started_at().is_some();
        let state = if started { "active" } else { "reserved" };
        let described = json!([state, info(shared, &entry, &message)]);
        (entry.id.to_string(), described)
    });
    let mut found: Map<String, Value> = found.collect();
    let postponed = shared.broker.postponed_tasks(ids).await;
    for delivery in postponed.map_err(|error| Failure::Other(error.to_string()))? {
        if let Ok(message) = delivery.message() {
            let described = json!(["reserved", described_task(shared, &delivery, None, &message)]);
            found.entry(message.headers.id.as_str()).or_insert(described);
        }
    }
    Ok(Value::Object(found))
}

/// Returns the held tasks that satisfy `wanted`, oldest first, with their messages.
fn tasks(shared: &Shared, wanted: impl Fn(&Entry) -> bool) -> impl Iterator<Item = (Arc<Entry>, Message)> {
    let held = shared.inflight.held().into_iter();
    held.filter(move |entry| wanted(entry)).filter_map(|entry| {
        let message = entry.delivery.message().ok()?;
        Some((entry, message))
    })
}

fn info(shared: &Shared, entry: &Entry, message: &Message) -> Value {
    described_task(shared, &entry.delivery, entry.started_at(), message)
}

fn described_task(shared: &Shared, delivery: &Delivery, started: Option<f64>, message: &Message) -> Value {
    let (args, kwargs) = if delivery.raw.len() > MAX_JSON_SIZE {
        let (args, kwargs) = (repr::tuple(&message.args), repr::dict(&message.kwargs));
        (json!(args), json!(kwargs))
    } else {
        (json!(message.args), json!(message.kwargs))
    };
    let registered = shared.registry.get(&message.headers.task);
    // A delivery is acknowledged either before its task starts or together with the result.
    let early = registered.is_some_and(|registered| !registered.options.acks_late);
    let acknowledged = early && started.is_some();
    let delivery_info = &message.properties.delivery_info;
    json!({
        "id": message.headers.id,
        "name": message.headers.task,
        "args": args,
        "kwargs": kwargs,
        "type": message.headers.task,
        "hostname": shared.hostname,
        "time_start": started,
        "acknowledged": acknowledged,
        "delivery_info": {
            "exchange": delivery_info.exchange,
            "routing_key": delivery_info.routing_key,
            "priority": message.properties.priority,
            "redelivered": message.redelivered(),
        },
        "worker_pid": started.map(|_| system::process_id()),
    })
}

/// Attributes of tasks that are shown unless the command names others.
const DEFAULT_FIELDS: [&str; 3] = ["exchange", "routing_key", "rate_limit"];

pub(super) fn registered(shared: &Shared, fields: Option<Vec<String>>) -> Value {
    let fields = fields.filter(|fields| !fields.is_empty());
    let fields = fields.unwrap_or_else(|| DEFAULT_FIELDS.map(str::to_owned).into());
    shared.registry.described(&fields).into_iter().collect()
}

pub(super) fn stats(shared: &Shared) -> Value {
    let server = shared.broker.server();
    let concurrency = shared.concurrency();
    json!({
        "total": shared.registry.totals(),
        "pid": system::process_id(),
        "clock": shared.clock.value().to_string(),
        "uptime": shared.started.elapsed().as_secs(),
        "pool": {
            "implementation": "celeriac::Worker",
            "max-concurrency": concurrency,
            "processes": [system::process_id()],
            "max-tasks-per-child": "N/A",
            "put-guarded-by-semaphore": false,
            "timeouts": [0, 0],
        },
        "broker": {
            "hostname": server.hostname,
            "userid": server.userid,
            "virtual_host": server.virtual_host,
            "port": server.port,
            "ssl": server.ssl,
            "transport": server.transport,
            "transport_options": {},
        },
        "prefetch_count": shared.prefetch(),
        "rusage": system::resource_usage(),
    })
}

pub(super) fn active_queues(shared: &Shared) -> Value {
    shared.queues().iter().map(|queue| described(queue)).collect()
}

fn described(queue: &str) -> Value {
    json!({
        "name": queue,
        "exchange": {
            "name": queue,
            "type": "direct",
            "arguments": null,
            "durable": true,
            "passive": false,
            "auto_delete": false,
            "delivery_mode": null,
            "no_declare": false,
        },
        "routing_key": queue,
        "queue_arguments": null,
        "binding_arguments": null,
        "consumer_arguments": null,
        "durable": true,
        "exclusive": false,
        "auto_delete": false,
        "no_ack": false,
        "alias": null,
        "bindings": [],
        "no_declare": null,
        "expires": null,
        "message_ttl": null,
        "max_length": null,
        "max_length_bytes": null,
        "max_priority": null,
    })
}

/// Returns the settings of an equivalent Celery worker. The broker URL does not include credentials.
pub(super) fn conf(shared: &Shared) -> Value {
    let url = shared.broker.server().url();
    json!({
        "accept_content": ["json"],
        "broker_heartbeat": 0,
        "broker_url": url,
        "deprecated_settings": [],
        "include": [],
        "result_backend": shared.broker.result_server().url(),
        "task_serializer": "json",
        "result_serializer": "json",
        "timezone": "UTC",
        "enable_utc": true,
        "task_acks_late": true,
        "task_reject_on_worker_lost": true,
        "worker_hijack_root_logger": false,
        "worker_log_color": false,
        "worker_concurrency": shared.concurrency(),
        "worker_prefetch_multiplier": shared.prefetch_multiplier,
        "task_queues": *shared.queues(),
        "imports": shared.registry.names(),
    })
}

pub(super) fn report(shared: &Shared) -> String {
    let server = shared.broker.server();
    let (version, transport) = (env!("CARGO_PKG_VERSION"), server.transport);
    let url = shared.broker.result_server().url();
    let (os, arch) = (std::env::consts::OS, std::env::consts::ARCH);
    let settings = conf(shared);
    let settings = settings.as_object().into_iter().flatten();
    let settings: String = settings
        .map(|(name, value)| format!("{name}: {value}\n"))
        .collect();
    format!(
        "\nsoftware -> celeriac:{version}\nplatform -> system:{os} arch:{arch}\n\
         settings -> transport:{transport} results:{url}\n\n{settings}"
    )
}

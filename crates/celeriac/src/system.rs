//! Everything this crate takes from its environment: the time, random ids, the order of hash maps, threads, the
//! host name, and the resource usage of the process. Monotonic time is `tokio::time`, and sockets are opened in
//! `redis::endpoint`.

use std::{io, thread};

use jiff::Timestamp;
use serde_json::{Map, Value};
use tokio::sync::oneshot;
use uuid::Uuid;

#[cfg(feature = "__simulation")]
use crate::simulation;

/// State of hash maps whose order affects which commands are sent: random, except in simulations.
#[cfg(not(feature = "__simulation"))]
pub(crate) type HashState = std::hash::RandomState;
#[cfg(feature = "__simulation")]
pub(crate) type HashState = std::hash::BuildHasherDefault<std::hash::DefaultHasher>;

/// Returns the wall-clock time, which message headers and results contain.
#[expect(
    clippy::disallowed_methods,
    reason = "the only place in this crate that reads the wall clock"
)]
pub(crate) fn now() -> Timestamp {
    #[cfg(feature = "__simulation")]
    if let Some(environment) = simulation::current() {
        return environment.now();
    }
    Timestamp::now()
}

/// Returns a random id.
#[expect(
    clippy::disallowed_methods,
    reason = "the only place in this crate that creates random ids"
)]
pub(crate) fn random_id() -> Uuid {
    #[cfg(feature = "__simulation")]
    if let Some(environment) = simulation::current() {
        return uuid::Builder::from_random_bytes(environment.random().to_be_bytes()).into_uuid();
    }
    Uuid::new_v4()
}

/// Returns a random number in `[0, 1)`.
pub(crate) fn random_fraction() -> f64 {
    f64::from((random_id().as_u128() >> 96) as u32) / (f64::from(u32::MAX) + 1.0)
}

/// Returns a delivery tag for a message sent now: a UUID of version 7, whose time shows how long the message
/// has been waiting.
pub(crate) fn tag() -> Uuid {
    let now = now();
    let seconds = u64::try_from(now.as_second()).unwrap_or_default();
    let nanoseconds = u32::try_from(now.subsec_nanosecond()).unwrap_or_default();
    #[cfg(feature = "__simulation")]
    if simulation::current().is_some() {
        let (milliseconds, random) = (seconds * 1000 + u64::from(nanoseconds / 1_000_000), random_id());
        let random = random.as_bytes().last_chunk().expect("an id has 16 bytes");
        return uuid::Builder::from_unix_timestamp_millis(milliseconds, random).into_uuid();
    }
    Uuid::new_v7(uuid::Timestamp::from_unix(uuid::NoContext, seconds, nanoseconds))
}

/// Runs a future on a thread of its own with its own runtime, so no other task can delay it. The returned
/// receiver resolves when the future has ended.
///
/// # Errors
/// Returns an error if the system refuses another thread or the runtime's descriptors.
pub(crate) fn spawn_thread<F: Future<Output = ()> + Send + 'static>(
    name: &str,
    future: impl FnOnce() -> F + Send + 'static,
) -> io::Result<oneshot::Receiver<()>> {
    #[cfg(feature = "__simulation")]
    if simulation::current().is_some() {
        let (ended, end) = oneshot::channel();
        let future = future();
        tokio::spawn(async move {
            future.await;
            let _ = ended.send(());
        });
        return Ok(end);
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let (ended, end) = oneshot::channel();
    // The subscriber may be set for the calling thread only.
    let subscriber = tracing::dispatcher::get_default(tracing::Dispatch::clone);
    thread::Builder::new().name(name.to_owned()).spawn(move || {
        tracing::dispatcher::with_default(&subscriber, || runtime.block_on(future()));
        // The receiver may have been dropped.
        let _ = ended.send(());
    })?;
    Ok(end)
}

/// Returns the host name, or `localhost` if the system does not provide one.
pub(crate) fn hostname() -> String {
    #[cfg(feature = "__simulation")]
    if simulation::current().is_some() {
        return "simulation".to_owned();
    }
    ["/proc/sys/kernel/hostname", "/etc/hostname"]
        .iter()
        .filter_map(|path| std::fs::read_to_string(path).ok())
        .map(|name| name.trim().to_owned())
        .find(|name| !name.is_empty())
        .unwrap_or_else(|| "localhost".to_owned())
}

/// Returns the id of this process.
pub(crate) fn process_id() -> u32 {
    #[cfg(feature = "__simulation")]
    if simulation::current().is_some() {
        return 1;
    }
    std::process::id()
}

/// Returns the name of this process as a sender of messages, `gen<pid>@<host>`.
pub(crate) fn origin() -> String {
    format!("gen{}@{}", process_id(), hostname())
}

/// Returns the default name of a worker on this host, `celery@<host>`, as in Celery.
#[must_use]
pub fn default_node_name() -> String {
    format!("celery@{}", hostname())
}

/// Returns the load averages over 1, 5 and 15 minutes, or zeros if the system does not provide them.
pub(crate) fn load_average() -> [f64; 3] {
    #[cfg(feature = "__simulation")]
    if simulation::current().is_some() {
        return [0.0; 3];
    }
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let mut words = text.split_whitespace();
    [(); 3].map(|()| words.next().and_then(|word| word.parse().ok()).unwrap_or(0.0))
}

/// Returns the time in the format of events and leases: seconds since the Unix epoch, with microseconds.
pub(crate) fn unix_time() -> f64 {
    now().as_microsecond() as f64 / 1e6
}

/// Returns the resources that the process has used, under the names of `getrusage`; empty if the system does
/// not provide them.
pub(crate) fn resource_usage() -> Map<String, Value> {
    let mut usage = Map::new();
    let Ok(stat) = std::fs::read_to_string("/proc/self/stat") else {
        return usage;
    };
    // The program's name in parentheses may contain spaces; the fields after it start at number 3.
    let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
    let number = |word: Option<&str>| word.and_then(|word| word.parse::<u64>().ok()).unwrap_or(0);
    let field = |position: usize| number(fields.split_whitespace().nth(position - 3));
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = |name: &str| {
        let rest = status.lines().find_map(|line| line.strip_prefix(name));
        number(rest.and_then(|rest| rest.split_whitespace().next()))
    };
    let mut set = |name: &str, value: Value| usage.insert(name.to_owned(), value);
    set("utime", (field(14) as f64 / TICKS_PER_SECOND).into());
    set("stime", (field(15) as f64 / TICKS_PER_SECOND).into());
    set("maxrss", line("VmHWM:").into());
    set("minflt", field(10).into());
    set("majflt", field(12).into());
    set("nvcsw", line("voluntary_ctxt_switches:").into());
    set("nivcsw", line("nonvoluntary_ctxt_switches:").into());
    usage
}

/// Unit in which Linux reports processor time to user space, on every architecture.
const TICKS_PER_SECOND: f64 = 100.0;

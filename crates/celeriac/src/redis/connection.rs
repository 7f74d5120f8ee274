//! A connection to Redis that connects on first use and reconnects after failures. Attempts to connect follow
//! a capped, exponential back-off; in between, requests fail immediately with [`BrokerError::Unavailable`].
//! All connections of a broker handle log their outages together, in [`Outages`].
//!
//! All commands go through this module, which reports them to the observer.
#![expect(
    clippy::disallowed_methods,
    reason = "commands are sent here, and each is reported to the observer"
)]

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use futures_util::{
    FutureExt,
    future::{BoxFuture, WeakShared},
};
use redis::{
    AsyncConnectionConfig, Cmd, FromRedisValue, Pipeline, RedisError, RedisResult, ToRedisArgs, Value,
    aio::MultiplexedConnection, cmd,
};
use tokio::time::{Instant, timeout};

use super::{
    commands,
    endpoint::Endpoint,
    error_scope::{ErrorScope, connection_error},
    names::Names,
    outage::Outages,
    script::Invocation,
};
use crate::{
    back_off::BackOff,
    broker::BrokerError,
    lock::Lock,
    log::debug,
    observer::{Command, CommandFailure, Observer},
};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Minimum lifetime of a connection whose loss resets the back-off.
const STABLE_AFTER: Duration = Duration::from_secs(5);

/// Maximum number of times that the response time-out is doubled.
const MAX_PATIENCE: u32 = 4;

/// Maximum number of times that a script is loaded again for one request.
const MAX_SCRIPT_LOADS: usize = 20;

/// Number of characters of each random id that are enough to tell servers apart.
const IDENTITY_CHARACTERS: usize = 12;

/// Capacity of the queue of requests for the socket; further callers wait.
const PIPELINE_BUFFER: usize = 1024;

pub(super) struct Connection {
    pub endpoint: Arc<Endpoint>,
    pub names: Arc<Names>,
    outages: Arc<Outages>,
    pub observer: Arc<dyn Observer>,
    pub response_timeout: Duration,
    /// Number of times that the response time-out of the next connection is doubled.
    patience: AtomicU32,
    state: Arc<Lock<ConnectionState>>,
}

/// Attempt to connect. All callers that wait for it drive it, so none depends on another being polled; it ends when the
/// last of them is dropped.
type Attempt = BoxFuture<'static, Result<Live, BrokerError>>;

#[derive(Default)]
struct ConnectionState {
    live: Option<Live>,
    generation: u64,
    connecting: Option<WeakShared<Attempt>>,
    /// Time before which no attempt to connect is made, and the cause of the last failure.
    retry_at: Option<(Instant, String)>,
    back_off: BackOff,
}

/// An established connection.
#[derive(Clone)]
pub(super) struct Live {
    connection: MultiplexedConnection,
    /// Number of this connection. Bindings declared on an earlier connection must be declared again.
    pub generation: u64,
    made: Instant,
    /// Time of the server's last error that affects all requests, or of connecting if there was none.
    pub since: Instant,
    /// Identity of the server's run and data, which changes with a restart or a fail-over; empty if unknown.
    pub server: Arc<str>,
}

impl Connection {
    pub(super) fn new(
        endpoint: Endpoint,
        names: Names,
        response_timeout: Duration,
        observer: Arc<dyn Observer>,
    ) -> Self {
        Self {
            endpoint: Arc::new(endpoint),
            names: Arc::new(names),
            outages: Arc::default(),
            observer,
            response_timeout,
            patience: AtomicU32::new(0),
            state: Arc::default(),
        }
    }

    /// Doubles the response time-out of the next connection, because the response may be long.
    pub(super) fn be_more_patient(&self) {
        let more = |patience| Some(MAX_PATIENCE.min(patience + 1));
        // The closure never fails.
        let _ = self
            .patience
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
    }

    /// Resets the response time-out of the next connection.
    pub(super) fn reset_patience(&self) {
        self.patience.store(0, Ordering::Relaxed);
    }

    /// Creates another connection of the same broker handle.
    pub(super) fn another(&self) -> Self {
        self.observer(Arc::clone(&self.observer))
    }

    /// Creates another connection to the same server that reports its commands to `observer`.
    pub(super) fn observer(&self, observer: Arc<dyn Observer>) -> Self {
        Self {
            endpoint: Arc::clone(&self.endpoint),
            names: Arc::clone(&self.names),
            outages: Arc::clone(&self.outages),
            observer,
            response_timeout: self.response_timeout,
            patience: AtomicU32::new(0),
            state: Arc::default(),
        }
    }

    /// Creates another connection of the same broker handle with a different response time-out.
    pub(super) fn with_response_timeout(&self, response_timeout: Duration) -> Self {
        Self {
            response_timeout,
            ..self.another()
        }
    }

    /// Runs a command and reports it to the observer as `reported`.
    pub(super) async fn command<T: FromRedisValue>(
        &self,
        reported: Command<'_>,
        args: impl ToRedisArgs,
    ) -> Result<T, BrokerError> {
        let mut command = cmd(reported.name);
        command.arg(args);
        let run = |mut connection| async move { command.query_async(&mut connection).await };
        self.request(reported, run, || reported.name.to_owned()).await
    }

    /// Runs several commands in one round trip and reports them to the observer as `reported`.
    pub(super) async fn pipeline<T: FromRedisValue>(
        &self,
        reported: Command<'_>,
        pipeline: &Pipeline,
    ) -> Result<T, BrokerError> {
        let run = |mut connection| async move { pipeline.query_async(&mut connection).await };
        let kind = || {
            let names: BTreeSet<String> = pipeline.cmd_iter().map(name).collect();
            Vec::from_iter(names).join(" ")
        };
        let reported = Command {
            size: pipeline.cmd_iter().count(),
            ..reported
        };
        self.request(reported, run, kind).await
    }

    /// Runs a script by its hash; loads it first if the server does not know it.
    pub(super) async fn script<T: FromRedisValue>(&self, script: &Invocation<'_>) -> Result<T, BrokerError> {
        let run = |mut connection| async move {
            let mut back_off = BackOff::new(Duration::from_millis(1), Duration::from_millis(20));
            let mut attempts = 1;
            loop {
                match script.run(&mut connection).await {
                    // Scripts may be flushed between loading this one and running it.
                    Err(error) if error.code() == Some("NOSCRIPT") && attempts < MAX_SCRIPT_LOADS => {
                        debug!(
                            retry.attempts = attempts,
                            "Redis has flushed its scripts; loading the script again"
                        );
                        attempts += 1;
                        Box::pin(back_off.wait()).await;
                    }
                    reply => return reply,
                }
            }
        };
        let reported = Command {
            script: Some(script.hash),
            ..commands::EVALSHA
        };
        self.request(reported, run, || script.hash.to_owned()).await
    }

    /// Runs a request on the connection and reports it to the observer. `kind` identifies such requests in
    /// [`Outages`].
    async fn request<T, F: Future<Output = RedisResult<T>>>(
        &self,
        reported: Command<'_>,
        run: impl FnOnce(MultiplexedConnection) -> F,
        kind: impl FnOnce() -> String,
    ) -> Result<T, BrokerError> {
        let span = self.observer.command(reported);
        let reply = match self.live().await {
            Ok(live) => {
                let reply = run(live.connection).await;
                let lacks_permission =
                    |error: &RedisError| ErrorScope::code(error).is_some_and(|code| code == "NOPERM");
                let denied = match &reply {
                    Err(error) if lacks_permission(error) => Box::pin(self.denied_keys()).await,
                    _ => String::new(),
                };
                self.check(live.generation, reply, &denied, kind)
            }
            Err(error) => Err((error, None)),
        };
        match &reply {
            Ok(_) => span.finish(Ok(())),
            Err((error, code)) => span.finish(Err(CommandFailure::new(error, code.as_deref()))),
        }
        reply.map_err(|(error, _)| error)
    }

    /// Returns a note on the keys that the account cannot access, which the server does not name.
    async fn denied_keys(&self) -> String {
        let Ok(live) = self.live().await else {
            return String::new();
        };
        let mut connection = live.connection;
        let mut denied = Vec::new();
        for key in self.names.examples() {
            let reply = cmd("TYPE").arg(&key).exec_async(&mut connection).await;
            if reply.is_err_and(|error| error.to_string().contains("key")) {
                denied.push(key);
            }
        }
        if denied.is_empty() {
            return String::new();
        }
        format!("; denied keys: {}", denied.join(", "))
    }

    /// Opens a separate connection for pub/sub.
    pub(super) async fn subscriber(&self) -> Result<redis::aio::PubSub, BrokerError> {
        // A server that is loading its data accepts subscriptions, so check that it serves requests.
        self.live().await?;
        let subscriber = in_time(&self.outages, self.endpoint.subscriber()).await;
        subscriber.map_err(connection_error)
    }

    /// Waits for the server to confirm a subscription.
    pub(super) async fn confirmed(
        &self,
        command: impl Future<Output = RedisResult<()>>,
    ) -> Result<(), BrokerError> {
        let cause = match timeout(self.response_timeout, command).await {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(error)) => error.to_string(),
            Err(_) => "timed out subscribing".to_owned(),
        };
        Err(BrokerError::unavailable(cause))
    }

    /// Returns the connection. Connects first if there is none and the back-off allows it.
    pub(super) async fn live(&self) -> Result<Live, BrokerError> {
        let current = self.state.lock().current()?;
        match current {
            Some(live) => Ok(live),
            // Boxed to keep the futures of commands small: they rarely connect.
            None => Box::pin(self.reconnect()).await,
        }
    }

    async fn reconnect(&self) -> Result<Live, BrokerError> {
        let attempt = {
            let mut state = self.state.lock();
            // Another caller may have connected or failed in the meantime.
            if let Some(live) = state.current()? {
                return Ok(live);
            }
            let attempt = state.connecting.as_ref().and_then(WeakShared::upgrade);
            let attempt = attempt.unwrap_or_else(|| self.attempt().shared());
            state.connecting = attempt.downgrade();
            attempt
        };
        attempt.await
    }

    /// Returns an attempt to connect, which updates the state at its end.
    fn attempt(&self) -> Attempt {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT_TIMEOUT))
            .set_response_timeout(Some(
                self.response_timeout * (1 << self.patience.load(Ordering::Relaxed)),
            ))
            .set_pipeline_buffer_size(PIPELINE_BUFFER);
        let (endpoint, outages) = (Arc::clone(&self.endpoint), Arc::clone(&self.outages));
        let state = Arc::clone(&self.state);
        let attempt = async move {
            let connected = in_time(&outages, connect(&endpoint, &config)).await;
            let mut state = state.lock();
            state.connecting = None;
            let (connection, server) = connected.map_err(|cause| state.postpone(cause))?;
            state.generation += 1;
            state.retry_at = None;
            let now = Instant::now();
            let live = Live {
                connection,
                generation: state.generation,
                made: now,
                since: now,
                server,
            };
            state.live = Some(live.clone());
            Ok(live)
        };
        attempt.boxed()
    }

    /// Updates the state of the connection after a request. Returns an error together with the server's error
    /// code.
    fn check<T>(
        &self,
        generation: u64,
        reply: RedisResult<T>,
        note: &str,
        kind: impl FnOnce() -> String,
    ) -> Result<T, (BrokerError, Option<String>)> {
        let error = match reply {
            Ok(reply) => {
                self.outages.report_answer(kind);
                return Ok(reply);
            }
            Err(error) => error,
        };
        let code = ErrorScope::code(&error);
        let (scope, mut cause) = ErrorScope::of(&error);
        cause.push_str(note);
        if scope == ErrorScope::Request {
            return Err((BrokerError::Refused { cause }, code));
        }
        let mut state = self.state.lock();
        let same = |live: &&mut Live| live.generation == generation;
        if let Some(live) = state.live.as_mut().filter(same) {
            if scope == ErrorScope::Server {
                live.since = Instant::now();
                self.outages.report_refusal(kind(), &cause);
            } else {
                let made = live.made;
                state.live = None;
                if made.elapsed() >= STABLE_AFTER {
                    state.back_off.reset();
                }
                state.postpone(cause.clone());
                self.outages.report_unavailable(Some(made), &cause);
            }
        }
        Err((connection_error(cause), code))
    }
}

impl ConnectionState {
    /// Returns the connection if there is one, or the last error while the back-off lasts.
    fn current(&self) -> Result<Option<Live>, BrokerError> {
        match (&self.live, &self.retry_at) {
            (Some(live), _) => Ok(Some(live.clone())),
            (None, Some((until, cause))) if Instant::now() < *until => Err(connection_error(cause.as_str())),
            (None, _) => Ok(None),
        }
    }

    /// Postpones the next attempt to connect. Returns the error for requests made until then.
    fn postpone(&mut self, cause: String) -> BrokerError {
        self.retry_at = Some((Instant::now() + self.back_off.next_delay(), cause.clone()));
        connection_error(cause)
    }
}

/// Limits the time of an attempt to connect, and reports its result.
async fn in_time<T>(
    outages: &Outages,
    attempt: impl Future<Output = Result<T, String>>,
) -> Result<T, String> {
    let result = timeout(CONNECT_TIMEOUT * 2, attempt).await;
    let result = result.unwrap_or_else(|_| Err("timed out connecting".to_owned()));
    match &result {
        Ok(_) => outages.report_available(),
        Err(cause) => outages.report_unavailable(None, cause),
    }
    result
}

/// Connects and checks that the server serves requests. Returns the connection and the server's identity.
async fn connect(
    endpoint: &Endpoint,
    config: &AsyncConnectionConfig,
) -> Result<(MultiplexedConnection, Arc<str>), String> {
    let mut connection = endpoint.connect(config).await?;
    // Servers also accept connections while they load their data, and as replicas.
    cmd("PING").exec_async(&mut connection).await.map_err(text)?;
    match cmd("ROLE").query_async::<Vec<Value>>(&mut connection).await {
        Ok(role) if matches!(role.first(), Some(Value::BulkString(name)) if name == b"slave") => {
            Err("the server is a replica".to_owned())
        }
        Err(error) if ErrorScope::of(&error).0 == ErrorScope::Connection => Err(text(error)),
        // Other errors do not matter: the account may lack the permission, and a proxy may not know the command.
        _ => {
            let server = identity(&mut connection).await;
            Ok((connection, server.into()))
        }
    }
}

/// Returns the identity of the server's run and data, or an empty string if the server does not report it.
async fn identity(connection: &mut MultiplexedConnection) -> String {
    let mut identity = String::new();
    for (section, field) in [("server", "run_id:"), ("replication", "master_replid:")] {
        let info: String = cmd("INFO")
            .arg(section)
            .query_async(connection)
            .await
            .unwrap_or_default();
        let value = info.lines().find_map(|line| line.strip_prefix(field));
        identity.extend(value.unwrap_or_default().trim().chars().take(IDENTITY_CHARACTERS));
    }
    identity
}

fn text(error: RedisError) -> String {
    ErrorScope::of(&error).1
}

/// Returns the name of a command.
fn name(command: &Cmd) -> String {
    match command.args_iter().next() {
        Some(redis::Arg::Simple(name)) => String::from_utf8_lossy(name).into_owned(),
        _ => String::new(),
    }
}

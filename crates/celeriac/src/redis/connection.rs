//! One connection to Redis that comes back by itself. It connects on first use; after a failure it tries again
//! no faster than a growing, capped back-off allows and answers [`BrokerError::Unavailable`] at once in between.
//! The connections of one broker handle share what they say about their server, see [`Outages`].
//!
//! There is no way to the server around this, and none through it without saying how the command is to be reported.
#![expect(
    clippy::disallowed_methods,
    reason = "this is where commands are sent, each reported to the observer"
)]

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use redis::{
    AsyncConnectionConfig, Client, Cmd, ErrorKind, FromRedisValue, Pipeline, RedisError, RedisResult,
    ScriptInvocation, Value, aio::MultiplexedConnection, cmd,
};
use tokio::time::{Instant, timeout};

use super::{commands, endpoint::Endpoint, fault::Fault, outage::Outages};
use crate::{
    broker::BrokerError,
    bus::ServerInfo,
    observer::{Command, CommandFailure, Observer},
};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// A connection that breaks sooner than this did not end the trouble: the back-off goes on where it was.
const STABLE: Duration = Duration::from_secs(5);

/// How often a script that the server has forgotten is loaded again for one request.
const MOST_LOADS: usize = 20;

/// Requests that may wait for the socket before callers have to.
const PIPELINE_BUFFER: usize = 1024;

pub(super) struct Connection {
    endpoint: Arc<Endpoint>,
    outages: Arc<Outages>,
    observer: Arc<dyn Observer>,
    response_timeout: Duration,
    state: Mutex<State>,
    /// Held while connecting, so that one caller connects and the others wait for it.
    connecting: tokio::sync::Mutex<()>,
}

struct State {
    live: Option<Live>,
    generation: u64,
    /// Until when no attempt to connect is made, and why.
    refused: Option<(Instant, String)>,
    pause: Duration,
}

impl Default for State {
    fn default() -> Self {
        Self {
            live: None,
            generation: 0,
            refused: None,
            pause: FIRST_PAUSE,
        }
    }
}

/// A connection that worked when last heard of.
#[derive(Clone)]
pub(super) struct Live {
    connection: MultiplexedConnection,
    /// Counts connections: what was declared on an older one has to be declared again.
    pub generation: u64,
    made: Instant,
    /// Since when it is connected and the server works.
    pub since: Instant,
}

/// A request without the answer it asked for.
struct Failed {
    error: BrokerError,
    /// What the server calls it.
    code: Option<String>,
}

impl From<BrokerError> for Failed {
    fn from(error: BrokerError) -> Self {
        Self { error, code: None }
    }
}

impl Connection {
    pub fn new(endpoint: Endpoint, response_timeout: Duration, observer: Arc<dyn Observer>) -> Self {
        Self {
            endpoint: Arc::new(endpoint),
            outages: Arc::default(),
            observer,
            response_timeout,
            state: Mutex::default(),
            connecting: tokio::sync::Mutex::default(),
        }
    }

    /// Another connection of the same broker handle.
    pub fn another(&self) -> Self {
        self.reporting_to(Arc::clone(&self.observer))
    }

    /// Another connection to the same server, which reports its commands to this observer.
    pub fn reporting_to(&self, observer: Arc<dyn Observer>) -> Self {
        Self {
            endpoint: Arc::clone(&self.endpoint),
            outages: Arc::clone(&self.outages),
            observer,
            response_timeout: self.response_timeout,
            state: Mutex::default(),
            connecting: tokio::sync::Mutex::default(),
        }
    }

    /// Another connection of the same broker handle, on which an answer may take this long.
    pub fn answering_within(&self, response_timeout: Duration) -> Self {
        Self {
            response_timeout,
            ..self.another()
        }
    }

    /// The database number, which is part of channel names.
    pub fn database(&self) -> i64 {
        self.endpoint.database()
    }

    /// Where the server is.
    pub fn server(&self) -> ServerInfo {
        self.endpoint.server_info()
    }

    /// Runs a command that is reported as `reported`.
    pub async fn command<T: FromRedisValue>(
        &self,
        reported: Command,
        command: &Cmd,
    ) -> Result<T, BrokerError> {
        let answer = async {
            let mut live = self.live().await?;
            let answer = command.query_async(&mut live.connection).await;
            self.judged(live.generation, answer, || name(command))
        };
        self.observed(reported, answer).await
    }

    /// Runs several commands in one round trip, which is reported as `reported`.
    pub async fn pipeline<T: FromRedisValue>(
        &self,
        reported: Command,
        pipeline: &Pipeline,
    ) -> Result<T, BrokerError> {
        let answer = async {
            let mut live = self.live().await?;
            let answer = pipeline.query_async(&mut live.connection).await;
            self.judged(live.generation, answer, || {
                let names: BTreeSet<String> = pipeline.cmd_iter().map(name).collect();
                Vec::from_iter(names).join(" ")
            })
        };
        self.observed(reported, answer).await
    }

    /// Runs a script by its hash, and loads it first where the server does not know it.
    pub async fn script<T: FromRedisValue>(&self, script: &ScriptInvocation<'_>) -> Result<T, BrokerError> {
        let answer = async {
            let mut live = self.live().await?;
            let mut answer = script.invoke_async(&mut live.connection).await;
            // The scripts may be flushed between loading this one and running it.
            for _ in 0..MOST_LOADS {
                match &answer {
                    Err(error) if error.code() == Some("NOSCRIPT") => {
                        answer = script.invoke_async(&mut live.connection).await;
                    }
                    _ => break,
                }
            }
            self.judged(live.generation, answer, || script_name(script))
        };
        self.observed(commands::EVALSHA, answer).await
    }

    /// Tells the observer when `answer` is asked for and how it ends.
    async fn observed<T>(
        &self,
        reported: Command,
        answer: impl Future<Output = Result<T, Failed>>,
    ) -> Result<T, BrokerError> {
        let span = self.observer.command(reported);
        let answer = answer.await;
        span.finish(answer.as_ref().map(|_| ()).map_err(|failed| CommandFailure {
            error: &failed.error,
            code: failed.code.as_deref(),
        }));
        answer.map_err(|failed| failed.error)
    }

    /// A connection for pub/sub of its own, not counted as part of this one.
    pub async fn subscriber(&self) -> Result<redis::aio::PubSub, BrokerError> {
        // Subscribing works while the server still reads its data; this connection is made only when it has.
        self.live().await?;
        let attempt = async {
            let client = self.endpoint.client().await?;
            client.get_async_pubsub().await.map_err(|error| text(&error))
        };
        match in_time(attempt).await {
            Ok(subscriber) => {
                self.outages.back();
                Ok(subscriber)
            }
            Err(cause) => {
                self.outages.away(None, &cause);
                Err(BrokerError::Unavailable { cause })
            }
        }
    }

    /// The connection; made now if there is none and the back-off allows it.
    pub async fn live(&self) -> Result<Live, BrokerError> {
        match self.current()? {
            Some(live) => Ok(live),
            // In a box, so that the futures of all commands, which hardly ever connect, stay small.
            None => Box::pin(self.reconnect()).await,
        }
    }

    async fn reconnect(&self) -> Result<Live, BrokerError> {
        let _turn = self.connecting.lock().await;
        if let Some(live) = self.current()? {
            return Ok(live);
        }
        match in_time(self.connect()).await {
            Ok(connection) => {
                self.outages.back();
                Ok(self.connected(connection))
            }
            Err(cause) => {
                self.outages.away(None, &cause);
                self.pause(&mut self.state(), &cause);
                Err(BrokerError::Unavailable { cause })
            }
        }
    }

    async fn connect(&self) -> Result<MultiplexedConnection, String> {
        let client = self.endpoint.client().await?;
        self.working(&client).await.map_err(|error| text(&error))
    }

    /// A connection to a server that does its work.
    async fn working(&self, client: &Client) -> RedisResult<MultiplexedConnection> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT_TIMEOUT))
            .set_response_timeout(Some(self.response_timeout))
            .set_pipeline_buffer_size(PIPELINE_BUFFER);
        let mut connection = client
            .get_multiplexed_async_connection_with_config(&config)
            .await?;
        // A server accepts connections while it reads its data, and as a replica.
        cmd("PING").exec_async(&mut connection).await?;
        match cmd("ROLE").query_async::<Vec<Value>>(&mut connection).await {
            Ok(role) if is_replica(&role) => Err((ErrorKind::Client, "the server is a replica").into()),
            Ok(_) => Ok(connection),
            // An account need not have the right to ask, nor a proxy know the command.
            Err(error) if Fault::of(&error).0 != Fault::Connection => Ok(connection),
            Err(error) => Err(error),
        }
    }

    /// The live connection, or the error while it is too early to connect again.
    fn current(&self) -> Result<Option<Live>, BrokerError> {
        let state = self.state();
        match (&state.live, &state.refused) {
            (Some(live), _) => Ok(Some(live.clone())),
            (None, Some((until, cause))) if Instant::now() < *until => {
                Err(BrokerError::Unavailable { cause: cause.clone() })
            }
            (None, _) => Ok(None),
        }
    }

    fn connected(&self, connection: MultiplexedConnection) -> Live {
        let mut state = self.state();
        let now = Instant::now();
        state.generation += 1;
        state.refused = None;
        let live = Live {
            connection,
            generation: state.generation,
            made: now,
            since: now,
        };
        state.live = Some(live.clone());
        live
    }

    /// What an answer means for the connection and for its caller. `request` names the kind of request.
    fn judged<T>(
        &self,
        generation: u64,
        answer: RedisResult<T>,
        request: impl FnOnce() -> String,
    ) -> Result<T, Failed> {
        match answer {
            Ok(answer) => {
                self.outages.answered(request);
                Ok(answer)
            }
            Err(error) => Err(Failed {
                error: self.failed(generation, &error, request),
                code: Fault::code(&error),
            }),
        }
    }

    fn failed(&self, generation: u64, error: &RedisError, request: impl FnOnce() -> String) -> BrokerError {
        let (fault, cause) = Fault::of(error);
        if fault == Fault::Request {
            return BrokerError::Refused { cause };
        }
        let mut state = self.state();
        let same = |live: &&mut Live| live.generation == generation;
        if let Some(live) = state.live.as_mut().filter(same) {
            if fault == Fault::Server {
                live.since = Instant::now();
                self.outages.refused(request(), &cause);
            } else {
                let made = live.made;
                state.live = None;
                if made.elapsed() >= STABLE {
                    state.pause = FIRST_PAUSE;
                }
                self.pause(&mut state, &cause);
                self.outages.away(Some(made), &cause);
            }
        }
        BrokerError::Unavailable { cause }
    }

    fn pause(&self, state: &mut State, cause: &str) {
        state.refused = Some((Instant::now() + state.pause, cause.to_owned()));
        state.pause = (state.pause * 2).min(LONGEST_PAUSE);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn in_time<T>(attempt: impl Future<Output = Result<T, String>>) -> Result<T, String> {
    match timeout(CONNECT_TIMEOUT * 2, attempt).await {
        Ok(outcome) => outcome,
        Err(_) => Err("connecting took too long".to_owned()),
    }
}

fn text(error: &RedisError) -> String {
    Fault::of(error).1
}

fn is_replica(role: &[Value]) -> bool {
    matches!(role.first(), Some(Value::BulkString(role)) if role == b"slave")
}

/// Tells scripts apart: a server that has no memory left runs those that begin by making room. An invocation shows its
/// script, with the hash, only in its debug text, which has no arguments in it.
fn script_name(script: &ScriptInvocation<'_>) -> String {
    let text = format!("{script:?}");
    let hash = text
        .split("hash: ")
        .nth(1)
        .and_then(|rest| rest.split('"').nth(1));
    hash.unwrap_or("EVALSHA").to_owned()
}

/// The command's name.
fn name(command: &Cmd) -> String {
    match command.args_iter().next() {
        Some(redis::Arg::Simple(name)) => String::from_utf8_lossy(name).into_owned(),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use redis::Script;

    use super::*;

    #[test]
    fn scripts_are_told_apart_whatever_their_arguments() {
        let (one, other) = (Script::new("return 1"), Script::new("return 2"));
        assert_eq!(script_name(&one.key("a")), one.get_hash());
        assert_eq!(script_name(one.key("b").arg("hash: \"c\"")), one.get_hash());
        assert_eq!(script_name(&other.key("a")), other.get_hash());
    }
}

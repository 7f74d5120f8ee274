//! One connection to Redis that comes back by itself. It connects on first use; after a failure it tries again
//! no faster than a growing, capped back-off allows and answers [`BrokerError::Unavailable`] at once in between.
//! One log line says that it broke, one that it is back.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use redis::{
    AsyncConnectionConfig, Cmd, FromRedisValue, Pipeline, RedisError, ScriptInvocation,
    aio::MultiplexedConnection,
};
use tokio::time::{Instant, timeout};
use tracing::{info, warn};

use crate::broker::BrokerError;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// Requests that may wait for the socket before callers have to.
const PIPELINE_BUFFER: usize = 1024;

pub(super) struct Connection {
    client: redis::Client,
    purpose: &'static str,
    response_timeout: Duration,
    state: Mutex<State>,
    /// Held while connecting, so that one caller connects and the others wait for it.
    connecting: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct State {
    live: Option<Live>,
    generation: u64,
    outage: Option<Outage>,
}

/// A connection that worked when last heard of.
#[derive(Clone)]
pub(super) struct Live {
    connection: MultiplexedConnection,
    /// Counts connections: what was declared on an older one has to be declared again.
    pub generation: u64,
    /// Since when it is connected.
    pub since: Instant,
}

struct Outage {
    since: Instant,
    pause: Duration,
    retry_at: Instant,
    cause: String,
}

impl Connection {
    pub fn new(client: redis::Client, purpose: &'static str, response_timeout: Duration) -> Self {
        Self {
            client,
            purpose,
            response_timeout,
            state: Mutex::default(),
            connecting: tokio::sync::Mutex::default(),
        }
    }

    /// The database number, which is part of channel names.
    pub fn database(&self) -> i64 {
        self.client.get_connection_info().redis_settings().db()
    }

    pub async fn command<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, BrokerError> {
        let mut live = self.live().await?;
        let answer = command.query_async(&mut live.connection).await;
        answer.map_err(|error| self.failed(live.generation, &error))
    }

    pub async fn pipeline<T: FromRedisValue>(&self, pipeline: &Pipeline) -> Result<T, BrokerError> {
        let mut live = self.live().await?;
        let answer = pipeline.query_async(&mut live.connection).await;
        answer.map_err(|error| self.failed(live.generation, &error))
    }

    /// Runs a script by its hash, and loads it first where the server does not know it.
    pub async fn script<T: FromRedisValue>(&self, script: &ScriptInvocation<'_>) -> Result<T, BrokerError> {
        let mut live = self.live().await?;
        let answer = script.invoke_async(&mut live.connection).await;
        answer.map_err(|error| self.failed(live.generation, &error))
    }

    /// A connection for pub/sub of its own, not counted as part of this one.
    pub async fn subscriber(&self) -> Result<redis::aio::PubSub, BrokerError> {
        match timeout(CONNECT_TIMEOUT, self.client.get_async_pubsub()).await {
            Ok(Ok(subscriber)) => Ok(subscriber),
            Ok(Err(error)) => Err(BrokerError::Unavailable {
                cause: error.to_string(),
            }),
            Err(_) => Err(BrokerError::Unavailable {
                cause: "connecting took too long".to_owned(),
            }),
        }
    }

    /// The connection; made now if there is none and the back-off allows it.
    pub async fn live(&self) -> Result<Live, BrokerError> {
        match self.current()? {
            Some(live) => Ok(live),
            // In a box, so that the futures of all commands, which hardly ever connect, stay small.
            None => Box::pin(self.connect()).await,
        }
    }

    async fn connect(&self) -> Result<Live, BrokerError> {
        let _turn = self.connecting.lock().await;
        if let Some(live) = self.current()? {
            return Ok(live);
        }
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT_TIMEOUT))
            .set_response_timeout(Some(self.response_timeout))
            .set_pipeline_buffer_size(PIPELINE_BUFFER);
        let attempt = self.client.get_multiplexed_async_connection_with_config(&config);
        let cause = match timeout(CONNECT_TIMEOUT * 2, attempt).await {
            Ok(Ok(connection)) => return Ok(self.connected(connection)),
            Ok(Err(error)) => error.to_string(),
            Err(_) => "connecting took too long".to_owned(),
        };
        Err(self.down(&mut self.state(), cause))
    }

    /// The live connection, or the error while it is too early to connect again.
    fn current(&self) -> Result<Option<Live>, BrokerError> {
        let state = self.state();
        match (&state.live, &state.outage) {
            (Some(live), _) => Ok(Some(live.clone())),
            (None, Some(outage)) if Instant::now() < outage.retry_at => Err(BrokerError::Unavailable {
                cause: outage.cause.clone(),
            }),
            (None, _) => Ok(None),
        }
    }

    fn connected(&self, connection: MultiplexedConnection) -> Live {
        let mut state = self.state();
        if let Some(outage) = state.outage.take() {
            let seconds = outage.since.elapsed().as_secs_f64();
            info!(
                connection = self.purpose,
                outage_seconds = seconds,
                "Redis is back"
            );
        }
        state.generation += 1;
        let live = Live {
            connection,
            generation: state.generation,
            since: Instant::now(),
        };
        state.live = Some(live.clone());
        live
    }

    /// What a failed command means for the connection and for its caller.
    fn failed(&self, generation: u64, error: &RedisError) -> BrokerError {
        // A server that was made a replica answers READONLY: a new connection may find the new primary.
        let broken = error.is_io_error()
            || error.is_unrecoverable_error()
            || matches!(error.code(), Some("READONLY" | "LOADING" | "MASTERDOWN"));
        if !broken {
            return BrokerError::Refused {
                cause: error.to_string(),
            };
        }
        let mut state = self.state();
        if state
            .live
            .as_ref()
            .is_some_and(|live| live.generation == generation)
        {
            state.live = None;
            self.down(&mut state, error.to_string())
        } else {
            BrokerError::Unavailable {
                cause: error.to_string(),
            }
        }
    }

    fn down(&self, state: &mut State, cause: String) -> BrokerError {
        let now = Instant::now();
        let outage = state.outage.get_or_insert_with(|| {
            warn!(
                connection = self.purpose,
                cause, "Redis is unavailable; reconnecting until it is back"
            );
            Outage {
                since: now,
                pause: FIRST_PAUSE,
                retry_at: now,
                cause: String::new(),
            }
        });
        outage.retry_at = now + outage.pause;
        outage.pause = (outage.pause * 2).min(LONGEST_PAUSE);
        outage.cause.clone_from(&cause);
        BrokerError::Unavailable { cause }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

//! Lua scripts that an application runs on the broker's server, with the broker's settings: sentinels,
//! certificates, reconnection and reporting.

use std::{fmt, time::Duration};

use redis::Script;
use tokio::time::timeout;

use super::{RedisBroker, connection::Connection, script::Invocation};
use crate::broker::BrokerError;

/// Lua script of the application, with its own connection.
///
/// Prefix its keys with the application's name to keep them apart from Celery's.
pub struct RedisScript {
    script: Script,
    connection: Connection,
}

impl fmt::Debug for RedisScript {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisScript")
            .field("script", &self.script)
            .field("response_timeout", &self.connection.response_timeout)
            .finish_non_exhaustive()
    }
}

impl RedisBroker {
    /// Creates a script that runs on this broker's server and connects on its first run. `response_timeout`
    /// limits both connecting and waiting for the reply.
    #[must_use]
    pub fn script(&self, text: &str, response_timeout: Duration) -> RedisScript {
        RedisScript {
            script: Script::new(text),
            connection: self.commands.with_response_timeout(response_timeout),
        }
    }
}

impl RedisScript {
    /// Runs the script, which must return an integer.
    ///
    /// # Errors
    /// [`BrokerError::Unavailable`] if the server cannot be reached, does not reply in time, or is not ready
    /// to serve requests; [`BrokerError::Refused`] if the script fails.
    pub async fn run(&self, keys: &[String], arguments: &[u64]) -> Result<i64, BrokerError> {
        let mut invocation = Invocation::new(&self.script);
        invocation.key(keys).arg(arguments);
        // The connection itself limits the wait for the reply; this limit also covers connecting.
        let limit = self.connection.response_timeout * 2;
        let reply = timeout(limit, self.connection.script(&invocation)).await;
        reply.unwrap_or_else(|_| Err(BrokerError::unavailable("timed out connecting")))
    }
}

//! Scripts of the application's own on the server that its tasks go through: what it has set up for the broker,
//! sentinels, certificates, reconnecting, and reports, is there for them too.

use std::{fmt, time::Duration};

use redis::Script;
use tokio::time::timeout;

use super::{RedisBroker, connection::Connection};
use crate::broker::BrokerError;

/// A Lua script that belongs to the application, and a connection of its own to run it on.
///
/// Its keys should begin with the application's name: those of Celery do not say what they belong to.
pub struct RedisScript {
    script: Script,
    connection: Connection,
    patience: Duration,
}

impl fmt::Debug for RedisScript {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisScript")
            .field("hash", &self.script.get_hash())
            .field("patience", &self.patience)
            .finish_non_exhaustive()
    }
}

impl RedisBroker {
    /// A script for this broker's server; connects when it is first run. An answer may take `patience`, and so may
    /// connecting.
    #[must_use]
    pub fn script(&self, text: &str, patience: Duration) -> RedisScript {
        RedisScript {
            script: Script::new(text),
            connection: self.commands.answering_within(patience),
            patience,
        }
    }
}

impl RedisScript {
    /// Runs the script, which must answer with an integer.
    ///
    /// # Errors
    /// [`BrokerError::Unavailable`] when the server cannot be reached, does not answer in time, or cannot work;
    /// [`BrokerError::Refused`] when the script fails.
    pub async fn run(&self, keys: &[String], arguments: &[u64]) -> Result<i64, BrokerError> {
        let mut invocation = self.script.prepare_invoke();
        for key in keys {
            invocation.key(key);
        }
        for argument in arguments {
            invocation.arg(argument);
        }
        // The connection keeps to the time for an answer; this is for connecting first.
        match timeout(self.patience * 2, self.connection.script(&invocation)).await {
            Ok(answer) => answer,
            Err(_elapsed) => Err(BrokerError::Unavailable {
                cause: "no connection in time".to_owned(),
            }),
        }
    }
}

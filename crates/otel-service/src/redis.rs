//! Client spans and durations of Redis commands, following the stable database conventions (OpenTelemetry
//! semantic conventions 1.44). Arguments never reach a span.

use std::sync::Arc;

use opentelemetry::KeyValue;

use crate::db::{Call, Statement, Target};
use crate::failure::Failure;

/// Address of a Redis server, for the attributes of its commands.
#[derive(Clone, Debug)]
pub struct RedisServer {
    /// `server.address`.
    pub address: String,
    /// `server.port`.
    pub port: u16,
    /// `db.namespace`, the number of the database.
    pub database: i64,
}

/// Instruments for the commands of a Redis client; cheap to clone.
///
/// ```
/// use otel_service::Redis;
///
/// let redis = Redis::new();
/// let command = redis.command("LPUSH", "LPUSH ? ?");
/// // ... send the command ...
/// command.finish(Ok(()));
/// ```
#[derive(Clone, Debug)]
pub struct Redis(Arc<Target>);

impl Default for Redis {
    fn default() -> Self {
        Self::new()
    }
}

impl Redis {
    /// Creates the instruments of a client whose server address is unknown.
    #[must_use]
    pub fn new() -> Self {
        Self::with_attributes(vec![KeyValue::new("db.system.name", "redis")])
    }

    /// Creates the instruments of a client of `server`.
    #[must_use]
    pub fn for_server(server: RedisServer) -> Self {
        Self::with_attributes(vec![
            KeyValue::new("db.system.name", "redis"),
            KeyValue::new("db.namespace", server.database.to_string()),
            KeyValue::new("server.address", server.address),
            KeyValue::new("server.port", i64::from(server.port)),
        ])
    }

    fn with_attributes(fixed: Vec<KeyValue>) -> Self {
        Self(Arc::new(Target::new(fixed)))
    }

    /// Starts a client span for a command or pipeline, and measures its `db.client.operation.duration`.
    ///
    /// `text` is the command with `?` in place of each argument, such as `BRPOP ? ?`. In a context returned
    /// by [`crate::on_behalf_of`], the span has links to the spans of all its contexts.
    pub fn command(&self, operation: &'static str, text: &'static str) -> RedisCommand {
        let command = Statement::new(operation, "", operation, text);
        RedisCommand(Call::start(Arc::clone(&self.0), command))
    }
}

/// A Redis command in progress.
///
/// Dropping it without [`RedisCommand::finish`] records a cancellation.
#[derive(Debug)]
pub struct RedisCommand(Call<Arc<Target>>);

impl RedisCommand {
    /// Ends the span with the reply of the server.
    pub fn finish(self, result: Result<(), &dyn Failure>) {
        self.0.finish(result.err(), None);
    }

    /// Ends the span with an error reply, and records its code, such as `WRONGTYPE`, as
    /// `db.response.status_code`.
    pub fn rejected(self, code: String, failure: &dyn Failure) {
        self.0.finish(Some(failure), Some(code));
    }
}

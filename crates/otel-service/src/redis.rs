//! Client spans and durations of Redis commands, following the stable database conventions (OpenTelemetry
//! semantic conventions 1.44). Arguments never reach a span.

use std::sync::Arc;

use opentelemetry::KeyValue;

use crate::db::{Call, Operation, Statement, Target};
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
        let fixed = vec![KeyValue::new("db.system.name", "redis")];
        Self(Arc::new(Target::new(fixed, None)))
    }

    /// Creates the instruments of a client of `server`.
    #[must_use]
    pub fn for_server(server: RedisServer) -> Self {
        let fixed = vec![
            KeyValue::new("db.system.name", "redis"),
            KeyValue::new("db.namespace", server.database.to_string()),
        ];
        Self(Arc::new(Target::new(fixed, Some((server.address, server.port)))))
    }

    /// Starts a client span for a command, and measures its `db.client.operation.duration`.
    ///
    /// `text` is the command with `?` in place of each argument, such as `BRPOP ? ?`. In a context returned
    /// by [`crate::on_behalf_of`], the span has links to the spans of all its contexts.
    pub fn command(&self, operation: &'static str, text: &'static str) -> RedisCommand {
        self.start(operation, text, None, 1)
    }

    /// Like [`Redis::command`], for a transaction or pipeline of `size` commands: `operation` is `MULTI` or
    /// `PIPELINE`, and `size` is `db.operation.batch.size`.
    pub fn batch(&self, operation: &'static str, text: &'static str, size: usize) -> RedisCommand {
        self.start(operation, text, None, size)
    }

    /// Like [`Redis::command`], for `EVALSHA` or `FCALL`: `procedure`, the SHA-1 digest of the script or the name of the
    /// function, is `db.stored_procedure.name`. A program must have a small number of them.
    pub fn procedure(&self, operation: &'static str, text: &'static str, procedure: &str) -> RedisCommand {
        self.start(operation, text, Some(procedure.to_owned()), 1)
    }

    fn start(
        &self,
        operation: &'static str,
        text: &'static str,
        procedure: Option<String>,
        size: usize,
    ) -> RedisCommand {
        let operation = Operation {
            statement: Statement::new(operation, "", operation, text),
            procedure,
            size,
        };
        RedisCommand(Call::start(Arc::clone(&self.0), operation))
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

//! The bus: kombu's fan-out exchanges (events, remote control) and the reply queues. Broadcasts are not
//! stored; a listener receives only the broadcasts sent while it listens.

use std::fmt;

use async_trait::async_trait;
use futures_util::stream::BoxStream;
use serde::{Deserialize, Serialize};

use super::{error::BrokerError, exchange::Exchange, sealed::Sealed};

/// Address for the reply to a remote control command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ReplyTo {
    /// Exchange, `reply.celery.pidbox`.
    pub exchange: String,
    /// Routing key, the id of the process that sent the command.
    pub routing_key: String,
}

impl ReplyTo {
    /// Returns the name of the queue that kombu binds for these replies.
    #[must_use]
    pub fn queue(&self) -> String {
        format!("{}.{}", self.routing_key, self.exchange)
    }
}

/// Address of a broker, as workers report it. Contains no secrets.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ServerInfo {
    /// Transport: `redis` or `sentinel`, or `memory` inside one process.
    pub transport: &'static str,
    /// Host, if there is one.
    pub hostname: Option<String>,
    /// Port, if there is one.
    pub port: Option<u16>,
    /// Database number.
    pub virtual_host: String,
    /// User name of the connection.
    pub userid: Option<String>,
    /// Whether the connection is encrypted.
    pub ssl: bool,
}

impl ServerInfo {
    /// Returns the address without credentials.
    #[must_use]
    pub fn url(&self) -> String {
        let scheme = if self.ssl { "rediss" } else { self.transport };
        let host = self.hostname.as_deref().unwrap_or_default();
        let port = self.port.map(|port| format!(":{port}")).unwrap_or_default();
        format!("{scheme}://{host}{port}/{}", self.virtual_host)
    }
}

/// Fan-out and replies. Messages are kombu's envelopes, which a bus does not decode.
///
/// This trait is sealed: only the brokers of this crate implement it, so methods can be added without
/// breaking users.
#[async_trait]
pub trait Bus: Sealed + fmt::Debug + Send + Sync + 'static {
    /// Returns the address of the broker.
    fn server(&self) -> ServerInfo;

    /// Returns the address of the server of results.
    fn result_server(&self) -> ServerInfo {
        self.server()
    }

    /// Sends `text` to all current listeners and returns their number.
    ///
    /// # Errors
    /// Returns an error if the broker does not confirm.
    async fn broadcast(&self, exchange: &str, routing_key: &str, text: String) -> Result<usize, BrokerError>;

    /// Returns a stream of the broadcasts whose routing key equals the pattern, or starts with the part
    /// before a final `*`. The stream ends when the connection breaks, even if it breaks silently.
    ///
    /// # Errors
    /// Returns an error if the broker cannot be reached.
    async fn listen(
        &self,
        exchange: &str,
        routing_pattern: &str,
    ) -> Result<BoxStream<'static, Vec<u8>>, BrokerError>;

    /// Binds a queue to a named exchange, for clients that send to the exchange.
    ///
    /// # Errors
    /// Returns an error if the broker does not confirm. Repeating the call is harmless.
    async fn bind_queue(
        &self,
        queue: &str,
        exchange: &Exchange,
        routing_key: &str,
    ) -> Result<(), BrokerError>;

    /// Removes a binding that was created with [`bind_queue`](Self::bind_queue), and deletes the queue.
    ///
    /// # Errors
    /// Returns an error if the broker does not confirm. Repeating the call is harmless.
    async fn delete_queue(
        &self,
        queue: &str,
        exchange: &Exchange,
        routing_key: &str,
    ) -> Result<(), BrokerError>;

    /// Adds a message of a fan-out exchange to the queue of one worker.
    ///
    /// # Errors
    /// Returns an error if the broker does not confirm. Repeating the call may add the message twice.
    async fn enqueue_broadcast(&self, queue: &str, raw: &[u8]) -> Result<(), BrokerError>;

    /// Stores ids of revoked tasks for workers that start later, like Celery's `--statedb`. Ids are dropped after
    /// three hours; of more than 50,000, the oldest are dropped earlier.
    ///
    /// # Errors
    /// Returns an error if the broker does not confirm.
    async fn store_revoked(&self, ids: &[&str]) -> Result<(), BrokerError>;

    /// Returns the stored ids of revoked tasks.
    ///
    /// # Errors
    /// Returns an error if the broker cannot be reached.
    async fn stored_revoked(&self) -> Result<Vec<String>, BrokerError>;

    /// Declares the mailbox of the worker `node` on this exchange. Repeat at least every hour.
    ///
    /// # Errors
    /// Returns an error if the broker does not confirm. Repeating the call is harmless.
    async fn declare_mailbox(&self, exchange: &str, node: &str) -> Result<(), BrokerError>;

    /// Removes a mailbox that was declared with [`declare_mailbox`](Self::declare_mailbox).
    ///
    /// # Errors
    /// Returns an error if the broker does not confirm. Repeating the call is harmless.
    async fn remove_mailbox(&self, exchange: &str, node: &str) -> Result<(), BrokerError>;

    /// Opens the queue for replies to a command that is about to be broadcast.
    ///
    /// # Errors
    /// Returns an error if the broker does not confirm.
    async fn open_replies(&self, to: &ReplyTo) -> Result<(), BrokerError>;

    /// Adds a reply to an open queue; a reply to a closed queue is dropped.
    ///
    /// # Errors
    /// Returns an error if the broker does not confirm.
    async fn reply(&self, to: &ReplyTo, text: String) -> Result<(), BrokerError>;

    /// Removes and returns the replies that have arrived, oldest first, without waiting.
    ///
    /// # Errors
    /// Returns an error if the broker cannot be reached.
    async fn take_replies(&self, to: &ReplyTo) -> Result<Vec<Vec<u8>>, BrokerError>;

    /// Closes the queue. A queue that is not closed expires.
    ///
    /// # Errors
    /// Returns an error if the broker does not confirm. Repeating the call is harmless.
    async fn close_replies(&self, to: &ReplyTo) -> Result<(), BrokerError>;
}

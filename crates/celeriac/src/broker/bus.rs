//! What reaches every worker at once, and the answers: kombu's fan-out exchanges (events, remote control) and the
//! mailboxes that replies lie in. Nothing here is kept: who does not listen at the time has missed it.

use std::fmt;

use async_trait::async_trait;
use futures_util::stream::BoxStream;
use serde::{Deserialize, Serialize};

use super::{error::BrokerError, sealed::Sealed};

/// Where the reply to a remote control command is waited for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ReplyTo {
    /// `reply.celery.pidbox`.
    pub exchange: String,
    /// The id of the asking process.
    pub routing_key: String,
}

impl ReplyTo {
    /// The queue that kombu binds for these replies.
    #[must_use]
    pub fn queue(&self) -> String {
        format!("{}.{}", self.routing_key, self.exchange)
    }
}

/// Where a broker is, as workers tell about it. Nothing in it is secret.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ServerInfo {
    /// `redis`, or `memory` inside one process.
    pub transport: &'static str,
    /// The host, where there is one.
    pub hostname: Option<String>,
    /// The port, where there is one.
    pub port: Option<u16>,
    /// The database.
    pub virtual_host: String,
    /// The name that is used to log in.
    pub userid: Option<String>,
    /// Whether the connection is encrypted.
    pub ssl: bool,
}

impl ServerInfo {
    /// The address without what it takes to log in.
    #[must_use]
    pub fn url(&self) -> String {
        let scheme = if self.ssl { "rediss" } else { self.transport };
        let host = self.hostname.as_deref().unwrap_or_default();
        let port = self.port.map(|port| format!(":{port}")).unwrap_or_default();
        format!("{scheme}://{host}{port}/{}", self.virtual_host)
    }
}

/// Fan-out and replies. The texts are kombu's envelopes; a bus does not look inside.
#[async_trait]
pub trait Bus: Sealed + fmt::Debug + Send + Sync + 'static {
    /// Where the broker is.
    fn server(&self) -> ServerInfo;

    /// Hands `text` to everyone who listens now, and tells how many there were.
    ///
    /// # Errors
    /// When the broker did not confirm.
    async fn broadcast(&self, exchange: &str, routing_key: &str, text: String) -> Result<usize, BrokerError>;

    /// What is broadcast from now on with a routing key that matches: the same, or any with what stands before a
    /// final `*`. Ends when the connection breaks, also one that breaks without a word.
    ///
    /// # Errors
    /// When the broker cannot be reached.
    async fn listen(
        &self,
        exchange: &str,
        routing_pattern: &str,
    ) -> Result<BoxStream<'static, Vec<u8>>, BrokerError>;

    /// Says that the worker `node` has a mailbox on this exchange. To be repeated at least every hour.
    ///
    /// # Errors
    /// When the broker did not confirm; repeating the call is harmless.
    async fn declare_mailbox(&self, exchange: &str, node: &str) -> Result<(), BrokerError>;

    /// Takes back what [`declare_mailbox`](Self::declare_mailbox) said.
    ///
    /// # Errors
    /// When the broker did not confirm; repeating the call is harmless.
    async fn remove_mailbox(&self, exchange: &str, node: &str) -> Result<(), BrokerError>;

    /// Opens the queue for replies to a question that is about to be broadcast.
    ///
    /// # Errors
    /// When the broker did not confirm.
    async fn open_replies(&self, to: &ReplyTo) -> Result<(), BrokerError>;

    /// Puts a reply into an open queue; one that nobody waits for any more is dropped.
    ///
    /// # Errors
    /// When the broker did not confirm.
    async fn reply(&self, to: &ReplyTo, text: String) -> Result<(), BrokerError>;

    /// Takes the replies that are there, oldest first; does not wait.
    ///
    /// # Errors
    /// When the broker cannot be reached.
    async fn take_replies(&self, to: &ReplyTo) -> Result<Vec<Vec<u8>>, BrokerError>;

    /// Closes the queue. One that nobody closes goes away by itself.
    ///
    /// # Errors
    /// When the broker did not confirm; repeating the call is harmless.
    async fn close_replies(&self, to: &ReplyTo) -> Result<(), BrokerError>;
}

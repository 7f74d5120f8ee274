//! Channels for notifications: e-mail, a webhook, or the log.

mod log;
mod smtp;
mod webhook;

use std::{borrow::Cow, fmt::Debug};

use async_trait::async_trait;
use jiff::Timestamp;
use telemetry::Failure;
use uuid::Uuid;

pub use self::{
    log::LogChannel,
    smtp::{SmtpChannel, SmtpConfig},
    webhook::WebhookChannel,
};
use crate::domain::{Article, ArticleEvent, Recipient};

/// One notification to one recipient.
#[derive(Debug)]
pub struct Notification<'a> {
    /// Id that is the same for every attempt, so that receivers can detect duplicates.
    pub id: Uuid,
    pub event: ArticleEvent,
    pub article: &'a Article,
    pub recipient: &'a Recipient,
    pub occurred_at: Timestamp,
}

/// Reason a delivery failed. Messages do not name the recipient.
#[derive(Debug, thiserror::Error)]
pub enum NotifyError {
    #[error("the address is not valid")]
    Address,
    #[error("the receiver did not respond in time")]
    TimedOut,
    /// The receiver responded with an error status.
    #[error("the receiver responded with status {status}")]
    Rejected {
        status: u16,
        /// Whether a later attempt may succeed, according to the status.
        transient: bool,
    },
    #[error("the receiver cannot be reached: {0}")]
    Unreachable(&'static str),
}

impl NotifyError {
    /// Whether a retry may succeed soon.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::TimedOut | Self::Unreachable(_) => true,
            Self::Rejected { transient, .. } => *transient,
            Self::Address => false,
        }
    }
}

impl Failure for NotifyError {
    fn error_type(&self) -> Option<Cow<'static, str>> {
        Some(match self {
            Self::Address => "invalid_address".into(),
            Self::TimedOut => "timeout".into(),
            Self::Rejected { status, .. } => status.to_string().into(),
            Self::Unreachable(_) => "unreachable".into(),
        })
    }

    fn message(&self) -> String {
        self.to_string()
    }
}

/// A way to deliver notifications.
#[async_trait]
pub trait Channel: Debug + Send + Sync + 'static {
    /// Returns the name under which deliveries are recorded.
    fn name(&self) -> &'static str;

    /// Delivers a notification, within the channel's own time-out.
    ///
    /// # Errors
    /// [`NotifyError`] when the notification may not have arrived.
    async fn deliver(&self, notification: &Notification<'_>) -> Result<(), NotifyError>;
}

/// Describes the event on one line.
fn headline(notification: &Notification<'_>) -> String {
    let Article { author, title, .. } = notification.article;
    let (name, title) = (one_line(&author.name), one_line(title));
    match notification.event {
        ArticleEvent::Created => format!("{name} wrote “{title}”"),
        ArticleEvent::Updated => format!("{name} updated “{title}”"),
    }
}

/// Replaces line breaks and other control characters, which could inject mail headers, with spaces.
fn one_line(text: &str) -> String {
    text.replace(char::is_control, " ")
}

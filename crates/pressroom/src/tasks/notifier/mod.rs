//! The channels by which a notification reaches someone: e-mail, a webhook, or the log.

mod log;
mod smtp;
mod webhook;

use async_trait::async_trait;
use jiff::Timestamp;
use uuid::Uuid;

pub use self::{
    log::LogChannel,
    smtp::{InvalidSmtp, SmtpChannel},
    webhook::WebhookChannel,
};
use crate::domain::{Article, ArticleEvent, Recipient};

/// One notification to one recipient.
#[derive(Debug)]
pub struct Notification<'a> {
    /// The same for every try, so that a receiver can tell a repetition.
    pub id: Uuid,
    pub event: ArticleEvent,
    pub article: &'a Article,
    pub recipient: &'a Recipient,
    pub occurred_at: Timestamp,
}

/// Why a notification did not arrive. Says nothing of whom it was for.
#[derive(Debug, thiserror::Error)]
pub enum NotifyError {
    #[error("not a deliverable address")]
    Address,
    #[error("the receiver did not answer in time")]
    TimedOut,
    /// The receiver's answer, as a status.
    #[error("the receiver answered {status}")]
    Refused {
        status: u16,
        /// Whether it said that another time may do.
        transient: bool,
    },
    #[error("the receiver cannot be reached: {0}")]
    Unreachable(&'static str),
}

impl NotifyError {
    /// Whether trying again soon may help.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        match self {
            Self::TimedOut | Self::Unreachable(_) => true,
            Self::Refused { transient, .. } => *transient,
            Self::Address => false,
        }
    }
}

/// A way to reach people.
#[async_trait]
pub trait Channel: Send + Sync + 'static {
    /// What deliveries by this channel are recorded under.
    fn name(&self) -> &'static str;

    /// Delivers, within a time-out of its own.
    ///
    /// # Errors
    /// [`NotifyError`], when it may not have arrived.
    async fn deliver(&self, notification: &Notification<'_>) -> Result<(), NotifyError>;
}

/// What happened, in a sentence on one line.
fn headline(notification: &Notification<'_>) -> String {
    let Article { author, title, .. } = notification.article;
    let (name, title) = (one_line(&author.name), one_line(title));
    match notification.event {
        ArticleEvent::Created => format!("{name} wrote “{title}”"),
        ArticleEvent::Updated => format!("{name} updated “{title}”"),
    }
}

/// `text` with spaces in the place of line breaks and other control characters, which have a meaning
/// of their own in a mail's header.
fn one_line(text: &str) -> String {
    text.replace(char::is_control, " ")
}

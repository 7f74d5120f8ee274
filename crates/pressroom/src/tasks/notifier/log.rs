//! Notifications as log events, for installations without another channel.

use async_trait::async_trait;

use super::{Channel, Notification, NotifyError};

/// Channel that logs each notification.
#[derive(Debug, Clone, Copy, Default)]
pub struct LogChannel;

#[async_trait]
impl Channel for LogChannel {
    fn name(&self) -> &'static str {
        "log"
    }

    async fn deliver(&self, notification: &Notification<'_>) -> Result<(), NotifyError> {
        telemetry::info!(
            notification.id = %notification.id,
            event.type = notification.event.as_str(),
            article.id = notification.article.id.0,
            article.slug = notification.article.slug,
            recipient.id = notification.recipient.id.0,
            "Notification for {}",
            notification.recipient.email,
        );
        Ok(())
    }
}

//! Notifications by e-mail (RFC 5321), through the server at `SMTP_URL`.

use std::time::Duration;

use async_trait::async_trait;
use lettre::{
    AsyncSmtpTransport, AsyncTransport as _, Message, Tokio1Executor,
    message::{Mailbox, header::ContentType},
    transport::smtp::{AsyncSmtpTransportBuilder, SMTP_PORT, SUBMISSION_PORT, SUBMISSIONS_PORT},
};
use telemetry::{KeyValue, Span};
use url::Url;

use super::{Channel, Notification, NotifyError, headline, one_line};
use crate::names::span;

/// Time-out for sending a message.
const TIMEOUT: Duration = Duration::from_secs(20);

/// Channel that sends an e-mail for each notification, over a pool of connections.
#[derive(Debug, Clone)]
pub struct SmtpChannel {
    transport: AsyncSmtpTransport<Tokio1Executor>,
    address: String,
    port: u16,
    from: Mailbox,
}

/// A mail server.
#[derive(Debug, Clone)]
pub struct SmtpServer {
    builder: AsyncSmtpTransportBuilder,
    address: String,
    port: u16,
}

/// A mail server and the sender's address. `Debug` prints neither, because the URL may contain a password.
#[derive(Clone)]
pub struct SmtpConfig {
    pub server: SmtpServer,
    pub from: Mailbox,
}

impl SmtpConfig {
    /// Parses an `smtp://` or `smtps://` URL in lettre's format, with optional credentials and
    /// `?tls=required`.
    ///
    /// # Errors
    /// Returns a message that does not quote the URL, which may contain a password.
    pub fn server(url: &str) -> Result<SmtpServer, &'static str> {
        let invalid = "is not an smtp:// or smtps:// URL";
        let builder = AsyncSmtpTransport::<Tokio1Executor>::from_url(url).map_err(|_| invalid)?;
        let url = Url::parse(url).map_err(|_| invalid)?;
        // lettre's default ports.
        let default_port = match url.scheme() {
            "smtps" => SUBMISSIONS_PORT,
            _ if url.query_pairs().any(|(key, _)| key == "tls") => SUBMISSION_PORT,
            _ => SMTP_PORT,
        };
        Ok(SmtpServer {
            builder,
            address: url.host_str().unwrap_or("localhost").to_owned(),
            port: url.port().unwrap_or(default_port),
        })
    }

    /// Parses the sender's address, with or without a name.
    ///
    /// # Errors
    /// Returns a message that does not quote the address.
    pub fn sender(address: &str) -> Result<Mailbox, &'static str> {
        address.parse().map_err(|_| "is not an e-mail address")
    }
}

impl std::fmt::Debug for SmtpConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SmtpConfig").finish_non_exhaustive()
    }
}

impl SmtpChannel {
    /// Creates a channel. Must be called within a Tokio runtime.
    #[must_use]
    pub fn new(config: SmtpConfig) -> Self {
        Self {
            transport: config.server.builder.timeout(Some(TIMEOUT)).build(),
            address: config.server.address,
            port: config.server.port,
            from: config.from,
        }
    }

    fn compose(&self, notification: &Notification<'_>) -> Result<Message, NotifyError> {
        let recipient = notification.recipient;
        let address = recipient.email.parse().map_err(|_| NotifyError::Address)?;
        let domain = self.from.email.domain();
        let article = notification.article;
        let text = format!(
            "Hello {},\n\n{}.\n\n{}\n\nArticle: {}\n",
            recipient.name,
            headline(notification),
            article.description,
            article.slug,
        );
        Message::builder()
            .from(self.from.clone())
            .to(Mailbox::new(Some(one_line(&recipient.name)), address))
            .message_id(Some(format!("<{}@{domain}>", notification.id)))
            .subject(headline(notification))
            .header(ContentType::TEXT_PLAIN)
            .body(text)
            .map_err(|_| NotifyError::Address)
    }
}

#[async_trait]
impl Channel for SmtpChannel {
    fn name(&self) -> &'static str {
        "smtp"
    }

    async fn deliver(&self, notification: &Notification<'_>) -> Result<(), NotifyError> {
        let message = self.compose(notification)?;
        Span::client(span::SMTP_SEND)
            .attribute(KeyValue::new("network.protocol.name", "smtp"))
            .attribute(KeyValue::new("server.address", self.address.clone()))
            .attribute(KeyValue::new("server.port", i64::from(self.port)))
            .run(self.send(message))
            .await
    }
}

impl SmtpChannel {
    async fn send(&self, message: Message) -> Result<(), NotifyError> {
        match tokio::time::timeout(TIMEOUT, self.transport.send(message)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(match error.status() {
                Some(code) => NotifyError::Rejected {
                    status: code.into(),
                    transient: error.is_transient(),
                },
                None if error.is_timeout() => NotifyError::TimedOut,
                None => NotifyError::Unreachable("no connection to the mail server"),
            }),
            Err(_) => Err(NotifyError::TimedOut),
        }
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use uuid::Uuid;

    use super::*;
    use crate::domain::{Article, ArticleEvent, ArticleId, Author, Recipient, UserId};

    fn article(title: &str) -> Article {
        Article {
            id: ArticleId(1),
            slug: "s-1".to_owned(),
            title: title.to_owned(),
            description: String::new(),
            body: String::new(),
            author: Author {
                id: UserId(1),
                email: "alice@example.com".to_owned(),
                name: "Alice\r\nBcc: eve@example.com".to_owned(),
            },
            favorites_count: 0,
            favorited: false,
            created_at: Timestamp::UNIX_EPOCH,
            updated_at: Timestamp::UNIX_EPOCH,
        }
    }

    #[tokio::test]
    async fn a_line_break_in_a_name_or_title_cannot_add_a_header() {
        let channel = SmtpChannel::new(SmtpConfig {
            server: SmtpConfig::server("smtp://localhost").unwrap(),
            from: SmtpConfig::sender("Press <press@example.com>").unwrap(),
        });
        let article = article("x\r\nBcc: eve@example.com\r\n\r\nbody");
        let recipient = Recipient {
            id: UserId(2),
            email: "bob@example.com".to_owned(),
            name: "Bob\r\nBcc: eve@example.com".to_owned(),
        };
        let message = channel.compose(&Notification {
            id: Uuid::nil(),
            event: ArticleEvent::Created,
            article: &article,
            recipient: &recipient,
            occurred_at: Timestamp::UNIX_EPOCH,
        });
        let message = message.unwrap();
        let envelope: Vec<String> = message.envelope().to().iter().map(ToString::to_string).collect();
        assert_eq!(envelope, ["bob@example.com"]);
        let text = String::from_utf8(message.formatted()).unwrap();
        let (head, _) = text.split_once("\r\n\r\n").unwrap();
        assert!(!head.lines().any(|line| line.starts_with("Bcc")), "{head}");
        assert!(
            head.contains("Message-ID: <00000000-0000-0000-0000-000000000000@example.com>"),
            "{head}"
        );
    }

    #[test]
    fn errors_do_not_quote_invalid_settings() {
        let url = SmtpConfig::server("http://app:hunter2@mail").unwrap_err();
        assert!(!url.contains("hunter2"));
        assert!(SmtpConfig::sender("nobody").is_err());
    }
}

//! Notifications by e-mail (RFC 5321), over `SMTP_URL`.

use std::time::Duration;

use async_trait::async_trait;
use lettre::{
    AsyncSmtpTransport, AsyncTransport as _, Message, Tokio1Executor,
    message::{Mailbox, header::ContentType},
};

use super::{Channel, Notification, NotifyError, headline, one_line};

/// How long the mail server may take for one message.
const TIMEOUT: Duration = Duration::from_secs(20);

/// Sends one message a notification, over a few connections that stay open.
#[derive(Debug, Clone)]
pub struct SmtpChannel {
    transport: AsyncSmtpTransport<Tokio1Executor>,
    from: Mailbox,
}

/// The mail settings cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum InvalidSmtp {
    /// The part after the scheme may hold a password and is not repeated.
    #[error("is not an smtp:// or smtps:// URL")]
    Url,
    #[error("is not an e-mail address")]
    From,
}

impl SmtpChannel {
    /// A channel through the server at `url` (`smtp://`, `smtps://`, credentials and
    /// `?tls=required` as lettre reads them), from the address `from`.
    ///
    /// # Errors
    /// [`InvalidSmtp`], saying which of the two is wrong.
    pub fn new(url: &str, from: &str) -> Result<Self, InvalidSmtp> {
        let transport = AsyncSmtpTransport::<Tokio1Executor>::from_url(url)
            .map_err(|_| InvalidSmtp::Url)?
            .timeout(Some(TIMEOUT))
            .build();
        let from = from.parse().map_err(|_| InvalidSmtp::From)?;
        Ok(Self { transport, from })
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
        match tokio::time::timeout(TIMEOUT, self.transport.send(message)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(match error.status() {
                Some(code) => NotifyError::Refused {
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
    async fn a_line_break_in_a_name_or_title_adds_no_header() {
        let channel = SmtpChannel::new("smtp://localhost", "Press <press@example.com>").unwrap();
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

    #[tokio::test]
    async fn wrong_settings_are_told_apart_and_not_repeated() {
        let url = SmtpChannel::new("http://app:hunter2@mail", "press@example.com").unwrap_err();
        assert!(matches!(url, InvalidSmtp::Url) && !url.to_string().contains("hunter2"));
        let from = SmtpChannel::new("smtp://mail", "nobody").unwrap_err();
        assert!(matches!(from, InvalidSmtp::From));
    }
}

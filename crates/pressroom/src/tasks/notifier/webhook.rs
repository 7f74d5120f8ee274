//! Notifications as signed HTTP requests, following the Standard Webhooks specification 1.0.0: the header
//! field `webhook-signature` is the HMAC-SHA256 of `webhook-id`, `webhook-timestamp` and the body.

use std::time::Duration;

use async_trait::async_trait;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use hmac::{Hmac, KeyInit as _, Mac as _};
use reqwest::{Client, Url, header::CONTENT_TYPE, redirect::Policy};
use serde_json::json;
use sha2::Sha256;
use telemetry::HttpClientLayer;

use super::{Channel, Notification, NotifyError, headline};

/// Time-out of a request.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Telemetry of the requests. Receivers of webhooks are third parties: they continue the trace, but get no
/// baggage, and their URLs can contain secrets.
const OUTGOING: HttpClientLayer = HttpClientLayer::new().hide_path();

/// Channel that sends a POST request for each notification.
#[derive(Clone)]
pub struct WebhookChannel {
    client: Client,
    url: Url,
    secret: Vec<u8>,
}

impl std::fmt::Debug for WebhookChannel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WebhookChannel").finish_non_exhaustive()
    }
}

impl WebhookChannel {
    /// Creates a channel to an `http` or `https` URL. A secret with the prefix `whsec_` of the specification
    /// is base64-decoded; any other secret is used unchanged.
    ///
    /// # Errors
    /// Returns an error if TLS cannot be set up on this machine.
    pub fn new(url: Url, secret: &str) -> reqwest::Result<Self> {
        let client = Client::builder()
            .timeout(TIMEOUT)
            // Signed notifications are only for the configured receiver.
            .redirect(Policy::none())
            .user_agent(concat!("pressroom/", env!("CARGO_PKG_VERSION")))
            .build()?;
        let secret = secret
            .strip_prefix("whsec_")
            .and_then(|encoded| STANDARD.decode(encoded).ok())
            .unwrap_or_else(|| secret.as_bytes().to_vec());
        Ok(Self { client, url, secret })
    }

    fn sign(&self, id: &str, timestamp: &str, body: &str) -> String {
        let mac = Hmac::<Sha256>::new_from_slice(&self.secret)
            .expect("HMAC accepts keys of any length")
            .chain_update(format!("{id}.{timestamp}.{body}"));
        format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
    }
}

#[async_trait]
impl Channel for WebhookChannel {
    fn name(&self) -> &'static str {
        "webhook"
    }

    async fn deliver(&self, notification: &Notification<'_>) -> Result<(), NotifyError> {
        let (article, recipient) = (notification.article, notification.recipient);
        let id = notification.id.to_string();
        let timestamp = notification.occurred_at.as_second().to_string();
        let body = json!({
            "type": format!("article.{}", notification.event.as_str()),
            "timestamp": format!("{:.6}", notification.occurred_at),
            "data": {
                "headline": headline(notification),
                "article": {
                    "id": article.id.0,
                    "slug": article.slug,
                    "title": article.title,
                    "author": {"id": article.author.id.0, "name": article.author.name},
                },
                "recipient": {"id": recipient.id.0, "email": recipient.email, "name": recipient.name},
            },
        })
        .to_string();
        let request = self
            .client
            .post(self.url.clone())
            .header(CONTENT_TYPE, "application/json")
            .header("webhook-signature", self.sign(&id, &timestamp, &body))
            .header("webhook-id", id)
            .header("webhook-timestamp", timestamp)
            .body(body);
        match OUTGOING.send(request).await {
            Ok(response) if response.status().is_success() => Ok(()),
            Ok(response) => {
                let status = response.status();
                Err(NotifyError::Rejected {
                    status: status.as_u16(),
                    transient: status.is_server_error() || matches!(status.as_u16(), 408 | 429),
                })
            }
            Err(error) if error.is_timeout() => Err(NotifyError::TimedOut),
            Err(_) => Err(NotifyError::Unreachable(
                "no connection to the webhook's receiver",
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The expected value is the example in the specification.
    #[test]
    fn the_signature_matches_the_specification() {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let channel = WebhookChannel::new(
            "http://localhost/".parse().unwrap(),
            "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        )
        .unwrap();
        let signature = channel.sign(
            "msg_p5jXN8AQM9LWM0D4loKWxJek",
            "1614265330",
            r#"{"test": 2432232314}"#,
        );
        assert_eq!(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }
}

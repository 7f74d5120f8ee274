//! What to send: a task's name, its arguments and the options of its delivery. Becomes a [`Message`] when a
//! [`Client`](crate::Client) sends it.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Map, Value};
use uuid::Uuid;

use crate::{
    message::{DeliveryInfo, Embed, Headers, Message, Properties, TimeLimit},
    repr, system,
};

/// A task call that is not sent yet.
///
/// ```
/// use std::time::Duration;
/// let signature = celeriac::Signature::new("app.jobs.tasks.send_article_notification")
///     .arg(1)
///     .arg("created")
///     .countdown(Duration::from_secs(5))
///     .priority(3);
/// ```
#[derive(Debug, Clone)]
pub struct Signature {
    task: String,
    id: Option<Uuid>,
    args: Vec<Value>,
    kwargs: Map<String, Value>,
    queue: String,
    priority: u8,
    due: Due,
    expires: Option<Timestamp>,
    timelimit: TimeLimit,
    ignore_result: bool,
    headers: Map<String, Value>,
}

#[derive(Debug, Clone, Copy)]
enum Due {
    Now,
    At(Timestamp),
    In(Duration),
}

impl Signature {
    /// A call of the task registered under this name, on the queue `celery`.
    pub fn new(task: impl Into<String>) -> Self {
        Self {
            task: task.into(),
            id: None,
            args: Vec::new(),
            kwargs: Map::new(),
            queue: "celery".to_owned(),
            priority: 0,
            due: Due::Now,
            expires: None,
            timelimit: TimeLimit::default(),
            ignore_result: false,
            headers: Map::new(),
        }
    }

    /// The task's id; a random one otherwise.
    #[must_use]
    pub fn id(mut self, id: Uuid) -> Self {
        self.id = Some(id);
        self
    }

    /// Adds a positional argument.
    #[must_use]
    pub fn arg(mut self, value: impl Into<Value>) -> Self {
        self.args.push(value.into());
        self
    }

    /// Adds positional arguments.
    #[must_use]
    pub fn args(mut self, values: Vec<Value>) -> Self {
        self.args.extend(values);
        self
    }

    /// Adds a keyword argument.
    #[must_use]
    pub fn kwarg(mut self, name: impl Into<String>, value: impl Into<Value>) -> Self {
        self.kwargs.insert(name.into(), value.into());
        self
    }

    /// The queue to send to.
    #[must_use]
    pub fn queue(mut self, queue: impl Into<String>) -> Self {
        self.queue = queue.into();
        self
    }

    /// 0 (first, the default) to 9 (last); larger numbers count as 9.
    #[must_use]
    pub fn priority(mut self, priority: u8) -> Self {
        self.priority = priority.min(9);
        self
    }

    /// To be run no earlier than this long after it was sent.
    #[must_use]
    pub fn countdown(mut self, countdown: Duration) -> Self {
        self.due = Due::In(countdown);
        self
    }

    /// To be run no earlier than this time.
    #[must_use]
    pub fn eta(mut self, eta: Timestamp) -> Self {
        self.due = Due::At(eta);
        self
    }

    /// Not to be run after this time: it becomes `REVOKED`.
    #[must_use]
    pub fn expires(mut self, expires: Timestamp) -> Self {
        self.expires = Some(expires);
        self
    }

    /// Ended after this long.
    #[must_use]
    pub fn time_limit(mut self, limit: Duration) -> Self {
        self.timelimit.hard = Some(limit);
        self
    }

    /// Told to end after this long.
    #[must_use]
    pub fn soft_time_limit(mut self, limit: Duration) -> Self {
        self.timelimit.soft = Some(limit);
        self
    }

    /// Whether the result is thrown away.
    #[must_use]
    pub fn ignore_result(mut self, ignore: bool) -> Self {
        self.ignore_result = ignore;
        self
    }

    /// A further header, such as `traceparent`: an observer takes it as the parent of the send.
    #[must_use]
    pub fn header(mut self, name: impl Into<String>, value: impl Into<Value>) -> Self {
        self.headers.insert(name.into(), value.into());
        self
    }

    /// The message sent now by the process `origin` with the sender id `reply_to`.
    pub(crate) fn into_message(self, now: Timestamp, origin: &str, reply_to: &str) -> Message {
        let id = self.id.unwrap_or_else(system::random_id).to_string();
        let mut headers = Headers::new(self.task, id.clone());
        headers.eta = match self.due {
            Due::Now => None,
            Due::At(eta) => Some(eta),
            Due::In(countdown) => Some(later(now, countdown)),
        };
        headers.expires = self.expires;
        headers.timelimit = self.timelimit;
        headers.root_id = Some(id.clone());
        headers.argsrepr = Some(repr::tuple(&self.args));
        headers.kwargsrepr = Some(repr::dict(&self.kwargs));
        headers.origin = Some(origin.to_owned());
        headers.ignore_result = self.ignore_result;
        headers.extra = self.headers;
        let properties = Properties {
            correlation_id: Some(id),
            reply_to: Some(reply_to.to_owned()),
            delivery_mode: Some(2),
            expiration: self
                .expires
                .map(|expires| milliseconds_until(expires, now).to_string()),
            delivery_info: DeliveryInfo {
                routing_key: self.queue,
                ..DeliveryInfo::default()
            },
            priority: self.priority,
            body_encoding: Some("base64".to_owned()),
            delivery_tag: system::random_id().to_string(),
            extra: Map::new(),
        };
        Message {
            headers,
            properties,
            args: self.args,
            kwargs: self.kwargs,
            embed: Embed::default(),
        }
    }
}

/// `now` plus a duration, the end of time where the sum is past it.
pub(crate) fn later(now: Timestamp, duration: Duration) -> Timestamp {
    now.checked_add(duration).unwrap_or(Timestamp::MAX)
}

fn milliseconds_until(time: Timestamp, now: Timestamp) -> i128 {
    (time.as_nanosecond() - now.as_nanosecond()).max(0) / 1_000_000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_becomes_the_message_that_celery_would_send() {
        let recorded = include_str!("../tests/vectors/message.json").trim();
        let expected = Message::decode(recorded.as_bytes()).unwrap();
        let mut sent = Signature::new("app.jobs.tasks.send_article_notification")
            .id("9b83d466-f412-4357-8563-2b2dedf45e4e".parse().unwrap())
            .arg(1)
            .arg("created")
            .header(
                "traceparent",
                "00-ba82e96eee5c73383c5a3143e20f9373-5c45f19cca06da6a-03",
            )
            .into_message(
                Timestamp::UNIX_EPOCH,
                "gen31693@vm",
                "f1171170-4bbf-3b10-9841-54eaf3fcf09b",
            );
        sent.properties
            .delivery_tag
            .clone_from(&expected.properties.delivery_tag);
        assert_eq!(sent.encode(), recorded);
    }

    #[test]
    fn expiry_is_written_twice_and_never_negative() {
        let now: Timestamp = "2026-11-22T06:00:00Z".parse().unwrap();
        let send = |expires| Signature::new("t").expires(expires).into_message(now, "o", "r");
        assert_eq!(
            send(now + Duration::from_secs(2))
                .properties
                .expiration
                .as_deref(),
            Some("2000")
        );
        assert_eq!(
            send(now - Duration::from_secs(2))
                .properties
                .expiration
                .as_deref(),
            Some("0")
        );
    }
}

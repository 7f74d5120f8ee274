//! Builds the message of a task from its options, which are named as in Celery's `apply_async`.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Map, Value};

use super::{
    freeze::new_id,
    node::{CanvasError, MAP, STARMAP, list},
    options::{Options, take, take_text},
};
use crate::{
    compression::Compression,
    message::{COMPRESSION, DeliveryInfo, Embed, Headers, MAX_RETRIES, Message, Properties, TimeLimit},
    repr, system,
    task_id::TaskId,
    time,
};

/// The sending process and, in a worker, the task on whose behalf it sends.
pub(crate) struct SendContext<'a> {
    pub now: Timestamp,
    /// Sending process, `gen<pid>@<host>`.
    pub origin: &'a str,
    pub reply_to: &'a str,
    /// Queue for signatures that do not name one.
    pub queue: &'a str,
    /// Patterns of task names with the destinations of such tasks, if their signatures name none.
    pub routes: &'a [(String, DeliveryInfo)],
    /// Compression of messages whose signatures do not set it.
    pub compression: Option<Compression>,
    /// Root id and id of the running task.
    pub parent: Option<(&'a str, &'a str)>,
}

impl<'a> SendContext<'a> {
    /// Returns the context of a sender outside of any task, with the default queue `celery`.
    pub(crate) fn new(now: Timestamp, origin: &'a str, reply_to: &'a str) -> Self {
        Self {
            now,
            origin,
            reply_to,
            queue: "celery",
            routes: &[],
            compression: None,
            parent: None,
        }
    }

    /// Returns the destination of a task whose signature names none. As in Celery, the parts of `map`, `starmap`
    /// and `chunks` are routed by the name of the task that they call.
    fn route(&self, task: &str, kwargs: &Map<String, Value>) -> DeliveryInfo {
        let called = match task {
            MAP | STARMAP => kwargs.get("task").and_then(|called| called["task"].as_str()),
            _ => None,
        };
        let name = called.unwrap_or(task);
        let mut routes = self.routes.iter();
        let route = routes.find(|(pattern, _)| matches(pattern, name));
        route.map_or_else(
            || DeliveryInfo::queue(self.queue),
            |(_, destination)| destination.clone(),
        )
    }

    pub(crate) fn message(
        &self,
        task: String,
        args: Vec<Value>,
        kwargs: Map<String, Value>,
        mut options: Options,
    ) -> Result<Message, CanvasError> {
        let options = &mut options;
        let id = take_text(options, "task_id").unwrap_or_else(new_id);
        let mut headers = Headers::new(task, id.as_str().into());
        headers.shadow = take_text(options, "shadow");
        let later = |delay| time::later(self.now, delay);
        headers.eta = match seconds(take(options, "countdown"), "the countdown")? {
            Some(countdown) => Some(later(countdown)),
            None => instant(take(options, "eta"), "the eta")?,
        };
        headers.expires = match take(options, "expires") {
            delay @ Some(Value::Number(_)) => seconds(delay, "expires")?.map(later),
            time => instant(time, "expires")?,
        };
        headers.group = take_text(options, "group_id");
        headers.group_index = take(options, "group_index").unwrap_or_default();
        let retries = integer(take(options, "retries"), "the number of retries")?;
        headers.retries =
            u32::try_from(retries).map_err(|_| CanvasError::Malformed("the number of retries"))?;
        headers.timelimit = TimeLimit {
            hard: seconds(take(options, "time_limit"), "the time limit")?,
            soft: seconds(take(options, "soft_time_limit"), "the soft time limit")?,
        };
        let (root, parent) = self.parent.unzip();
        let root = take_text(options, "root_id").or(root.map(str::to_owned));
        headers.root_id = Some(root.map_or_else(|| headers.id.clone(), TaskId::from));
        let parent = take_text(options, "parent_id").or(parent.map(str::to_owned));
        headers.parent_id = parent.map(TaskId::from);
        headers.argsrepr = Some(take_text(options, "argsrepr").unwrap_or_else(|| repr::tuple(&args)));
        headers.kwargsrepr = Some(take_text(options, "kwargsrepr").unwrap_or_else(|| repr::dict(&kwargs)));
        headers.origin = Some(take_text(options, "origin").unwrap_or_else(|| self.origin.to_owned()));
        headers.ignore_result = take(options, "ignore_result") == Some(Value::Bool(true));
        if let Some(nesting) = take(options, "replaced_task_nesting") {
            headers.replaced_task_nesting = nesting;
        }
        if let Some(Value::Array(names)) = take(options, "stamped_headers") {
            let stamps = names.iter().filter_map(Value::as_str);
            let stamps = stamps.filter_map(|name| Some((name.to_owned(), options.shift_remove(name)?)));
            headers.stamps = Value::Object(stamps.collect());
            headers.stamped_headers = Value::Array(names);
        }
        if let Some(Value::Object(extra)) = take(options, "headers") {
            headers.extra = extra;
        }
        let compression = take_text(options, COMPRESSION);
        match compression.as_deref().map(Compression::find).transpose() {
            Ok(method) => {
                if let Some(method) = method.or(self.compression) {
                    let content_type = Value::from(method.content_type());
                    headers.extra.insert(COMPRESSION.to_owned(), content_type);
                }
            }
            Err(_) => return Err(CanvasError::Unsupported("the compression is not supported")),
        }
        let embed = Embed {
            callbacks: signatures(options, "link"),
            errbacks: signatures(options, "link_error"),
            chain: signatures(options, "chain"),
            chord: take(options, "chord").unwrap_or_default(),
            extra: Map::new(),
        };
        let delivery_info = destination(options).unwrap_or_else(|| self.route(&headers.task, &kwargs));
        let properties = Properties {
            correlation_id: Some(id),
            reply_to: Some(take_text(options, "reply_to").unwrap_or_else(|| self.reply_to.to_owned())),
            delivery_mode: Some(2),
            expiration: headers
                .expires
                .map(|expires| time::milliseconds_until(expires, self.now).to_string()),
            delivery_info,
            priority: integer(take(options, "priority"), "the priority")?.min(9) as u8,
            body_encoding: Some("base64".to_owned()),
            delivery_tag: system::tag().to_string(),
            // Celery sends unknown options as properties, which is how this option is passed on.
            extra: options.shift_remove_entry(MAX_RETRIES).into_iter().collect(),
        };
        Ok(Message {
            headers,
            properties,
            args,
            kwargs,
            embed,
        })
    }
}

/// Removes the options that name a destination, and returns it.
fn destination(options: &mut Options) -> Option<DeliveryInfo> {
    let exchange = take_text(options, "exchange").unwrap_or_default();
    let is_fanout = take_text(options, "exchange_type").is_some_and(|kind| kind == "fanout");
    let (queue, routing_key) = (take_text(options, "queue"), take_text(options, "routing_key"));
    // As in Celery, an exchange without a routing key is the default exchange, unless it is a fan-out exchange.
    if exchange.is_empty() || routing_key.is_none() && !is_fanout {
        return queue.or(routing_key).map(DeliveryInfo::queue);
    }
    Some(DeliveryInfo {
        exchange,
        routing_key: routing_key.unwrap_or_default(),
        is_fanout,
        ..DeliveryInfo::default()
    })
}

/// Returns whether a name matches a pattern, in which `*` stands for any text.
fn matches(pattern: &str, name: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == name,
        Some((start, rest)) => {
            let Some(tail) = name.strip_prefix(start) else {
                return false;
            };
            let mut ends = tail.char_indices().map(|(at, _)| at).chain([tail.len()]);
            ends.any(|at| matches(rest, &tail[at..]))
        }
    }
}

/// Removes the option `name` and returns it as a list of signatures; null if the list is empty.
fn signatures(options: &mut Options, name: &str) -> Value {
    let signatures = list(options.shift_remove(name));
    if signatures.is_empty() {
        Value::Null
    } else {
        Value::Array(signatures)
    }
}

fn integer(value: Option<Value>, label: &'static str) -> Result<u64, CanvasError> {
    let value = value.unwrap_or(Value::from(0));
    value.as_u64().ok_or(CanvasError::Malformed(label))
}

fn seconds(value: Option<Value>, label: &'static str) -> Result<Option<Duration>, CanvasError> {
    let Some(value) = value else { return Ok(None) };
    let seconds = value.as_f64().ok_or(CanvasError::Malformed(label))?;
    // Celery runs a task with a negative countdown immediately.
    let duration = Duration::try_from_secs_f64(seconds.max(0.0));
    Ok(Some(duration.unwrap_or(Duration::MAX)))
}

/// Parses a time as text, either plain or in kombu's wrapper for Python's `datetime`.
fn instant(value: Option<Value>, label: &'static str) -> Result<Option<Timestamp>, CanvasError> {
    let Some(value) = value else { return Ok(None) };
    let text = value.as_str().or_else(|| value["__value__"].as_str());
    let time = text.and_then(time::parse);
    time.map(Some).ok_or(CanvasError::Malformed(label))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_match_whole_names() {
        for (pattern, name, expected) in [
            ("reports.*", "reports.daily", true),
            ("reports.*", "app.reports.daily", false),
            ("*.daily", "app.reports.daily", true),
            ("a*c*e", "abcde", true),
            ("a*c*e", "abcd", false),
            ("exact", "exact", true),
            ("exact", "exactly", false),
            ("*", "ü", true),
        ] {
            assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
        }
    }
}

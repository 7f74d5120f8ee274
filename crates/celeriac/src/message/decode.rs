//! Decodes a list element into a [`Message`]: the envelope first, then the body, then the headers. Accepts
//! the same messages as a Celery 5.6 worker, and returns a [`PoisonReason`] for any other.

use std::borrow::Cow;

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Map, Value};

use super::{
    COMPRESSION, Embed, Headers, Message, Poison, PoisonReason, Properties,
    envelope::{Envelope, Members},
    headers::string,
};
use crate::{compression::Compression, json, task_id::TaskId};

impl Message {
    /// Decodes a list element. Does not panic on any input.
    ///
    /// # Errors
    /// Returns a [`Poison`] if no worker could run the message.
    pub fn decode(raw: &[u8]) -> Result<Self, Poison> {
        let raw = json::exact(raw);
        let mut envelope: Envelope<'_> =
            serde_json::from_slice(&raw).map_err(|error| PoisonReason::NotJson(syntax_error(&error)))?;
        let headers = envelope.headers.take();
        let headers = headers.ok_or(PoisonReason::Missing("headers"))?;
        let task = headers.text("task").map(str::to_owned);
        let task_id = headers.text("id").map(TaskId::from);
        read(envelope, headers, task.clone(), task_id.clone()).map_err(|reason| Poison {
            reason,
            task_id,
            task,
        })
    }
}

fn read(
    mut envelope: Envelope<'_>,
    headers: Members<'_>,
    task: Option<String>,
    id: Option<TaskId>,
) -> Result<Message, PoisonReason> {
    let properties = envelope.properties.take();
    let properties = Properties::read(properties.ok_or(PoisonReason::Missing("properties"))?)?;
    let compression = headers.text(COMPRESSION).map(Compression::find).transpose();
    let compression = compression.map_err(|error| PoisonReason::Compression(error.to_string()))?;
    let body = body(&envelope, properties.body_encoding.as_deref(), compression)?;
    match body {
        Value::Array(parts) => {
            let task = task.ok_or(PoisonReason::Missing("headers.task"))?;
            let id = id.ok_or(PoisonReason::Missing("headers.id"))?;
            protocol_2(Headers::read(task, id, headers)?, properties, parts)
        }
        Value::Object(body) if !headers.has("task") => protocol_1(body, headers, properties),
        _ => Err(PoisonReason::BodyShape("expected a list")),
    }
}

fn body(
    envelope: &Envelope<'_>,
    body_encoding: Option<&str>,
    compression: Option<Compression>,
) -> Result<Value, PoisonReason> {
    let content_type = envelope.content_type.as_deref().unwrap_or_default();
    if content_type != "application/json" {
        return Err(PoisonReason::ContentType(shorten(content_type)));
    }
    let encoding = envelope.content_encoding.as_deref().unwrap_or("utf-8");
    let is = |name| encoding.eq_ignore_ascii_case(name);
    if !is("utf-8") && !is("utf8") {
        return Err(PoisonReason::ContentEncoding(shorten(encoding)));
    }
    let packed = envelope.body.as_deref().ok_or(PoisonReason::Missing("body"))?;
    let text = match body_encoding {
        None => Cow::Borrowed(packed.as_bytes()),
        Some("base64") => match STANDARD.decode(packed) {
            Ok(text) => Cow::Owned(text),
            Err(error) => return Err(PoisonReason::Base64(base64_error(&error))),
        },
        Some(other) => return Err(PoisonReason::BodyEncoding(shorten(other))),
    };
    let text = match compression {
        None => text,
        Some(method) => {
            let decompressed = method.decompress(&text);
            Cow::Owned(decompressed.map_err(|error| PoisonReason::Decompression(error.to_string()))?)
        }
    };
    serde_json::from_slice(&json::exact(&text))
        .map_err(|error| PoisonReason::BodyNotJson(syntax_error(&error)))
}

fn protocol_2(headers: Headers, properties: Properties, parts: Vec<Value>) -> Result<Message, PoisonReason> {
    let Ok([args, kwargs, embed]) = <[Value; 3]>::try_from(parts) else {
        return Err(PoisonReason::BodyShape("expected three parts"));
    };
    let embed = match embed {
        Value::Null => Embed::default(),
        Value::Object(map) => read_embed(map),
        _ => return Err(PoisonReason::BodyShape("embed is not an object")),
    };
    Ok(Message {
        headers,
        properties,
        args: positional(args)?,
        kwargs: keyword(kwargs)?,
        embed,
    })
}

/// Reads a protocol-1 message, whose fields are all in the body. Its headers may contain trace context.
fn protocol_1(
    mut body: Map<String, Value>,
    headers: Members<'_>,
    properties: Properties,
) -> Result<Message, PoisonReason> {
    let task = body.shift_remove("task").and_then(string);
    let task = task.ok_or(PoisonReason::Missing("headers.task"))?;
    let id = body.shift_remove("id").and_then(string);
    let id = id.ok_or(PoisonReason::Missing("headers.id"))?;
    let args = body.shift_remove("args").map_or(Ok(Vec::new()), positional)?;
    let kwargs = body.shift_remove("kwargs").map_or(Ok(Map::new()), keyword)?;
    let mut take = |name| body.shift_remove(name).unwrap_or_default();
    let embed = Embed {
        callbacks: take("callbacks"),
        errbacks: take("errbacks"),
        chord: take("chord"),
        ..Embed::default()
    };
    // Times of protocol 1 are always UTC today. Protocol 1 calls the group `taskset`.
    body.shift_remove("utc");
    if let Some(group) = body.shift_remove("taskset") {
        body.insert("group".to_owned(), group);
    }
    let body = body.into_iter().map(|(name, value)| (Cow::Owned(name), value));
    let mut headers = Headers::read(task, id.into(), body.chain(headers))?;
    headers.root_id.get_or_insert_with(|| headers.id.clone());
    Ok(Message {
        headers,
        properties,
        args,
        kwargs,
        embed,
    })
}

fn positional(value: Value) -> Result<Vec<Value>, PoisonReason> {
    match value {
        Value::Array(args) => Ok(args),
        _ => Err(PoisonReason::BodyShape("args is not a list")),
    }
}

fn keyword(value: Value) -> Result<Map<String, Value>, PoisonReason> {
    match value {
        Value::Object(kwargs) => Ok(kwargs),
        _ => Err(PoisonReason::BodyShape("kwargs is not an object")),
    }
}

fn read_embed(mut map: Map<String, Value>) -> Embed {
    let mut take = |name| map.shift_remove(name).unwrap_or_default();
    Embed {
        callbacks: take("callbacks"),
        errbacks: take("errbacks"),
        chain: take("chain"),
        chord: take("chord"),
        extra: map,
    }
}

/// Returns the category and position of a syntax error, without quoting the content.
fn syntax_error(error: &serde_json::Error) -> String {
    format!(
        "{:?} error at line {} column {}",
        error.classify(),
        error.line(),
        error.column()
    )
}

fn base64_error(error: &base64::DecodeError) -> String {
    match error {
        base64::DecodeError::InvalidByte(at, _) | base64::DecodeError::InvalidLastSymbol(at, _) => {
            format!("invalid character at offset {at}")
        }
        base64::DecodeError::InvalidLength(length) => format!("invalid length {length}"),
        base64::DecodeError::InvalidPadding => "invalid padding".to_owned(),
    }
}

/// Returns the first 60 characters of a sender's value, for an error message.
fn shorten(text: &str) -> String {
    text.chars().take(60).collect()
}

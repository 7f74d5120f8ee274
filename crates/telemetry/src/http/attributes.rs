//! The attributes of the server span.

use std::sync::Arc;

use ::http::header::{HOST, USER_AGENT};
use ::http::request::Parts;
use ::http::{Method, Version};
use opentelemetry::{KeyValue, StringValue};

use super::ClientAddress;
use crate::query::redact;

/// `http.request.method` of a method that the conventions do not know.
pub(super) const OTHER_METHOD: &str = "_OTHER";

/// A known method's name, or `_OTHER`: the caller must not choose the values of our attributes.
pub(super) fn method(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::DELETE => "DELETE",
        Method::PATCH => "PATCH",
        Method::HEAD => "HEAD",
        Method::OPTIONS => "OPTIONS",
        Method::CONNECT => "CONNECT",
        Method::TRACE => "TRACE",
        _ => OTHER_METHOD,
    }
}

/// `network.protocol.version`.
pub(super) fn version(version: Version) -> &'static str {
    match version {
        Version::HTTP_09 => "0.9",
        Version::HTTP_10 => "1.0",
        Version::HTTP_2 => "2",
        Version::HTTP_3 => "3",
        _ => "1.1",
    }
}

/// `url.scheme`.
pub(super) fn scheme(parts: &Parts) -> &'static str {
    match parts.uri.scheme_str() {
        Some("https") => "https",
        _ => "http",
    }
}

/// The value of `http.route`; its copies share the text.
pub(super) fn route_value(route: &Arc<str>) -> StringValue {
    StringValue::from(Arc::clone(route))
}

/// What is known of the request before it is answered.
pub(super) fn of_request(parts: &Parts, route: Option<&Arc<str>>) -> Vec<KeyValue> {
    let mut attributes = Vec::with_capacity(14);
    let name = method(&parts.method);
    attributes.push(KeyValue::new("http.request.method", name));
    if name == OTHER_METHOD {
        attributes.push(KeyValue::new(
            "http.request.method_original",
            parts.method.as_str().to_owned(),
        ));
    }
    if let Some(route) = route {
        attributes.push(KeyValue::new("http.route", route_value(route)));
    }
    attributes.push(KeyValue::new("url.path", parts.uri.path().to_owned()));
    attributes.push(KeyValue::new("url.scheme", scheme(parts)));
    if let Some(query) = parts.uri.query().filter(|query| !query.is_empty()) {
        attributes.push(KeyValue::new("url.query", redact(query).into_owned()));
    }
    if let Some((address, port)) = server(parts) {
        attributes.push(KeyValue::new("server.address", address));
        attributes.push(KeyValue::new("server.port", i64::from(port)));
    }
    if let Some(ClientAddress(client)) = parts.extensions.get() {
        attributes.push(KeyValue::new("client.address", client.ip().to_string()));
    }
    if let Some(agent) = parts
        .headers
        .get(USER_AGENT)
        .and_then(|value| value.to_str().ok())
    {
        attributes.push(KeyValue::new("user_agent.original", agent.to_owned()));
    }
    attributes.push(KeyValue::new("network.protocol.version", version(parts.version)));
    attributes
}

/// Host and port that the client asked for; the port is the scheme's when it named none.
fn server(parts: &Parts) -> Option<(String, u16)> {
    let authority = match parts.uri.authority() {
        Some(authority) => authority.clone(),
        None => parts.headers.get(HOST)?.to_str().ok()?.parse().ok()?,
    };
    let port = authority
        .port_u16()
        .unwrap_or(if scheme(parts) == "https" { 443 } else { 80 });
    Some((authority.host().to_owned(), port))
}

//! The attributes of the server span.

use std::borrow::Cow;
use std::net::Ipv6Addr;

use super::ClientAddress;
use super::route::Route;
use crate::export::Attributes;
use crate::query::redact;
use ::http::header::{HOST, USER_AGENT};
use ::http::request::Parts;
use ::http::{Method, Version};

/// `http.request.method` of a method that the conventions do not know.
pub(super) const OTHER_METHOD: &str = "_OTHER";

/// What a span's name begins with: a known method, or `HTTP` for any other.
pub(super) const METHODS: [&str; 10] = [
    "GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS", "CONNECT", "TRACE", "HTTP",
];

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

/// `{METHOD} {route}`, as far as both are known.
pub(super) fn span_name(of_request: &Method, route: Option<&Route>) -> Cow<'static, str> {
    let method = match method(of_request) {
        OTHER_METHOD => "HTTP",
        known => known,
    };
    match route {
        Some(route) => route.span_name(method),
        None => method.into(),
    }
}

/// Writes what is known of the request before it is answered.
pub(super) fn describe(parts: &Parts, route: Option<&Route>, into: &mut Attributes) {
    let name = method(&parts.method);
    into.literal("http.request.method", name);
    if name == OTHER_METHOD {
        into.text("http.request.method_original", parts.method.as_str());
    }
    if let Some(route) = route {
        into.text("http.route", route.value().as_str());
    }
    into.text("url.path", parts.uri.path());
    into.literal("url.scheme", scheme(parts));
    if let Some(query) = parts.uri.query().filter(|query| !query.is_empty()) {
        into.text("url.query", &redact(query));
    }
    if let Some((address, port)) = server(parts) {
        into.text("server.address", address);
        into.number("server.port", i64::from(port));
    }
    if let Some(ClientAddress(client)) = parts.extensions.get() {
        into.text("client.address", &client.ip().to_string());
    }
    if let Some(agent) = parts
        .headers
        .get(USER_AGENT)
        .and_then(|value| value.to_str().ok())
    {
        into.text("user_agent.original", agent);
    }
    into.literal("network.protocol.version", version(parts.version));
}

/// Host and port that the client asked for; the port is the scheme's when it named none.
fn server(parts: &Parts) -> Option<(&str, u16)> {
    let (host, port) = match parts.uri.authority() {
        Some(authority) => (authority.host(), authority.port_u16()),
        None => host_and_port(parts.headers.get(HOST)?.to_str().ok()?)?,
    };
    let of_scheme = if scheme(parts) == "https" { 443 } else { 80 };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    Some((host, port.unwrap_or(of_scheme)))
}

/// The parts of a `Host` header; `None` of one that names no host.
fn host_and_port(value: &str) -> Option<(&str, Option<u16>)> {
    let (host, port) = match value.rsplit_once(':') {
        // The last colon of a bare IPv6 address in brackets is inside of them.
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (value, None),
    };
    let is_valid = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'.' | b'-' | b'_');
    let is_name = match host.strip_prefix('[') {
        Some(address) => address
            .strip_suffix(']')
            .is_some_and(|address| address.parse::<Ipv6Addr>().is_ok()),
        None => host.bytes().all(is_valid),
    };
    if host.is_empty() || !is_name {
        return None;
    }
    match port {
        None | Some("") => Some((host, None)),
        Some(port) => Some((host, Some(port.parse().ok()?))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_header_names_a_host_and_perhaps_a_port() {
        for (value, expected) in [
            ("blog.test", Some(("blog.test", None))),
            ("blog.test:8443", Some(("blog.test", Some(8443)))),
            ("blog.test:", Some(("blog.test", None))),
            ("192.0.2.1:80", Some(("192.0.2.1", Some(80)))),
            ("[2001:db8::1]", Some(("[2001:db8::1]", None))),
            ("[2001:db8::1]:5000", Some(("[2001:db8::1]", Some(5000)))),
            ("", None),
            (":80", None),
            ("blog.test:99999", None),
            ("user:secret@blog.test", None),
            ("2001:db8::1", None),
            ("[nobody]", None),
            ("blog test", None),
        ] {
            assert_eq!(host_and_port(value), expected, "{value}");
        }
    }

    #[test]
    fn a_span_is_named_after_what_is_known() {
        let route = Route::of("/articles/{slug}");
        assert_eq!(span_name(&Method::GET, Some(&route)), "GET /articles/{slug}");
        assert_eq!(span_name(&Method::GET, None), "GET");
        let brew = Method::from_bytes(b"BREW").unwrap();
        assert_eq!(span_name(&brew, Some(&route)), "HTTP /articles/{slug}");
        assert_eq!(span_name(&brew, None), "HTTP");
    }
}

//! The attributes of the server span.

use std::borrow::Cow;
use std::io::Write as _;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use super::client::{ClientAddress, ClientUrl};
use crate::http_settings::{OTHER_METHOD, settings};
use crate::query::redacted_parts;
use ::http::header::{HOST, USER_AGENT};
use ::http::request::Parts;
use ::http::uri::Scheme;
use ::http::{Method, Version};
use otlp_recorder::Attributes;

/// Maximum length of a host name.
const MAX_HOST: usize = 255;

/// Returns the value of `http.request.method` of a request to this server.
pub(super) fn method(method: &Method) -> &'static str {
    settings().server.method(method)
}

/// Returns the value of `network.protocol.version`.
pub(crate) fn version(version: Version) -> &'static str {
    match version {
        Version::HTTP_09 => "0.9",
        Version::HTTP_10 => "1.0",
        Version::HTTP_2 => "2",
        Version::HTTP_3 => "3",
        _ => "1.1",
    }
}

/// Returns the value of `url.scheme`.
pub(super) fn scheme(parts: &Parts) -> &'static str {
    let is_https = |scheme: &Scheme| *scheme == Scheme::HTTPS;
    let client = parts.extensions.get::<ClientUrl>();
    let client = client.and_then(|url| url.scheme.as_ref());
    let client = client.filter(|scheme| is_https(scheme) || **scheme == Scheme::HTTP);
    match client.or(parts.uri.scheme()).is_some_and(is_https) {
        true => "https",
        false => "http",
    }
}

/// Returns `{METHOD} {route}`, or the method alone when no route matches.
pub(super) fn span_name(request_method: &Method, route: Option<&str>) -> Cow<'static, str> {
    let method = match method(request_method) {
        OTHER_METHOD => "HTTP",
        known => known,
    };
    match route {
        Some(route) => [method, " ", route].concat().into(),
        None => method.into(),
    }
}

/// Writes the attributes that requests of a route with the same method, scheme and version share.
pub(super) fn describe_route(parts: &Parts, route: Option<&str>, into: &mut Attributes) {
    into.literal("http.request.method", method(&parts.method));
    if let Some(route) = route {
        into.text("http.route", route);
    }
    into.literal("url.scheme", scheme(parts));
    into.literal("network.protocol.version", version(parts.version));
}

/// Writes the other attributes that are known when the request arrives on a connection from `peer`.
pub(super) fn describe(parts: &Parts, peer: Option<SocketAddr>, into: &mut Attributes) {
    if method(&parts.method) == OTHER_METHOD {
        into.text("http.request.method_original", parts.method.as_str());
    }
    into.text("url.path", parts.uri.path());
    if let Some(query) = parts.uri.query().filter(|query| !query.is_empty()) {
        // Masked in parts, because a name and a value may together look like an address.
        into.text_of("url.query", redacted_parts(query));
    }
    if let Some((address, port)) = server(parts) {
        into.text("server.address", address);
        into.number("server.port", i64::from(port));
    }
    if let Some(ClientAddress(client)) = parts.extensions.get() {
        write_address(client.ip(), |address| into.unredacted("client.address", address));
    }
    if let Some(peer) = peer {
        write_address(peer.ip(), |address| into.text("network.peer.address", address));
        into.number("network.peer.port", i64::from(peer.port()));
    }
    if let Some(agent) = parts
        .headers
        .get(USER_AGENT)
        .and_then(|value| value.to_str().ok())
    {
        into.text("user_agent.original", agent);
    }
    let captured = settings().server.of_request(&parts.headers);
    captured.for_each(|header| into.set(&header));
}

/// Length of the longest IPv6 address.
const MAX_ADDRESS: usize = 45;

/// Passes the text of `address` to `write`, without allocating memory. An IPv4 client of a socket for both versions
/// has its IPv4 address.
fn write_address(address: IpAddr, write: impl FnOnce(&str)) {
    let address = address.to_canonical();
    let mut text = [0; MAX_ADDRESS];
    let length = match address {
        IpAddr::V4(address) => write_octets(address.octets(), &mut text),
        IpAddr::V6(address) => {
            let mut free = &mut text[..];
            // The text of every address fits.
            let _ = write!(free, "{address}");
            MAX_ADDRESS - free.len()
        }
    };
    write(str::from_utf8(&text[..length]).unwrap_or_default());
}

/// Writes an IPv4 address and returns its length. `Display` costs a thousand instructions.
fn write_octets(octets: [u8; 4], text: &mut [u8]) -> usize {
    let mut length = 0;
    let mut put = |byte| {
        text[length] = byte;
        length += 1;
    };
    for (index, octet) in octets.into_iter().enumerate() {
        if index > 0 {
            put(b'.');
        }
        if octet > 99 {
            put(b'0' + octet / 100);
        }
        if octet > 9 {
            put(b'0' + octet / 10 % 10);
        }
        put(b'0' + octet % 10);
    }
    length
}

/// Returns the requested host and port, by default the port of the scheme.
fn server(parts: &Parts) -> Option<(&str, u16)> {
    let client = parts.extensions.get::<ClientUrl>();
    let port = client.and_then(|url| url.port);
    let (host, port) = match client.and_then(|url| host_and_port(url.host.as_deref()?)) {
        Some((host, own)) => (host, own.or(port)),
        None => {
            let (host, own) = match parts.uri.authority() {
                Some(authority) => (authority.host(), authority.port_u16()),
                None => host_and_port(parts.headers.get(HOST)?.to_str().ok()?)?,
            };
            (host, port.or(own))
        }
    };
    let default_port = if scheme(parts) == "https" { 443 } else { 80 };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    Some((host, port.unwrap_or(default_port)))
}

/// Splits a `Host` header into host and port; returns `None` when it has no valid host.
fn host_and_port(value: &str) -> Option<(&str, Option<u16>)> {
    // Costs a third of `rsplit_once`.
    let colon = value.bytes().rposition(|byte| byte == b':');
    let (host, port) = match colon.map(|at| (&value[..at], &value[at + 1..])) {
        // In a bracketed IPv6 address without a port, the last colon is inside the brackets.
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
    if host.is_empty() || host.len() > MAX_HOST || !is_name {
        return None;
    }
    match port {
        None | Some("") => Some((host, None)),
        // `parse` would accept a sign.
        Some(port) if port.starts_with('+') => None,
        Some(port) => Some((host, Some(port.parse().ok()?))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_header_has_a_host_and_an_optional_port() {
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
            ("blog.test:+80", None),
            ("blog.test:80:90", None),
            ("user:secret@blog.test", None),
            ("2001:db8::1", None),
            ("[nobody]", None),
            ("blog test", None),
        ] {
            assert_eq!(host_and_port(value), expected, "{value}");
        }
    }

    #[test]
    fn addresses_are_written_as_they_are_displayed() {
        let octets = (0..=255).flat_map(|octet| [[octet, 0, 9, 10], [99, 100, 101, octet]]);
        let addresses = octets.map(IpAddr::from).chain(["2001:db8::1".parse().unwrap()]);
        for address in addresses {
            write_address(address, |text| assert_eq!(text, address.to_string()));
        }
    }

    #[test]
    fn a_span_name_has_the_method_and_the_route_if_known() {
        let route = "/articles/{slug}";
        assert_eq!(span_name(&Method::GET, Some(route)), "GET /articles/{slug}");
        assert_eq!(span_name(&Method::GET, None), "GET");
        let brew = Method::from_bytes(b"BREW").unwrap();
        assert_eq!(span_name(&brew, Some(route)), "HTTP /articles/{slug}");
        assert_eq!(span_name(&brew, None), "HTTP");
    }
}

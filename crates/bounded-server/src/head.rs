//! Checks request heads before hyper parses them, with the same parser, and determines how the body is framed.
//!
//! hyper accepts heads that a server should refuse, and drops `Content-Length` beside `Transfer-Encoding`, so
//! the service could not detect a request that smuggles another one past a proxy (RFC 9112, section 11.2).

use std::mem::MaybeUninit;

use http::{Method, Uri};
use httparse::{Header, Request, Status};

use crate::{body::BodyFraming, invalid::InvalidRequest};

/// Maximum number of header fields, the same as hyper's default.
const MAX_FIELDS: usize = 100;

/// Maximum number of fields copied to a replacement, which leaves room for its own.
const MAX_REPLACED_FIELDS: usize = 90;

/// Fields that are not copied to a replacement, because they concern the connection or the body.
const CONNECTION_FIELDS: [&str; 8] = [
    "host",
    "content-length",
    "transfer-encoding",
    "connection",
    "expect",
    "upgrade",
    "te",
    "trailer",
];

/// Result of parsing the beginning of a stream.
pub(crate) enum Parsed {
    /// The head is not complete.
    Partial,
    /// A valid head of this length in bytes.
    Valid(usize, BodyFraming),
    /// An invalid head, and the head of a request that replaces it.
    Invalid(InvalidRequest, Vec<u8>),
}

pub(crate) fn parse(bytes: &[u8]) -> Parsed {
    let mut fields = [const { MaybeUninit::uninit() }; MAX_FIELDS];
    let mut request = Request::new(&mut []);
    let length = match request.parse_with_uninit_headers(bytes, &mut fields) {
        Ok(Status::Partial) => return Parsed::Partial,
        Ok(Status::Complete(length)) => length,
        Err(httparse::Error::TooManyHeaders) => return invalid(InvalidRequest::HeadTooLarge),
        Err(_) => return invalid(InvalidRequest::Malformed),
    };
    let (method, target) = (
        request.method.unwrap_or_default(),
        request.path.unwrap_or_default(),
    );
    if Method::from_bytes(method.as_bytes()).is_err() || Uri::try_from(target).is_err() {
        return invalid(InvalidRequest::Malformed);
    }
    match framing(request.version == Some(0), request.headers) {
        Ok(body) => Parsed::Valid(length, body),
        Err(problem) => Parsed::Invalid(problem, replacement(method, target, request.headers)),
    }
}

/// Returns the result for a head that exceeds the limit and begins with `bytes`.
pub(crate) fn too_large(bytes: &[u8]) -> Parsed {
    let has_request_line = bytes.trim_ascii_start().contains(&b'\n');
    invalid(if has_request_line {
        InvalidRequest::HeadTooLarge
    } else {
        InvalidRequest::TargetTooLong
    })
}

/// Whether `bytes` contain the end of a head, which the first `known` bytes are known not to contain.
pub(crate) fn ends(bytes: &[u8], known: usize) -> bool {
    let new = &bytes[known.saturating_sub(3)..];
    new.windows(2).any(|pair| pair == b"\n\n") || new.windows(3).any(|three| three == b"\n\r\n")
}

fn invalid(problem: InvalidRequest) -> Parsed {
    Parsed::Invalid(problem, replacement("GET", "/", &[]))
}

/// Builds the head of a request without a body, which replaces an invalid one.
fn replacement(method: &str, target: &str, fields: &[Header<'_>]) -> Vec<u8> {
    // After CONNECT, hyper would turn the connection into a tunnel.
    let method = if method == "CONNECT" { "GET" } else { method };
    let mut head =
        format!("{method} {target} HTTP/1.1\r\nHost: invalid\r\nConnection: close\r\n").into_bytes();
    let kept = fields.iter().filter(|field| {
        !CONNECTION_FIELDS
            .iter()
            .any(|name| field.name.eq_ignore_ascii_case(name))
    });
    for field in kept.take(MAX_REPLACED_FIELDS) {
        head.extend_from_slice(field.name.as_bytes());
        head.extend_from_slice(b": ");
        head.extend_from_slice(field.value);
        head.extend_from_slice(b"\r\n");
    }
    head.extend_from_slice(b"\r\n");
    head
}

/// Determines the framing of the body (RFC 9112, section 6.3), and checks `Host` (section 3.2).
fn framing(is_http10: bool, fields: &[Header<'_>]) -> Result<BodyFraming, InvalidRequest> {
    let (mut lengths, mut encodings, mut hosts) = (0, 0, 0);
    let mut length = Ok(0);
    let (mut chunked, mut unknown_coding, mut empty_coding, mut valid_host) = (0, false, false, true);
    for Header { name, value } in fields {
        if name.eq_ignore_ascii_case("content-length") {
            lengths += 1;
            length = content_length(value);
        } else if name.eq_ignore_ascii_case("transfer-encoding") {
            encodings += 1;
            for coding in value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
                if coding.eq_ignore_ascii_case(b"chunked") {
                    chunked += 1;
                } else if coding.is_empty() {
                    empty_coding = true;
                } else {
                    unknown_coding = true;
                }
            }
        } else if name.eq_ignore_ascii_case("host") {
            hosts += 1;
            valid_host &= is_host(value);
        }
    }
    if lengths > 1 || (lengths == 1 && encodings > 0) || (is_http10 && encodings > 0) {
        return Err(InvalidRequest::AmbiguousFraming);
    }
    let length = length?;
    if unknown_coding {
        return Err(InvalidRequest::TransferCoding);
    }
    // hyper rejects a list that ends in an empty element without a call of the service.
    if empty_coding || (encodings > 0 && chunked != 1) {
        return Err(InvalidRequest::AmbiguousFraming);
    }
    if hosts > 1 || !valid_host || (hosts == 0 && !is_http10) {
        return Err(InvalidRequest::Host);
    }
    Ok(if encodings > 0 {
        BodyFraming::chunked()
    } else {
        BodyFraming::Length(length)
    })
}

fn content_length(value: &[u8]) -> Result<u64, InvalidRequest> {
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return Err(InvalidRequest::AmbiguousFraming);
    }
    let number = str::from_utf8(value)
        .ok()
        .and_then(|text| text.parse::<i64>().ok());
    number.map(i64::unsigned_abs).ok_or(InvalidRequest::BodyTooLarge)
}

/// Whether the value is a host and an optional port (RFC 3986, sections 3.2.2 and 3.2.3).
fn is_host(value: &[u8]) -> bool {
    let Ok(text) = str::from_utf8(value) else {
        return false;
    };
    let (is_valid_host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let Some((address, port)) = rest.split_once(']') else {
                return false;
            };
            (
                address.parse::<std::net::Ipv6Addr>().is_ok(),
                port.strip_prefix(':').or(port.is_empty().then_some("")),
            )
        }
        None => {
            let (name, port) = text.split_once(':').unwrap_or((text, ""));
            (is_name(name), Some(port))
        }
    };
    let is_port = |port: &str| {
        port.is_empty() || (port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok())
    };
    is_valid_host && port.is_some_and(is_port)
}

/// Whether the text is a `reg-name`, which includes IPv4 addresses, and is not empty.
fn is_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    while let Some(byte) = bytes.next() {
        let valid = match byte {
            b'%' => {
                let mut is_hex = || bytes.next().is_some_and(|digit| digit.is_ascii_hexdigit());
                is_hex() && is_hex()
            }
            _ => byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=".contains(&byte),
        };
        if !valid {
            return false;
        }
    }
    !name.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(head: &str) -> Result<BodyFraming, InvalidRequest> {
        match parse(head.as_bytes()) {
            Parsed::Partial => panic!("{head:?} is partial"),
            Parsed::Valid(length, body) => {
                assert_eq!(length, head.len());
                Ok(body)
            }
            Parsed::Invalid(problem, replacement) => {
                assert!(
                    matches!(parse(&replacement), Parsed::Valid(_, BodyFraming::Length(0))),
                    "the replacement of {head:?} is invalid"
                );
                Err(problem)
            }
        }
    }

    fn with(fields: &str) -> Result<BodyFraming, InvalidRequest> {
        verdict(&format!("POST /x HTTP/1.1\r\nHost: a\r\n{fields}\r\n"))
    }

    #[test]
    fn a_body_has_one_length_or_is_chunked() {
        assert_eq!(with(""), Ok(BodyFraming::Length(0)));
        assert_eq!(with("content-LENGTH:  5 \r\n"), Ok(BodyFraming::Length(5)));
        assert_eq!(with("Transfer-Encoding: Chunked\r\n"), Ok(BodyFraming::chunked()));
        for ambiguous in [
            "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
            "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
            "Transfer-Encoding: gzip, chunked\r\nContent-Length: 5\r\n",
            "Content-Length: 5\r\nContent-Length: 5\r\n",
            "Content-Length: 5\r\nContent-Length: 6\r\n",
            "Content-Length: 5, 5\r\n",
            "Content-Length: +5\r\n",
            "Content-Length: 0x5\r\n",
            "Content-Length: -1\r\n",
            "Content-Length:\r\n",
            "Transfer-Encoding:\r\n",
            "Transfer-Encoding: chunked,\r\n",
            "Transfer-Encoding: , chunked\r\n",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding:\r\n",
            "Transfer-Encoding: chunked, chunked\r\n",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        ] {
            assert_eq!(
                with(ambiguous),
                Err(InvalidRequest::AmbiguousFraming),
                "{ambiguous:?}"
            );
        }
        assert_eq!(
            verdict("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n"),
            Err(InvalidRequest::AmbiguousFraming)
        );
        for unknown in [
            "gzip, chunked",
            "gzip",
            "identity",
            "xchunked",
            "chunked, br",
            "chunked;q=1",
        ] {
            let verdict = with(&format!("Transfer-Encoding: {unknown}\r\n"));
            assert_eq!(verdict, Err(InvalidRequest::TransferCoding), "{unknown:?}");
        }
        for huge in [
            "9223372036854775808",
            "18446744073709551616",
            "99999999999999999999999999",
        ] {
            let verdict = with(&format!("Content-Length: {huge}\r\n"));
            assert_eq!(verdict, Err(InvalidRequest::BodyTooLarge), "{huge}");
        }
    }

    #[test]
    fn host_is_exactly_one_valid_field() {
        let get = |fields: &str| verdict(&format!("GET / HTTP/1.1\r\n{fields}\r\n"));
        for valid in [
            "localhost",
            "a.example:8000",
            "127.0.0.1",
            "[::1]",
            "[::1]:80",
            "a_b.example",
            "x%20y",
            "a:",
        ] {
            assert!(get(&format!("Host: {valid}\r\n")).is_ok(), "{valid}");
        }
        for wrong in [
            "", "a b", "a/b", "u@a", "a:b", "a:65536", "a:1:2", "[::1", "[::g]", "[::1]x", "::1", "%zz",
            "a, b", "h\u{e9}", ":80",
        ] {
            let field = format!("Host: {wrong}\r\n");
            assert_eq!(get(&field), Err(InvalidRequest::Host), "{wrong:?}");
        }
        assert_eq!(get(""), Err(InvalidRequest::Host));
        assert_eq!(get("Host: a\r\nhost: a\r\n"), Err(InvalidRequest::Host));
        assert!(verdict("GET / HTTP/1.0\r\n\r\n").is_ok());
        assert_eq!(
            verdict("GET / HTTP/1.0\r\nHost: a b\r\n\r\n"),
            Err(InvalidRequest::Host)
        );
    }

    #[test]
    fn heads_that_are_not_http1_requests_are_malformed() {
        for malformed in [
            "GET /\r\n\r\n",
            "GET / HTTP/2.0\r\n\r\n",
            "GET  / HTTP/1.1\r\n\r\n",
            "GE T / HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET /?q=<b> HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET /?q=\"a\" HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nX Y: 1\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nX : 1\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nX: 1\r\n folded\r\n\r\n",
            "\u{16}\u{3}\u{1}\r\n\r\n",
        ] {
            assert_eq!(
                verdict(malformed),
                Err(InvalidRequest::Malformed),
                "{malformed:?}"
            );
        }
        let many = "X: 1\r\n".repeat(100);
        assert_eq!(with(&many), Err(InvalidRequest::HeadTooLarge));
    }

    #[test]
    fn a_replacement_keeps_the_target_and_the_fields_that_do_not_concern_the_connection() {
        let head = "PUT /x?y HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nExpect: 100-continue\r\n\
            traceparent: 00-1\r\nTransfer-Encoding: chunked\r\n\r\n";
        let Parsed::Invalid(InvalidRequest::AmbiguousFraming, replacement) = parse(head.as_bytes()) else {
            panic!("accepted");
        };
        assert_eq!(
            String::from_utf8(replacement).unwrap(),
            "PUT /x?y HTTP/1.1\r\nHost: invalid\r\nConnection: close\r\ntraceparent: 00-1\r\n\r\n"
        );
    }

    #[test]
    fn the_end_of_a_head_is_found_however_it_arrives() {
        for head in ["GET / HTTP/1.1\r\nHost: a\r\n\r\n", "GET / HTTP/1.1\nHost: a\n\n"] {
            let bytes = head.as_bytes();
            for known in 0..bytes.len() {
                assert!(!ends(&bytes[..known], known.saturating_sub(5)));
                assert!(ends(bytes, known), "{known}");
            }
        }
    }
}

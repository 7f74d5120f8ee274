//! Reads and decompresses HTTP request bodies with limits on size and time.

use std::io::Read as _;

use axum::{
    body::Body,
    http::{HeaderMap, HeaderValue, header::CONTENT_ENCODING},
};
use bytes::Bytes;
use flate2::read::MultiGzDecoder;
use http_body::Body as _;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};

use super::{
    limits::{MAX_HTTP_BODY, READ_TIMEOUT},
    rejection::Rejection,
};

const TOO_LARGE: Rejection = Rejection::TooLarge { limit: MAX_HTTP_BODY };

/// Compression of a body, as declared by `Content-Encoding`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Compression {
    Identity,
    Gzip,
}

impl Compression {
    pub(super) fn of(headers: &HeaderMap) -> Result<Self, Rejection> {
        let mut named = headers
            .get_all(CONTENT_ENCODING)
            .iter()
            .map(HeaderValue::as_bytes);
        match (named.next(), named.next()) {
            (None, _) | (Some(b""), None) => Ok(Self::Identity),
            (Some(name), None) if name.eq_ignore_ascii_case(b"gzip") => Ok(Self::Gzip),
            (Some(name), None) if name.eq_ignore_ascii_case(b"identity") => Ok(Self::Identity),
            // Several values mean that the body is compressed several times.
            _ => Err(Rejection::UnsupportedEncoding),
        }
    }
}

/// Returns the declared length of `body`, or the maximum if the length is unknown.
///
/// # Errors
/// Fails if the declared length exceeds [`MAX_HTTP_BODY`].
pub(super) fn declared_length(body: &Body) -> Result<u32, Rejection> {
    let length = body.size_hint().exact().unwrap_or(MAX_HTTP_BODY as u64);
    let length = u32::try_from(length).map_err(|_| TOO_LARGE)?;
    if length as usize > MAX_HTTP_BODY {
        return Err(TOO_LARGE);
    }
    Ok(length)
}

/// Reads the body without decompressing it.
pub(super) async fn read(body: Body) -> Result<Bytes, Rejection> {
    let body = Limited::new(body, MAX_HTTP_BODY);
    match tokio::time::timeout(READ_TIMEOUT, body.collect()).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(TOO_LARGE),
        Ok(Err(_)) => Err(Rejection::Truncated),
        Err(_) => Err(Rejection::TooSlow),
    }
}

/// Decompresses `body`.
pub(super) fn decompress(body: Bytes, compression: Compression) -> Result<Bytes, Rejection> {
    match compression {
        Compression::Identity => Ok(body),
        Compression::Gzip => gunzip(&body, MAX_HTTP_BODY).map(Bytes::from),
    }
}

fn gunzip(compressed: &[u8], limit: usize) -> Result<Vec<u8>, Rejection> {
    let mut plain = Vec::new();
    let one_more = u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1);
    MultiGzDecoder::new(compressed)
        .take(one_more)
        .read_to_end(&mut plain)
        .map_err(|_| Rejection::NotGzip)?;
    if plain.len() > limit {
        return Err(Rejection::TooLarge { limit });
    }
    Ok(plain)
}

#[cfg(test)]
mod tests;

//! Decompresses HTTP request bodies with a limit on their size.

use std::io::Read as _;

use axum::http::{HeaderMap, HeaderValue, header::CONTENT_ENCODING};
use bytes::Bytes;
use flate2::read::MultiGzDecoder;

use super::{limits::MAX_HTTP_BODY, rejection::Rejection};

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

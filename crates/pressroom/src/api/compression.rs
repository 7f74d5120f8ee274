//! Compression of responses with gzip, for clients that accept it.
//!
//! A response is compressed as a whole before it is sent: an encoder takes 300 KiB, and encoders that live until
//! slow clients have read their responses would add up. Brotli is not offered: it makes a list a fifth smaller
//! than gzip does, but takes seven times the processor time.

use std::io::Write as _;

use axum::{
    body::{Body, HttpBody as _},
    extract::Request,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    middleware::Next,
    response::Response,
};
use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use http_body_util::BodyExt as _;
use tokio::sync::Semaphore;

/// Size of the largest body that is sent unchanged, in bytes.
const UNCOMPRESSED: u64 = 1024;
/// Number of bytes to compress before yielding to other requests.
const CHUNK: usize = 64 << 10;
/// Permits for encoders, which bound their memory. A response that gets no permit is sent uncompressed.
static ENCODERS: Semaphore = Semaphore::const_new(8);

/// Compresses the response if the client prefers that and the body is large enough.
///
/// Handlers return 304 with the body of the corresponding 200, whose size determines the entity tag of both (RFC 9110,
/// section 15.4.5). The body is removed here.
pub(super) async fn compress(request: Request, next: Next) -> Response {
    let accepted = accepts_gzip(request.headers());
    let mut response = next.run(request).await;
    let size = response.body().size_hint().exact().unwrap_or(0);
    let compresses =
        accepted && size > UNCOMPRESSED && !response.headers().contains_key(header::CONTENT_ENCODING);
    let headers = response.headers_mut();
    if let Some(tag) = headers.get(header::ETAG).filter(|_| compresses).and_then(weak) {
        headers.insert(header::ETAG, tag);
    }
    if response.status() == StatusCode::NOT_MODIFIED {
        response.headers_mut().remove(header::CONTENT_TYPE);
        return response.map(|_| Body::empty());
    }
    if !compresses {
        return response;
    }
    let Ok(_permit) = ENCODERS.try_acquire() else {
        return response;
    };
    let (mut parts, body) = response.into_parts();
    // A body of known size is in memory, so collecting it does not fail.
    let Ok(body) = body.collect().await.map(|body| body.to_bytes()) else {
        return Response::from_parts(parts, Body::empty());
    };
    let headers = &mut parts.headers;
    headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    headers.remove(header::CONTENT_LENGTH);
    Response::from_parts(parts, Body::from(gzip(&body).await))
}

async fn gzip(body: &Bytes) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    for (i, chunk) in body.chunks(CHUNK).enumerate() {
        if i > 0 {
            tokio::task::yield_now().await;
        }
        encoder.write_all(chunk).expect("writes to memory succeed");
    }
    encoder.finish().expect("writes to memory succeed")
}

/// Returns the weak form of an entity tag: a strong tag would identify the uncompressed bytes (RFC 9110,
/// section 8.8.3).
fn weak(tag: &HeaderValue) -> Option<HeaderValue> {
    let tag = tag.to_str().ok().filter(|tag| !tag.starts_with("W/"))?;
    HeaderValue::try_from(format!("W/{tag}")).ok()
}

/// Whether the client accepts gzip and does not prefer the unchanged response (RFC 9110, section 12.5.3).
fn accepts_gzip(headers: &HeaderMap) -> bool {
    let (mut gzip, mut other, mut identity) = (None, None, None);
    let fields = headers.get_all(header::ACCEPT_ENCODING).iter();
    let codings = fields
        .filter_map(|field| field.to_str().ok())
        .flat_map(|field| field.split(','));
    for coding in codings {
        let (name, parameter) = coding.split_once(';').unwrap_or((coding, "q=1"));
        let weight = parameter
            .trim()
            .strip_prefix(['q', 'Q'])
            .and_then(|rest| rest.strip_prefix('='));
        let weight = weight
            .and_then(|weight| weight.parse::<f32>().ok())
            .unwrap_or(0.0);
        match name.trim().to_ascii_lowercase().as_str() {
            "gzip" | "x-gzip" => gzip = Some(weight),
            "identity" => identity = Some(weight),
            "*" => other = Some(weight),
            _ => {}
        }
    }
    let gzip = gzip.or(other).unwrap_or(0.0);
    gzip > 0.0 && gzip >= identity.unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gzip_is_used_only_if_the_client_prefers_it() {
        for (fields, expected) in [
            (&["gzip"][..], true),
            (&["br, GZIP;q=0.5"], true),
            (&["deflate", "gzip"], true),
            (&["x-gzip"], true),
            (&["*"], true),
            (&["gzip ; q=0.001"], true),
            (&[], false),
            (&[""], false),
            (&["identity"], false),
            (&["br, deflate"], false),
            (&["gzip;q=0"], false),
            (&["gzip;q=0, *"], false),
            (&["identity, gzip;q=0.5"], false),
            (&["gzip;q=x"], false),
        ] {
            let mut headers = HeaderMap::new();
            for field in fields {
                headers.append(header::ACCEPT_ENCODING, HeaderValue::from_static(field));
            }
            assert_eq!(accepts_gzip(&headers), expected, "{fields:?}");
        }
    }
}

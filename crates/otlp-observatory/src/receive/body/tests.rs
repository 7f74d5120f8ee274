use std::io::Write as _;

use flate2::{Compression as Level, write::GzEncoder};

use super::*;

fn gzip(plain: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Level::best());
    encoder.write_all(plain).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn the_limit_applies_to_the_decompressed_body() {
    let bomb = gzip(&[0; 100_000]);
    assert!(bomb.len() < 1000);
    assert!(matches!(
        gunzip(&bomb, 99_999),
        Err(Rejection::TooLarge { limit: 99_999 })
    ));
    assert_eq!(gunzip(&bomb, 100_000).unwrap().len(), 100_000);
}

#[test]
fn several_gzip_members_form_one_body() {
    let members = [gzip(b"one "), gzip(b"two")].concat();
    assert_eq!(gunzip(&members, 100).unwrap(), b"one two");
}

#[test]
fn invalid_and_truncated_gzip_is_rejected() {
    let whole = gzip(b"something to compress");
    for body in [&b"plain"[..], b"", &whole[..whole.len() - 1]] {
        assert!(matches!(gunzip(body, 100), Err(Rejection::NotGzip)), "{body:?}");
    }
}

#[test]
fn a_single_encoding_is_accepted_ignoring_case() {
    let of = |values: &[&'static str]| {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(CONTENT_ENCODING, HeaderValue::from_static(value));
        }
        Compression::of(&headers).ok()
    };
    assert_eq!(of(&[]), Some(Compression::Identity));
    assert_eq!(of(&["identity"]), Some(Compression::Identity));
    assert_eq!(of(&["GZIP"]), Some(Compression::Gzip));
    for rejected in [&["br"][..], &["gzip, gzip"], &["gzip", "gzip"], &["x-gzip"]] {
        assert_eq!(of(rejected), None, "{rejected:?}");
    }
}

//! Compression of message bodies and results, with the methods and names of kombu.

use std::{
    borrow::Cow,
    fmt,
    io::{self, Read},
};

use thiserror::Error;

/// Maximum size of decompressed data, which is Redis' maximum size of a value.
const MAX_DECOMPRESSED: u64 = 512 * 1024 * 1024;

/// Start of a compressed result of Celery 5.7, which the content type, a NUL byte and the body follow.
const RESULT_MAGIC: &[u8] = b"\0celery-compressed\0";

/// Compression method of a message body.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Compression {
    /// The format of zlib, which kombu names both `zlib` and `gzip`.
    Zlib,
    /// bzip2. Needs the feature `bzip2`.
    #[cfg(feature = "bzip2")]
    Bzip2,
    /// The container of xz, which kombu names `lzma` and `xz`. Needs the feature `lzma`.
    #[cfg(feature = "lzma")]
    Lzma,
    /// Zstandard, which Python needs a package for. Needs the feature `zstd`.
    #[cfg(feature = "zstd")]
    Zstd,
}

/// Compression method that is unknown, or whose feature is off.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(crate) struct Unsupported {
    /// Name or content type of the method.
    method: String,
    /// Feature that enables the method.
    feature: Option<&'static str>,
}

impl fmt::Display for Unsupported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "compression {:?} is not supported", self.method)?;
        match self.feature {
            Some(feature) => write!(f, "; enable the feature `{feature}` of celeriac"),
            None => Ok(()),
        }
    }
}

impl Compression {
    /// Returns the method with this content type or name of kombu.
    pub(crate) fn find(method: &str) -> Result<Self, Unsupported> {
        let feature = match method {
            "application/x-gzip" | "gzip" | "zlib" => return Ok(Self::Zlib),
            #[cfg(feature = "bzip2")]
            "application/x-bz2" | "bzip2" | "bzip" => return Ok(Self::Bzip2),
            #[cfg(feature = "lzma")]
            "application/x-lzma" | "lzma" | "xz" => return Ok(Self::Lzma),
            #[cfg(feature = "zstd")]
            "application/zstd" | "zstd" | "zstandard" => return Ok(Self::Zstd),
            #[cfg(not(feature = "bzip2"))]
            "application/x-bz2" | "bzip2" | "bzip" => Some("bzip2"),
            #[cfg(not(feature = "lzma"))]
            "application/x-lzma" | "lzma" | "xz" => Some("lzma"),
            #[cfg(not(feature = "zstd"))]
            "application/zstd" | "zstd" | "zstandard" => Some("zstd"),
            _ => None,
        };
        Err(Unsupported {
            method: method.chars().take(60).collect(),
            feature,
        })
    }

    /// Returns kombu's content type, the value of the header `compression`.
    pub(crate) fn content_type(self) -> &'static str {
        match self {
            Self::Zlib => "application/x-gzip",
            #[cfg(feature = "bzip2")]
            Self::Bzip2 => "application/x-bz2",
            #[cfg(feature = "lzma")]
            Self::Lzma => "application/x-lzma",
            #[cfg(feature = "zstd")]
            Self::Zstd => "application/zstd",
        }
    }

    /// Returns kombu's name for the method.
    fn name(self) -> &'static str {
        match self {
            Self::Zlib => "zlib",
            #[cfg(feature = "bzip2")]
            Self::Bzip2 => "bzip2",
            #[cfg(feature = "lzma")]
            Self::Lzma => "lzma",
            #[cfg(feature = "zstd")]
            Self::Zstd => "zstd",
        }
    }

    pub(crate) fn compress(self, body: &[u8]) -> Vec<u8> {
        let mut compressed = Vec::new();
        let done = match self {
            Self::Zlib => flate2::read::ZlibEncoder::new(body, flate2::Compression::default())
                .read_to_end(&mut compressed),
            #[cfg(feature = "bzip2")]
            Self::Bzip2 => {
                bzip2::read::BzEncoder::new(body, bzip2::Compression::best()).read_to_end(&mut compressed)
            }
            #[cfg(feature = "lzma")]
            Self::Lzma => xz(body, &mut compressed),
            #[cfg(feature = "zstd")]
            Self::Zstd => {
                compressed =
                    ruzstd::encoding::compress_to_vec(body, ruzstd::encoding::CompressionLevel::Fastest);
                Ok(compressed.len())
            }
        };
        done.expect("compressing in memory does not fail");
        compressed
    }

    pub(crate) fn decompress(self, body: &[u8]) -> io::Result<Vec<u8>> {
        match self {
            // Not written by kombu, but the name suggests it.
            Self::Zlib if body.starts_with(&[0x1f, 0x8b]) => read(flate2::read::GzDecoder::new(body)),
            Self::Zlib => read(flate2::read::ZlibDecoder::new(body)),
            #[cfg(feature = "bzip2")]
            Self::Bzip2 => read(bzip2::read::BzDecoder::new(body)),
            #[cfg(feature = "lzma")]
            Self::Lzma => read(lzma_rust2::XzReader::new(body, true)),
            #[cfg(feature = "zstd")]
            Self::Zstd => read(ruzstd::decoding::StreamingDecoder::new(body).map_err(io::Error::other)?),
        }
    }
}

#[cfg(feature = "lzma")]
fn xz(body: &[u8], compressed: &mut Vec<u8>) -> io::Result<usize> {
    use std::io::Write as _;

    let options = lzma_rust2::XzOptions::with_preset(6);
    let mut writer = lzma_rust2::XzWriter::new(compressed, options)?;
    writer.write_all(body)?;
    Ok(writer.finish()?.len())
}

/// Reads everything, up to [`MAX_DECOMPRESSED`].
fn read(decoder: impl Read) -> io::Result<Vec<u8>> {
    let mut body = Vec::new();
    decoder.take(MAX_DECOMPRESSED + 1).read_to_end(&mut body)?;
    if body.len() as u64 > MAX_DECOMPRESSED {
        return Err(io::Error::other("the decompressed data is larger than 512 MiB"));
    }
    Ok(body)
}

/// Returns whether a stored result is compressed, from its first bytes.
pub(crate) fn is_compressed(start: &[u8]) -> bool {
    start.starts_with(RESULT_MAGIC)
}

/// Compresses the result of a successful task in Celery's format. The method is stored as kombu's name instead of its
/// content type; the scripts that store results recognise a success by this name.
pub(crate) fn compressed_result(text: &[u8], method: Compression) -> Vec<u8> {
    let mut compressed = RESULT_MAGIC.to_vec();
    compressed.extend_from_slice(method.name().as_bytes());
    compressed.push(0);
    compressed.extend(method.compress(text));
    compressed
}

/// Returns the stored result without Celery's compression.
pub(crate) fn decompressed_result(raw: &[u8]) -> Result<Cow<'_, [u8]>, String> {
    let Some(rest) = raw.strip_prefix(RESULT_MAGIC) else {
        return Ok(Cow::Borrowed(raw));
    };
    let mut parts = rest.splitn(2, |byte| *byte == 0);
    let content_type = parts.next().unwrap_or_default();
    let body = parts.next().unwrap_or_default();
    let method =
        Compression::find(&String::from_utf8_lossy(content_type)).map_err(|error| error.to_string())?;
    let decompressed = method.decompress(body);
    decompressed
        .map(Cow::Owned)
        .map_err(|error| format!("the result is not {}: {error}", method.content_type()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_method_restores_what_it_compressed() {
        let body = "[[1, \"créé\"], {}, null]".repeat(1000);
        let mut methods = vec!["zlib", "gzip"];
        methods.extend(cfg!(feature = "bzip2").then_some("bzip2"));
        methods.extend(cfg!(feature = "lzma").then_some("lzma"));
        methods.extend(cfg!(feature = "zstd").then_some("zstd"));
        for name in methods {
            let method = Compression::find(name).unwrap();
            assert_eq!(Compression::find(method.content_type()), Ok(method));
            let compressed = method.compress(body.as_bytes());
            assert!(compressed.len() < body.len() / 2, "{name}");
            assert_eq!(method.decompress(&compressed).unwrap(), body.as_bytes(), "{name}");
            assert!(method.decompress(b"garbage").is_err(), "{name}");
        }
    }

    #[test]
    fn an_unknown_method_is_named() {
        let error = Compression::find("application/x-brotli").unwrap_err();
        assert_eq!(
            error.to_string(),
            "compression \"application/x-brotli\" is not supported"
        );
        #[cfg(not(feature = "bzip2"))]
        assert_eq!(
            Compression::find("application/x-bz2").unwrap_err().to_string(),
            "compression \"application/x-bz2\" is not supported; enable the feature `bzip2` of celeriac"
        );
    }
}

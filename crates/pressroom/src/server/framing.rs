//! Notices requests that say in two ways how long their body is, `Content-Length` beside
//! `Transfer-Encoding`, which is how requests are smuggled past a proxy (RFC 9112, section 6.3).
//!
//! hyper resolves them by dropping the length before anyone sees it, so the bytes are looked at on
//! their way there. What looks like header lines inside a body changes nothing but the answer to a
//! request that is chunked anyway.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

const CONTENT_LENGTH: &[u8] = b"content-length:";
const TRANSFER_ENCODING: &[u8] = b"transfer-encoding:";

/// Whether the head that was read last was ambiguous; a request extension.
#[derive(Debug, Clone, Default)]
pub struct AmbiguousFraming(Arc<AtomicBool>);

impl AmbiguousFraming {
    /// True once for each ambiguous head.
    #[must_use]
    pub fn take(&self) -> bool {
        self.0.swap(false, Ordering::Relaxed)
    }
}

/// A stream of requests whose heads are looked at.
#[derive(Debug)]
pub(super) struct Watched<S> {
    stream: S,
    head: Head,
    found: AmbiguousFraming,
}

impl<S> Watched<S> {
    pub(super) fn new(stream: S) -> Self {
        Self {
            stream,
            head: Head::default(),
            found: AmbiguousFraming::default(),
        }
    }

    pub(super) fn found(&self) -> AmbiguousFraming {
        self.found.clone()
    }
}

/// What has been seen of the head being read.
#[derive(Debug, Default)]
struct Head {
    /// The beginning of the present line, in lower case.
    line: [u8; TRANSFER_ENCODING.len()],
    /// How much of it there is; beyond the array it is only counted.
    length: usize,
    has_length: bool,
    has_encoding: bool,
}

impl Head {
    /// Reads on; true when a head that has both ended in `bytes`.
    fn read(&mut self, bytes: &[u8]) -> bool {
        let mut ambiguous = false;
        for &byte in bytes {
            if byte == b'\n' {
                ambiguous |= self.end_line();
            } else {
                if let Some(place) = self.line.get_mut(self.length) {
                    *place = byte.to_ascii_lowercase();
                }
                self.length = self.length.saturating_add(1);
            }
        }
        ambiguous
    }

    fn end_line(&mut self) -> bool {
        let line = &self.line[..self.length.min(self.line.len())];
        let ends_head = line.is_empty() || line == b"\r";
        self.has_length |= line.starts_with(CONTENT_LENGTH);
        self.has_encoding |= line == TRANSFER_ENCODING;
        self.length = 0;
        let ambiguous = ends_head && self.has_length && self.has_encoding;
        if ends_head {
            *self = Self::default();
        }
        ambiguous
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buffer);
        if self.head.read(&buffer.filled()[before..]) {
            self.found.0.store(true, Ordering::Relaxed);
        }
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ambiguous(pieces: &[&str]) -> bool {
        let mut head = Head::default();
        pieces.iter().any(|piece| head.read(piece.as_bytes()))
    }

    #[test]
    fn both_lengths_in_one_head_are_noticed_however_they_arrive() {
        let head = "POST / HTTP/1.1\r\nCONTENT-length: 5\r\nTransfer-Encoding: chunked\r\n\r\n";
        assert!(ambiguous(&[head]));
        for split in 1..head.len() {
            let (a, b) = head.split_at(split);
            assert!(ambiguous(&[a, b]), "split at {split}");
        }
        assert!(ambiguous(&[
            "POST / HTTP/1.1\nTransfer-Encoding: x\nContent-Length: 1\n\n"
        ]));
    }

    #[test]
    fn one_length_a_head_is_nothing_to_notice() {
        assert!(!ambiguous(&[
            "POST / HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}",
            "\r\nPOST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
        ]));
        assert!(!ambiguous(&[
            "GET / HTTP/1.1\r\nX-Content-Length: 2\r\nTransfer-Encodings: chunked\r\n\r\n"
        ]));
    }
}

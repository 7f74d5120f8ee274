//! Detects requests whose head has both `Content-Length` and `Transfer-Encoding`, a technique for smuggling
//! requests past a proxy (RFC 9112, section 6.3).
//!
//! hyper drops the length before the service sees the request, so the bytes are scanned while hyper reads
//! them. Text in a body that looks like header lines matters only if the request is chunked as well.

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

/// Request extension that marks a head with both `Content-Length` and `Transfer-Encoding`.
///
/// A service should reject the request and close its connection. Added only with
/// [`Server::detect_ambiguous_framing`](crate::Server::detect_ambiguous_framing).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AmbiguousFraming;

/// A stream that scans request heads while they are read.
#[derive(Debug)]
pub(crate) struct WatchedStream<S> {
    stream: S,
    /// `None` when heads are not scanned.
    head: Option<Head>,
    /// Set when an ambiguous head was read.
    ambiguous_head: Arc<AtomicBool>,
}

impl<S> WatchedStream<S> {
    pub(crate) fn new(stream: S, scan: bool) -> Self {
        Self {
            stream,
            head: scan.then(Head::default),
            ambiguous_head: Arc::default(),
        }
    }

    /// Returns the flag that an ambiguous head sets.
    pub(crate) fn ambiguous_head(&self) -> Arc<AtomicBool> {
        self.ambiguous_head.clone()
    }
}

/// State of scanning the current head.
#[derive(Debug, Default)]
struct Head {
    /// Beginning of the current line, in lower case.
    line: [u8; TRANSFER_ENCODING.len()],
    /// Length of the current line, which may exceed the array.
    length: usize,
    has_length: bool,
    has_encoding: bool,
}

impl Head {
    /// Scans `bytes`; returns whether an ambiguous head ends in them.
    fn scan(&mut self, bytes: &[u8]) -> bool {
        let mut ambiguous = false;
        for &byte in bytes {
            if byte == b'\n' {
                ambiguous |= self.end_line();
            } else {
                if let Some(slot) = self.line.get_mut(self.length) {
                    *slot = byte.to_ascii_lowercase();
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

impl<S: AsyncRead + Unpin> AsyncRead for WatchedStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buffer);
        if let Some(head) = &mut self.head
            && head.scan(&buffer.filled()[before..])
        {
            self.ambiguous_head.store(true, Ordering::Relaxed);
        }
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for WatchedStream<S> {
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
        pieces.iter().any(|piece| head.scan(piece.as_bytes()))
    }

    #[test]
    fn both_headers_in_one_head_are_detected_however_they_arrive() {
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
    fn a_head_with_one_of_the_headers_is_not_ambiguous() {
        assert!(!ambiguous(&[
            "POST / HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}",
            "\r\nPOST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
        ]));
        assert!(!ambiguous(&[
            "GET / HTTP/1.1\r\nX-Content-Length: 2\r\nTransfer-Encodings: chunked\r\n\r\n"
        ]));
    }
}

//! The stream between a socket and hyper.
//!
//! It passes requests with valid heads to hyper unchanged, and replaces an invalid head with the head of a request
//! that the service refuses. It closes connections that wait too long for a head, or whose client does not read.

use std::{
    fmt,
    future::Future,
    io,
    mem::MaybeUninit,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::{Instant, Sleep, sleep, sleep_until},
};

use crate::{
    body::BodyFraming,
    head::{self, Parsed},
    state::ConnectionState,
};

/// Number of bytes that a client must accept within the write time-out while a response waits.
const MIN_PROGRESS: usize = 16 * 1024;

/// Write time-out while memory is scarce.
const WRITE_TIMEOUT_UNDER_PRESSURE: Duration = Duration::from_secs(2);

/// Interval at which a waiting response checks its time-out.
const WRITE_CHECK: Duration = Duration::from_secs(1);

/// Maximum time to discard what the client still sends after the last response. Closing the socket immediately would
/// reset the connection, and the client might lose the response.
const LINGER: Duration = Duration::from_secs(2);

/// First bytes of a client of HTTP/2 (RFC 9113, section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Condition under which slow readers are disconnected early.
pub(crate) type Pressure = Arc<dyn Fn() -> bool + Send + Sync>;

/// Limits of a connection.
#[derive(Clone)]
pub(crate) struct StreamLimits {
    pub(crate) max_head_bytes: usize,
    pub(crate) header_read_timeout: Duration,
    pub(crate) keep_alive_timeout: Duration,
    pub(crate) write_timeout: Duration,
    pub(crate) pressure: Option<Pressure>,
}

impl fmt::Debug for StreamLimits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StreamLimits").finish_non_exhaustive()
    }
}

/// Position in the bytes that the client sends.
#[derive(Debug)]
enum Reading {
    /// The first bytes, which determine the version of HTTP.
    Version,
    /// HTTP/2, whose requests are not checked.
    Http2,
    /// Position before or within a head.
    Head,
    Body(BodyFraming),
    /// Remaining bytes of the replacement for an invalid head. Further bytes from the client are discarded.
    Refused(Vec<u8>),
    /// Nothing more is read.
    Ended,
}

#[derive(Debug)]
pub(crate) struct CheckedStream {
    stream: TcpStream,
    state: Arc<ConnectionState>,
    limits: StreamLimits,
    reading: Reading,
    /// Bytes that have been read but not handed over.
    buffer: Vec<u8>,
    /// Number of bytes at the beginning of the buffer that may be handed over.
    cleared: usize,
    /// Number of bytes of an incomplete head that have been searched for its end.
    searched: usize,
    /// Number of valid heads.
    heads: u64,
    /// Time at which the first bytes of an incomplete head arrived.
    head_started: Option<Instant>,
    read_timer: Timer,
    writing: Option<Writing>,
    write_timer: Timer,
    linger: Option<Pin<Box<Sleep>>>,
}

/// A response that waits for the client.
#[derive(Debug)]
struct Writing {
    since: Instant,
    /// Number of bytes that the client accepted since then.
    accepted: usize,
}

impl CheckedStream {
    /// Creates a stream that checks request heads of HTTP/1. HTTP/2 is passed on if `accepts_http2`.
    pub(crate) fn new(
        stream: TcpStream,
        state: Arc<ConnectionState>,
        limits: StreamLimits,
        accepts_http2: bool,
    ) -> Self {
        Self {
            stream,
            state,
            limits,
            reading: if accepts_http2 {
                Reading::Version
            } else {
                Reading::Head
            },
            buffer: Vec::new(),
            cleared: 0,
            searched: 0,
            heads: 0,
            head_started: None,
            read_timer: Timer::default(),
            writing: None,
            write_timer: Timer::default(),
            linger: None,
        }
    }

    /// Returns the number of leading bytes that may be handed over. `bytes` begin at the current position.
    fn clear(&mut self, bytes: &[u8]) -> usize {
        let mut position = 0;
        while position < bytes.len() {
            let rest = &bytes[position..];
            match &mut self.reading {
                Reading::Version if rest.starts_with(PREFACE) => {
                    self.head_started = None;
                    self.reading = Reading::Http2;
                    return bytes.len();
                }
                Reading::Version if PREFACE.starts_with(rest) => {
                    self.searched = rest.len();
                    self.head_started.get_or_insert_with(Instant::now);
                    break;
                }
                Reading::Version => {
                    self.searched = 0;
                    self.reading = Reading::Head;
                }
                Reading::Head => match self.parse(rest) {
                    Parsed::Partial => break,
                    Parsed::Valid(length, body) => {
                        position += length;
                        self.heads += 1;
                        self.searched = 0;
                        self.head_started = None;
                        self.reading = Reading::Body(body);
                    }
                    Parsed::Invalid(problem, replacement) => {
                        tracing::debug!(reason = %problem, "refused a request");
                        self.state.refuse(self.heads, problem);
                        self.reading = Reading::Refused(replacement);
                    }
                },
                Reading::Body(body) => match body.consume(rest) {
                    Ok(consumed) => position += consumed,
                    Err(_malformed) => {
                        // hyper finds the same error.
                        self.reading = Reading::Ended;
                        return bytes.len();
                    }
                },
                Reading::Http2 | Reading::Refused(_) | Reading::Ended => break,
            }
            if let Reading::Body(body) = &self.reading
                && body.is_at_end()
            {
                self.state.received_body();
                self.reading = Reading::Head;
            }
        }
        position
    }

    /// Parses the head at the beginning of `bytes`.
    fn parse(&mut self, bytes: &[u8]) -> Parsed {
        let limit = self.limits.max_head_bytes;
        // Parsing again whenever a slow client sends a few bytes would take quadratic time.
        let parsed = if self.searched > 0 && !head::ends(bytes, self.searched) {
            Parsed::Partial
        } else {
            head::parse(bytes)
        };
        match parsed {
            Parsed::Partial if bytes.len() >= limit => head::too_large(bytes),
            Parsed::Valid(length, _) if length > limit => head::too_large(&bytes[..limit]),
            Parsed::Partial => {
                self.searched = bytes.len();
                self.head_started.get_or_insert_with(Instant::now);
                Parsed::Partial
            }
            complete => complete,
        }
    }

    /// Completes when the client has not sent a head in time.
    fn poll_head_timeout(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            let now = Instant::now();
            let deadline = match (self.state.waiting_since(), self.head_started) {
                // A response is in progress.
                (None, _) => now + self.limits.keep_alive_timeout,
                (Some(since), Some(started)) => since.max(started) + self.limits.header_read_timeout,
                (Some(since), None) if self.heads == 0 => since + self.limits.header_read_timeout,
                (Some(since), None) => since + self.limits.keep_alive_timeout,
            };
            if deadline <= now {
                return Poll::Ready(());
            }
            ready!(self.read_timer.poll_until(deadline, cx));
        }
    }

    /// Completes with an error when the client does not accept enough of a response.
    fn poll_write_timeout(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        let start = || Writing {
            since: Instant::now(),
            accepted: 0,
        };
        let writing = self.writing.get_or_insert_with(start);
        self.state.set_writing(true);
        loop {
            let waited = writing.since.elapsed();
            let pressure = || self.limits.pressure.as_ref().is_some_and(|pressure| pressure());
            let is_late =
                waited >= self.limits.write_timeout || (waited >= WRITE_TIMEOUT_UNDER_PRESSURE && pressure());
            if is_late && writing.accepted < MIN_PROGRESS {
                tracing::debug!("closed a connection whose client does not read");
                // Otherwise the system would keep the unsent bytes in memory.
                if let Err(error) = self.stream.set_zero_linger() {
                    tracing::debug!(%error, "cannot reset a connection");
                }
                return Poll::Ready(io::ErrorKind::TimedOut.into());
            }
            if is_late {
                *writing = start();
            }
            let check = Instant::now() + WRITE_CHECK.min(self.limits.write_timeout);
            ready!(self.write_timer.poll_until(check, cx));
        }
    }

    /// Applies the write time-out to the result of a write.
    fn poll_written(
        &mut self,
        cx: &mut Context<'_>,
        written: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        match written {
            Poll::Ready(Ok(accepted)) => {
                self.state.record_activity();
                if let Some(writing) = &mut self.writing {
                    writing.accepted += accepted;
                }
            }
            Poll::Ready(Err(_)) => {}
            Poll::Pending => return self.poll_write_timeout(cx).map(Err),
        }
        written
    }

    /// Whether everything that the client sent has been handed over.
    fn is_read_to_the_end(&self) -> bool {
        match &self.reading {
            Reading::Http2 => true,
            Reading::Version | Reading::Head => self.buffer.is_empty(),
            Reading::Body(_) | Reading::Refused(_) | Reading::Ended => false,
        }
    }

    /// Discards what the client sends, until it closes the connection.
    fn poll_discard(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut scratch = [MaybeUninit::uninit(); 4 * 1024];
        loop {
            let mut scratch = ReadBuf::uninit(&mut scratch);
            ready!(Pin::new(&mut self.stream).poll_read(cx, &mut scratch))?;
            if scratch.filled().is_empty() {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl AsyncRead for CheckedStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        loop {
            if this.cleared > 0 {
                let length = this.cleared.min(into.remaining());
                hand_over(&mut this.buffer, length, into);
                this.cleared -= length;
                return Poll::Ready(Ok(()));
            }
            match &mut this.reading {
                Reading::Http2 => {
                    let read = Pin::new(&mut this.stream).poll_read(cx, into);
                    if read.is_pending() {
                        this.state.wait();
                    }
                    return read;
                }
                Reading::Refused(replacement) if !replacement.is_empty() => {
                    let length = replacement.len().min(into.remaining());
                    hand_over(replacement, length, into);
                    return Poll::Ready(Ok(()));
                }
                Reading::Refused(_) => return this.poll_discard(cx),
                Reading::Ended => return Poll::Ready(Ok(())),
                Reading::Version | Reading::Head | Reading::Body(_) => {}
            }
            if this.buffer.len() > this.searched {
                let buffer = std::mem::take(&mut this.buffer);
                this.cleared = this.clear(&buffer);
                this.buffer = buffer;
                continue;
            }
            let before = into.filled().len();
            match Pin::new(&mut this.stream).poll_read(cx, into) {
                Poll::Pending if matches!(this.reading, Reading::Version | Reading::Head) => {
                    this.state.wait();
                    ready!(this.poll_head_timeout(cx));
                    tracing::debug!("closed a connection that sent no request in time");
                    this.reading = Reading::Ended;
                    continue;
                }
                Poll::Pending => {
                    this.state.await_body();
                    return Poll::Pending;
                }
                Poll::Ready(read) => read?,
            }
            let new = &into.filled()[before..];
            if new.is_empty() {
                return Poll::Ready(Ok(()));
            }
            this.state.sent();
            // Bytes are copied only if they must not be passed to hyper yet.
            let cleared = if this.buffer.is_empty() {
                this.clear(new)
            } else {
                0
            };
            this.buffer.extend_from_slice(&new[cleared..]);
            into.set_filled(before + cleared);
            if cleared > 0 {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

/// Moves the first `length` bytes of `buffer`, and frees its memory when it is empty.
fn hand_over(buffer: &mut Vec<u8>, length: usize, into: &mut ReadBuf<'_>) {
    into.put_slice(&buffer[..length]);
    buffer.drain(..length);
    if buffer.is_empty() {
        *buffer = Vec::new();
    }
}

impl AsyncWrite for CheckedStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.poll_written(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, parts);
        self.poll_written(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    /// hyper flushes the stream when it has written a response.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.writing.take().is_some() {
            self.state.set_writing(false);
        }
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.linger.is_none() {
            ready!(Pin::new(&mut this.stream).poll_shutdown(cx))?;
            if this.is_read_to_the_end() {
                return Poll::Ready(Ok(()));
            }
        }
        // The deadline comes first: discarding what a fast client sends uses up the task's budget, without which
        // the timer would not complete.
        let deadline = this.linger.get_or_insert_with(|| Box::pin(sleep(LINGER)));
        if deadline.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Ok(()));
        }
        this.poll_discard(cx).map(|_| Ok(()))
    }
}

/// A timer that is allocated on first use.
#[derive(Debug, Default)]
struct Timer {
    sleep: Option<Pin<Box<Sleep>>>,
    is_set: bool,
}

impl Timer {
    /// Completes at `deadline`, or earlier if the timer was already set to an earlier deadline.
    fn poll_until(&mut self, deadline: Instant, cx: &mut Context<'_>) -> Poll<()> {
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        if !self.is_set || sleep.deadline() > deadline {
            sleep.as_mut().reset(deadline);
            self.is_set = true;
        }
        ready!(sleep.as_mut().poll(cx));
        self.is_set = false;
        Poll::Ready(())
    }
}

//! Limits the memory of large requests and responses whose clients send or read slowly, or not at all.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::{
    body::{Body, HttpBody},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

use super::error::ApiError;

const KIB: u64 = 1024;

/// Maximum memory for large responses that clients have not received yet, in KiB.
const RESPONSES_KIB: u32 = 12 * 1024;

/// Maximum size of the large bodies of all requests in progress, in KiB. Parsed bodies, parameters of statements and
/// results need several times as much memory.
const REQUESTS_KIB: u32 = 8 * 1024;

/// Size above which a response counts as large, in bytes. The system buffers smaller ones.
pub(super) const LARGE_RESPONSE: u64 = 64 * KIB;

/// Size above which a request body counts as large, in bytes.
const LARGE_REQUEST: u64 = 16 * KIB;

/// Maximum number of large bodies that wait for memory.
const MAX_WAITING: usize = 4;

/// Maximum time to wait for memory. Longer than the time after which the server disconnects slow readers while memory
/// is scarce.
const MAX_WAIT: Duration = Duration::from_secs(4);

/// Memory for the large bodies of all requests and responses of a process.
#[derive(Debug, Clone)]
pub struct BodyMemory {
    pub(super) requests: Memory,
    pub(super) responses: Memory,
}

impl Default for BodyMemory {
    fn default() -> Self {
        Self {
            requests: Memory::new("requests", REQUESTS_KIB, LARGE_REQUEST),
            responses: Memory::new("responses", RESPONSES_KIB, LARGE_RESPONSE),
        }
    }
}

impl BodyMemory {
    /// Whether more than half of the memory for responses is in use.
    #[must_use]
    pub fn is_scarce(&self) -> bool {
        let Memory(responses) = &self.responses;
        responses.free_kib.available_permits() < responses.total_kib as usize / 2
    }

    /// Counts a large response until the client has received it, or replaces it with 503 if there is no memory left.
    pub(super) async fn admit(&self, response: Response) -> Response {
        let size = response.body().size_hint().lower();
        if !self.responses.is_large(size) {
            return response;
        }
        if let Some(reserved) = self.responses.reserve(size).await {
            let reserved = Arc::new(reserved);
            return response.map(|body| Body::new(Counted { body, reserved }));
        }
        ApiError::service_unavailable()
            .caused_by("overloaded", "no memory for a large response")
            .into_response()
    }
}

/// Memory that is reserved before it is used.
#[derive(Debug, Clone)]
pub(super) struct Memory(Arc<State>);

/// Reserved part of a [`Memory`], released when dropped.
pub(super) type Reserved = OwnedSemaphorePermit;

#[derive(Debug)]
struct State {
    /// Purpose of the memory, for the log.
    purpose: &'static str,
    total_kib: u32,
    /// Size above which a body counts, in bytes.
    large: u64,
    free_kib: Arc<Semaphore>,
    waiting: Semaphore,
    /// Whether the exhaustion of the memory has been logged.
    logged: AtomicBool,
}

impl Memory {
    fn new(purpose: &'static str, total_kib: u32, large: u64) -> Self {
        Self(Arc::new(State {
            purpose,
            total_kib,
            large,
            free_kib: Arc::new(Semaphore::new(total_kib as usize)),
            waiting: Semaphore::new(MAX_WAITING),
            logged: AtomicBool::new(false),
        }))
    }

    /// Whether a body of `size` bytes counts as large.
    pub(super) fn is_large(&self, size: u64) -> bool {
        size > self.0.large
    }

    /// Reserves memory for a body of `size` bytes, or returns `None` if too little becomes free in time. A body larger
    /// than the memory reserves all of it.
    pub(super) async fn reserve(&self, size: u64) -> Option<Reserved> {
        let Self(state) = self;
        let total = state.total_kib;
        let kib = u32::try_from(size.div_ceil(KIB)).map_or(total, |kib| kib.min(total));
        let free = || state.free_kib.clone();
        if let Ok(reserved) = free().try_acquire_many_owned(kib) {
            state.logged.store(false, Relaxed);
            return Some(reserved);
        }
        if !state.logged.swap(true, Relaxed) {
            telemetry::warn!(
                "the memory for large {} is used up; further ones wait or are rejected",
                state.purpose
            );
        }
        // Waiting bodies occupy memory, too.
        let _waiting = state.waiting.try_acquire().ok()?;
        timeout(MAX_WAIT, free().acquire_many_owned(kib)).await.ok()?.ok()
    }
}

/// A body whose data releases the reservation when the last part has been sent or dropped.
#[derive(Debug)]
struct Counted {
    body: Body,
    reserved: Arc<Reserved>,
}

/// Data of a counted body.
struct CountedBytes {
    bytes: Bytes,
    _reserved: Arc<Reserved>,
}

impl AsRef<[u8]> for CountedBytes {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl HttpBody for Counted {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, axum::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        Poll::Ready(frame.map(|frame| {
            let counted = |bytes| {
                Bytes::from_owner(CountedBytes {
                    bytes,
                    _reserved: self.reserved.clone(),
                })
            };
            frame.map(|frame| frame.map_data(counted))
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;

    use super::*;

    fn response(mib: usize) -> Response {
        vec![b'x'; mib << 20].into_response()
    }

    async fn data(response: Response) -> Bytes {
        let frame = response.into_body().frame().await.unwrap().unwrap();
        frame.into_data().unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn a_large_response_counts_until_its_data_is_dropped() {
        let memory = BodyMemory::default();
        let mut sent = Vec::new();
        for _ in 0..3 {
            sent.push(data(memory.admit(response(4)).await).await);
        }
        assert!(memory.is_scarce());
        assert_eq!(memory.admit(response(1)).await.status(), 503);
        assert_eq!(memory.admit("small".into_response()).await.status(), 200);
        drop(sent.pop());
        assert_eq!(data(memory.admit(response(4)).await).await.len(), 4 << 20);
        sent.truncate(1);
        assert!(!memory.is_scarce());
    }

    #[tokio::test(start_paused = true)]
    async fn a_response_larger_than_the_memory_uses_all_of_it() {
        let memory = BodyMemory::default();
        let sent = data(memory.admit(response(40)).await).await;
        assert_eq!(memory.admit(response(1)).await.status(), 503);
        drop(sent);
        assert_eq!(memory.admit(response(1)).await.status(), 200);
    }

    #[tokio::test]
    async fn a_waiting_response_is_sent_when_memory_is_free() {
        let memory = BodyMemory::default();
        let sent = data(memory.admit(response(12)).await).await;
        let waiting = tokio::spawn({
            let memory = memory.clone();
            async move { memory.admit(response(1)).await.status() }
        });
        while memory.responses.0.waiting.available_permits() == MAX_WAITING {
            tokio::task::yield_now().await;
        }
        drop(sent);
        assert_eq!(waiting.await.unwrap(), 200);
    }
}

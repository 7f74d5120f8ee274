//! Limits the memory used by large requests and responses whose clients send or read slowly, or not at all.

use std::{
    collections::VecDeque,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
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
    sync::{Notify, OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

use super::error::ApiError;

const KIB: u64 = 1024;

/// Maximum memory for large responses that clients have not received yet, in KiB.
const RESPONSES_KIB: u32 = 8 * 1024;

/// Maximum total size of the large bodies of all requests in progress, in KiB. Parsed bodies, statement parameters
/// and results need several times as much memory.
const REQUESTS_KIB: u32 = 4 * 1024;

/// Size above which a response counts as large, in bytes. Smaller ones fit into the kernel's socket buffers.
pub(super) const LARGE_RESPONSE: u64 = 64 * KIB;

/// Size above which a request body counts as large, in bytes.
const LARGE_REQUEST: u64 = 16 * KIB;

/// Maximum number of large responses that wait for memory.
const MAX_WAITING_RESPONSES: usize = 4;

/// Maximum number of large request bodies that wait for memory. Only the first part of each has been received.
const MAX_WAITING_REQUESTS: usize = 16;

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
            requests: Memory::new("requests", REQUESTS_KIB, LARGE_REQUEST, MAX_WAITING_REQUESTS),
            responses: Memory::new("responses", RESPONSES_KIB, LARGE_RESPONSE, MAX_WAITING_RESPONSES),
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
    /// Held by the body that gets memory next.
    turn: tokio::sync::Mutex<()>,
    /// Bodies that are being received, oldest first.
    receiving: Mutex<VecDeque<Arc<Receiving>>>,
    /// Whether the exhaustion of the memory has been logged.
    logged: AtomicBool,
}

impl Memory {
    fn new(purpose: &'static str, total_kib: u32, large: u64, max_waiting: usize) -> Self {
        Self(Arc::new(State {
            purpose,
            total_kib,
            large,
            free_kib: Arc::new(Semaphore::new(total_kib as usize)),
            waiting: Semaphore::new(max_waiting),
            turn: tokio::sync::Mutex::default(),
            receiving: Mutex::default(),
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
        // Waiting bodies use memory, too, so their number is limited.
        let _waiting = state.waiting.try_acquire().ok()?;
        let next = async {
            // One at a time, so that a body that has just got its memory can be evicted in favour of the next one.
            let _turn = state.turn.lock().await;
            self.evict(kib);
            free().acquire_many_owned(kib).await
        };
        timeout(MAX_WAIT, next).await.ok()?.ok()
    }

    /// Registers a body with reserved memory that has not been received yet.
    ///
    /// While memory is scarce, the oldest such bodies are evicted in favour of others. Otherwise, a few clients that
    /// never finish sending their bodies would block everyone else, although most bodies arrive immediately.
    pub(super) fn receive(&self, reserved: &Reserved) -> Reception {
        let body = Arc::new(Receiving {
            kib: u32::try_from(reserved.num_permits()).unwrap_or(u32::MAX),
            evicted: Notify::new(),
        });
        self.receiving().push_back(Arc::clone(&body));
        let memory = self.clone();
        Reception { memory, body }
    }

    /// Evicts the oldest bodies that are being received, until together they free at least `kib` KiB.
    fn evict(&self, kib: u32) {
        let mut freed = 0;
        while freed < kib
            && let Some(oldest) = self.receiving().pop_front()
        {
            freed += oldest.kib;
            oldest.evicted.notify_one();
        }
    }

    fn receiving(&self) -> std::sync::MutexGuard<'_, VecDeque<Arc<Receiving>>> {
        let Self(state) = self;
        state.receiving.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A body that is being received, and how much memory it has reserved.
#[derive(Debug)]
struct Receiving {
    kib: u32,
    evicted: Notify,
}

/// Registration of a body that is being received, removed when dropped.
#[derive(Debug)]
pub(super) struct Reception {
    memory: Memory,
    body: Arc<Receiving>,
}

impl Reception {
    /// Completes when the body has to make room for another one.
    pub(super) async fn evicted(&self) {
        self.body.evicted.notified().await;
    }
}

impl Drop for Reception {
    fn drop(&mut self) {
        let mut receiving = self.memory.receiving();
        receiving.retain(|body| !Arc::ptr_eq(body, &self.body));
    }
}

/// A response body that holds its reservation until the last part of its data has been sent or dropped.
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
        for _ in 0..2 {
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

    #[tokio::test(start_paused = true)]
    async fn the_oldest_bodies_make_room_for_another_one() {
        let memory = BodyMemory::default().requests;
        let mut bodies = Vec::new();
        for _ in 0..4 {
            let reserved = memory.reserve(1 << 20).await.unwrap();
            bodies.push((memory.receive(&reserved), reserved));
        }
        let received = bodies.remove(0);
        drop(received.0);
        let evicted = async {
            let (oldest, reserved) = bodies.remove(0);
            oldest.evicted().await;
            drop((oldest, reserved));
        };
        let (another, ()) = tokio::join!(memory.reserve(1 << 20), evicted);
        assert!(another.is_some());
        for (body, _) in &bodies {
            assert!(timeout(MAX_WAIT, body.evicted()).await.is_err());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn bodies_that_never_arrive_do_not_delay_others_until_they_time_out() {
        let memory = BodyMemory::default().requests;
        let unfinished = (0..MAX_WAITING_REQUESTS).map(|_| {
            let memory = memory.clone();
            tokio::spawn(async move {
                let reserved = memory.reserve(1 << 20).await.unwrap();
                memory.receive(&reserved).evicted().await;
            })
        });
        let _unfinished: Vec<_> = unfinished.collect();
        tokio::task::yield_now().await;
        let started = tokio::time::Instant::now();
        assert!(memory.reserve(1 << 20).await.is_some());
        assert_eq!(started.elapsed(), Duration::ZERO);
    }

    #[tokio::test]
    async fn a_waiting_response_is_sent_when_memory_is_free() {
        let memory = BodyMemory::default();
        let sent = data(memory.admit(response(8)).await).await;
        let waiting = tokio::spawn({
            let memory = memory.clone();
            async move { memory.admit(response(1)).await.status() }
        });
        while memory.responses.0.waiting.available_permits() == MAX_WAITING_RESPONSES {
            tokio::task::yield_now().await;
        }
        drop(sent);
        assert_eq!(waiting.await.unwrap(), 200);
    }
}

//! Limits the memory of large responses whose clients read slowly or not at all.

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

/// Maximum memory of large responses, in KiB.
const TOTAL_KIB: u32 = 32 * 1024;

/// Size above which a response counts as large, in bytes.
const LARGE: u64 = 64 * KIB;

/// Maximum number of large responses that wait for memory.
const MAX_WAITING: usize = 4;

/// Maximum wait for memory. Longer than the time after which the server disconnects slow readers while memory is
/// scarce.
const MAX_WAIT: Duration = Duration::from_secs(4);

/// The memory of large responses, in which a response is counted until the client has received it.
#[derive(Debug, Clone)]
pub struct ResponseMemory(Arc<Memory>);

#[derive(Debug)]
struct Memory {
    free_kib: Arc<Semaphore>,
    waiting: Semaphore,
    /// Whether the exhaustion of the memory has been logged.
    logged: AtomicBool,
}

impl Default for ResponseMemory {
    fn default() -> Self {
        Self(Arc::new(Memory {
            free_kib: Arc::new(Semaphore::new(TOTAL_KIB as usize)),
            waiting: Semaphore::new(MAX_WAITING),
            logged: AtomicBool::new(false),
        }))
    }
}

impl ResponseMemory {
    /// Whether more than half of the memory is in use.
    #[must_use]
    pub fn is_scarce(&self) -> bool {
        self.0.free_kib.available_permits() < TOTAL_KIB as usize / 2
    }

    /// Counts a large response, or replaces it by 503 if there is no memory left.
    pub(super) async fn admit(&self, response: Response) -> Response {
        let size = response.body().size_hint().lower();
        if size <= LARGE {
            return response;
        }
        match self.reserve(size).await {
            Some(reserved) => {
                let reserved = Arc::new(reserved);
                response.map(|body| Body::new(Counted { body, reserved }))
            }
            None => {
                drop(response);
                if !self.0.logged.swap(true, Relaxed) {
                    telemetry::warn!("slow readers use all memory for large responses; rejecting requests");
                }
                let message = "no memory for a large response";
                ApiError::service_unavailable()
                    .caused_by("overloaded", message)
                    .into_response()
            }
        }
    }

    async fn reserve(&self, size: u64) -> Option<OwnedSemaphorePermit> {
        let kib = u32::try_from(size.div_ceil(KIB)).map_or(TOTAL_KIB, |kib| kib.min(TOTAL_KIB));
        let free = &self.0.free_kib;
        if let Ok(reserved) = free.clone().try_acquire_many_owned(kib) {
            self.0.logged.store(false, Relaxed);
            return Some(reserved);
        }
        // Waiting responses are in memory too, so only a few may wait.
        let _waiting = self.0.waiting.try_acquire().ok()?;
        timeout(MAX_WAIT, free.clone().acquire_many_owned(kib))
            .await
            .ok()?
            .ok()
    }
}

/// A body whose data releases the reservation when the last part has been sent or dropped.
#[derive(Debug)]
struct Counted {
    body: Body,
    reserved: Arc<OwnedSemaphorePermit>,
}

/// Data of a counted body.
struct CountedBytes {
    bytes: Bytes,
    _reserved: Arc<OwnedSemaphorePermit>,
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
        let memory = ResponseMemory::default();
        let mut sent = Vec::new();
        for _ in 0..8 {
            sent.push(data(memory.admit(response(4)).await).await);
        }
        assert!(memory.is_scarce());
        assert_eq!(memory.admit(response(1)).await.status(), 503);
        assert_eq!(memory.admit("small".into_response()).await.status(), 200);
        drop(sent.pop());
        assert_eq!(data(memory.admit(response(4)).await).await.len(), 4 << 20);
        sent.truncate(4);
        assert!(!memory.is_scarce());
    }

    #[tokio::test(start_paused = true)]
    async fn a_response_larger_than_the_memory_uses_all_of_it() {
        let memory = ResponseMemory::default();
        let sent = data(memory.admit(response(40)).await).await;
        assert_eq!(memory.admit(response(1)).await.status(), 503);
        drop(sent);
        assert_eq!(memory.admit(response(1)).await.status(), 200);
    }

    #[tokio::test]
    async fn a_waiting_response_is_sent_when_memory_is_free() {
        let memory = ResponseMemory::default();
        let sent = data(memory.admit(response(32)).await).await;
        let waiting = tokio::spawn({
            let memory = memory.clone();
            async move { memory.admit(response(1)).await.status() }
        });
        while memory.0.waiting.available_permits() == MAX_WAITING {
            tokio::task::yield_now().await;
        }
        drop(sent);
        assert_eq!(waiting.await.unwrap(), 200);
    }
}

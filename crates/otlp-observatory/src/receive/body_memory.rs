//! Limits the memory for request bodies that are read and decoded at the same time. Bytes count when they arrive, so a
//! sender that announces a large body and stops does not hold up others.

use std::{sync::Arc, time::Duration};

use axum::body::Body;
use bytes::Bytes;
use http_body::Body as _;
use http_body_util::BodyExt as _;
use tokio::{
    sync::{Mutex, OwnedMutexGuard, OwnedSemaphorePermit, Semaphore},
    time::{Instant, timeout_at},
};

use super::{limits::READ_TIMEOUT, rejection::Rejection};
use crate::ingest::Rejected;

/// Maximum total size of the bodies in bytes, before decompression.
///
/// Further bytes wait.
const MAX_BYTES: u32 = 48 << 20;

/// Number of free bytes below which senders that stop are rejected.
const SCARCE: usize = 4 << 20;

/// Time without bytes after which a sender is rejected while memory is scarce.
const STALL: Duration = Duration::from_millis(500);

/// Memory that the receivers share.
#[derive(Clone, Debug)]
pub(super) struct BodyMemory {
    bytes: Arc<Semaphore>,
    /// Held by the one body that may exceed the limit, so that bodies do not wait for each other.
    overdraft: Arc<Mutex<()>>,
}

/// A body, and the memory that it holds until it is dropped.
#[derive(Debug, Default)]
pub(super) struct HeldBody {
    pub(super) bytes: Bytes,
    permits: Option<OwnedSemaphorePermit>,
    overdraft: Option<OwnedMutexGuard<()>>,
}

impl BodyMemory {
    pub(super) fn new() -> Self {
        Self {
            bytes: Arc::new(Semaphore::new(MAX_BYTES as usize)),
            overdraft: Arc::default(),
        }
    }

    /// Reads `body`, of at most `limit` bytes, without decompressing it.
    pub(super) async fn read(&self, mut body: Body, limit: usize) -> Result<HeldBody, Rejection> {
        let announced = body.size_hint().lower();
        if usize::try_from(announced).map_or(true, |announced| announced > limit) {
            return Err(Rejection::TooLarge { limit });
        }
        let deadline = Instant::now() + READ_TIMEOUT;
        let mut held = HeldBody::default();
        let mut chunks = Vec::new();
        let mut length = 0;
        loop {
            let patience = deadline.min(Instant::now() + STALL);
            let frame = match timeout_at(patience, body.frame()).await {
                Ok(Some(Ok(frame))) => frame,
                Ok(Some(Err(_))) => return Err(Rejection::Truncated),
                Ok(None) => break,
                Err(_) if Instant::now() >= deadline => return Err(Rejection::TooSlow),
                Err(_) if self.is_scarce() => return Err(Rejected::Overloaded.into()),
                Err(_) => continue,
            };
            let Ok(chunk) = frame.into_data() else { continue };
            length += chunk.len();
            if length > limit {
                return Err(Rejection::TooLarge { limit });
            }
            let reserved = timeout_at(deadline, self.reserve(&mut held, chunk.len()));
            reserved.await.map_err(|_| Rejected::Overloaded)?;
            chunks.push(chunk);
        }
        held.bytes = match chunks.len() {
            1 => chunks.remove(0),
            _ => chunks.concat().into(),
        };
        Ok(held)
    }

    fn is_scarce(&self) -> bool {
        self.bytes.available_permits() < SCARCE
    }

    /// Reserves `length` more bytes for the body that `held` belongs to.
    async fn reserve(&self, held: &mut HeldBody, length: usize) {
        if held.overdraft.is_some() {
            return;
        }
        let count = u32::try_from(length).unwrap_or(u32::MAX);
        tokio::select! {
            biased;
            Ok(more) = self.bytes.clone().acquire_many_owned(count) => match &mut held.permits {
                Some(permits) => permits.merge(more),
                none => *none = Some(more),
            },
            overdraft = self.overdraft.clone().lock_owned() => held.overdraft = Some(overdraft),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        convert::Infallible,
        pin::Pin,
        task::{Context, Poll, ready},
    };

    use http_body::Frame;
    use tokio::time::{Interval, interval};

    use super::*;

    /// A body that never ends, of which a byte arrives at each tick.
    struct Trickle(Interval);

    impl http_body::Body for Trickle {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            ready!(self.0.poll_tick(cx));
            Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(b"x")))))
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_trickles_is_rejected_at_the_time_out() {
        let started = Instant::now();
        let body = Body::new(Trickle(interval(STALL / 5)));
        let read = BodyMemory::new().read(body, 1 << 20).await;
        assert!(matches!(read, Err(Rejection::TooSlow)), "{read:?}");
        assert_eq!(started.elapsed(), READ_TIMEOUT);
    }
}

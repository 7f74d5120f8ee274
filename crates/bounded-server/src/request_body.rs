//! The body of a request, which the server takes back when the service has not read it to the end.
//!
//! hyper closes the connection after such a request without announcing it, and the client's next request on the
//! connection fails. So the server discards the rest of the body before it sends the response, or announces that it
//! closes the connection.

use std::{
    pin::{Pin, pin},
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, ready},
    time::Duration,
};

use http_body::{Body, Frame, SizeHint};
use hyper::{
    Error,
    body::{Bytes, Incoming},
};

/// Maximum number of bytes that are discarded to keep a connection open.
const MAX_DISCARDED: u64 = 64 * 1024;

/// Maximum time in which the client must send the rest of the body, during which its response waits.
const DISCARD_TIMEOUT: Duration = Duration::from_secs(1);

/// Body of a request.
///
/// If the service responds without reading it to the end, the server discards up to 64 KiB that the client sends
/// within a second, and otherwise adds `Connection: close` to the response.
#[derive(Debug)]
pub struct RequestBody {
    /// `None` at the end of the body.
    body: Option<Incoming>,
    unread: Option<Unread>,
}

/// Slot for a body that was dropped before its end.
#[derive(Clone, Debug, Default)]
pub(crate) struct Unread(Arc<Mutex<Option<Incoming>>>);

impl RequestBody {
    /// Returns the body, and the slot to which it returns if it is dropped before its end. An empty body has none.
    pub(crate) fn new(body: Incoming) -> (Self, Option<Unread>) {
        let unread = (!body.is_end_stream()).then(Unread::default);
        let body = Self {
            body: Some(body),
            unread: unread.clone(),
        };
        (body, unread)
    }
}

impl Unread {
    /// Discards the rest of the body, unless the client `expects_continue` before it sends the body. Returns whether
    /// the connection can serve another request.
    pub(crate) async fn discard(self, expects_continue: bool) -> bool {
        let body = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        // A service that still reads the body may read it to the end.
        let Some(body) = body else { return true };
        // Reading the body would make hyper ask for it.
        if expects_continue {
            return false;
        }
        let discarded = tokio::time::timeout(DISCARD_TIMEOUT, discard(body)).await;
        discarded.unwrap_or(false)
    }
}

async fn discard(body: Incoming) -> bool {
    if body.size_hint().lower() > MAX_DISCARDED {
        return false;
    }
    let mut body = pin!(body);
    let mut discarded = 0;
    while let Some(frame) = std::future::poll_fn(|cx| body.as_mut().poll_frame(cx)).await {
        let Ok(frame) = frame else { return false };
        discarded += frame.data_ref().map_or(0, |data| data.len() as u64);
        if discarded > MAX_DISCARDED {
            return false;
        }
    }
    true
}

impl Drop for RequestBody {
    fn drop(&mut self) {
        if let (Some(body), Some(unread)) = (self.body.take(), &self.unread)
            && !body.is_end_stream()
        {
            *unread.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(body);
        }
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let Some(body) = &mut self.body else {
            return Poll::Ready(None);
        };
        let frame = ready!(Pin::new(body).poll_frame(cx));
        if frame.is_none() {
            self.body = None;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body
            .as_ref()
            .map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
}

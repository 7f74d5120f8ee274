//! The response body, which marks the end of its request: the request ends when the body has been sent
//! completely, fails, or is dropped early.

use std::fmt::Display;
use std::pin::Pin;
use std::task::{Poll, ready};

use ::http::Response;
use ::http::header::CONTENT_LENGTH;
use bytes::Buf;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

use super::exchange::Exchange;

pin_project! {
    /// The response body of [`HttpService`](super::HttpService).
    ///
    /// Wraps the body of the inner service; the end of the body ends the span of the request and its
    /// duration. The inner body is polled with that span as the current span.
    #[derive(Debug)]
    pub struct ResponseBody<B> {
        #[pin]
        inner: B,
        // `None` once the request has ended.
        exchange: Option<Exchange>,
        // Remaining bytes, if known.
        left: Option<u64>,
    }
}

impl<B: Body> ResponseBody<B> {
    /// Moves the exchange into the response body, or ends the exchange if there is nothing to send.
    pub(super) fn wrap(mut response: Response<B>, mut exchange: Exchange) -> Response<Self> {
        let is_bodiless = exchange.responded(&mut response);
        // A server does not poll an empty body, nor a body beyond the announced length.
        let left = response.body().size_hint().exact();
        let left = left.or_else(|| content_length(&response));
        let complete = left == Some(0) || is_bodiless || response.body().is_end_stream();
        if complete {
            exchange.end();
        }
        response.map(|inner| Self {
            inner,
            exchange: (!complete).then_some(exchange),
            left,
        })
    }
}

impl<B> Body for ResponseBody<B>
where
    B: Body,
    B::Error: Display,
{
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        task: &mut std::task::Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let mut this = self.project();
        let Some(exchange) = this.exchange else {
            return this.inner.poll_frame(task);
        };
        let frame = ready!(exchange.during(|| this.inner.as_mut().poll_frame(task)));
        let last = match &frame {
            None => true,
            Some(Ok(frame)) => {
                let sent = frame.data_ref().map_or(0, Buf::remaining) as u64;
                let left = this.left.as_mut().map(|left| {
                    *left = left.saturating_sub(sent);
                    *left
                });
                // Trailers are the last frame.
                left == Some(0) || frame.is_trailers() || this.inner.is_end_stream()
            }
            Some(Err(error)) => {
                exchange.failed("response_body", error.to_string());
                true
            }
        };
        if last {
            exchange.end();
            *this.exchange = None;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

fn content_length<B>(response: &Response<B>) -> Option<u64> {
    response
        .headers()
        .get(CONTENT_LENGTH)?
        .to_str()
        .ok()?
        .parse()
        .ok()
}

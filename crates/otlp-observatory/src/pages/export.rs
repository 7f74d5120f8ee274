//! `/export`: a trace as a JSON document, or everything as JSON lines, in OTLP/JSON. The lines are computed while the client
//! reads them, so an export of any size needs little memory.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use axum::{
    body::Body,
    http::header,
    response::{IntoResponse as _, Response},
};
use bytes::Bytes;
use http_body::Frame;
use tokio::{
    sync::{Semaphore, mpsc},
    task::spawn_blocking,
};

use super::{error::PageError, explorer::Explorer, parameters::Parameters};
use crate::store::Progress;

/// Number of lines that are computed ahead of the client.
const LINES_AHEAD: usize = 1;

/// Body whose parts arrive on a channel.
struct Lines(mpsc::Receiver<io::Result<Bytes>>);

impl http_body::Body for Lines {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let line = ready!(self.0.poll_recv(context));
        Poll::Ready(line.map(|line| line.map(Frame::data)))
    }
}

/// Returns the export of the trace `trace_id`, or else of everything. Each export of everything holds one of `permits`.
pub(super) fn export(
    explorer: Arc<Explorer>,
    permits: &Arc<Semaphore>,
    mut parameters: Parameters,
) -> Result<Response, PageError> {
    let trace = parameters.trace_id()?;
    parameters.finish()?;
    if let Some(id) = trace {
        let piece = explorer.export_trace(id).ok_or(PageError::NotStored("trace"))?;
        let json = serde_json::to_vec(&piece).map_err(|_| PageError::Failed)?;
        return Ok(attachment(
            "application/json",
            &format!("trace-{id}.json"),
            Body::from(json),
        ));
    }
    let permit = permits.clone().try_acquire_owned().map_err(|_| PageError::Busy)?;
    let (lines, body) = mpsc::channel(LINES_AHEAD);
    spawn_blocking(move || {
        let _permit = permit;
        let mut progress = Progress::default();
        while let Some(piece) = explorer.export_piece(&mut progress) {
            let line = piece.and_then(|piece| {
                let mut line = serde_json::to_vec(&piece)?;
                line.push(b'\n');
                Ok(Bytes::from(line))
            });
            // The client must not take a part for the whole, so the connection is closed before the end of the body.
            let failure = line.as_ref().err().map(ToString::to_string);
            if let Some(error) = &failure {
                telemetry::warn!(%error, "cannot read all telemetry for an export");
            }
            if lines.blocking_send(line).is_err() || failure.is_some() {
                break;
            }
        }
    });
    Ok(attachment(
        "application/x-ndjson",
        "telemetry.jsonl",
        Body::new(Lines(body)),
    ))
}

fn attachment(content_type: &str, name: &str, body: Body) -> Response {
    let head = [
        (header::CONTENT_TYPE, content_type),
        (
            header::CONTENT_DISPOSITION,
            &format!("attachment; filename=\"{name}\""),
        ),
    ];
    (head, body).into_response()
}

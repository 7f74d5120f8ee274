//! Acknowledges deliveries in batches. Acknowledgements that arrive during a transaction are queued and sent
//! together in the next transaction. If none is in progress, an acknowledgement is sent immediately.

use std::{collections::VecDeque, mem, pin::pin};

use redis::{Pipeline, pipe};
use tokio::sync::oneshot;

use super::{commands, connection::Connection, names};
use crate::{
    broker::{BrokerError, DeliveryTag},
    lock::Lock,
    observer::{SpanHandle, observed},
};

/// Maximum number of deliveries acknowledged in one transaction.
const MAX_BATCH: usize = 500;

#[derive(Default)]
pub(super) struct Acks {
    /// Bounded by the number of callers, each of which occupies a slot of its worker.
    waiting: Lock<VecDeque<Ack>>,
    /// Locked while a transaction is in progress.
    transaction: tokio::sync::Mutex<()>,
}

struct Ack {
    tag: DeliveryTag,
    result: Option<StoredResult>,
    /// Span of the finished run.
    origin: SpanHandle,
    notify: oneshot::Sender<Result<(), BrokerError>>,
}

/// Encoded result to store and publish.
pub(super) struct StoredResult {
    pub key: String,
    pub text: String,
    /// Time until the key expires, in seconds.
    pub seconds: u64,
}

impl StoredResult {
    pub(super) fn add_to(&self, pipeline: &mut Pipeline) {
        pipeline.set_ex(&self.key, &self.text, self.seconds).ignore();
        pipeline.publish(&self.key, &self.text).ignore();
    }
}

impl Acks {
    /// Acknowledges a delivery, together with other waiting deliveries.
    pub(super) async fn ack(
        &self,
        connection: &Connection,
        tag: DeliveryTag,
        result: Option<StoredResult>,
    ) -> Result<(), BrokerError> {
        let (sender, mut notified) = oneshot::channel();
        self.waiting.lock().push_back(Ack {
            tag,
            result,
            origin: connection.observer.current_span(),
            notify: sender,
        });
        loop {
            tokio::select! {
                biased;
                // The transaction may be dropped together with the caller that runs it.
                acknowledged = &mut notified => return acknowledged
                    .unwrap_or_else(|_| Err(BrokerError::unavailable("the transaction was interrupted"))),
                _guard = self.transaction.lock() => Box::pin(self.send_batch(connection)).await,
            }
        }
    }

    async fn send_batch(&self, connection: &Connection) {
        let mut acks: Vec<Ack> = {
            let mut waiting = self.waiting.lock();
            let count = waiting.len().min(MAX_BATCH);
            waiting.drain(..count).collect()
        };
        if acks.is_empty() {
            return;
        }
        let mut pipeline = pipe();
        pipeline.atomic();
        for result in acks.iter().filter_map(|ack| ack.result.as_ref()) {
            result.add_to(&mut pipeline);
        }
        for (command, key) in [("ZREM", names::UNACKED_INDEX), ("HDEL", names::UNACKED)] {
            let command = pipeline.cmd(command).arg(key);
            for ack in &acks {
                command.arg(ack.tag.as_str());
            }
            command.ignore();
        }
        let command = if acks.iter().any(|ack| ack.result.is_some()) {
            commands::ACK_WITH_RESULT
        } else {
            commands::ACK
        };
        let origins: Vec<SpanHandle> = acks.iter_mut().map(|ack| mem::take(&mut ack.origin)).collect();
        let origin = connection.observer.batch_span(&origins);
        let sending = pin!(connection.pipeline(command, &pipeline));
        let reply: Result<(), BrokerError> =
            observed(sending, |poll| connection.observer.in_scope(&origin, poll)).await;
        for ack in acks {
            // The caller may have been dropped together with its task.
            let _ = ack.notify.send(reply.clone());
        }
    }
}

//! Acknowledges deliveries in batches. Acknowledgements that arrive during a transaction are queued and sent
//! together in the next transaction. If none is in progress, an acknowledgement is sent immediately.

use std::{collections::VecDeque, mem, pin::pin};

use tokio::sync::oneshot;

use super::{
    counter::Counter,
    script::{Invocation, scripts},
    scripts::STORE,
    settling::{self, StoredResult},
    writer::Writer,
    written::{AckBatch, Write},
};
use crate::{
    broker::{BrokerError, Delivery, DeliveryTag},
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
    /// Id of the message, if known.
    message: Option<u128>,
    result: Option<StoredResult>,
    /// Span of the finished run.
    origin: SpanHandle,
    notify: oneshot::Sender<Result<bool, BrokerError>>,
}

impl Acks {
    /// Acknowledges a delivery, together with other waiting deliveries. Returns whether it was held.
    pub(super) async fn ack(
        &self,
        writer: &Writer,
        delivery: &Delivery,
        result: Option<StoredResult>,
    ) -> Result<bool, BrokerError> {
        let (sender, mut notified) = oneshot::channel();
        self.waiting.lock().push_back(Ack {
            tag: delivery.tag.clone(),
            message: settling::message_id(&delivery.raw),
            result,
            origin: writer.commands.observer.current_span(),
            notify: sender,
        });
        loop {
            tokio::select! {
                biased;
                // The transaction may be dropped together with the caller that runs it.
                acknowledged = &mut notified => return acknowledged
                    .unwrap_or_else(|_| Err(BrokerError::unavailable("the transaction was interrupted"))),
                _guard = self.transaction.lock() => Box::pin(self.send_batch(writer)).await,
            }
        }
    }

    async fn send_batch(&self, writer: &Writer) {
        let mut acks: Vec<Ack> = {
            let mut waiting = self.waiting.lock();
            let count = waiting.len().min(MAX_BATCH);
            waiting.drain(..count).collect()
        };
        if acks.is_empty() {
            return;
        }
        let connection = &writer.commands;
        let origins: Vec<SpanHandle> = acks.iter_mut().map(|ack| mem::take(&mut ack.origin)).collect();
        let origin = connection.observer.batch_span(&origins);
        let reply = {
            let sending = pin!(Self::send(writer, &acks));
            observed(sending, |poll| connection.observer.in_scope(&origin, poll)).await
        };
        match reply {
            Ok((held, counter, number)) => {
                let mut batch = AckBatch::new(writer.seconds, acks.len());
                for (ack, held) in acks.into_iter().zip(held) {
                    if held {
                        batch.add(&ack.tag, ack.message, ack.result.as_ref());
                    }
                    // The caller may have been dropped together with its task.
                    let _ = ack.notify.send(Ok(held));
                }
                writer.remember(&counter, number, [Write::Acks(batch)]);
            }
            Err(error) => {
                for ack in acks {
                    let _ = ack.notify.send(Err(error.clone()));
                }
            }
        }
    }

    /// Returns whether each delivery was held, and the number of the write.
    async fn send(writer: &Writer, acks: &[Ack]) -> Result<(Vec<bool>, Counter, u64), BrokerError> {
        let counter = writer.counter().await?;
        let names = &writer.commands.names;
        let mut script = Invocation::new(&ACK);
        script
            .key(&names.unacked_index)
            .key(&names.unacked)
            .key(&*counter.key)
            .arg(&*counter.server)
            .arg(writer.seconds)
            .arg(acks.len());
        for ack in acks {
            script.arg(ack.tag.as_str());
        }
        for ack in acks {
            match &ack.result {
                Some(result) => script.key(names.result(&result.id)).arg(&result.text),
                None => script.arg(""),
            };
        }
        let (mut held, number): (Vec<bool>, u64) = writer.commands.script(&script).await?;
        if held.is_empty() {
            held = vec![true; acks.len()];
        }
        Ok((held, counter, number))
    }
}

scripts! {
    /// Acknowledges deliveries and stores their results. A delivery that is not held is skipped: another
    /// worker has taken it over and stores the result.
    ///
    /// KEYS: unacked_index, unacked, writes, then the results. ARGV: identity of the server, seconds until
    /// the results expire, number of deliveries, their tags, then for each delivery an empty string or its
    /// result. Returns whether each delivery was held, or an empty list if all were, and the number of the
    /// write.
    ///
    /// The deliveries are deleted before the results are stored, because a server without free memory accepts
    /// only writes that follow a deletion.
    ACK = &[STORE, r"
local count = tonumber(ARGV[3])
local last = 3 + count
local lost = {}
if redis.call('ZREM', KEYS[1], unpack(ARGV, 4, last)) == count then
    redis.call('HDEL', KEYS[2], unpack(ARGV, 4, last))
else
    for i = 1, count do lost[i] = redis.call('HDEL', KEYS[2], ARGV[3 + i]) == 0 end
end
local key = 4
for i = 1, count do
    local text = ARGV[last + i]
    if text ~= '' then
        if not lost[i] then store(KEYS[key], ARGV[2], text) end
        key = key + 1
    end
end
local held = {}
for i, was_lost in ipairs(lost) do held[i] = was_lost and 0 or 1 end
return {held, redis.call('HINCRBY', KEYS[3], ARGV[1], 1)}
"].concat();
}

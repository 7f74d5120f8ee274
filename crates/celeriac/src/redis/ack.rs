//! Acknowledges deliveries in batches. Acknowledgements that arrive during a transaction are queued and sent
//! together in the next transaction. If none is in progress, an acknowledgement is sent immediately.

use std::{collections::VecDeque, mem, pin::pin};

use tokio::sync::oneshot;

use super::{
    connection::Connection,
    names,
    script::{Invocation, scripts},
    scripts::STORE,
};
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
    notify: oneshot::Sender<Result<bool, BrokerError>>,
}

/// Encoded result to store and publish.
pub(super) struct StoredResult {
    pub key: String,
    pub text: String,
    /// Time until the key expires, in seconds.
    pub seconds: u64,
}

impl Acks {
    /// Acknowledges a delivery, together with other waiting deliveries. Returns whether it was held.
    pub(super) async fn ack(
        &self,
        connection: &Connection,
        tag: DeliveryTag,
        result: Option<StoredResult>,
    ) -> Result<bool, BrokerError> {
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
        let mut script = Invocation::new(&ACK);
        script.key(names::UNACKED_INDEX).key(names::UNACKED);
        for ack in &acks {
            script.arg(ack.tag.as_str());
            match &ack.result {
                Some(result) => {
                    script.key(&result.key);
                    script.arg(result.seconds).arg(&result.text);
                }
                None => {
                    script.arg(0);
                }
            }
        }
        let origins: Vec<SpanHandle> = acks.iter_mut().map(|ack| mem::take(&mut ack.origin)).collect();
        let origin = connection.observer.batch_span(&origins);
        let sending = pin!(connection.script(&script));
        let reply: Result<Vec<bool>, BrokerError> =
            observed(sending, |poll| connection.observer.in_scope(&origin, poll)).await;
        match reply {
            Ok(held) => {
                for (ack, held) in acks.into_iter().zip(held) {
                    // The caller may have been dropped together with its task.
                    let _ = ack.notify.send(Ok(held));
                }
            }
            Err(error) => {
                for ack in acks {
                    let _ = ack.notify.send(Err(error.clone()));
                }
            }
        }
    }
}

scripts! {
    /// Acknowledges deliveries and stores their results. A delivery that is not held is skipped: another worker
    /// has taken it over and stores the result.
    ///
    /// KEYS: unacked_index, unacked, then the results. ARGV: for each delivery its tag and the seconds until its
    /// result expires, then the result; 0 seconds without a result. Returns whether each delivery was held.
    ///
    /// A delivery is deleted before its result is stored, because a server without free memory accepts only writes
    /// that follow a deletion.
    ACK = &[STORE, r"
local held = {}
local key, arg = 3, 1
while ARGV[arg] do
    local tag = ARGV[arg]
    redis.call('ZREM', KEYS[1], tag)
    local was_held = redis.call('HDEL', KEYS[2], tag)
    held[#held + 1] = was_held
    if ARGV[arg + 1] == '0' then
        arg = arg + 2
    else
        if was_held == 1 then store(KEYS[key], ARGV[arg + 1], ARGV[arg + 2]) end
        key, arg = key + 1, arg + 3
    end
end
return held
"].concat();
}

//! Ends deliveries, many in one transaction. A busy worker ends dozens at the same moment: while one transaction is
//! under way, the others gather, and the next takes all of them. A lone delivery is ended at once.

use std::{
    collections::VecDeque,
    mem,
    pin::pin,
    sync::{Mutex, MutexGuard, PoisonError},
};

use redis::{Pipeline, pipe};
use tokio::sync::oneshot;

use super::{commands, connection::Connection, names};
use crate::{
    broker::{BrokerError, DeliveryTag},
    observer::{Observer, Origin, observed},
};

/// Deliveries that one transaction ends at most.
const MOST: usize = 500;

#[derive(Default)]
pub(super) struct Acks {
    /// As many as there are callers, who each hold a place among the running tasks.
    waiting: Mutex<VecDeque<Ack>>,
    /// Held while a transaction is under way.
    turn: tokio::sync::Mutex<()>,
}

struct Ack {
    tag: DeliveryTag,
    result: Option<StoredResult>,
    /// The run that has ended.
    origin: Origin,
    answer: oneshot::Sender<Result<(), BrokerError>>,
}

/// A result as it is kept and announced.
pub(super) struct StoredResult {
    pub key: String,
    pub text: String,
    pub seconds: u64,
}

impl StoredResult {
    pub fn add_to(&self, pipeline: &mut Pipeline) {
        pipeline
            .cmd("SETEX")
            .arg(&self.key)
            .arg(self.seconds)
            .arg(&self.text)
            .ignore();
        pipeline.cmd("PUBLISH").arg(&self.key).arg(&self.text).ignore();
    }
}

impl Acks {
    /// Ends one delivery, together with whatever else is to be ended now.
    pub async fn ack(
        &self,
        connection: &Connection,
        observer: &dyn Observer,
        tag: DeliveryTag,
        result: Option<StoredResult>,
    ) -> Result<(), BrokerError> {
        let (sender, mut answer) = oneshot::channel();
        self.waiting().push_back(Ack {
            tag,
            result,
            origin: observer.origin(),
            answer: sender,
        });
        loop {
            tokio::select! {
                biased;
                answered = &mut answer => return answered.unwrap_or_else(|_| Err(interrupted())),
                _turn = self.turn.lock() => Box::pin(self.transaction(connection, observer)).await,
            }
        }
    }

    async fn transaction(&self, connection: &Connection, observer: &dyn Observer) {
        let mut acks: Vec<Ack> = {
            let mut waiting = self.waiting();
            let many = waiting.len().min(MOST);
            waiting.drain(..many).collect()
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
        let origins: Vec<Origin> = acks.iter_mut().map(|ack| mem::take(&mut ack.origin)).collect();
        let origin = observer.on_behalf_of(&origins);
        let end = pin!(connection.pipeline(command, &pipeline));
        let answer: Result<(), BrokerError> = observed(end, |poll| observer.during(&origin, poll)).await;
        for ack in acks {
            // Who does not wait any more has been given up by its worker.
            let _ = ack.answer.send(answer.clone());
        }
    }

    fn waiting(&self) -> MutexGuard<'_, VecDeque<Ack>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whoever ran the transaction for all went away before its answer came.
fn interrupted() -> BrokerError {
    BrokerError::Unavailable {
        cause: "the transaction was interrupted".to_owned(),
    }
}

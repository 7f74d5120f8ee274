//! Stream of the events of all workers. A separate task reads them from the broker, because an unread
//! subscription would grow without limit; a reader that is too slow misses the oldest events.

use std::{fmt, sync::Arc, time::Duration};

use futures_util::{StreamExt, stream::BoxStream};
use tokio::sync::broadcast::{Receiver, Sender, channel, error::RecvError};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::{
    back_off::BackOff,
    broker::{Broker, BrokerError},
    control::Control,
    event::{EXCHANGE, Event},
    failure_log::FailureLog,
};

/// Maximum number of events that wait for the reader.
const CAPACITY: usize = 8192;
/// Routing keys of all events.
const ALL: &str = "*";

/// Events of all workers and tasks; see [`Control::events`].
pub struct EventStream {
    events: Receiver<Event>,
    missed: u64,
    _stop: DropGuard,
}

impl fmt::Debug for EventStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventStream")
            .field("missed", &self.missed)
            .finish_non_exhaustive()
    }
}

impl EventStream {
    /// Waits for the next event. This method is cancel safe.
    pub async fn next(&mut self) -> Event {
        loop {
            match self.events.recv().await {
                Ok(event) => return event,
                Err(RecvError::Lagged(missed)) => self.missed += missed,
                // The runtime is shutting down.
                Err(RecvError::Closed) => std::future::pending().await,
            }
        }
    }

    /// Returns the number of events that were dropped because more than 8192 were waiting for the reader. Events
    /// that were sent while the broker was unavailable do not count.
    #[must_use]
    pub fn missed(&self) -> u64 {
        self.missed
    }
}

impl Control {
    /// Returns a stream of the events of all workers, which starts with this call and continues after an outage
    /// of the broker. Workers send task events only if [events are
    /// enabled](crate::WorkerBuilder::events); see [`Event::details`] for their fields.
    ///
    /// ```no_run
    /// # async fn run(control: celeriac::Control) -> Result<(), celeriac::BrokerError> {
    /// use celeriac::EventDetails;
    ///
    /// let mut events = control.events().await?;
    /// loop {
    ///     let event = events.next().await;
    ///     if let EventDetails::TaskFailed(failure) = event.details() {
    ///         println!("{} failed on {}", failure.uuid, event.hostname);
    ///     }
    /// }
    /// # }
    /// ```
    ///
    /// # Errors
    /// Returns an error if the broker cannot be reached.
    pub async fn events(&self) -> Result<EventStream, BrokerError> {
        let raw = self.broker.listen(EXCHANGE, ALL).await?;
        let (sender, events) = channel(CAPACITY);
        let stop = CancellationToken::new();
        let read = read(Arc::clone(&self.broker), raw, sender);
        tokio::spawn(stop.clone().run_until_cancelled_owned(read));
        Ok(EventStream {
            events,
            missed: 0,
            _stop: stop.drop_guard(),
        })
    }
}

async fn read(broker: Arc<dyn Broker>, mut raw: BoxStream<'static, Vec<u8>>, events: Sender<Event>) {
    let mut back_off = BackOff::new(Duration::from_millis(100), Duration::from_secs(5));
    let mut failures = FailureLog::new("listening for events");
    loop {
        while let Some(raw) = raw.next().await {
            back_off.reset();
            for event in Event::decode(&raw) {
                let _ = events.send(event);
            }
        }
        back_off.wait().await;
        match broker.listen(EXCHANGE, ALL).await {
            Ok(listening) => {
                failures.worked();
                raw = listening;
            }
            Err(error) => failures.failed(&error),
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::{broker::Bus, event::TASK_BATCH, memory::MemoryBroker};

    use super::*;

    #[tokio::test]
    async fn a_slow_reader_misses_the_oldest_events_and_counts_them() {
        let broker = Arc::new(MemoryBroker::new(1));
        let mut events = Control::new(broker.clone()).events().await.unwrap();
        let event = |number| Event::new("task-started", "w", number, []);
        let all: Vec<Event> = (0..CAPACITY as u64 + 10).map(event).collect();
        for batch in all.chunks(1000) {
            let text = Event::encode_batch("w", batch);
            broker.broadcast(EXCHANGE, TASK_BATCH, text).await.unwrap();
            tokio::task::yield_now().await;
        }
        while events.events.len() < CAPACITY + 10 {
            tokio::task::yield_now().await;
        }
        assert_eq!(events.next().await.fields["clock"], 10);
        assert_eq!(events.missed(), 10);
    }
}

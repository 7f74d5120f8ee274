//! History of a run, in order: what clients were told, what tasks did, what the server stored, and the
//! faults. The checker reads nothing else.

use std::{
    fmt,
    hash::{DefaultHasher, Hasher as _},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// Something that happened. A task is known by its label, which is an argument of the task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The broker has confirmed to the client that it has taken a task.
    Sent { label: u64, id: String },
    /// The client does not know whether the broker has taken a task.
    Unconfirmed { label: u64, id: String },
    /// The code of a task begins in this life of a worker.
    Begin { label: u64, life: String },
    /// The code of a task ends, or is dropped before its end.
    End { label: u64, life: String, dropped: bool },
    /// The server has stored the state of a task.
    Stored { id: String, status: String },
    /// The server has renewed the lease of a worker's life.
    Renewed { life: String },
    /// A worker's life has ended.
    Died { life: String },
    /// The server has returned with the data of an earlier time.
    Restored { data_of: Duration },
    /// A fault of the script.
    Fault(String),
}

/// An event and its time since the start of the run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    pub at: Duration,
    pub event: Event,
}

impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.at.as_secs_f64();
        match &self.event {
            Event::Fault(fault) => write!(f, "{seconds:12.6}  FAULT {fault}"),
            event => write!(f, "{seconds:12.6}  {event:?}"),
        }
    }
}

#[derive(Debug)]
struct Log {
    records: Vec<Record>,
    hash: DefaultHasher,
}

/// The history of a run, and a hash of it and of every request and reply.
#[derive(Debug)]
pub struct History {
    start: Instant,
    log: Mutex<Log>,
}

impl History {
    /// Begins a history now.
    #[must_use]
    pub fn begin() -> Self {
        let (records, hash) = (Vec::new(), DefaultHasher::new());
        Self {
            start: Instant::now(),
            log: Mutex::new(Log { records, hash }),
        }
    }

    pub fn add(&self, event: Event) {
        let record = Record {
            at: self.start.elapsed(),
            event,
        };
        self.mix(format!("{record:?}").as_bytes());
        self.log().records.push(record);
    }

    /// Adds bytes to the hash only, with the time.
    pub fn mix(&self, bytes: &[u8]) {
        let mut log = self.log();
        log.hash.write_u128(self.start.elapsed().as_nanos());
        log.hash.write(bytes);
    }

    /// Returns the records, and the hash of everything.
    #[must_use]
    pub fn finish(&self) -> (Vec<Record>, u64) {
        let log = self.log();
        (log.records.clone(), log.hash.finish())
    }

    fn log(&self) -> std::sync::MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

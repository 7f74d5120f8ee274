//! Numbers of the delivery tags that a broker handle assigns, and the amount of data that one request may return.

/// Number of bytes after which a request takes no more messages.
const MAX_BYTES: usize = 1 << 20;
/// Smallest limit after time-outs. A request returns at least one message.
const MIN_BYTES: usize = 1 << 12;

pub(super) struct Tags {
    pub next: u64,
    /// Number of tags before `next` that were passed to a script whose reply has not arrived.
    pub unanswered: u64,
    /// Number of bytes after which the next request takes no more messages.
    pub bytes: usize,
    /// Number of messages received last.
    pub received: usize,
    /// Average size of the messages received last.
    average: usize,
}

impl Default for Tags {
    fn default() -> Self {
        Self {
            next: 0,
            unanswered: 0,
            bytes: MAX_BYTES,
            received: 0,
            average: 0,
        }
    }
}

impl Tags {
    /// Halves the limit of the next requests, after a failed one.
    pub(super) fn request_less(&mut self) {
        self.bytes = (self.bytes / 2).max(MIN_BYTES);
    }

    /// Records the sizes of received messages, and doubles the limit of the next requests, up to the maximum.
    pub(super) fn received(&mut self, sizes: impl ExactSizeIterator<Item = usize>) {
        self.received = sizes.len();
        if let Some(average) = sizes.sum::<usize>().checked_div(self.received) {
            self.average = average;
            self.bytes = (self.bytes * 2).min(MAX_BYTES);
        }
    }

    /// Returns the number of messages of average size that a request may return.
    pub(super) fn expected(&self) -> usize {
        (self.bytes / self.average.max(1)).max(1)
    }
}

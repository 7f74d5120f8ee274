//! Numbers of the delivery tags that a broker handle assigns.

#[derive(Default)]
pub(super) struct Tags {
    pub next: u64,
    /// Number of tags before `next` that were passed to a script whose reply has not arrived.
    pub unanswered: u64,
}

//! State of the in-process bus: the listeners and the reply queues.

use std::collections::HashMap;

use tokio::sync::mpsc;

/// Capacity of a listener's buffer; further broadcasts are dropped for that listener.
pub(super) const LISTENER_BUFFER: usize = 1024;
/// Capacity of a reply queue; further replies are dropped.
pub(super) const MAX_REPLIES: usize = 1024;

#[derive(Default)]
pub(super) struct Channels {
    pub(super) listeners: Vec<Listener>,
    pub(super) replies: HashMap<String, Vec<Vec<u8>>>,
}

pub(super) struct Listener {
    pub(super) exchange: String,
    pub(super) pattern: String,
    pub(super) sender: mpsc::Sender<Vec<u8>>,
}

impl Listener {
    pub(super) fn matches(&self, exchange: &str, routing_key: &str) -> bool {
        self.exchange == exchange
            && match self.pattern.strip_suffix('*') {
                Some(start) => routing_key.starts_with(start),
                None => routing_key == self.pattern,
            }
    }
}

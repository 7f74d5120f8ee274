//! The open connections, with a limit for all and for each client address.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    sync::Arc,
    time::Duration,
};

use tokio::{
    task::{AbortHandle, Id},
    time::Instant,
};

use crate::state::ConnectionState;

/// Limits on the number of open connections.
#[derive(Debug, Clone)]
pub(crate) struct ConnectionLimits {
    /// Maximum number of connections, including the reserved ones.
    pub(crate) all: usize,
    /// Connections that accept health probes only.
    pub(crate) reserved: usize,
    /// Maximum number of connections of one client address.
    pub(crate) per_address: usize,
}

/// Minimum time between two warnings about a limit.
const WARNING_INTERVAL: Duration = Duration::from_secs(60);

/// Minimum time for a new connection to send a request before another one can replace it.
const MIN_WAITING: Duration = Duration::from_millis(100);

/// Decision about a new connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Admission {
    Serve,
    /// Serve health probes only.
    Reserve,
    /// Decide again shortly.
    Wait,
    Close,
}

#[derive(Debug)]
struct Open {
    address: IpAddr,
    admission: Admission,
    state: Arc<ConnectionState>,
    task: AbortHandle,
}

/// The open connections.
#[derive(Debug)]
pub(crate) struct OpenConnections {
    limits: ConnectionLimits,
    open: HashMap<Id, Open>,
    /// Number of connections that serve health probes only.
    reserved: usize,
    /// Number of connections of each address.
    addresses: HashMap<IpAddr, usize>,
    full: Warning,
}

impl OpenConnections {
    pub(crate) fn new(limits: ConnectionLimits) -> Self {
        Self {
            limits,
            open: HashMap::new(),
            reserved: 0,
            addresses: HashMap::new(),
            full: Warning::default(),
        }
    }

    /// Decides about a new connection. If a limit is reached, it takes the place of the connection that has waited
    /// longest for a request, as clients that send no request must not keep out others.
    ///
    /// The address of a proxy has no limit of its own.
    pub(crate) fn admit(&mut self, address: IpAddr, is_proxy: bool) -> Admission {
        let address = network(address);
        let of_address = self.addresses.get(&address).copied().unwrap_or(0);
        let is_address_full = !is_proxy && of_address >= self.limits.per_address;
        let served = self.open.len() - self.reserved;
        if !is_address_full && served < self.limits.all.saturating_sub(self.limits.reserved) {
            return Admission::Serve;
        }
        self.full.log(
            "a limit of connections is reached; a new one replaces one without a complete request, or waits",
        );
        match self.longest_waiting(is_address_full.then_some(address)) {
            Some((since, _)) if since.elapsed() < MIN_WAITING => Admission::Wait,
            Some((_, id)) => self.close(id),
            None if self.reserved < self.limits.reserved && self.open.len() < self.limits.all => {
                Admission::Reserve
            }
            None if is_address_full => Admission::Close,
            None => Admission::Wait,
        }
    }

    pub(crate) fn insert(
        &mut self,
        address: IpAddr,
        admission: Admission,
        state: Arc<ConnectionState>,
        task: AbortHandle,
    ) {
        let address = network(address);
        *self.addresses.entry(address).or_default() += 1;
        self.reserved += usize::from(admission == Admission::Reserve);
        let open = Open {
            address,
            admission,
            state,
            task,
        };
        self.open.insert(open.task.id(), open);
    }

    pub(crate) fn remove(&mut self, id: Id) {
        let Some(closed) = self.open.remove(&id) else {
            return;
        };
        self.reserved -= usize::from(closed.admission == Admission::Reserve);
        if let Some(count) = self.addresses.get_mut(&closed.address) {
            *count -= 1;
            if *count == 0 {
                self.addresses.remove(&closed.address);
            }
        }
    }

    /// Closes a connection, and returns its admission for the one that replaces it.
    fn close(&mut self, id: Id) -> Admission {
        let Some(open) = self.open.get(&id) else {
            return Admission::Wait;
        };
        open.task.abort();
        let admission = open.admission;
        self.remove(id);
        admission
    }

    /// Returns the connection that has waited longest for a request or the rest of its body, and since when.
    ///
    /// Clients that have sent nothing yet have some time for it, unless they are so many that they keep out others.
    fn longest_waiting(&self, address: Option<IpAddr>) -> Option<(Instant, Id)> {
        let (mut all, mut silent) = (0_usize, 0_usize);
        let (mut longest, mut longest_silent) = (None, None);
        for (id, open) in &self.open {
            if address.is_some_and(|address| address != open.address) {
                continue;
            }
            let state = &open.state;
            all += 1;
            longest = earlier(longest, state.replaceable_since(), *id);
            if state.is_silent() {
                silent += 1;
                longest_silent = earlier(longest_silent, state.waiting_since(), *id);
            }
        }
        if silent > all / 2 { longest_silent } else { longest }
    }
}

/// Returns the earlier of two times, each with its connection.
fn earlier(first: Option<(Instant, Id)>, since: Option<Instant>, id: Id) -> Option<(Instant, Id)> {
    match (first, since) {
        (Some((first, _)), Some(since)) if since < first => Some((since, id)),
        (None, since) => Some((since?, id)),
        (first, _) => first,
    }
}

/// A warning that is logged at most once per [`WARNING_INTERVAL`].
#[derive(Debug, Default)]
struct Warning {
    logged: Option<Instant>,
    /// Occurrences since it was logged.
    suppressed: u64,
}

impl Warning {
    fn log(&mut self, message: &str) {
        if self
            .logged
            .is_some_and(|logged| logged.elapsed() < WARNING_INTERVAL)
        {
            self.suppressed += 1;
            return;
        }
        let suppressed = std::mem::take(&mut self.suppressed);
        tracing::warn!("{message} ({suppressed} earlier warnings were suppressed)");
        self.logged = Some(Instant::now());
    }
}

/// Returns the address that is counted: the network of 64 bits for IPv6, which one client usually has.
fn network(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 64)).into(),
    }
}

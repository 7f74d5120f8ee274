//! The open connections, with a limit for all and for each client address.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    sync::Arc,
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

/// What to do with a new connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Admission {
    Serve,
    /// Serve health probes only.
    Reserve,
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
}

impl OpenConnections {
    pub(crate) fn new(limits: ConnectionLimits) -> Self {
        Self {
            limits,
            open: HashMap::new(),
            reserved: 0,
            addresses: HashMap::new(),
        }
    }

    /// Whether a new connection can be accepted.
    pub(crate) fn has_room(&self) -> bool {
        self.open.len() < self.limits.all || self.longest_waiting(None).is_some()
    }

    /// Decides about a new connection. If a limit is reached, it takes the place of the connection that has waited
    /// longest for a request, as clients that send no request must not keep out others.
    ///
    /// The address of a proxy has no limit of its own.
    pub(crate) fn admit(&mut self, address: IpAddr, is_proxy: bool) -> Admission {
        let address = network(address);
        let of_address = self.addresses.get(&address).copied().unwrap_or(0);
        let replaced = if !is_proxy && of_address >= self.limits.per_address {
            self.close_waiting(Some(address))
        } else if self.open.len() - self.reserved < self.limits.all.saturating_sub(self.limits.reserved) {
            return Admission::Serve;
        } else {
            self.close_waiting(None)
        };
        let can_reserve = self.reserved < self.limits.reserved && self.open.len() < self.limits.all;
        replaced.unwrap_or(if can_reserve {
            Admission::Reserve
        } else {
            Admission::Close
        })
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

    /// Closes the connection that has waited longest for a request, and returns its admission.
    fn close_waiting(&mut self, address: Option<IpAddr>) -> Option<Admission> {
        let id = self.longest_waiting(address)?;
        let open = self.open.get(&id)?;
        open.task.abort();
        let admission = open.admission;
        self.remove(id);
        Some(admission)
    }

    fn longest_waiting(&self, address: Option<IpAddr>) -> Option<Id> {
        let candidates = self.open.iter().filter_map(|(id, open)| {
            let since = open.state.waiting_since()?;
            address
                .is_none_or(|address| address == open.address)
                .then_some((since, *id))
        });
        let longest: Option<(Instant, Id)> = candidates.min_by_key(|(since, _)| *since);
        longest.map(|(_, id)| id)
    }
}

/// Returns the address that is counted: the network of 64 bits for IPv6, which one client usually has.
fn network(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 64)).into(),
    }
}

//! The open connections and their limits, in total and per client address.

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
    /// Number of connections that are reserved for health probes.
    pub(crate) reserved: usize,
    /// Maximum number of connections per client address.
    pub(crate) per_address: usize,
}

/// Minimum time between two warnings about a limit.
const WARNING_INTERVAL: Duration = Duration::from_secs(60);

/// Maximum number of held connections, which wait until another one from the same address ends or may be replaced.
const MAX_HELD: usize = 16;

/// Interval at which a server at a limit looks for a connection to replace.
pub(crate) const CHECK: Duration = Duration::from_millis(10);

/// Maximum average delay that a client at its limit causes for others with each new connection.
const MAX_DELAY: Duration = Duration::from_micros(250);

/// Decision about a new connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Admission {
    Serve,
    /// Serve health probes only.
    Reserve,
    /// Decide again after this time, and accept no connection until then.
    Wait(Duration),
    /// Decide again shortly.
    Hold,
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

    /// Decides about a new connection while `held` others wait. At a limit, it replaces the connection that has waited
    /// longest for a request or the rest of its body, because clients that send neither must not keep others out. If
    /// most connections have had no request, they have less time for it.
    ///
    /// The limit per address does not apply to proxies. A client at this limit must not delay others: its connections
    /// are held while others are accepted. If too many are held, a new one replaces a connection without any request
    /// after a short time, or is closed if there is none.
    pub(crate) fn admit(&mut self, address: IpAddr, is_proxy: bool, held: usize) -> Admission {
        let address = network(address);
        let of_address = self.addresses.get(&address).copied().unwrap_or(0);
        let is_address_full = !is_proxy && of_address >= self.limits.per_address;
        let served = self.open.len() - self.reserved;
        if !is_address_full && served < self.limits.all.saturating_sub(self.limits.reserved) {
            return Admission::Serve;
        }
        self.full.log(
            "a connection limit is reached; a new connection replaces one without a complete request, waits, or is \
             closed",
        );
        let may_hold = held < self.max_held();
        let candidates = is_address_full.then_some(address);
        // The more connections share the time for their first requests, the longer it may be.
        let unused = self.unused(candidates);
        let is_flood = if is_address_full {
            !may_hold && unused > 0
        } else {
            unused > served / 2
        };
        let grace = is_flood.then(|| MAX_DELAY.saturating_mul(u32::try_from(unused).unwrap_or(u32::MAX)));
        match self.next_to_replace(candidates, grace) {
            Some((at, id)) if at <= Instant::now() => self.close(id),
            None if self.reserved < self.limits.reserved && self.open.len() < self.limits.all => {
                Admission::Reserve
            }
            Some(_) if is_address_full && may_hold => Admission::Hold,
            Some((at, _)) if is_flood => Admission::Wait((at - Instant::now()).min(CHECK)),
            _ if is_address_full => Admission::Close,
            _ => Admission::Wait(CHECK),
        }
    }

    /// Returns the maximum number of connections that wait. They give way to open ones.
    pub(crate) fn max_held(&self) -> usize {
        self.limits.all.saturating_sub(self.open.len()).min(MAX_HELD)
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

    /// Closes a connection, and returns its admission, which the replacement inherits.
    fn close(&mut self, id: Id) -> Admission {
        let Some(open) = self.open.get(&id) else {
            return Admission::Wait(CHECK);
        };
        open.task.abort();
        let admission = open.admission;
        self.remove(id);
        admission
    }

    /// Returns the number of connections, of `address` if given, without any request.
    fn unused(&self, address: Option<IpAddr>) -> usize {
        let unused = self
            .candidates(address)
            .filter(|(_, open)| !open.state.has_requested());
        unused.count()
    }

    /// Returns the connection, of `address` if given, that may be replaced first, and from when. `grace` limits the time
    /// for the first request.
    fn next_to_replace(&self, address: Option<IpAddr>, grace: Option<Duration>) -> Option<(Instant, Id)> {
        self.candidates(address)
            .filter_map(|(id, open)| Some((open.state.replaceable_at(grace)?, *id)))
            .min_by_key(|(at, _)| *at)
    }

    fn candidates(&self, address: Option<IpAddr>) -> impl Iterator<Item = (&Id, &Open)> {
        let open = self.open.iter();
        open.filter(move |(_, open)| address.is_none_or(|address| address == open.address))
    }
}

/// A warning that is logged at most once per [`WARNING_INTERVAL`].
#[derive(Debug, Default)]
struct Warning {
    logged: Option<Instant>,
    /// Number of occurrences since it was last logged.
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

/// Returns the address that counts towards the limit: for IPv6 the /64 network, which usually belongs to one client.
fn network(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 64)).into(),
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));

    /// Returns the decision about another connection of a client that has as many as it may have.
    fn admit(states: &[&Arc<ConnectionState>], held: usize) -> Admission {
        let mut connections = OpenConnections::new(ConnectionLimits {
            all: 100,
            reserved: 0,
            per_address: states.len(),
        });
        for state in states {
            assert_eq!(connections.admit(CLIENT, false, 0), Admission::Serve);
            let task = tokio::spawn(std::future::pending::<()>()).abort_handle();
            connections.insert(CLIENT, Admission::Serve, Arc::clone(state), task);
        }
        connections.admit(CLIENT, false, held)
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_at_its_limit_replaces_its_own_connections() {
        let [busy, idle, silent] = [(); 3].map(|()| ConnectionState::new());
        let _request = busy.begin();
        drop(idle.begin());
        idle.wait();
        silent.wait();
        for (states, held, admission) in [
            (&[&busy, &idle, &silent][..], 0, Admission::Hold),
            (
                &[&busy, &silent, &silent],
                MAX_HELD,
                Admission::Wait(2 * MAX_DELAY),
            ),
            (&[&busy, &idle], 0, Admission::Hold),
            (&[&busy, &idle], MAX_HELD, Admission::Close),
            (&[&busy], 0, Admission::Close),
        ] {
            assert_eq!(
                admit(states, held),
                admission,
                "{} connections, {held} held",
                states.len()
            );
        }
        tokio::time::advance(2 * MAX_DELAY).await;
        assert_eq!(admit(&[&busy, &silent, &silent], MAX_HELD), Admission::Serve);
        tokio::time::advance(Duration::from_millis(100)).await;
        assert_eq!(admit(&[&busy, &idle], 0), Admission::Serve);
        assert_eq!(admit(&[&busy, &silent], 0), Admission::Hold);
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(admit(&[&busy, &silent], 0), Admission::Serve);
    }
}

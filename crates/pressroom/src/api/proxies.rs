//! The client address of a request: the peer of the connection or, behind a trusted proxy, the address
//! in `X-Forwarded-For`.
//!
//! Each proxy appends the address of its own peer to the list; entries further left come from the previous hop
//! and may be forged. Therefore the client is the rightmost address that is not a trusted proxy. `Forwarded`
//! (RFC 7239) is not read.

use std::{
    net::{IpAddr, SocketAddr},
    str::FromStr,
    sync::atomic::{AtomicBool, Ordering},
};

use axum::http::HeaderMap;

const FORWARDED_FOR: &str = "x-forwarded-for";

/// Maximum number of list entries to read, more than any realistic chain of proxies.
const MAX_HOPS: usize = 32;

/// Networks of the proxies whose `X-Forwarded-For` is trusted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TrustedProxies(Vec<Network>);

/// A network in CIDR notation: all addresses that share the first `bits` bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Network {
    address: IpAddr,
    bits: u8,
}

/// Determines client addresses.
#[derive(Debug)]
pub(super) struct Clients {
    proxies: TrustedProxies,
    /// Whether the warning about an ignored `X-Forwarded-For` has been logged.
    warned: AtomicBool,
}

impl Clients {
    pub(super) fn behind(proxies: TrustedProxies) -> Self {
        Self {
            proxies,
            warned: AtomicBool::new(false),
        }
    }

    /// Returns the client address of a request whose connection comes from `peer`.
    ///
    /// Logs a warning, once per process, if an untrusted peer sends `X-Forwarded-For`: the peer may be a proxy
    /// that is missing from the configuration, and the rate limits would treat all of its clients as one.
    pub(super) fn address(&self, peer: SocketAddr, headers: &HeaderMap) -> SocketAddr {
        if self.proxies.contains(peer.ip()) {
            return self.proxies.client(peer, headers);
        }
        if !self.warned.load(Ordering::Relaxed)
            && headers.contains_key(FORWARDED_FOR)
            && !self.warned.swap(true, Ordering::Relaxed)
        {
            telemetry::warn!(
                "X-Forwarded-For from an untrusted peer is ignored; if the peer is a proxy, \
                 add it to TRUSTED_PROXIES"
            );
        }
        peer
    }
}

/// Error for an entry of the list that is neither an address nor a network.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is neither an IP address nor a network such as 10.0.0.0/8")]
pub struct InvalidNetwork(String);

impl TrustedProxies {
    /// Returns the client address that a trusted proxy at `peer` forwards. Its port is 0, because the proxy does
    /// not forward the port, unless the address is `peer` itself.
    fn client(&self, peer: SocketAddr, headers: &HeaderMap) -> SocketAddr {
        let values = headers.get_all(FORWARDED_FOR).iter();
        let values: Vec<&str> = values.map(|value| value.to_str().unwrap_or_default()).collect();
        let entries = values.iter().rev().flat_map(|value| value.rsplit(','));
        let mut client = peer;
        for entry in entries.take(MAX_HOPS) {
            // Without the address of the proxy's peer, entries further left cannot be verified.
            let Some(address) = address(entry.trim()) else {
                break;
            };
            client = SocketAddr::new(address, 0);
            if !self.contains(address) {
                break;
            }
        }
        client
    }

    pub(crate) fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.iter().any(|network| network.contains(address))
    }
}

impl FromStr for TrustedProxies {
    type Err = InvalidNetwork;

    /// Parses a comma-separated list of addresses and networks. The error contains the first invalid entry.
    fn from_str(list: &str) -> Result<Self, InvalidNetwork> {
        let entries = list.split(',').map(str::trim).filter(|entry| !entry.is_empty());
        let networks =
            entries.map(|entry| Network::parse(entry).ok_or_else(|| InvalidNetwork(entry.to_owned())));
        networks.collect::<Result<_, _>>().map(Self)
    }
}

impl std::fmt::Display for TrustedProxies {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (i, Network { address, bits }) in self.0.iter().enumerate() {
            let comma = if i == 0 { "" } else { "," };
            write!(f, "{comma}{address}/{bits}")?;
        }
        Ok(())
    }
}

impl Network {
    fn parse(text: &str) -> Option<Self> {
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits.parse::<u8>().ok()?)),
            None => (text, None),
        };
        let given: IpAddr = address.parse().ok()?;
        let width = |address| if matches!(address, IpAddr::V4(_)) { 32 } else { 128 };
        let bits = bits.unwrap_or(width(given));
        if bits > width(given) {
            return None;
        }
        let address = given.to_canonical();
        // An IPv4-mapped IPv6 network has 96 additional leading bits.
        let bits = bits.checked_sub(width(given) - width(address))?;
        Some(Self { address, bits })
    }

    fn contains(self, address: IpAddr) -> bool {
        let shared = match (self.address, address) {
            (IpAddr::V4(own), IpAddr::V4(other)) => (own.to_bits() ^ other.to_bits()).leading_zeros(),
            (IpAddr::V6(own), IpAddr::V6(other)) => (own.to_bits() ^ other.to_bits()).leading_zeros(),
            _ => return false,
        };
        shared >= u32::from(self.bits)
    }
}

/// Parses an address in the forms that proxies use: bare, with a port, or in brackets.
fn address(entry: &str) -> Option<IpAddr> {
    let bare = entry.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let address = match bare.unwrap_or(entry).parse::<IpAddr>() {
        Ok(address) => address,
        Err(_) => entry.parse::<SocketAddr>().ok()?.ip(),
    };
    Some(address.to_canonical())
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn client(trusted: &str, peer: &str, forwarded: &[&str]) -> String {
        let mut headers = HeaderMap::new();
        for value in forwarded {
            headers.append(FORWARDED_FOR, HeaderValue::from_str(value).unwrap());
        }
        let peer = SocketAddr::new(peer.parse().unwrap(), 40_000);
        let clients = Clients::behind(trusted.parse().unwrap());
        clients.address(peer, &headers).ip().to_string()
    }

    #[test]
    fn only_a_trusted_peer_may_forward_an_address() {
        assert_eq!(client("", "192.0.2.1", &["198.51.100.7"]), "192.0.2.1");
        assert_eq!(client("10.0.0.0/8", "192.0.2.1", &["198.51.100.7"]), "192.0.2.1");
        assert_eq!(
            client("10.0.0.0/8", "10.1.2.3", &["198.51.100.7"]),
            "198.51.100.7"
        );
        assert_eq!(client("10.0.0.0/8", "10.1.2.3", &[]), "10.1.2.3");
    }

    #[test]
    fn the_rightmost_address_that_is_not_a_proxy_counts() {
        let trusted = "10.0.0.0/8, 203.0.113.9";
        let invented = "1.1.1.1, 198.51.100.7, 203.0.113.9, 10.0.0.2";
        assert_eq!(client(trusted, "10.0.0.1", &[invented]), "198.51.100.7");
        // The same list, split over several header fields.
        let fields = ["1.1.1.1", "198.51.100.7", "203.0.113.9,10.0.0.2"];
        assert_eq!(client(trusted, "10.0.0.1", &fields), "198.51.100.7");
        assert_eq!(client(trusted, "10.0.0.1", &["10.0.0.3, 10.0.0.2"]), "10.0.0.3");
    }

    #[test]
    fn entries_left_of_a_malformed_entry_are_ignored() {
        for malformed in [
            "unknown",
            "",
            "1.2.3",
            "1.2.3.4.5",
            "::g",
            "_hidden",
            "10.0.0.1/8",
        ] {
            let list = format!("198.51.100.7, {malformed}");
            assert_eq!(
                client("10.0.0.0/8", "10.0.0.1", &[&list]),
                "10.0.0.1",
                "{malformed:?}"
            );
            let list = format!("198.51.100.7, {malformed}, 10.0.0.2");
            assert_eq!(
                client("10.0.0.0/8", "10.0.0.1", &[&list]),
                "10.0.0.2",
                "{malformed:?}"
            );
        }
    }

    #[test]
    fn addresses_may_have_ports_and_brackets() {
        for (written, read) in [
            ("198.51.100.7:4711", "198.51.100.7"),
            ("[2001:db8::7]:4711", "2001:db8::7"),
            ("[2001:db8::7]", "2001:db8::7"),
            ("2001:db8::7", "2001:db8::7"),
            ("::ffff:198.51.100.7", "198.51.100.7"),
        ] {
            assert_eq!(client("10.0.0.1", "10.0.0.1", &[written]), read);
        }
    }

    #[test]
    fn an_ipv4_proxy_is_the_same_written_as_ipv6() {
        assert_eq!(
            client("10.0.0.0/8", "::ffff:10.0.0.1", &["192.0.2.7"]),
            "192.0.2.7"
        );
        assert_eq!(
            client("::ffff:10.0.0.0/104", "10.0.0.1", &["192.0.2.7"]),
            "192.0.2.7"
        );
        assert_eq!(
            client("2001:db8::/32", "2001:db8:1::1", &["192.0.2.7"]),
            "192.0.2.7"
        );
        assert_eq!(
            client("2001:db8::/32", "2001:db9::1", &["192.0.2.7"]),
            "2001:db9::1"
        );
        assert_eq!(client("0.0.0.0/0", "2001:db9::1", &["192.0.2.7"]), "2001:db9::1");
        assert_eq!(client("::/0", "2001:db9::1", &["192.0.2.7"]), "192.0.2.7");
    }

    #[test]
    fn malformed_networks_are_rejected() {
        for wrong in [
            "10.0.0.0/33",
            "10.0.0/8",
            "proxy.example",
            "::/129",
            "10.0.0.1/-1",
            "::ffff:1.2.3.4/95",
        ] {
            let list = format!("127.0.0.1,{wrong}");
            assert_eq!(
                list.parse::<TrustedProxies>(),
                Err(InvalidNetwork(wrong.to_owned())),
                "{wrong}"
            );
        }
    }
}

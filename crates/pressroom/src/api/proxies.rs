//! Which client a request is from: the address that is connected to us, or, when that is one of our
//! own proxies, what the proxy says in `X-Forwarded-For`.
//!
//! A proxy adds the address it was connected from at the right end of that list; what stands further
//! left was there before it and may be anybody's invention. So the list is read from the right for as
//! long as the address that wrote an entry is trusted, and ends at the first that is not. `Forwarded`
//! (RFC 7239) is not read.

use std::{
    net::{IpAddr, SocketAddr},
    sync::atomic::{AtomicBool, Ordering},
};

use axum::http::HeaderMap;

const FORWARDED_FOR: &str = "x-forwarded-for";

/// How many entries of the list are looked at: more proxies in a row are not one of ours.
const MAX_HOPS: usize = 32;

/// The networks that our own proxies are in.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TrustedProxies(Vec<Network>);

/// An address, or all that share its first bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Network {
    address: IpAddr,
    bits: u8,
}

/// Finds out who is asking.
#[derive(Debug)]
pub(super) struct Clients {
    proxies: TrustedProxies,
    /// Whether it was said that somebody's `X-Forwarded-For` is not believed.
    told: AtomicBool,
}

impl Clients {
    pub(super) fn behind(proxies: TrustedProxies) -> Self {
        Self {
            proxies,
            told: AtomicBool::new(false),
        }
    }

    /// The address that a request really comes from, connected to us from `peer`. Says once when a
    /// peer that is not trusted names another one: it may be a proxy that nobody thought of, all of
    /// whose clients are taken for one.
    pub(super) fn address(&self, peer: SocketAddr, headers: &HeaderMap) -> SocketAddr {
        if self.proxies.contains(peer.ip()) {
            return self.proxies.client(peer, headers);
        }
        if !self.told.load(Ordering::Relaxed)
            && headers.contains_key(FORWARDED_FOR)
            && !self.told.swap(true, Ordering::Relaxed)
        {
            telemetry::warn!("X-Forwarded-For is not believed of a peer that TRUSTED_PROXIES does not name");
        }
        peer
    }
}

/// A part of the list that is neither an address nor a network.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is neither an IP address nor a network as 10.0.0.0/8")]
pub struct InvalidNetwork(String);

impl TrustedProxies {
    /// Reads addresses and networks separated by commas.
    ///
    /// # Errors
    /// [`InvalidNetwork`] names the first part that is neither.
    pub fn parse(list: &str) -> Result<Self, InvalidNetwork> {
        list.split(',')
            .map(str::trim)
            .filter(|part| !part.is_empty())
            .map(|part| Network::parse(part).ok_or_else(|| InvalidNetwork(part.to_owned())))
            .collect::<Result<_, _>>()
            .map(Self)
    }

    /// The address that a proxy at `peer` tells. A client behind a proxy has no port that we know of.
    fn client(&self, peer: SocketAddr, headers: &HeaderMap) -> SocketAddr {
        let values = headers.get_all(FORWARDED_FOR).iter();
        let values: Vec<&str> = values.map(|value| value.to_str().unwrap_or_default()).collect();
        let entries = values.iter().rev().flat_map(|value| value.rsplit(','));
        let mut client = peer;
        for entry in entries.take(MAX_HOPS) {
            // Whoever wrote this did not know: what stands left of it is not vouched for.
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

    fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.iter().any(|network| network.contains(address))
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
        // An IPv4 network written as IPv6 has 96 bits before it.
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

/// An address as proxies write it: by itself, with a port, or in brackets.
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
        let clients = Clients::behind(TrustedProxies::parse(trusted).unwrap());
        clients.address(peer, &headers).ip().to_string()
    }

    #[test]
    fn only_a_trusted_peer_is_believed() {
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
        // The same list in several fields.
        let fields = ["1.1.1.1", "198.51.100.7", "203.0.113.9,10.0.0.2"];
        assert_eq!(client(trusted, "10.0.0.1", &fields), "198.51.100.7");
        assert_eq!(client(trusted, "10.0.0.1", &["10.0.0.3, 10.0.0.2"]), "10.0.0.3");
    }

    #[test]
    fn what_stands_left_of_a_malformed_entry_is_not_believed() {
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
    fn addresses_are_read_as_proxies_write_them() {
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
    fn what_is_no_network_is_refused() {
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
                TrustedProxies::parse(&list),
                Err(InvalidNetwork(wrong.to_owned())),
                "{wrong}"
            );
        }
    }
}

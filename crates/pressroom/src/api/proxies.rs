//! The client of a request and the URL as the client used it: those of the connection or, behind a trusted proxy,
//! those in `X-Forwarded-For`, `-Proto`, `-Host` and `-Port`, or else in `Forwarded` (RFC 7239).
//!
//! Each proxy appends the address of its own peer to the list; entries further left come from the previous hop
//! and may be forged. Therefore the client is the rightmost address that is not a trusted proxy.

use std::{
    net::{IpAddr, SocketAddr},
    num::NonZeroU16,
    str::FromStr,
    sync::atomic::{AtomicBool, Ordering},
};

use axum::http::{HeaderMap, uri::Scheme};
use telemetry::ClientUrl;

use super::forwarded;

const FORWARDED_FOR: &str = "x-forwarded-for";

/// Maximum number of list entries to read, more than any realistic chain of proxies.
const MAX_HOPS: usize = 32;

/// Networks of the proxies whose `X-Forwarded-*` and `Forwarded` are trusted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TrustedProxies(Vec<Network>);

/// A network in CIDR notation: all addresses that share the first `bits` bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Network {
    address: IpAddr,
    bits: u8,
}

/// Determines the clients of requests.
#[derive(Debug)]
pub(super) struct Clients {
    proxies: TrustedProxies,
    /// Whether the warning about an ignored header has been logged.
    warned: AtomicBool,
}

impl Clients {
    pub(super) fn behind(proxies: TrustedProxies) -> Self {
        Self {
            proxies,
            warned: AtomicBool::new(false),
        }
    }

    /// Returns the client address of a request whose connection comes from `peer`, and the URL if a trusted proxy
    /// forwards parts of it.
    ///
    /// Logs a warning, once per process, if an untrusted peer sends the header of a proxy: the peer may be a proxy
    /// that is missing from the configuration, and the rate limits would treat all of its clients as one.
    pub(super) fn describe(&self, peer: SocketAddr, headers: &HeaderMap) -> (SocketAddr, Option<ClientUrl>) {
        if self.proxies.contains(peer.ip()) {
            return self.proxies.describe(peer, headers);
        }
        if !self.warned.load(Ordering::Relaxed)
            && let Some(name) = ["X-Forwarded-For", "Forwarded"]
                .into_iter()
                .find(|name| headers.contains_key(*name))
            && !self.warned.swap(true, Ordering::Relaxed)
        {
            telemetry::warn!(
                "{name} from an untrusted peer is ignored; if the peer is a proxy, add it to TRUSTED_PROXIES"
            );
        }
        (peer, None)
    }
}

/// Error for an entry of the list that is neither an address nor a network.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is neither an IP address nor a network such as 10.0.0.0/8")]
pub struct InvalidNetwork(String);

impl TrustedProxies {
    /// Returns what a trusted proxy at `peer` forwards.
    fn describe(&self, peer: SocketAddr, headers: &HeaderMap) -> (SocketAddr, Option<ClientUrl>) {
        let elements = forwarded::elements(headers);
        let nodes = elements.iter().map(|element| node(element.node.as_deref()?));
        let (mut client, mut elements_trusted) = self.follow(peer, nodes);
        let mut entries_trusted = elements_trusted;
        if headers.contains_key(FORWARDED_FOR) {
            let named = client;
            (client, entries_trusted) = self.follow(peer, list(headers, FORWARDED_FOR).map(address));
            // A proxy that adds X-Forwarded-For may pass on the client's own Forwarded.
            if named != peer && named != client {
                elements_trusted = 0;
            }
        }
        // The furthest entry that a trusted proxy added, which the other hops may not have overwritten.
        let entry = |name| list(headers, name).take(entries_trusted.max(1)).last();
        let trusted = || elements[..elements_trusted].iter().rev();
        let proto = trusted().find_map(|element| element.proto.as_deref());
        let host = trusted().find_map(|element| element.host.as_deref());
        let url = ClientUrl {
            scheme: entry("x-forwarded-proto").or(proto).and_then(scheme),
            host: entry("x-forwarded-host").or(host).map(str::to_owned),
            port: entry("x-forwarded-port")
                .and_then(|port| port.parse().ok())
                .map(NonZeroU16::get),
        };
        (client, (url != ClientUrl::default()).then_some(url))
    }

    /// Follows `hops` from the server outwards. Returns the client and the number of hops that trusted proxies added.
    ///
    /// The port of the client is 0, because proxies do not forward the port, unless the client is `peer` itself.
    fn follow(&self, peer: SocketAddr, hops: impl Iterator<Item = Option<IpAddr>>) -> (SocketAddr, usize) {
        let mut client = peer;
        let mut trusted = 0;
        for hop in hops.take(MAX_HOPS) {
            trusted += 1;
            // Without the address of the proxy's peer, entries further left cannot be verified.
            let Some(address) = hop else { break };
            client = SocketAddr::new(address, 0);
            if !self.contains(address) {
                break;
            }
        }
        (client, trusted)
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

/// Returns the entries of a list, from right to left, across all lines.
fn list<'a>(headers: &'a HeaderMap, name: &str) -> impl Iterator<Item = &'a str> {
    let lines = headers.get_all(name).iter().rev();
    let lines = lines.map(|line| line.to_str().unwrap_or_default());
    lines.flat_map(|line| line.rsplit(',').map(str::trim))
}

fn scheme(text: &str) -> Option<Scheme> {
    match text.to_ascii_lowercase().as_str() {
        "https" => Some(Scheme::HTTPS),
        "http" => Some(Scheme::HTTP),
        _ => None,
    }
}

/// Parses the address of a node of `Forwarded`, whose port may be an identifier, as in `192.0.2.1:_http`.
fn node(text: &str) -> Option<IpAddr> {
    address(text.split_once(":_").map_or(text, |(node, _)| node))
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
        clients.describe(peer, &headers).0.ip().to_string()
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

    /// Returns the address of the client at a trusted proxy, and the scheme, host and port that it forwards.
    fn forwarded(fields: &[(&str, &str)]) -> (String, String) {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            let name: axum::http::HeaderName = name.parse().unwrap();
            headers.append(name, HeaderValue::from_str(value).unwrap());
        }
        let clients = Clients::behind("10.0.0.0/8".parse().unwrap());
        let (client, url) = clients.describe(([10, 0, 0, 1], 40_000).into(), &headers);
        let url = url.unwrap_or_default();
        let scheme = url.scheme.as_ref().map_or("-", Scheme::as_str);
        let port = url.port.map_or_else(|| "-".to_owned(), |port| port.to_string());
        let shown = format!("{scheme} {} {port}", url.host.as_deref().unwrap_or("-"));
        (client.ip().to_string(), shown)
    }

    #[test]
    fn a_trusted_proxy_forwards_scheme_host_and_port() {
        let everything = "for=203.0.113.9;proto=https;host=blog.example";
        for (fields, client, url) in [
            (&[][..], "10.0.0.1", "- - -"),
            (
                &[("forwarded", everything)],
                "203.0.113.9",
                "https blog.example -",
            ),
            (
                &[
                    ("x-forwarded-proto", "HTTPS"),
                    ("x-forwarded-host", "blog.example:8443"),
                ],
                "10.0.0.1",
                "https blog.example:8443 -",
            ),
            (
                &[("x-forwarded-for", "203.0.113.9"), ("x-forwarded-port", "8443")],
                "203.0.113.9",
                "- - 8443",
            ),
            // The proxy passes on the client's Forwarded.
            (
                &[
                    ("x-forwarded-for", "203.0.113.9"),
                    ("x-forwarded-proto", "http"),
                    ("forwarded", "for=192.0.2.1;proto=https;host=evil.example"),
                ],
                "203.0.113.9",
                "http - -",
            ),
            (
                &[("x-forwarded-for", "203.0.113.9"), ("forwarded", everything)],
                "203.0.113.9",
                "https blog.example -",
            ),
            (
                &[(
                    "forwarded",
                    "for=\"[2001:db8::7]:_x\";host=\"[2001:db8::1]:5000\"",
                )],
                "2001:db8::7",
                "- [2001:db8::1]:5000 -",
            ),
            (
                &[("forwarded", "for=unknown;proto=https")],
                "10.0.0.1",
                "https - -",
            ),
            (
                &[("forwarded", "for=\"192.0.2.1;proto=https")],
                "10.0.0.1",
                "- - -",
            ),
            (
                &[("x-forwarded-proto", "gopher"), ("x-forwarded-port", "0")],
                "10.0.0.1",
                "- - -",
            ),
        ] {
            assert_eq!(
                forwarded(fields),
                (client.to_owned(), url.to_owned()),
                "{fields:?}"
            );
        }
    }

    #[test]
    fn entries_of_the_client_itself_are_ignored() {
        for (fields, client, url) in [
            // One proxy, which appends to the lists of the client.
            (
                &[
                    ("x-forwarded-for", "1.1.1.1, 203.0.113.9"),
                    ("x-forwarded-proto", "https, http"),
                    ("x-forwarded-host", "evil.example"),
                    ("x-forwarded-host", "blog.example"),
                ][..],
                "203.0.113.9",
                "http blog.example -",
            ),
            (
                &[(
                    "forwarded",
                    "for=1.1.1.1;proto=https;host=evil.example,for=203.0.113.9;proto=http",
                )],
                "203.0.113.9",
                "http - -",
            ),
            // Two proxies: the outer one saw the client.
            (
                &[
                    ("x-forwarded-for", "1.1.1.1, 203.0.113.9, 10.0.0.2"),
                    ("x-forwarded-proto", "gopher, https, http"),
                ],
                "203.0.113.9",
                "https - -",
            ),
            (
                &[
                    ("forwarded", "for=203.0.113.9;proto=https;host=blog.example"),
                    ("forwarded", "for=10.0.0.2;proto=http;host=internal:8000"),
                ],
                "203.0.113.9",
                "https blog.example -",
            ),
        ] {
            assert_eq!(
                forwarded(fields),
                (client.to_owned(), url.to_owned()),
                "{fields:?}"
            );
        }
    }
}

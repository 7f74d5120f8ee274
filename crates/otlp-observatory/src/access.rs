//! Hosts and origins whose requests are accepted.
//!
//! A page of another site can send requests to a server on the same machine, in two ways: under the name of that site,
//! which its DNS server then resolves to a loopback address (DNS rebinding), and across origins. `Host` shows the first,
//! `Origin` the second.

use std::{net::IpAddr, sync::Arc};

use axum::http::{HeaderMap, Uri, header, uri::Authority};

/// Hosts and origins whose requests one server accepts.
#[derive(Clone, Debug)]
pub(crate) struct Access {
    /// Whether every host is accepted.
    any_host: bool,
    hosts: Arc<[String]>,
    origins: Arc<[String]>,
}

impl Access {
    /// Creates the rules for a server that listens on `address`. Without `hosts`, every host is accepted unless the
    /// address is loopback.
    pub(crate) fn new(address: IpAddr, hosts: &[String], origins: &[String]) -> Self {
        Self {
            any_host: hosts.is_empty() && !address.is_loopback(),
            hosts: hosts.into(),
            origins: origins.into(),
        }
    }

    /// Whether the request is for a host that is accepted. HTTP/2 has it in the URI.
    pub(crate) fn allows_host(&self, uri: &Uri, headers: &HeaderMap) -> bool {
        if self.any_host {
            return true;
        }
        let mut fields = headers.get_all(header::HOST).iter();
        let field = match (fields.next(), fields.next()) {
            (None, _) => None,
            (Some(host), None) => host.to_str().ok().and_then(|host| host.parse().ok()),
            _ => return false,
        };
        let authority: Option<Authority> = uri.authority().cloned().or(field);
        authority.is_some_and(|authority| self.allows_authority(&authority))
    }

    fn allows_authority(&self, authority: &Authority) -> bool {
        let host = authority.host();
        !authority.as_str().contains('@')
            && (is_local(host)
                || is_single_label(host)
                || self.hosts.iter().any(|allowed| {
                    allowed.eq_ignore_ascii_case(host) || allowed.eq_ignore_ascii_case(authority.as_str())
                }))
    }

    /// Whether pages of `origin` may send telemetry: pages of this machine, and those that the operator names.
    pub(crate) fn allows_origin(&self, origin: &str) -> bool {
        let is_named = |allowed: &String| allowed == "*" || allowed.eq_ignore_ascii_case(origin);
        let is_on_this_machine = || {
            let uri: Uri = origin.parse().ok()?;
            let is_http = matches!(uri.scheme_str(), Some("http" | "https"));
            let authority = uri.authority()?;
            Some(is_http && !authority.as_str().contains('@') && is_local(authority.host()))
        };
        self.origins.iter().any(is_named) || is_on_this_machine().unwrap_or(false)
    }
}

/// Whether `host` is `localhost`, a name below it, or a loopback address, which no DNS server can redirect (RFC 6761,
/// section 6.3).
fn is_local(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']').parse();
    let name = host.trim_end_matches('.').to_ascii_lowercase();
    name == "localhost"
        || name.ends_with(".localhost")
        || address.is_ok_and(|address: IpAddr| address.is_loopback())
}

/// Whether `host` has no dot, like the names of containers. Nobody can register such a name in the public DNS.
fn is_single_label(host: &str) -> bool {
    !host.is_empty()
        && host
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
        && !host.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOOPBACK: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
    const ANY: IpAddr = IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED);

    fn named(names: &[&str]) -> Vec<String> {
        names.iter().map(|&name| name.to_owned()).collect()
    }

    fn allows(access: &Access, host: &str) -> bool {
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, host.parse().unwrap());
        access.allows_host(&Uri::from_static("/v1/traces"), &headers)
    }

    #[test]
    fn names_of_this_machine_and_of_containers_are_allowed() {
        let access = Access::new(LOOPBACK, &[], &[]);
        for host in [
            "localhost",
            "LOCALHOST:4319",
            "localhost.",
            "app.localhost:4318",
            "127.0.0.1",
            "127.8.9.1:4319",
            "[::1]:4319",
            "[::1]",
            "observatory:4318",
            "otel_collector-1",
        ] {
            assert!(allows(&access, host), "{host}");
        }
        for host in [
            "",
            "evil.example",
            "evil.example:4318",
            "localhost.evil.example",
            "evillocalhost.example",
            "127.0.0.1.evil.example:4319",
            "localhost@evil.example",
            "evil.example@localhost",
            "10.0.0.1:4319",
            "0.0.0.0",
            "2130706433",
        ] {
            assert!(!allows(&access, host), "{host}");
        }
        let uri = Uri::from_static("http://evil.example/v1/traces");
        assert!(!access.allows_host(&uri, &HeaderMap::new()));
        assert!(!access.allows_host(&Uri::from_static("/"), &HeaderMap::new()));
    }

    #[test]
    fn named_hosts_are_allowed_with_and_without_their_port() {
        let hosts = named(&["otel.dev.example", "tools.example:4318"]);
        for address in [LOOPBACK, ANY] {
            let access = Access::new(address, &hosts, &[]);
            for host in ["OTEL.dev.example:4318", "tools.example:4318", "localhost"] {
                assert!(allows(&access, host), "{host}");
            }
            for host in ["dev.example", "tools.example:4317", "x.otel.dev.example"] {
                assert!(!allows(&access, host), "{host}");
            }
        }
        let access = Access::new(ANY, &[], &[]);
        assert!(allows(&access, "observatory.tools.svc:4318"));
    }

    #[test]
    fn origins_of_this_machine_and_named_ones_are_allowed() {
        let access = Access::new(LOOPBACK, &[], &named(&["https://shop.example"]));
        for origin in [
            "http://localhost:5173",
            "https://localhost",
            "http://127.0.0.1:3000",
            "http://[::1]:8080",
            "http://shop.localhost:5173",
            "https://shop.example",
        ] {
            assert!(access.allows_origin(origin), "{origin}");
        }
        for origin in [
            "null",
            "",
            "localhost",
            "file://",
            "http://shop.example",
            "https://shop.example:8443",
            "https://localhost.shop.example",
            "http://localhost@evil.example",
            "chrome-extension://localhost",
            "http://10.0.0.1:5173",
        ] {
            assert!(!access.allows_origin(origin), "{origin}");
        }
        assert!(Access::new(LOOPBACK, &[], &named(&["*"])).allows_origin("null"));
    }
}

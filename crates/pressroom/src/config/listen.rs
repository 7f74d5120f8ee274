//! The address that the API listens on.

use std::{
    convert::Infallible,
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

use super::{
    error::{ConfigError, Result},
    reader::Reader,
    setting::Setting,
};

/// Host and port to listen on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenAddress {
    pub host: Host,
    pub port: u16,
}

/// An IP address, or a name that is resolved when the server starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Host {
    Address(IpAddr),
    Name(String),
}

/// Reads an address from the settings of its host and its port.
pub(super) fn listen(reader: &mut Reader, host: Setting, port: Setting) -> Result<ListenAddress> {
    let address = ListenAddress {
        host: reader.parse(host, "an IP address or a host name")?,
        port: reader.parse(port, "a port number")?,
    };
    match &address.host {
        Host::Name(name) if !is_name(name) => {
            let problem =
                format!("{name:?} is neither an IP address nor a host name; `::` listens on all addresses");
            Err(ConfigError::new(host.variable, problem))
        }
        _ => Ok(address),
    }
}

fn is_name(name: &str) -> bool {
    let is_label = |label: &str| {
        let valid = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        !label.is_empty() && label.len() <= 63 && label.chars().all(valid)
    };
    // A host of only digits and dots is a mistyped address.
    let is_number = name.chars().all(|c| c.is_ascii_digit() || c == '.');
    !is_number && name.strip_suffix('.').unwrap_or(name).split('.').all(is_label)
}

impl ListenAddress {
    /// Returns the host and port at which this machine reaches a listener on this address.
    #[must_use]
    pub fn reachable(&self) -> Self {
        match self.host {
            // A listener on `::` also accepts IPv4.
            Host::Address(address) if address.is_unspecified() => Self {
                host: Host::Address(Ipv4Addr::LOCALHOST.into()),
                port: self.port,
            },
            _ => self.clone(),
        }
    }

    /// Returns the URL for a client on this machine of a server that listens on this host and `port`.
    #[must_use]
    pub fn local_url(&self, port: u16) -> String {
        match self.host {
            // All are reached as localhost, which is more familiar.
            Host::Address(address)
                if address.is_unspecified()
                    || address == Ipv4Addr::LOCALHOST
                    || address == Ipv6Addr::LOCALHOST =>
            {
                format!("http://localhost:{port}")
            }
            _ => format!("http://{}", Self { port, ..self.clone() }),
        }
    }
}

impl FromStr for Host {
    type Err = Infallible;

    /// Parses an address, which may be in brackets; any other text is a name.
    fn from_str(text: &str) -> Result<Self, Infallible> {
        let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        let address = bare.unwrap_or(text).parse().map(Self::Address);
        Ok(address.unwrap_or_else(|_| Self::Name(text.to_owned())))
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Name(name) => name.fmt(f),
        }
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            Host::Address(IpAddr::V6(address)) => write!(f, "[{address}]:{}", self.port),
            host => write!(f, "{host}:{}", self.port),
        }
    }
}

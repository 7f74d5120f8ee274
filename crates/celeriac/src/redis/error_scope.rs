//! Classifies Redis errors by their consequences for the connection and for the caller.

use redis::RedisError;

use crate::broker::BrokerError;

/// Part of the system that an error affects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ErrorScope {
    /// The connection is unusable. A new one may work, to this server or to the one that has replaced it.
    Connection,
    /// The server cannot execute commands until it is repaired. The connection is usable.
    Server,
    /// The server rejects only this request.
    Request,
}

/// Error codes that a new connection may avoid: the server has become a replica, is loading its data, or
/// requires a password. A blocked request gets `UNBLOCKED` when the server becomes a replica.
const OF_CONNECTION: [&str; 8] = [
    "DENIED",
    "READONLY",
    "UNBLOCKED",
    "LOADING",
    "MASTERDOWN",
    "NOAUTH",
    "WRONGPASS",
    "CLUSTERDOWN",
];
/// Error codes of a server that is blocked by a script, is out of memory, cannot write to its disk or has too
/// few replicas, and of an account that lacks permission.
const OF_SERVER: [&str; 6] = ["BUSY", "OOM", "MISCONF", "NOREPLICAS", "NOPERM", "TRYAGAIN"];

/// Error code of a transaction that another error has aborted.
const ABORTED: &str = "EXECABORT";

/// Error codes of a server that denies access, each with a way out.
const DENIALS: [(&str, &str); 5] = [
    (
        "NOAUTH",
        "add the password to the URL: redis://:<password>@<host>",
    ),
    ("WRONGPASS", "check the user and the password in the URL"),
    (
        "AuthenticationFailed",
        "check the user and the password in the URL",
    ),
    (
        "DENIED",
        "set a password on the server and in the URL, or disable its protected mode in a trusted network",
    ),
    (
        "NOPERM",
        "grant the account access to the commands and keys that celeriac uses",
    ),
];

/// Returns the error for a connection that failed with this cause.
pub(super) fn connection_error(cause: impl Into<String>) -> BrokerError {
    let cause = cause.into();
    let denial = DENIALS.iter().find(|(code, _)| {
        cause.starts_with(code) || *code == "AuthenticationFailed" && cause.contains("authentication failed")
    });
    match denial {
        Some((_, way_out)) => BrokerError::Denied {
            cause: format!("{cause} ({way_out})"),
        },
        None => BrokerError::unavailable(cause),
    }
}

impl ErrorScope {
    /// Returns the server's error code, such as `WRONGTYPE`, or `None` if the error is not from the server.
    pub(super) fn code(error: &RedisError) -> Option<String> {
        let errors = error.clone().into_server_errors()?;
        let mut codes = errors.iter().map(|(_, error)| error.code());
        let cause = codes.clone().find(|code| *code != ABORTED);
        cause.or_else(|| codes.next()).map(str::to_owned)
    }

    /// Returns the scope of the error, and its text.
    pub(super) fn of(error: &RedisError) -> (Self, String) {
        let errors = error.clone().into_server_errors();
        let errors = errors.iter().flat_map(|errors| errors.iter());
        let causes = errors
            .map(|(_, error)| error)
            .filter(|error| error.code() != ABORTED);
        let causes: Vec<_> = causes.collect();
        let find = |codes: &[&str]| causes.iter().find(|error| codes.contains(&error.code()));
        let (scope, cause) = if let Some(cause) = find(&OF_CONNECTION) {
            (Self::Connection, Some(cause))
        } else if let Some(cause) = find(&OF_SERVER) {
            (Self::Server, Some(cause))
        } else if error.is_io_error() || error.is_unrecoverable_error() {
            (Self::Connection, None)
        } else {
            (Self::Request, causes.first())
        };
        let text = match cause {
            Some(cause) => format!("{} {}", cause.code(), cause.details().unwrap_or_default()),
            None => error.to_string(),
        };
        (scope, text.trim_end().to_owned())
    }
}

//! Classifies errors of Redis by their consequences for the connection and for the caller.

use redis::RedisError;

/// Scope of an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// The connection is unusable. A new one may work, to this server or to the one that has replaced it.
    Connection,
    /// The server cannot execute commands until it is repaired. The connection is usable.
    Server,
    /// The server refuses this request.
    Request,
}

/// Error codes that a new connection may not get: the server has become a replica, is loading its data, or
/// requires a password. A blocked request gets `UNBLOCKED` when the server becomes a replica.
const OF_CONNECTION: [&str; 7] = [
    "READONLY",
    "UNBLOCKED",
    "LOADING",
    "MASTERDOWN",
    "NOAUTH",
    "WRONGPASS",
    "CLUSTERDOWN",
];
/// Error codes of a server with an endless script, no free memory, a disk that is not writable, too few
/// replicas, or an account without the right.
const OF_SERVER: [&str; 6] = ["BUSY", "OOM", "MISCONF", "NOREPLICAS", "NOPERM", "TRYAGAIN"];

impl Fault {
    /// Returns the server's error code, such as `WRONGTYPE`, or `None` if the error is not from the server.
    pub(super) fn code(error: &RedisError) -> Option<String> {
        let answers = error.clone().into_server_errors()?;
        let aborted = answers.iter().map(|(_, answer)| answer.code());
        // The cause of an aborted transaction says more than that it was aborted.
        let cause = aborted.clone().find(|code| *code != "EXECABORT");
        cause.or_else(|| aborted.clone().next()).map(str::to_owned)
    }

    /// Returns the scope of the error, and its text.
    pub(super) fn of(error: &RedisError) -> (Self, String) {
        // `EXECABORT` itself names no cause; the errors of the commands in the transaction do.
        let answers = error.clone().into_server_errors();
        let answers: Vec<(&str, String)> = answers
            .iter()
            .flat_map(|answers| answers.iter())
            .filter(|(_, answer)| answer.code() != "EXECABORT")
            .map(|(_, answer)| (answer.code(), answer.details().unwrap_or_default().to_owned()))
            .collect();
        let find = |codes: &[&str]| answers.iter().find(|(code, _)| codes.contains(code));
        let text = |(code, details): &(&str, String)| format!("{code} {details}").trim_end().to_owned();
        if let Some(answer) = find(&OF_CONNECTION) {
            (Self::Connection, text(answer))
        } else if let Some(answer) = find(&OF_SERVER) {
            (Self::Server, text(answer))
        } else if error.is_io_error() || error.is_unrecoverable_error() {
            (Self::Connection, error.to_string())
        } else {
            (
                Self::Request,
                answers.first().map_or_else(|| error.to_string(), text),
            )
        }
    }
}

//! What an error of Redis means: for the connection it came from, and for the caller.

use redis::RedisError;

/// What has to be done about an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// The connection is of no use; another one may be, to this server or to the one that has replaced it.
    Connection,
    /// The server cannot work now but will when somebody has repaired it. The connection is good.
    Server,
    /// The request itself is refused.
    Request,
}

/// The server's state, which a new connection finds out about: it has become a replica, is reading its data, or
/// wants a password. `UNBLOCKED` is what a blocked request is told when the server becomes a replica.
const OF_CONNECTION: [&str; 7] = [
    "READONLY",
    "UNBLOCKED",
    "LOADING",
    "MASTERDOWN",
    "NOAUTH",
    "WRONGPASS",
    "CLUSTERDOWN",
];
/// A script that does not end, no memory left, a disk that cannot be written, too few replicas, missing rights.
const OF_SERVER: [&str; 6] = ["BUSY", "OOM", "MISCONF", "NOREPLICAS", "NOPERM", "TRYAGAIN"];

impl Fault {
    /// What the server calls the error, as `WRONGTYPE`; nothing when it was not the server that spoke.
    pub(super) fn code(error: &RedisError) -> Option<String> {
        let answers = error.clone().into_server_errors()?;
        let aborted = answers.iter().map(|(_, answer)| answer.code());
        // What a transaction was aborted for says more than that it was.
        let cause = aborted.clone().find(|code| *code != "EXECABORT");
        cause.or_else(|| aborted.clone().next()).map(str::to_owned)
    }

    /// What the error is, and its text for people.
    pub(super) fn of(error: &RedisError) -> (Self, String) {
        // A transaction says only that it was aborted; why is what the command inside it was answered.
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

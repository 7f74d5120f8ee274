//! The server: connections, transactions, subscriptions and scripts. One call handles one request at once; a
//! caller whose request blocks repeats it.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use sha1::{Digest as _, Sha1};

use super::{
    call::{Store, Write},
    data::{Bytes, Data},
    lua::Scripts,
    reply::Reply,
    strings::{float, int, text},
};

/// Replies to a request.
#[derive(Debug)]
pub enum Answer {
    Replies(Vec<Reply>),
    /// The request waits for a list, at most this long; then its reply is nil.
    Blocks(Duration),
}

#[derive(Debug, Default)]
struct Session {
    /// Commands of a transaction, if one has been opened.
    transaction: Option<Vec<Vec<Bytes>>>,
    channels: BTreeSet<Bytes>,
    patterns: BTreeSet<Bytes>,
}

/// A command that the server has run.
#[derive(Debug, Clone)]
pub struct Executed {
    /// Microseconds since the Unix epoch by the server's clock.
    pub time: i64,
    pub arguments: Vec<Vec<u8>>,
    pub reply: Reply,
}

/// A run of the server.
#[derive(Debug)]
pub struct Server {
    store: Store,
    scripts: Scripts,
    sessions: BTreeMap<u64, Session>,
    run_id: String,
    /// Commands since the start, if they are recorded.
    executed: Option<Vec<Executed>>,
}

/// Data at one time, from which a server can start.
#[derive(Debug, Clone, Default)]
pub struct Snapshot(Data);

impl Server {
    /// Starts a run with an identity of its own.
    #[must_use]
    pub fn new(run: u64, snapshot: Snapshot) -> Self {
        Self {
            store: Store {
                data: snapshot.0,
                now: 0,
                published: Vec::new(),
                pushed: false,
                writes: Vec::new(),
            },
            scripts: Scripts::new(),
            sessions: BTreeMap::new(),
            run_id: format!("{run:040x}").chars().rev().collect(),
            executed: None,
        }
    }

    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        Snapshot(self.store.data.clone())
    }

    /// Sets the server's clock, in microseconds since the Unix epoch.
    pub fn set_time(&mut self, now: i64) {
        self.store.now = now;
    }

    /// Records all commands from now on.
    pub fn record(&mut self) {
        self.executed = Some(Vec::new());
    }

    pub fn take_executed(&mut self) -> Vec<Executed> {
        self.executed.take().unwrap_or_default()
    }

    /// Forgets all scripts.
    pub fn flush_scripts(&mut self) {
        self.scripts = Scripts::new();
    }

    pub fn open(&mut self, connection: u64) {
        self.sessions.insert(connection, Session::default());
    }

    pub fn close(&mut self, connection: u64) {
        self.sessions.remove(&connection);
    }

    /// Returns whether a list has grown since the last call.
    pub fn take_pushed(&mut self) -> bool {
        std::mem::take(&mut self.store.pushed)
    }

    pub fn take_writes(&mut self) -> Vec<Write> {
        std::mem::take(&mut self.store.writes)
    }

    /// Returns the messages published since the last call, encoded for each subscriber.
    pub fn take_messages(&mut self) -> Vec<(u64, Reply)> {
        let published = std::mem::take(&mut self.store.published);
        let messages = published.into_iter().flat_map(|(channel, message)| {
            let receivers = self.sessions.iter();
            let mut sent = Vec::new();
            for (connection, session) in receivers {
                let item =
                    |items: &[&[u8]]| Reply::Array(items.iter().map(|item| Reply::bulk(*item)).collect());
                if session.channels.contains(&channel) {
                    sent.push((*connection, item(&[b"message", &channel, &message])));
                }
                for pattern in session
                    .patterns
                    .iter()
                    .filter(|pattern| matches(pattern, &channel))
                {
                    sent.push((*connection, item(&[b"pmessage", pattern, &channel, &message])));
                }
            }
            sent
        });
        messages.collect()
    }

    /// Runs a command outside of any connection.
    pub fn direct(&mut self, arguments: &[&str]) -> Reply {
        let arguments: Vec<Bytes> = arguments.iter().map(|one| one.as_bytes().to_vec()).collect();
        self.command(&arguments)
    }

    /// Handles a request of a connection.
    pub fn request(&mut self, connection: u64, arguments: &[Bytes]) -> Answer {
        let name = text(&arguments[0]).to_ascii_uppercase();
        let session = self.sessions.entry(connection).or_default();
        let one = |reply| Answer::Replies(vec![reply]);
        match name.as_str() {
            "MULTI" => {
                session.transaction = Some(Vec::new());
                one(Reply::ok())
            }
            "EXEC" => {
                let Some(commands) = session.transaction.take() else {
                    return one(Reply::error("ERR EXEC without MULTI"));
                };
                one(Reply::Array(
                    commands.iter().map(|command| self.command(command)).collect(),
                ))
            }
            _ if session.transaction.is_some() => {
                session
                    .transaction
                    .get_or_insert_default()
                    .push(arguments.to_vec());
                one(Reply::Status("QUEUED".to_owned()))
            }
            "SUBSCRIBE" | "UNSUBSCRIBE" | "PSUBSCRIBE" | "PUNSUBSCRIBE" => {
                let kind = name.to_ascii_lowercase();
                let replies = arguments[1..].iter().map(|channel| {
                    let set = if kind.starts_with('p') {
                        &mut session.patterns
                    } else {
                        &mut session.channels
                    };
                    if kind.contains("un") {
                        set.remove(channel);
                    } else {
                        set.insert(channel.clone());
                    }
                    let total = session.channels.len() + session.patterns.len();
                    let (kind, channel) = (Reply::bulk(kind.as_str()), Reply::bulk(channel.clone()));
                    Reply::Array(vec![kind, channel, Reply::Int(total as i64)])
                });
                Answer::Replies(replies.collect())
            }
            "PING" if !session.channels.is_empty() || !session.patterns.is_empty() => {
                one(Reply::Array(vec![Reply::bulk("pong"), Reply::bulk("")]))
            }
            "BLMOVE" => match (self.command(&moved(arguments)), float(&arguments[5])) {
                (Reply::Nil, Ok(seconds)) => Answer::Blocks(Duration::from_secs_f64(seconds)),
                (_, Err(error)) | (error, _) => one(error),
            },
            _ => one(self.command(arguments)),
        }
    }

    /// Runs a command outside of blocking, transactions and subscriptions.
    pub fn command(&mut self, arguments: &[Bytes]) -> Reply {
        let reply = self.run(arguments);
        if let Some(executed) = &mut self.executed {
            let (time, arguments, reply) = (self.store.now, arguments.to_vec(), reply.clone());
            executed.push(Executed {
                time,
                arguments,
                reply,
            });
        }
        reply
    }

    fn run(&mut self, arguments: &[Bytes]) -> Reply {
        let name = text(&arguments[0]).to_ascii_uppercase();
        match (name.as_str(), &arguments[1..]) {
            ("PING", []) => Reply::Status("PONG".to_owned()),
            ("CLIENT" | "SELECT", _) => Reply::ok(),
            ("ROLE", []) => Reply::Array(vec![
                Reply::bulk("master"),
                Reply::Int(0),
                Reply::Array(Vec::new()),
            ]),
            ("INFO", [section]) => Reply::bulk(match text(section).as_str() {
                "server" => format!("# Server\r\nrun_id:{}\r\n", self.run_id),
                "replication" => format!("# Replication\r\nmaster_replid:{}\r\n", self.run_id),
                _ => String::new(),
            }),
            ("SCRIPT", [subcommand, code]) if text(subcommand).eq_ignore_ascii_case("LOAD") => {
                let hash = hash(code);
                match self.scripts.load(&hash, &text(code)) {
                    Ok(()) => Reply::bulk(hash),
                    Err(error) => error,
                }
            }
            ("EVALSHA" | "EVAL", [script, count, rest @ ..]) => {
                let count = match int(count) {
                    Ok(count) => usize::try_from(count).unwrap_or_default().min(rest.len()),
                    Err(error) => return error,
                };
                let sha = if name == "EVAL" {
                    hash(script)
                } else {
                    text(script).to_lowercase()
                };
                if name == "EVAL"
                    && !self.scripts.knows(&sha)
                    && let Err(error) = self.scripts.load(&sha, &text(script))
                {
                    return error;
                }
                let (keys, args) = rest.split_at(count);
                self.scripts.run(&sha, &mut self.store, keys, args)
            }
            ("BLMOVE", _) => self.store.call(&moved(arguments)),
            ("PUBLISH", [channel, _]) => {
                let subscribers = self.sessions.values().map(|session| {
                    let patterns = session
                        .patterns
                        .iter()
                        .filter(|pattern| matches(pattern, channel));
                    patterns.count() + usize::from(session.channels.contains(channel))
                });
                let receivers: usize = subscribers.sum();
                self.store.call(arguments);
                Reply::Int(receivers as i64)
            }
            _ => self.store.call(arguments),
        }
    }
}

/// Returns the command that a `BLMOVE` runs without blocking.
fn moved(arguments: &[Bytes]) -> Vec<Bytes> {
    let mut moved = arguments.to_vec();
    moved[0] = b"LMOVE".to_vec();
    moved.truncate(5);
    moved
}

fn hash(code: &[u8]) -> String {
    Sha1::digest(code)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// Returns whether a channel matches a pattern, in which only `*` is special.
fn matches(pattern: &[u8], channel: &[u8]) -> bool {
    match pattern.split_first() {
        None => channel.is_empty(),
        Some((b'*', rest)) => (0..=channel.len()).any(|skipped| matches(rest, &channel[skipped..])),
        Some((first, rest)) => channel
            .split_first()
            .is_some_and(|(one, after)| one == first && matches(rest, after)),
    }
}

//! The network between the processes and the server, and the machine that the server runs on. Connections keep
//! the order of their bytes; latency differs from connection to connection, so requests of different connections
//! overtake each other.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use celeriac::simulation::{Environment, Socket};
use futures_util::future::BoxFuture;
use jiff::Timestamp;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream, ReadHalf, WriteHalf, duplex, split},
    sync::{Notify, mpsc},
    time::{Instant, sleep, sleep_until},
};
use tokio_util::sync::CancellationToken;

use crate::{
    faults::{Fault, Step, When},
    history::{Event, History},
    redis::{Answer, Executed, Reply, Server, Snapshot, Write, take_request},
    rng::Rng,
};

/// Wall-clock time at the start of a run, in seconds since the Unix epoch.
const START: i64 = 1_767_225_600;
const RESULT_KEY: &str = "celery-task-meta-";
const LEASES_KEY: &str = "celeriac.leases";

/// Network, server and clocks of a run.
#[derive(Debug)]
pub struct Network {
    history: Arc<History>,
    start: Instant,
    state: Mutex<State>,
    /// Notified when a list grows.
    pushes: Notify,
    /// Crashes that a request has triggered.
    crashes: mpsc::UnboundedSender<Fault>,
}

#[derive(Debug)]
struct State {
    /// `None` while the server is down.
    server: Option<Server>,
    runs: u64,
    links: BTreeMap<String, Link>,
    connections: BTreeMap<u64, Connection>,
    next_connection: u64,
    dead: BTreeSet<String>,
    /// Faults at requests.
    triggers: Vec<Step>,
    requests: BTreeMap<String, u64>,
    /// Offsets of the wall clocks in microseconds.
    server_clock: i64,
    clock: i64,
    latencies: Rng,
    ids: Rng,
}

/// Conditions between a process and the server.
#[derive(Debug, Clone, Copy)]
struct Link {
    to_server_from: Instant,
    from_server_from: Instant,
    slow_until: Instant,
    factor: u32,
}

#[derive(Debug)]
struct Connection {
    life: String,
    broken: CancellationToken,
    replies: mpsc::UnboundedSender<(Instant, Vec<u8>)>,
}

/// Returns the process of a life: `w1` of `w1.2`.
fn process_of(life: &str) -> &str {
    life.split('.').next().unwrap_or(life)
}

impl Network {
    #[must_use]
    pub fn new(
        seed: u64,
        history: Arc<History>,
        triggers: Vec<Step>,
    ) -> (Arc<Self>, mpsc::UnboundedReceiver<Fault>) {
        let (crashes, crashed) = mpsc::unbounded_channel();
        let network = Self {
            history,
            start: Instant::now(),
            state: Mutex::new(State {
                server: Some(Server::new(1, Snapshot::default())),
                runs: 1,
                links: BTreeMap::new(),
                connections: BTreeMap::new(),
                next_connection: 0,
                dead: BTreeSet::new(),
                triggers,
                requests: BTreeMap::new(),
                server_clock: 0,
                clock: 0,
                latencies: Rng::new(seed, 2),
                ids: Rng::new(seed, 3),
            }),
            pushes: Notify::new(),
            crashes,
        };
        (Arc::new(network), crashed)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn microseconds(&self, offset: i64) -> i64 {
        START * 1_000_000 + i64::try_from(self.start.elapsed().as_micros()).unwrap_or(i64::MAX) + offset
    }

    // --- faults

    /// Applies a fault other than a crash or a restart, which need time.
    pub fn apply(&self, fault: &Fault) {
        let now = Instant::now();
        let mut state = self.state();
        match fault {
            Fault::Partition {
                process,
                to_server,
                from_server,
                length,
            } => {
                let until = now + Duration::from_millis(*length);
                let link = state.link(process);
                if *to_server {
                    link.to_server_from = until;
                }
                if *from_server {
                    link.from_server_from = until;
                }
            }
            Fault::Slow {
                process,
                factor,
                length,
            } => {
                let link = state.link(process);
                link.slow_until = now + Duration::from_millis(*length);
                link.factor = u32::try_from(*factor).unwrap_or(u32::MAX);
            }
            Fault::Cut { process } => state.cut(process),
            Fault::ServerClock { milliseconds } => state.server_clock += milliseconds * 1000,
            Fault::Clock { milliseconds } => state.clock += milliseconds * 1000,
            Fault::FlushScripts => {
                if let Some(server) = &mut state.server {
                    server.flush_scripts();
                }
            }
            Fault::Crash { .. } | Fault::Restart { .. } => {}
        }
    }

    /// Ends a life: it can connect no more, and what it has sent is lost if `power` fails.
    pub fn kill(&self, life: &str, power: bool) {
        let mut state = self.state();
        state.dead.insert(life.to_owned());
        if power {
            let of_life = |connection: &&Connection| connection.life == life;
            for connection in state.connections.values().filter(of_life) {
                connection.broken.cancel();
            }
        }
    }

    /// Stops the server. Returns its data.
    pub fn stop_server(&self) -> Option<Snapshot> {
        let mut state = self.state();
        for connection in state.connections.values() {
            connection.broken.cancel();
        }
        state.connections.clear();
        state.server.take().map(|server| server.snapshot())
    }

    pub fn start_server(&self, snapshot: Snapshot) {
        let mut state = self.state();
        state.runs += 1;
        state.server = Some(Server::new(state.runs, snapshot));
    }

    /// Returns the data of the server, if it is up.
    #[must_use]
    pub fn snapshot(&self) -> Option<Snapshot> {
        self.state().server.as_ref().map(Server::snapshot)
    }

    /// Records the commands of the server.
    pub fn record(&self) {
        if let Some(server) = &mut self.state().server {
            server.record();
        }
    }

    /// Returns the recorded commands.
    #[must_use]
    pub fn take_executed(&self) -> Vec<Executed> {
        self.state()
            .server
            .as_mut()
            .map(Server::take_executed)
            .unwrap_or_default()
    }

    /// Runs a command on the server, at once and unseen by the history.
    #[must_use]
    pub fn direct(&self, arguments: &[&str]) -> Option<Reply> {
        let now = self.microseconds(self.state().server_clock);
        let mut state = self.state();
        let server = state.server.as_mut()?;
        server.set_time(now);
        Some(server.direct(arguments))
    }

    // --- connections

    async fn open(self: Arc<Self>, life: String) -> io::Result<Box<dyn Socket>> {
        let refused = || io::Error::from(io::ErrorKind::ConnectionRefused);
        self.travel(&life, true).await;
        let (near, far) = duplex(1 << 20);
        let (replies, received) = mpsc::unbounded_channel();
        let broken = CancellationToken::new();
        let id = {
            let mut state = self.state();
            if state.server.is_none() || state.dead.contains(&life) {
                return Err(refused());
            }
            state.next_connection += 1;
            let id = state.next_connection;
            let (life, broken) = (life.clone(), broken.clone());
            state.connections.insert(
                id,
                Connection {
                    life,
                    broken,
                    replies,
                },
            );
            state.server.as_mut().ok_or_else(refused)?.open(id);
            id
        };
        let (reader, writer) = split(far);
        tokio::spawn({
            let (network, broken, life) = (Arc::clone(&self), broken.clone(), life.clone());
            async move {
                broken
                    .run_until_cancelled(network.uplink(id, &life, reader))
                    .await;
                network.close(id);
            }
        });
        tokio::spawn({
            let (network, life) = (Arc::clone(&self), life.clone());
            async move {
                broken
                    .run_until_cancelled(network.downlink(&life, writer, received))
                    .await
            }
        });
        self.travel(&life, false).await;
        Ok(Box::new(near))
    }

    fn close(&self, id: u64) {
        let mut state = self.state();
        state.connections.remove(&id);
        if let Some(server) = &mut state.server {
            server.close(id);
        }
    }

    async fn uplink(&self, id: u64, life: &str, mut reader: ReadHalf<DuplexStream>) {
        let (mut buffer, mut chunk) = (Vec::new(), vec![0; 1 << 16]);
        while let Ok(length) = reader.read(&mut chunk).await
            && length > 0
        {
            self.travel(life, true).await;
            buffer.extend_from_slice(&chunk[..length]);
            while let Some(request) = take_request(&mut buffer) {
                self.handle(id, life, &request).await;
            }
        }
    }

    async fn downlink(
        &self,
        life: &str,
        mut writer: WriteHalf<DuplexStream>,
        mut received: mpsc::UnboundedReceiver<(Instant, Vec<u8>)>,
    ) {
        while let Some((arrival, bytes)) = received.recv().await {
            sleep_until(arrival).await;
            self.pass(life, false).await;
            if writer.write_all(&bytes).await.is_err() {
                return;
            }
        }
    }

    /// Waits as long as bytes need for one direction.
    async fn travel(&self, life: &str, to_server: bool) {
        let latency = self.state().latency(life);
        sleep(latency).await;
        self.pass(life, to_server).await;
    }

    /// Waits until no partition holds bytes back.
    async fn pass(&self, life: &str, to_server: bool) {
        loop {
            let until = {
                let mut state = self.state();
                let link = state.link(process_of(life));
                if to_server {
                    link.to_server_from
                } else {
                    link.from_server_from
                }
            };
            if until <= Instant::now() {
                return;
            }
            sleep_until(until).await;
        }
    }

    // --- requests

    async fn handle(&self, id: u64, life: &str, request: &[Vec<u8>]) {
        let number = {
            let mut state = self.state();
            let number = state.requests.entry(process_of(life).to_owned()).or_default();
            *number += 1;
            *number
        };
        if self.trigger(life, number, false) {
            // Pends until the connection is broken.
            std::future::pending::<()>().await;
        }
        let mut deadline = None;
        let replies = loop {
            let mut pushed = pin!(self.pushes.notified());
            // Registered before the request runs, because a push in between must be noticed.
            pushed.as_mut().enable();
            match self.execute(id, life, request) {
                Answer::Replies(replies) => break replies,
                Answer::Blocks(limit) => {
                    let deadline = *deadline.get_or_insert_with(|| Instant::now() + limit);
                    if tokio::time::timeout_at(deadline, pushed).await.is_err() {
                        break vec![Reply::Nil];
                    }
                }
            }
        };
        if self.trigger(life, number, true) {
            std::future::pending::<()>().await;
        }
        self.state().reply(id, &replies, &self.history);
    }

    fn execute(&self, id: u64, life: &str, request: &[Vec<u8>]) -> Answer {
        let mut guard = self.state();
        let now = self.microseconds(guard.server_clock);
        let state = &mut *guard;
        // A server that has stopped meanwhile has broken the connection.
        let Some(server) = &mut state.server else {
            return Answer::Replies(Vec::new());
        };
        server.set_time(now);
        let answer = server.request(id, request);
        self.history.mix(life.as_bytes());
        request.iter().for_each(|argument| self.history.mix(argument));
        for write in server.take_writes() {
            self.note(life, write);
        }
        let (pushed, messages) = (server.take_pushed(), server.take_messages());
        for (receiver, message) in messages {
            state.reply(receiver, &[message], &self.history);
        }
        drop(guard);
        if pushed {
            self.pushes.notify_waiters();
        }
        answer
    }

    fn note(&self, life: &str, write: Write) {
        match write {
            Write::Text { key, value } => {
                if let Some(id) = key.strip_prefix(RESULT_KEY) {
                    let result: serde_json::Value = serde_json::from_slice(&value).unwrap_or_default();
                    let status = result["status"].as_str().unwrap_or("unreadable").to_owned();
                    self.history.add(Event::Stored {
                        id: id.to_owned(),
                        status,
                    });
                }
            }
            Write::Scores { key, .. } => {
                if key == LEASES_KEY {
                    self.history.add(Event::Renewed {
                        life: life.to_owned(),
                    });
                }
            }
        }
    }

    /// Applies the fault at a request, if there is one. Returns whether the request ends here.
    fn trigger(&self, life: &str, number: u64, executed: bool) -> bool {
        let process = process_of(life).to_owned();
        let mut state = self.state();
        let at = When::Request {
            process: process.clone(),
            number,
            executed,
        };
        let Some(position) = state.triggers.iter().position(|step| step.when == at) else {
            return false;
        };
        let step = state.triggers.remove(position);
        self.history.add(Event::Fault(step.to_string()));
        state.cut(&process);
        if matches!(step.fault, Fault::Crash { .. }) {
            state.dead.insert(life.to_owned());
            // The receiver lives as long as the run.
            let _ = self.crashes.send(step.fault);
        }
        true
    }
}

impl State {
    fn link(&mut self, process: &str) -> &mut Link {
        let now = Instant::now();
        self.links.entry(process.to_owned()).or_insert(Link {
            to_server_from: now,
            from_server_from: now,
            slow_until: now,
            factor: 1,
        })
    }

    fn latency(&mut self, life: &str) -> Duration {
        let latency = self.latencies.millis(0, 2);
        let link = *self.link(process_of(life));
        if Instant::now() < link.slow_until {
            latency * link.factor
        } else {
            latency
        }
    }

    fn cut(&mut self, process: &str) {
        for connection in self.connections.values() {
            if process_of(&connection.life) == process {
                connection.broken.cancel();
            }
        }
    }

    fn reply(&mut self, id: u64, replies: &[Reply], history: &History) {
        let mut bytes = Vec::new();
        replies.iter().for_each(|reply| reply.encode(&mut bytes));
        history.mix(&bytes);
        let Some(life) = self
            .connections
            .get(&id)
            .map(|connection| connection.life.clone())
        else {
            return;
        };
        let arrival = Instant::now() + self.latency(&life);
        if let Some(connection) = self.connections.get(&id) {
            // A closed connection receives nothing.
            let _ = connection.replies.send((arrival, bytes));
        }
    }
}

/// Environment of celeriac in a run.
#[derive(Debug)]
pub struct Surroundings(pub Arc<Network>);

impl Environment for Surroundings {
    fn now(&self) -> Timestamp {
        let now = self.0.microseconds(self.0.state().clock);
        Timestamp::from_microsecond(now).expect("simulated times are in range")
    }

    fn random(&self) -> u128 {
        let mut state = self.0.state();
        u128::from(state.ids.bits()) << 64 | u128::from(state.ids.bits())
    }

    fn connect(&self, host: &str) -> BoxFuture<'static, io::Result<Box<dyn Socket>>> {
        Box::pin(Arc::clone(&self.0).open(host.to_owned()))
    }
}

//! Connections that break, or stay open without a response.

use std::{
    collections::BTreeSet,
    pin::pin,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use celeriac::{Broker, Client, RedisBroker, RedisConfig, ResultBackend, Signature, Status, TaskId};
use futures_util::poll;
use redis::cmd;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use crate::{
    logs::Logs,
    server::Server,
    start,
    support::{Journal, PATIENCE, Running, eventually, final_result, worker},
};

const RESPONSE_TIMEOUT: Duration = Duration::from_millis(500);

fn signal(name: &str, pid: u32) {
    let sent = Command::new("kill").arg(name).arg(pid.to_string()).status();
    assert!(sent.unwrap().success());
}

#[tokio::test]
async fn a_server_that_stops_responding_is_an_outage() {
    let (logs, _guard) = Logs::capture();
    let server = Server::start();
    let info: String = cmd("INFO").arg("server").query(&mut server.connection()).unwrap();
    let pid = info
        .lines()
        .find_map(|line| line.strip_prefix("process_id:"))
        .unwrap()
        .trim()
        .parse()
        .unwrap();
    let config = server.config().response_timeout(RESPONSE_TIMEOUT);
    let broker = Arc::new(RedisBroker::new(config).unwrap());
    let client = Client::new(broker.clone());
    let (journal, gate) = (Journal::default(), CancellationToken::new());
    let running = Running::start(worker(broker, &journal, &gate).build(), PATIENCE);
    let id = client.send(Signature::new("gated").arg("x")).await.unwrap();
    journal.until(1).await;
    signal("-STOP", pid);
    gate.cancel();
    let begin = Instant::now();
    eventually("the outage is logged", async || logs.problems().pop()).await;
    assert!(begin.elapsed() < RESPONSE_TIMEOUT * 4, "{:?}", begin.elapsed());
    // Time for further attempts, which must not log the outage again.
    tokio::time::sleep(Duration::from_secs(1)).await;
    signal("-CONT", pid);
    assert_eq!(final_result(&client, &id).await.status, Status::Success);
    running.stop().await.unwrap();
    assert_eq!(
        logs.outline(),
        ["WARN Redis is unavailable", "INFO Redis is back"],
        "{:#?}",
        logs.lines()
    );
    assert_eq!(journal.lines(), ["x"]);
}

/// A future that is kept but no longer polled, as in a `select!` whose other branch is running, must not keep the
/// connection from others.
#[tokio::test]
async fn a_request_that_is_no_longer_polled_does_not_delay_others() {
    let server = Server::start();
    let broker = RedisBroker::new(server.config()).unwrap();
    let (first, second) = (TaskId::from("first"), TaskId::from("second"));
    let mut connecting = pin!(broker.result(&first));
    assert!(poll!(&mut connecting).is_pending());
    assert_eq!(timeout(PATIENCE, broker.result(&second)).await.unwrap(), Ok(None));
    assert_eq!(connecting.await, Ok(None));
    // An attempt that was dropped leaves nothing behind.
    let broker = RedisBroker::new(server.config()).unwrap();
    assert!(poll!(&mut pin!(broker.result(&first))).is_pending());
    assert_eq!(timeout(PATIENCE, broker.result(&second)).await.unwrap(), Ok(None));
}

/// Forwards bytes between clients and a server. On `swallow`, its existing connections stay open but forward
/// nothing more.
struct Proxy {
    port: u16,
    swallow: tokio::sync::watch::Sender<u32>,
    connections: Arc<AtomicUsize>,
}

impl Proxy {
    async fn start(server: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (swallow, swallowing) = tokio::sync::watch::channel(0);
        let connections = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&connections);
        tokio::spawn(async move {
            loop {
                let (client, _) = listener.accept().await.unwrap();
                count.fetch_add(1, Ordering::Relaxed);
                let mut swallowing = swallowing.clone();
                swallowing.mark_unchanged();
                tokio::spawn(async move {
                    let server = TcpStream::connect(("127.0.0.1", server)).await.unwrap();
                    let (mut from_client, mut to_client) = client.into_split();
                    let (mut from_server, mut to_server) = server.into_split();
                    tokio::select! {
                        () = pass(&mut from_client, &mut to_server) => {}
                        () = pass(&mut from_server, &mut to_client) => {}
                        _ = swallowing.changed() => {
                            // Both sides stay open, and nothing arrives at the other.
                            let _ = tokio::io::copy(&mut from_client, &mut tokio::io::sink()).await;
                        }
                    }
                });
            }
        });
        Self {
            port,
            swallow,
            connections,
        }
    }
}

async fn pass(from: &mut (impl AsyncReadExt + Unpin), to: &mut (impl AsyncWriteExt + Unpin)) {
    let _ = tokio::io::copy(from, to).await;
}

#[tokio::test]
async fn a_connection_that_forwards_nothing_is_replaced() {
    let (logs, _guard) = Logs::capture();
    let server = Server::start();
    let proxy = Proxy::start(server.port).await;
    let config =
        RedisConfig::new(format!("redis://127.0.0.1:{}/0", proxy.port)).response_timeout(RESPONSE_TIMEOUT);
    let broker = Arc::new(RedisBroker::new(config).unwrap());
    let client = Client::new(broker.clone());
    let (journal, gate) = (Journal::default(), CancellationToken::new());
    let running = Running::start(worker(broker, &journal, &gate).build(), PATIENCE);
    let first = client.send(Signature::new("gated").arg("x")).await.unwrap();
    journal.until(1).await;
    let before = proxy.connections.load(Ordering::Relaxed);
    proxy.swallow.send_modify(|times| *times += 1);
    gate.cancel();
    // Sent without the proxy: the worker must notice the loss itself.
    let other = Client::new(Arc::new(server.broker()));
    let begin = Instant::now();
    let second = other.send(Signature::new("note").arg("y")).await.unwrap();
    for id in [&first, &second] {
        assert_eq!(final_result(&other, id).await.status, Status::Success);
    }
    assert!(begin.elapsed() < RESPONSE_TIMEOUT * 6, "{:?}", begin.elapsed());
    assert!(
        proxy.connections.load(Ordering::Relaxed) >= before + 2,
        "both connections are replaced"
    );
    running.stop().await.unwrap();
    assert_eq!(
        logs.outline(),
        ["WARN Redis is unavailable", "INFO Redis is back"],
        "{:#?}",
        logs.lines()
    );
    assert_eq!(journal.lines(), ["x", "y"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn repeatedly_closed_connections_lose_and_duplicate_nothing() {
    const TASKS: usize = 400;
    let server = Server::start();
    let client = Client::new(Arc::new(server.broker()));
    let tasks = (0..TASKS).map(|number| Signature::new("note").arg(format!("{number}")));
    for sent in client.send_batch(tasks.collect()).await {
        sent.unwrap();
    }
    let (journal, gate) = (Journal::default(), CancellationToken::new());
    let (_, running) = start(&server, &journal, &gate);
    let mut admin = server.connection();
    let mut closed = 0;
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_secs(5) {
        let count: usize = cmd("CLIENT")
            .arg("KILL")
            .arg("TYPE")
            .arg("normal")
            .query(&mut admin)
            .unwrap();
        closed += count;
        // Leaves time to reconnect between two closures.
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(closed >= 8, "{closed} connections were closed");
    let broker = server.broker();
    eventually("no message is left", async || {
        let depth = broker.depth("celery").await.unwrap();
        (depth.waiting == 0 && depth.unacked == 0).then_some(())
    })
    .await;
    running.stop().await.unwrap();
    let lines = journal.lines();
    assert_eq!(lines.len(), TASKS, "no task ran twice");
    let different: BTreeSet<&String> = lines.iter().collect();
    let expected: Vec<String> = (0..TASKS).map(|number| number.to_string()).collect();
    assert_eq!(different, expected.iter().collect(), "every task ran");
}

//! Failovers by real sentinels, which monitor a primary and its replica: the client, the worker and remote
//! control follow the primary.

use std::{
    fs,
    net::TcpListener,
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use celeriac::{Broker, Client, Control, RedisBroker, RedisConfig, Signature, Status};
use redis::cmd;
use tokio_util::sync::CancellationToken;

use crate::{
    logs::Logs,
    server::{Server, binary},
    support::{Journal, PATIENCE, Running, eventually, final_result, worker},
};

struct Sentinel {
    child: Child,
    port: u16,
    folder: PathBuf,
}

impl Sentinel {
    /// Starts a sentinel that monitors the server at the port `primary` under the name `news`. Two sentinels
    /// must agree that the server is down.
    fn start(primary: u16) -> Self {
        let port = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let folder = std::env::temp_dir().join(format!("celeriac-sentinel-{}-{port}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let settings = format!(
            "port {port}\nbind 127.0.0.1\nsentinel monitor news 127.0.0.1 {primary} 2\n\
             sentinel down-after-milliseconds news 500\nsentinel failover-timeout news 3000\n"
        );
        let file = folder.join("sentinel.conf");
        fs::write(&file, settings).unwrap();
        let child = Command::new(binary())
            .arg(&file)
            .arg("--sentinel")
            .current_dir(&folder)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self { child, port, folder }
    }

    fn query<T: redis::FromRedisValue>(&self, words: &[&str]) -> Option<T> {
        let client = redis::Client::open(format!("redis://127.0.0.1:{}", self.port)).unwrap();
        let mut connection = client.get_connection().ok()?;
        cmd("SENTINEL").arg(words).query(&mut connection).ok()
    }

    fn primary(&self) -> Option<u16> {
        let address: (String, u16) = self.query(&["GET-MASTER-ADDR-BY-NAME", "news"])?;
        Some(address.1)
    }
}

impl Drop for Sentinel {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// A primary, its replica, and three sentinels.
struct Watched {
    sentinels: Vec<Sentinel>,
    servers: [Server; 2],
}

impl Watched {
    async fn start() -> Self {
        let servers = [Server::start(), Server::start()];
        cmd("REPLICAOF")
            .arg("127.0.0.1")
            .arg(servers[0].port)
            .exec(&mut servers[1].connection())
            .unwrap();
        let sentinels: Vec<Sentinel> = (0..3).map(|_| Sentinel::start(servers[0].port)).collect();
        eventually("the sentinels know each other and the replica", async || {
            sentinels
                .iter()
                .all(|sentinel| {
                    let replicas: Option<Vec<redis::Value>> = sentinel.query(&["REPLICAS", "news"]);
                    let others: Option<Vec<redis::Value>> = sentinel.query(&["SENTINELS", "news"]);
                    replicas.is_some_and(|replicas| replicas.len() == 1)
                        && others.is_some_and(|others| others.len() == 2)
                })
                .then_some(())
        })
        .await;
        let watched = Self { sentinels, servers };
        eventually("the replica is synchronised", async || {
            let info: String = cmd("INFO")
                .arg("replication")
                .query(&mut watched.servers[1].connection())
                .unwrap();
            info.contains("master_link_status:up").then_some(())
        })
        .await;
        watched
    }

    fn broker(&self) -> Arc<RedisBroker> {
        let hosts: Vec<String> = self
            .sentinels
            .iter()
            .map(|sentinel| format!("127.0.0.1:{}", sentinel.port))
            .collect();
        let url = format!("sentinel://{}/0?master=news", hosts.join(","));
        Arc::new(RedisBroker::new(RedisConfig::new(url)).unwrap())
    }
}

fn reserved(server: &Server) -> usize {
    cmd("HLEN")
        .arg("unacked")
        .query(&mut server.connection())
        .unwrap()
}

#[tokio::test]
async fn client_worker_and_control_follow_a_failover() {
    let (logs, _guard) = Logs::capture();
    let mut watched = Watched::start().await;
    let broker = watched.broker();
    let control = Control::new(broker.clone());
    let client = Client::new(broker.clone());
    let (journal, gate) = (Journal::default(), CancellationToken::new());
    let running = Running::start(worker(broker, &journal, &gate).build(), PATIENCE);
    let held = client.send(Signature::new("gated").arg("x")).await.unwrap();
    journal.until(1).await;
    eventually("the replica knows of the reservation", async || {
        (reserved(&watched.servers[1]) == 1).then_some(())
    })
    .await;
    watched.servers[0].crash();
    gate.cancel();
    let next = eventually("sending works again", async || {
        client.send(Signature::new("add").arg(1).arg(1)).await.ok()
    })
    .await;
    for id in [&held, &next] {
        assert_eq!(final_result(&client, id).await.status, Status::Success);
    }
    eventually("the worker replies on the new primary", async || {
        (control.ping().await.ok()? == ["celery@test"]).then_some(())
    })
    .await;
    assert_eq!(watched.sentinels[0].primary(), Some(watched.servers[1].port));
    assert_eq!(
        logs.outline(),
        ["WARN Redis is unavailable", "INFO Redis is back"],
        "{:#?}",
        logs.lines()
    );
    // The old primary returns, and remains unused.
    watched.servers[0].start_again();
    let again = client.send(Signature::new("add").arg(2).arg(2)).await.unwrap();
    assert_eq!(final_result(&client, &again).await.status, Status::Success);
    running.stop().await.unwrap();
    assert_eq!(journal.lines(), ["x"], "the task ran only once");
    assert_eq!(reserved(&watched.servers[1]), 0);
}

#[tokio::test]
async fn connections_leave_a_demoted_primary() {
    let (logs, _guard) = Logs::capture();
    let watched = Watched::start().await;
    let broker = watched.broker();
    let client = Client::new(broker.clone());
    let (journal, gate) = (Journal::default(), CancellationToken::new());
    let running = Running::start(worker(broker.clone(), &journal, &gate).build(), PATIENCE);
    let held = client.send(Signature::new("gated").arg("x")).await.unwrap();
    journal.until(1).await;
    eventually("the replica knows of the reservation", async || {
        (reserved(&watched.servers[1]) == 1).then_some(())
    })
    .await;
    let response: Option<String> = watched.sentinels[0].query(&["FAILOVER", "news"]);
    assert_eq!(response.as_deref(), Some("OK"));
    eventually("the other server is the primary", async || {
        let to = Some(watched.servers[1].port);
        let all = watched.sentinels.iter().all(|sentinel| sentinel.primary() == to);
        // The sentinels close all connections to a server that they demote.
        let client = redis::Client::open(watched.servers[0].url()).unwrap();
        let mut connection = client.get_connection().ok()?;
        let info: String = cmd("INFO").arg("replication").query(&mut connection).ok()?;
        (all && info.contains("role:slave")).then_some(())
    })
    .await;
    gate.cancel();
    let next = eventually("sending works again", async || {
        client.send(Signature::new("add").arg(1).arg(1)).await.ok()
    })
    .await;
    for id in [&held, &next] {
        assert_eq!(final_result(&client, id).await.status, Status::Success);
    }
    running.stop().await.unwrap();
    assert_eq!(journal.lines(), ["x"]);
    assert_eq!(reserved(&watched.servers[1]), 0);
    let outline = logs.outline();
    assert_eq!(outline.len() % 2, 0, "{:#?}", logs.lines());
    assert!(!outline.is_empty());
    for pair in outline.chunks(2) {
        assert_eq!(pair, ["WARN Redis is unavailable", "INFO Redis is back"]);
    }
}

#[tokio::test]
async fn an_error_names_sentinels_that_fail_or_do_not_know_the_primary() {
    let server = Server::start();
    let sentinel = Sentinel::start(server.port);
    eventually("the sentinel responds", async || sentinel.primary()).await;
    let unused = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let broker = |url: String| RedisBroker::new(RedisConfig::new(url)).unwrap();
    let unknown = broker(format!(
        "sentinel://:s3cret@127.0.0.1:{unused},127.0.0.1:{}/0?master=other",
        sentinel.port
    ));
    let error = unknown.ping().await.unwrap_err().to_string();
    assert!(error.contains("no sentinel names the primary"), "{error}");
    assert!(
        error.contains("does not know the master name") && !error.contains("s3cret"),
        "{error}"
    );
    let begin = Instant::now();
    let working = broker(format!(
        "sentinel://127.0.0.1:{unused},127.0.0.1:{}/0?master=news",
        sentinel.port
    ));
    working.ping().await.unwrap();
    // In the form of Celery's broker URL.
    let celery_form = broker(format!(
        "sentinel://127.0.0.1:{unused}/0;sentinel://127.0.0.1:{}/0?master_name=news",
        sentinel.port
    ));
    celery_form.ping().await.unwrap();
    assert!(
        begin.elapsed() < Duration::from_secs(5),
        "one working sentinel suffices"
    );
}

//! A server that is reachable but rejects requests. The worker waits until the server has recovered, and loses
//! nothing in the meantime.

use std::{fs, path::PathBuf, sync::Arc, time::Duration};

use celeriac::{Broker, BrokerError, Client, RedisBroker, RedisConfig, Signature, Status};
use redis::{Connection, cmd};
use tokio_util::sync::CancellationToken;

use crate::{
    logs::Logs,
    server::Server,
    start,
    support::{Journal, PATIENCE, Running, eventually, final_result, worker},
};

/// Duration of the outage: longer than the first back-off of every loop, so that every loop fails.
const OUTAGE: Duration = Duration::from_secs(1);

fn set(connection: &mut Connection, name: &str, value: &str) {
    cmd("CONFIG")
        .arg("SET")
        .arg(name)
        .arg(value)
        .exec(connection)
        .unwrap();
}

/// Breaks the server while tasks finish and another is sent, and repairs it after everything has failed for a
/// while. Returns the log lines.
async fn survive(
    server: &Server,
    break_server: impl FnOnce(&mut Connection),
    repair: impl FnOnce(&mut Connection),
) -> Vec<String> {
    let (logs, _guard) = Logs::capture();
    let mut connection = server.connection();
    let (journal, gate) = (Journal::default(), CancellationToken::new());
    let (client, running) = start(server, &journal, &gate);
    let mut ids = Vec::new();
    for number in 0..4 {
        let task = Signature::new("gated").arg(format!("{number}"));
        ids.push(client.send(task).await.unwrap());
    }
    journal.until(4).await;
    break_server(&mut connection);
    gate.cancel();
    eventually("the failure is logged", async || logs.problems().pop()).await;
    let unsent = client.send(Signature::new("add").arg(1).arg(1)).await;
    assert!(
        matches!(&unsent, Err(error) if matches!(error.source, BrokerError::Unavailable { .. } | BrokerError::Denied { .. })),
        "{unsent:?}"
    );
    tokio::time::sleep(OUTAGE).await;
    repair(&mut connection);
    for id in &ids {
        assert_eq!(final_result(&client, id).await.status, Status::Success);
    }
    let next = eventually("sending works again", async || {
        client.send(Signature::new("flaky").arg(1)).await.ok()
    })
    .await;
    assert_eq!(final_result(&client, &next).await.status, Status::Success);
    running.begin_stop();
    running.stop().await.unwrap();
    assert_eq!(journal.lines().len(), 4, "no task ran twice");
    let outline = logs.outline();
    assert_eq!(outline.len(), 3, "{:#?}", logs.lines());
    assert_eq!(
        outline[2], "WARN task will be retried",
        "the retry of the flaky task"
    );
    logs.problems()
}

fn assert_refused(lines: &[String], code: &str) {
    assert!(lines[0].starts_with("WARN Redis rejects commands;"), "{lines:?}");
    assert!(
        lines[0].contains(&format!("exception.message=\"{code}")),
        "{lines:?}"
    );
    assert!(
        lines[1].starts_with("INFO Redis accepts commands again"),
        "{lines:?}"
    );
}

fn assert_unavailable(lines: &[String], causes: &[&str]) {
    assert!(lines[0].starts_with("WARN Redis is unavailable;"), "{lines:?}");
    assert!(causes.iter().any(|cause| lines[0].contains(cause)), "{lines:?}");
    assert!(lines[1].starts_with("INFO Redis is back"), "{lines:?}");
}

#[tokio::test]
async fn the_worker_waits_while_the_primary_is_a_replica() {
    let server = Server::start();
    let lines = survive(
        &server,
        |connection| cmd("REPLICAOF").arg("127.0.0.1").arg(1).exec(connection).unwrap(),
        |connection| cmd("REPLICAOF").arg("NO").arg("ONE").exec(connection).unwrap(),
    )
    .await;
    assert_unavailable(&lines, &["READONLY", "UNBLOCKED"]);
}

#[tokio::test]
async fn the_worker_waits_while_a_replica_has_no_primary() {
    let server = Server::start();
    let break_server = |connection: &mut Connection| {
        set(connection, "replica-serve-stale-data", "no");
        cmd("REPLICAOF").arg("127.0.0.1").arg(1).exec(connection).unwrap();
    };
    let repair =
        |connection: &mut Connection| cmd("REPLICAOF").arg("NO").arg("ONE").exec(connection).unwrap();
    // Writes fail with the first error, reads and new connections with the second.
    assert_unavailable(
        &survive(&server, break_server, repair).await,
        &["READONLY", "MASTERDOWN", "UNBLOCKED"],
    );
}

#[tokio::test]
async fn the_worker_waits_while_the_server_is_out_of_memory() {
    let server = Server::start();
    let lines = survive(
        &server,
        |connection| set(connection, "maxmemory", "1"),
        |connection| set(connection, "maxmemory", "0"),
    )
    .await;
    assert_refused(&lines, "OOM");
}

#[tokio::test]
async fn the_worker_waits_while_there_are_too_few_replicas() {
    let server = Server::start();
    let lines = survive(
        &server,
        |connection| set(connection, "min-replicas-to-write", "1"),
        |connection| set(connection, "min-replicas-to-write", "0"),
    )
    .await;
    assert_refused(&lines, "NOREPLICAS");
}

#[tokio::test]
async fn the_worker_waits_while_the_server_cannot_write_to_its_disk() {
    let server = Server::start();
    let (_, folder): (String, PathBuf) = cmd("CONFIG")
        .arg("GET")
        .arg("dir")
        .query::<(String, String)>(&mut server.connection())
        .map(|(name, folder)| (name, folder.into()))
        .unwrap();
    let obstacle = folder.join("dump.rdb");
    let break_server = |connection: &mut Connection| {
        fs::create_dir(&obstacle).unwrap();
        set(connection, "save", "3600 1");
        cmd("BGSAVE").exec(connection).unwrap();
        while !cmd("INFO")
            .arg("persistence")
            .query::<String>(connection)
            .unwrap()
            .contains("rdb_last_bgsave_status:err")
        {
            std::thread::sleep(Duration::from_millis(10));
        }
    };
    let repair = |connection: &mut Connection| {
        fs::remove_dir(&obstacle).unwrap();
        cmd("BGSAVE").exec(connection).unwrap();
    };
    assert_refused(&survive(&server, break_server, repair).await, "MISCONF");
}

#[tokio::test]
async fn the_worker_waits_while_the_server_runs_an_endless_script() {
    let server = Server::start();
    let break_server = |connection: &mut Connection| {
        set(connection, "lua-time-limit", "50");
        let mut runs = server.connection();
        // Fails when the script is killed.
        std::thread::spawn(move || cmd("EVAL").arg("while true do end").arg(0).exec(&mut runs));
        while cmd("PING").exec(connection).is_ok() {
            std::thread::sleep(Duration::from_millis(10));
        }
    };
    let repair = |connection: &mut Connection| cmd("SCRIPT").arg("KILL").exec(connection).unwrap();
    assert_refused(&survive(&server, break_server, repair).await, "BUSY");
}

#[tokio::test]
async fn the_worker_waits_while_its_password_is_wrong_and_never_logs_it() {
    let server = Server::start_with(Some("s3cret"));
    let change = |password: &'static str| {
        move |connection: &mut Connection| {
            set(connection, "requirepass", password);
            cmd("CLIENT")
                .arg("KILL")
                .arg("TYPE")
                .arg("normal")
                .exec(connection)
                .unwrap();
        }
    };
    let lines = survive(&server, change("chang3d"), change("s3cret")).await;
    // The cause in the first line may be the broken connection instead of the password.
    assert!(lines[0].starts_with("WARN Redis is unavailable;"), "{lines:?}");
    assert!(lines[1].starts_with("INFO Redis is back"), "{lines:?}");
    let broker = RedisBroker::new(RedisConfig::new(server.url().replace("s3cret", "wr0ng"))).unwrap();
    let anonymous = RedisBroker::new(RedisConfig::new(server.url().replace(":s3cret@", ""))).unwrap();
    let wrong = broker.ping().await.unwrap_err().to_string();
    let none = anonymous.ping().await.unwrap_err().to_string();
    assert!(wrong.contains("Password authentication failed"), "{wrong}");
    assert!(none.contains("NOAUTH"), "{none}");
    for text in [wrong, none].iter().chain(&lines) {
        let secret = ["s3cret", "chang3d", "wr0ng"]
            .iter()
            .find(|secret| text.contains(**secret));
        assert_eq!(secret, None, "{text}");
    }
}

#[tokio::test]
async fn a_server_that_is_loading_its_data_is_unavailable() {
    let (logs, _guard) = Logs::capture();
    let mut server = Server::start();
    let broker = Arc::new(server.broker());
    let client = Client::new(broker.clone());
    let (journal, gate) = (Journal::default(), CancellationToken::new());
    let running = Running::start(worker(broker, &journal, &gate).build(), PATIENCE);
    let id = client.send(Signature::new("gated").arg("x")).await.unwrap();
    journal.until(1).await;
    // While loading its file, the server handles requests every 1024 commands.
    let mut connection = server.connection();
    for number in 0..5000 {
        cmd("SET")
            .arg("filling")
            .arg(number)
            .exec(&mut connection)
            .unwrap();
    }
    server.crash();
    gate.cancel();
    server.arguments = &["--key-load-delay", "300"];
    let port = server.port;
    let starting = tokio::task::spawn_blocking(move || {
        server.start_again();
        server
    });
    let bare = redis::Client::open(format!("redis://127.0.0.1:{port}/0")).unwrap();
    eventually("the server responds that it is loading", async || {
        let error = cmd("PING").exec(&mut bare.get_connection().ok()?).err()?;
        (error.code() == Some("LOADING")).then_some(())
    })
    .await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(
        logs.outline(),
        ["WARN Redis is unavailable"],
        "{:#?}",
        logs.lines()
    );
    let server = starting.await.unwrap();
    assert_eq!(final_result(&client, &id).await.status, Status::Success);
    running.stop().await.unwrap();
    assert_eq!(
        logs.outline(),
        ["WARN Redis is unavailable", "INFO Redis is back"],
        "{:#?}",
        logs.lines()
    );
    assert_eq!(journal.lines(), ["x"]);
    drop(server);
}

/// Finishing a task frees memory before it needs any, so a worker can drain a server without free memory.
#[tokio::test]
async fn a_full_server_drains() {
    let server = Server::start();
    let mut connection = server.connection();
    let broker = Arc::new(server.broker());
    let client = Client::new(broker.clone());
    let info: String = cmd("INFO").arg("memory").query(&mut connection).unwrap();
    let used = info
        .lines()
        .find_map(|line| line.strip_prefix("used_memory:"))
        .unwrap();
    let limit = used.trim().parse::<u64>().unwrap() + (4 << 20);
    set(&mut connection, "maxmemory", &limit.to_string());
    let mut ids = Vec::new();
    loop {
        let padding = "z".repeat(2000);
        let tasks = (0..50).map(|_| Signature::new("pass").arg(1).header("padding", padding.clone()));
        let sent = client.send_batch(tasks.collect()).await;
        let sent: Vec<_> = sent.into_iter().filter_map(Result::ok).collect();
        if sent.is_empty() {
            break;
        }
        ids.extend(sent);
    }
    assert!(ids.len() > 500, "{}", ids.len());
    let (journal, gate) = (Journal::default(), CancellationToken::new());
    let running = Running::start(worker(broker.clone(), &journal, &gate).build(), PATIENCE);
    for id in &ids {
        assert_eq!(final_result(&client, id).await.status, Status::Success);
    }
    eventually("nothing is left", async || {
        let depth = broker.depth("celery").await.unwrap();
        (depth.waiting == 0 && depth.unacked == 0).then_some(())
    })
    .await;
    running.stop().await.unwrap();
}

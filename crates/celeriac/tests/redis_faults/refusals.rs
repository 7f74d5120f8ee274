//! A server that is there but does not do its work: every such answer means waiting until somebody has repaired it,
//! and nothing is lost meanwhile.

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

/// Longer than every loop's first pauses: all of them have tried in vain.
const A_WHILE: Duration = Duration::from_secs(1);

fn set(connection: &mut Connection, name: &str, value: &str) {
    cmd("CONFIG")
        .arg("SET")
        .arg(name)
        .arg(value)
        .exec(connection)
        .unwrap();
}

/// Breaks the server while tasks run that end, are tried again and are sent meanwhile; repairs it when everything
/// has failed for a while. Answers what was said.
async fn survived(
    server: &Server,
    harm: impl FnOnce(&mut Connection),
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
    harm(&mut connection);
    gate.cancel();
    eventually("the trouble is said", async || logs.troubles().pop()).await;
    let unsent = client.send(Signature::new("add").arg(1).arg(1)).await;
    assert!(
        matches!(&unsent, Err(error) if matches!(error.source, BrokerError::Unavailable { .. })),
        "{unsent:?}"
    );
    tokio::time::sleep(A_WHILE).await;
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
    assert_eq!(journal.lines().len(), 4, "nothing ran twice");
    let outline = logs.outline();
    assert_eq!(outline.len(), 3, "{:#?}", logs.lines());
    assert_eq!(outline[2], "WARN task will be tried again", "the flaky one");
    logs.troubles()
}

fn assert_refused(said: &[String], code: &str) {
    assert!(said[0].starts_with("WARN Redis refuses to work;"), "{said:?}");
    assert!(said[0].contains(&format!("cause=\"{code}")), "{said:?}");
    assert!(said[1].starts_with("INFO Redis works again"), "{said:?}");
}

fn assert_away(said: &[String], causes: &[&str]) {
    assert!(said[0].starts_with("WARN Redis is unavailable;"), "{said:?}");
    assert!(causes.iter().any(|cause| said[0].contains(cause)), "{said:?}");
    assert!(said[1].starts_with("INFO Redis is back"), "{said:?}");
}

#[tokio::test]
async fn a_primary_that_was_made_a_replica_is_waited_for() {
    let server = Server::start();
    let said = survived(
        &server,
        |connection| cmd("REPLICAOF").arg("127.0.0.1").arg(1).exec(connection).unwrap(),
        |connection| cmd("REPLICAOF").arg("NO").arg("ONE").exec(connection).unwrap(),
    )
    .await;
    assert_away(&said, &["READONLY", "UNBLOCKED"]);
}

#[tokio::test]
async fn a_replica_without_its_primary_is_waited_for() {
    let server = Server::start();
    let harm = |connection: &mut Connection| {
        set(connection, "replica-serve-stale-data", "no");
        cmd("REPLICAOF").arg("127.0.0.1").arg(1).exec(connection).unwrap();
    };
    let repair =
        |connection: &mut Connection| cmd("REPLICAOF").arg("NO").arg("ONE").exec(connection).unwrap();
    // A write is refused for the one reason, a read and a new connection for the other.
    assert_away(
        &survived(&server, harm, repair).await,
        &["READONLY", "MASTERDOWN", "UNBLOCKED"],
    );
}

#[tokio::test]
async fn a_full_server_is_waited_for() {
    let server = Server::start();
    let said = survived(
        &server,
        |connection| set(connection, "maxmemory", "1"),
        |connection| set(connection, "maxmemory", "0"),
    )
    .await;
    assert_refused(&said, "OOM");
}

#[tokio::test]
async fn a_server_with_too_few_replicas_is_waited_for() {
    let server = Server::start();
    let said = survived(
        &server,
        |connection| set(connection, "min-replicas-to-write", "1"),
        |connection| set(connection, "min-replicas-to-write", "0"),
    )
    .await;
    assert_refused(&said, "NOREPLICAS");
}

#[tokio::test]
async fn a_server_whose_disk_cannot_be_written_is_waited_for() {
    let server = Server::start();
    let (_, folder): (String, PathBuf) = cmd("CONFIG")
        .arg("GET")
        .arg("dir")
        .query::<(String, String)>(&mut server.connection())
        .map(|(name, folder)| (name, folder.into()))
        .unwrap();
    let in_the_way = folder.join("dump.rdb");
    let harm = |connection: &mut Connection| {
        fs::create_dir(&in_the_way).unwrap();
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
        fs::remove_dir(&in_the_way).unwrap();
        cmd("BGSAVE").exec(connection).unwrap();
    };
    assert_refused(&survived(&server, harm, repair).await, "MISCONF");
}

#[tokio::test]
async fn a_server_that_runs_an_endless_script_is_waited_for() {
    let server = Server::start();
    let harm = |connection: &mut Connection| {
        set(connection, "lua-time-limit", "50");
        let mut runs = server.connection();
        // Ends with an error when the script is killed.
        std::thread::spawn(move || cmd("EVAL").arg("while true do end").arg(0).exec(&mut runs));
        while cmd("PING").exec(connection).is_ok() {
            std::thread::sleep(Duration::from_millis(10));
        }
    };
    let repair = |connection: &mut Connection| cmd("SCRIPT").arg("KILL").exec(connection).unwrap();
    assert_refused(&survived(&server, harm, repair).await, "BUSY");
}

#[tokio::test]
async fn a_changed_password_is_said_without_it_and_waited_for() {
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
    let said = survived(&server, change("chang3d"), change("s3cret")).await;
    // The first line may be about the broken connection.
    assert!(said[0].starts_with("WARN Redis is unavailable;"), "{said:?}");
    assert!(said[1].starts_with("INFO Redis is back"), "{said:?}");
    let broker = RedisBroker::new(RedisConfig::new(server.url().replace("s3cret", "wr0ng"))).unwrap();
    let anonymous = RedisBroker::new(RedisConfig::new(server.url().replace(":s3cret@", ""))).unwrap();
    let wrong = broker.ping().await.unwrap_err().to_string();
    let none = anonymous.ping().await.unwrap_err().to_string();
    assert!(wrong.contains("Password authentication failed"), "{wrong}");
    assert!(none.contains("NOAUTH"), "{none}");
    for text in [wrong, none].iter().chain(&said) {
        let secret = ["s3cret", "chang3d", "wr0ng"]
            .iter()
            .find(|secret| text.contains(**secret));
        assert_eq!(secret, None, "{text}");
    }
}

#[tokio::test]
async fn a_server_that_still_reads_its_data_is_not_back() {
    let (logs, _guard) = Logs::capture();
    let mut server = Server::start();
    let broker = Arc::new(server.broker());
    let client = Client::new(broker.clone());
    let (journal, gate) = (Journal::default(), CancellationToken::new());
    let running = Running::start(worker(broker, &journal, &gate).build(), PATIENCE);
    let id = client.send(Signature::new("gated").arg("x")).await.unwrap();
    journal.until(1).await;
    // The server looks up from reading its file every 1024 commands.
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
    eventually("it answers that it reads its data", async || {
        let answer = cmd("PING").exec(&mut bare.get_connection().ok()?).err()?;
        (answer.code() == Some("LOADING")).then_some(())
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

//! A server that denies access, which an error tells apart from a server that is down.

use std::{sync::Arc, time::Duration};

use celeriac::{Broker, BrokerError, Client, Control, RedisBroker, RedisConfig, Signature, chord};
use redis::cmd;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use tokio_util::sync::CancellationToken;

use crate::{
    server::Server,
    support::{Journal, PATIENCE, Running, eventually, worker},
};

fn broker(url: &str) -> RedisBroker {
    RedisBroker::new(RedisConfig::new(url)).unwrap()
}

#[tokio::test]
async fn a_missing_password_is_told_apart_from_a_server_that_is_down() {
    let mut server = Server::start_with(Some("s3cret"));
    for (url, reason) in [
        (
            server.url().replace(":s3cret@", ""),
            "add the password to the URL",
        ),
        (
            server.url().replace("s3cret", "wr0ng"),
            "check the user and the password",
        ),
    ] {
        let error = broker(&url).ping().await.unwrap_err();
        assert!(matches!(error, BrokerError::Denied { .. }), "{error:?}");
        assert!(error.to_string().contains(reason), "{error}");
        assert_eq!(error.kind(), "denied");
    }
    let url = server.url();
    server.crash();
    let error = broker(&url).ping().await.unwrap_err();
    assert!(matches!(error, BrokerError::Unavailable { .. }), "{error:?}");
}

#[tokio::test]
async fn protected_mode_is_told_apart_from_a_server_that_is_down() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("redis://{}/0", listener.local_addr().unwrap());
    // Redis answers like this on any address other than a loopback one.
    tokio::spawn(async move {
        loop {
            let (mut socket, _) = listener.accept().await.unwrap();
            let denial = b"-DENIED Redis is running in protected mode because protected mode is enabled\r\n";
            socket.write_all(denial).await.unwrap();
            let mut request = [0; 1024];
            let _ = socket.read(&mut request).await;
        }
    });
    let broker = RedisBroker::new(RedisConfig::new(url).response_timeout(Duration::from_secs(5))).unwrap();
    let error = broker.ping().await.unwrap_err();
    assert!(matches!(error, BrokerError::Denied { .. }), "{error:?}");
    assert!(error.to_string().contains("protected mode"), "{error}");
}

#[tokio::test]
async fn an_account_without_permission_learns_which_keys_and_commands_it_lacks() {
    let server = Server::start();
    let mut admin = server.connection();
    let mut set_user = |rules: &[&str]| {
        cmd("ACL")
            .arg("SETUSER")
            .arg("w")
            .arg(rules)
            .exec(&mut admin)
            .unwrap();
    };
    set_user(&["on", ">pw", "~celery*", "~_kombu*", "~unacked*", "&*", "+@all"]);
    let url = server.url().replace("redis://", "redis://w:pw@");
    let worker = broker(&url);
    Client::new(Arc::new(broker(&url)))
        .send(Signature::new("add"))
        .await
        .unwrap();
    let error = worker.receive(&["celery".to_owned()], 1).await.unwrap_err();
    assert!(matches!(error, BrokerError::Denied { .. }), "{error:?}");
    assert!(
        error
            .to_string()
            .contains("denied keys: celeriac.leases, celeriac.dead"),
        "{error}"
    );
    set_user(&["~celeriac*"]);
    eventually("the account may receive", async || {
        worker.receive(&["celery".to_owned()], 1).await.ok()
    })
    .await;
    set_user(&["-lpush"]);
    let client = Client::new(Arc::new(broker(&url)));
    let error = client.send(Signature::new("add")).await.unwrap_err();
    assert!(error.to_string().contains("'lpush'"), "{error}");
}

#[tokio::test]
async fn the_documented_permissions_suffice() {
    let server = Server::start();
    cmd("ACL")
        .arg("SETUSER")
        .arg("w")
        .arg(&[
            "on",
            ">pw",
            "~celery*",
            "~_kombu*",
            "~unacked*",
            "~celeriac*",
            "~*.reply.celery.pidbox",
            "&*",
        ])
        .arg(&["+@all", "-@dangerous", "+role", "+info"])
        .exec(&mut server.connection())
        .unwrap();
    let url = server.url().replace("redis://", "redis://w:pw@");
    let broker: Arc<dyn Broker> = Arc::new(broker(&url));
    let (journal, gate) = (Journal::default(), CancellationToken::new());
    let running = Running::start(worker(broker.clone(), &journal, &gate).build(), PATIENCE);
    let client = Client::new(broker.clone());
    let add = |a: i64| Signature::new("add").arg(a).arg(1);
    let sent = client
        .apply(chord([add(1), add(2)], Signature::new("total")))
        .await
        .unwrap();
    assert_eq!(sent.wait(PATIENCE).await, Ok(5.into()));
    let retried = client.send(Signature::new("flaky").arg(1)).await.unwrap();
    assert_eq!(client.wait(retried, PATIENCE).await, Ok(1.into()));
    let control = Control::new(broker);
    eventually("the worker replies", async || {
        (control.ping().await.ok()? == ["celery@test"]).then_some(())
    })
    .await;
    running.stop().await.unwrap();
}

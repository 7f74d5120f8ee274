//! Large messages and slow networks: requests are limited in bytes, so each one is answered in time.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use celeriac::{
    Broker, Client, RedisBroker, RedisConfig, Signature, TaskContext, TaskError, TaskOptions, Worker,
};
use redis::cmd;

use crate::{
    broker,
    logs::Logs,
    proxy::Proxy,
    server::Server,
    support::{PATIENCE, Running, eventually},
};

fn size(text: &str) -> Signature {
    Signature::new("size").arg(text)
}

async fn run(_: TaskContext, (text,): (String,)) -> Result<usize, TaskError> {
    Ok(text.len())
}

/// Sends the same message several times.
async fn send_all(server: &Server, messages: usize, bytes: usize) {
    let client = Client::new(broker(server.url()));
    client.send(size(&"x".repeat(bytes))).await.unwrap();
    let mut connection = server.connection();
    let raw: Vec<u8> = cmd("LINDEX").arg(("celery", 0)).query(&mut connection).unwrap();
    for _ in 1..messages {
        cmd("LPUSH")
            .arg("celery")
            .arg(raw.as_slice())
            .exec(&mut connection)
            .unwrap();
    }
}

fn length(server: &Server) -> usize {
    cmd("LLEN").arg("celery").query(&mut server.connection()).unwrap()
}

#[tokio::test]
async fn a_batch_ends_after_a_number_of_bytes_and_the_rest_stays_in_order() {
    let server = Server::start();
    let client = Client::new(broker(server.url()));
    for number in 0..10 {
        let text = format!("{number}{}", "x".repeat(300_000));
        client.send(size(&text)).await.unwrap();
    }
    let receiver = broker(server.url());
    let mut numbers = String::new();
    let mut batches = Vec::new();
    while numbers.len() < 10 {
        let batch = receiver.receive(&["celery".to_owned()], 40).await.unwrap();
        batches.push(batch.len());
        for delivery in batch {
            let text = delivery.message().unwrap().args[0].as_str().unwrap().to_owned();
            numbers.push_str(&text[..1]);
        }
        assert_eq!(length(&server) + numbers.len(), 10);
    }
    assert_eq!(numbers, "0123456789");
    assert_eq!(batches, [3, 3, 3, 1], "400 kB each in base64, 1 MiB in a batch");
}

#[tokio::test]
async fn large_messages_on_a_slow_network_arrive_without_time_outs() {
    const MESSAGES: usize = 40;
    let (logs, _guard) = Logs::capture();
    let server = Server::start();
    send_all(&server, MESSAGES, 2_700_000).await;
    let proxy = Proxy::start(server.port);
    proxy.set_bandwidth(10_000_000);
    let begin = Instant::now();
    let holder = RedisBroker::new(RedisConfig::new(proxy.url())).unwrap();
    let worker = Worker::builder(Arc::new(holder)).task("size", TaskOptions::new(), run);
    let running = Running::start(worker.concurrency(10).build(), PATIENCE);
    while begin.elapsed() < Duration::from_secs(60) {
        let held: usize = cmd("HLEN")
            .arg("unacked")
            .query(&mut server.connection())
            .unwrap();
        if length(&server) + held == 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(begin.elapsed() < Duration::from_secs(60));
    running.stop().await.unwrap();
    assert_eq!(logs.problems(), Vec::<String>::new());
}

/// A single message that needs longer than the response time-out.
#[tokio::test]
async fn a_message_that_takes_longer_than_the_time_out_arrives_eventually() {
    let server = Server::start();
    send_all(&server, 3, 1_000_000).await;
    let proxy = Proxy::start(server.port);
    proxy.set_bandwidth(2_000_000);
    let config = RedisConfig::new(proxy.url()).response_timeout(Duration::from_millis(200));
    let receiver = RedisBroker::new(config).unwrap();
    for _ in 0..3 {
        let delivery = eventually("a message arrives", async || {
            let received = receiver.receive(&["celery".to_owned()], 10).await;
            received.ok()?.into_iter().next()
        })
        .await;
        assert!(delivery.raw.len() > 1_000_000);
    }
}

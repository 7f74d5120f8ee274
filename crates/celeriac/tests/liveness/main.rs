//! Workers that are busy, paused or cut off from Redis, and changed clocks: live workers keep their tasks,
//! and what a worker has lost it neither starts nor settles.

#![expect(clippy::unwrap_used, reason = "tests and their helpers may panic")]
#![expect(dead_code, reason = "each test crate uses only parts of `support`")]

mod clocks;
#[path = "../celery/journal.rs"]
mod journal;
mod large;
#[path = "../support/logs.rs"]
mod logs;
mod lost;
mod older_data;
mod pauses;
mod postponed;
#[path = "../celery/process.rs"]
mod process;
mod proxy;
mod results;
#[path = "../support/redis.rs"]
mod server;
#[path = "../support/mod.rs"]
mod support;

use std::{sync::Arc, time::Duration};

use celeriac::{Broker, RedisBroker, RedisConfig};
use redis::cmd;

use crate::{server::Server, support::eventually};

/// Short lease, so the tests need not wait for long.
const LEASE: Duration = Duration::from_secs(1);

fn broker(url: String) -> Arc<RedisBroker> {
    Arc::new(RedisBroker::new(RedisConfig::new(url).lease(LEASE)).unwrap())
}

/// Waits until nothing is waiting or reserved.
async fn drained(broker: &RedisBroker) {
    eventually("nothing is waiting or reserved", async || {
        let depth = broker.depth("celery").await.ok()?;
        (depth.waiting == 0 && depth.unacked == 0).then_some(())
    })
    .await;
}

/// Puts all reserved messages back into the queue `celery`, marked as redelivered, as another worker does.
fn take_over(server: &Server) -> usize {
    let mut connection = server.connection();
    let reserved: Vec<(String, String)> = cmd("HGETALL").arg("unacked").query(&mut connection).unwrap();
    for (tag, reservation) in &reserved {
        let (message, _, queue): (serde_json::Value, String, String) =
            serde_json::from_str(reservation).unwrap();
        let mut message = message;
        message["properties"]["delivery_info"]["redelivered"] = true.into();
        redis::pipe()
            .atomic()
            .zrem("unacked_index", tag)
            .hdel("unacked", tag)
            .rpush(queue, message.to_string())
            .exec(&mut connection)
            .unwrap();
    }
    reserved.len()
}

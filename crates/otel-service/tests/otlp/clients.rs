//! Commands of a Redis client, and the connections of pools as gauges.

use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use otel_service::{ConnectionCounts, Database, Redis, RedisServer};
use std::time::Duration;

use crate::support::{self, Behaviour, number, shown};

fn scenario() {
    let telemetry = otel_service::init(support::SERVICE).unwrap();
    let redis = Redis::for_server(RedisServer {
        address: "redis.internal".to_owned(),
        port: 6379,
        database: 1,
    });
    let database = Database::new("postgresql", "pressroom".to_owned(), None);
    for (pool, idle) in [("statements", 3), ("transactions", 5)] {
        database.observe_connections(pool, move || ConnectionCounts {
            idle,
            used: 2,
            max: 8,
            pending: 1,
        });
    }
    redis.command("LPUSH", "LPUSH ? ?").finish(Ok(()));
    telemetry.shutdown(Duration::from_secs(10)).unwrap();
}

#[test]
fn commands_have_spans_and_pools_have_gauges() {
    let Some(run) = support::run(
        "clients::commands_have_spans_and_pools_have_gauges",
        Behaviour::Accepts,
        &[],
        scenario,
    ) else {
        return;
    };
    let received = run.received;
    let command = received.span("LPUSH");
    assert_eq!(command.kind(), SpanKind::Client);
    assert_eq!(
        shown(&command.attributes),
        [
            "db.namespace=\"1\"",
            "db.operation.name=\"LPUSH\"",
            "db.query.summary=\"LPUSH\"",
            "db.query.text=\"LPUSH ? ?\"",
            "db.system.name=\"redis\"",
            "server.address=\"redis.internal\"",
            "server.port=6379",
        ]
    );

    assert_eq!(
        points(&received, "db.client.connection.count"),
        [
            "db.client.connection.pool.name=\"statements\" db.client.connection.state=\"idle\" 3",
            "db.client.connection.pool.name=\"statements\" db.client.connection.state=\"used\" 2",
            "db.client.connection.pool.name=\"transactions\" db.client.connection.state=\"idle\" 5",
            "db.client.connection.pool.name=\"transactions\" db.client.connection.state=\"used\" 2",
        ]
    );
}

fn points(received: &support::Received, name: &str) -> Vec<String> {
    let mut points: Vec<String> = received
        .numbers(name)
        .iter()
        .map(|point| format!("{} {}", shown(&point.attributes).join(" "), number(point)))
        .collect();
    points.sort();
    points
}

//! The model of Redis against a real server: the same commands have the same replies. Needs `redis-server`, or
//! `TEST_REDIS_BIN`.

#![expect(clippy::unwrap_used, reason = "tests and their helpers may panic")]

#[expect(dead_code, reason = "other tests use more of it")]
#[path = "../../celeriac/tests/support/redis.rs"]
mod real;

use std::time::Duration;

use celeriac_sim::{
    redis::{Executed, Reply, Server, Snapshot},
    rng::Rng,
    run::{Plan, run},
};
use redis::{ConnectionLike as _, Value};

/// Runs a command on the real server. Only the code of an error counts.
fn real(connection: &mut redis::Connection, arguments: &[Vec<u8>]) -> Reply {
    let mut command = redis::Cmd::new();
    for argument in arguments {
        command.arg(argument);
    }
    match connection.req_command(&command) {
        Ok(value) => reply(value),
        Err(error) => Reply::Error(error.code().unwrap_or("ERR").to_owned()),
    }
}

fn reply(value: Value) -> Reply {
    match value {
        Value::Nil => Reply::Nil,
        Value::Int(number) => Reply::Int(number),
        Value::BulkString(bytes) => Reply::Bulk(bytes),
        Value::Array(items) => Reply::Array(items.into_iter().map(reply).collect()),
        Value::SimpleString(text) => Reply::Status(text),
        Value::Okay => Reply::ok(),
        Value::ServerError(error) => Reply::Error(error.code().to_owned()),
        other => panic!("unexpected reply {other:?}"),
    }
}

/// Removes differences without a meaning: the two encodings of nil, the texts of errors, and the order of hashes
/// and sets.
fn normal(name: &str, reply: Reply) -> Reply {
    match reply {
        Reply::NilArray => Reply::Nil,
        Reply::Error(text) => Reply::Error(text.split(' ').next().unwrap_or_default().to_owned()),
        Reply::Array(items) => {
            let mut items: Vec<Reply> = items.into_iter().map(|item| normal("", item)).collect();
            match name {
                "SMEMBERS" => items.sort_by_key(|item| format!("{item:?}")),
                "HGETALL" => {
                    let mut pairs: Vec<Vec<Reply>> = items.chunks(2).map(<[Reply]>::to_vec).collect();
                    pairs.sort_by_key(|pair| format!("{pair:?}"));
                    items = pairs.concat();
                }
                _ => {}
            }
            Reply::Array(items)
        }
        other => other,
    }
}

fn words(text: &str) -> Vec<Vec<u8>> {
    text.split(' ').map(|word| word.as_bytes().to_vec()).collect()
}

fn shown(arguments: &[Vec<u8>]) -> String {
    let words: Vec<_> = arguments.iter().map(|one| String::from_utf8_lossy(one)).collect();
    words.join(" ")
}

/// Returns a random command on few keys, most of which fit the types of their keys.
fn command(rng: &mut Rng) -> String {
    let kind = rng.pick(&["list", "set", "hash", "zset", "text"]);
    let key = format!("{kind}{}", rng.range(0, 3));
    let other = format!("{kind}{}", rng.range(0, 3));
    let key = if rng.percent(3) { "list0".to_owned() } else { key };
    let member = |rng: &mut Rng| {
        rng.pick(&["a", "b", "c", "dd", "ee", "f f"])
            .replace(' ', "\u{6}")
    };
    let (one, two) = (member(rng), member(rng));
    let (low, high) = (rng.range(0, 12) as i64 - 6, rng.range(0, 14) as i64 - 6);
    let score = rng.pick(&["1", "2.5", "-3", "1732000000.123456", "0.1", "7e3", "10.5", "inf"]);
    let bound = |rng: &mut Rng| rng.pick(&["-inf", "+inf", "0", "(1", "2.5", "(2.5", "1e10", "-3"]);
    let (from, to) = (bound(rng), bound(rng));
    let commands = match kind {
        "list" => vec![
            format!("LPUSH {key} {one} {two}"),
            format!("RPUSH {key} {one}"),
            format!("LPUSH {key} {one}"),
            format!("LPOP {key}"),
            format!("RPOP {key}"),
            format!("RPOP {key} {}", rng.range(0, 4)),
            format!("LLEN {key}"),
            format!("LRANGE {key} {low} {high}"),
            format!("LINDEX {key} {low}"),
            format!("LREM {key} {low} {one}"),
            format!("LTRIM {key} {low} {high}"),
            format!("LMOVE {key} {other} RIGHT RIGHT"),
            format!("LMOVE {key} {other} LEFT RIGHT"),
        ],
        "set" => vec![
            format!("SADD {key} {one} {two}"),
            format!("SREM {key} {one}"),
            format!("SMEMBERS {key}"),
            format!("SISMEMBER {key} {one}"),
        ],
        "hash" => vec![
            format!("HSET {key} {one} {low} {two} {high}"),
            format!("HSETNX {key} {one} {low}"),
            format!("HGET {key} {one}"),
            format!("HMGET {key} {one} {two} zz"),
            format!("HDEL {key} {one} {two}"),
            format!("HLEN {key}"),
            format!("HEXISTS {key} {one}"),
            format!("HGETALL {key}"),
            format!("HINCRBY {key} {one} {low}"),
        ],
        "zset" => vec![
            format!("ZADD {key} {score} {one}"),
            format!("ZADD {key} {low} {one} {score} {two}"),
            format!("ZADD {key} XX {score} {one}"),
            format!("ZADD {key} NX {score} {one}"),
            format!("ZADD {key} GT {score} {one}"),
            format!("ZADD {key} x {one}"),
            format!("ZREM {key} {one} {two}"),
            format!("ZSCORE {key} {one}"),
            format!("ZMSCORE {key} {one} zz {two}"),
            format!("ZCARD {key}"),
            format!("ZCOUNT {key} {from} {to}"),
            format!("ZRANGE {key} {low} {high} WITHSCORES"),
            format!("ZRANGE {key} {low} {high} REV"),
            format!("ZRANGE {key} {from} {to} BYSCORE LIMIT {} {low}", rng.range(0, 3)),
            format!("ZRANGE {key} {from} {to} BYSCORE REV WITHSCORES"),
            format!("ZRANGEBYSCORE {key} {from} {to} WITHSCORES LIMIT 0 3"),
            format!("ZREMRANGEBYSCORE {key} {from} {to}"),
            format!("ZREMRANGEBYRANK {key} {low} {high}"),
        ],
        _ => vec![
            format!("SET {key} {one}"),
            format!("SET {key} {high} EX 100"),
            format!("SET {key} {two} NX"),
            format!("SET {key} {two} EX 100 NX"),
            format!("SETEX {key} {high}00 {one}"),
            format!("GET {key}"),
            format!("MGET {key} {other} list0"),
            format!("GETRANGE {key} {low} {high}"),
            format!("INCRBY {key} {low}"),
            format!("TTL {key}"),
        ],
    };
    let general = [
        format!("DEL {key} {other}"),
        format!("EXISTS {key} {other} {key}"),
        format!("TYPE {key}"),
        format!("EXPIRE {key} 1000"),
    ];
    if rng.percent(12) {
        return general[rng.range(0, general.len() as u64) as usize].clone();
    }
    commands[rng.range(0, commands.len() as u64) as usize].clone()
}

#[test]
fn random_commands_have_the_replies_of_a_real_server() {
    let server = real::Server::start();
    let mut connection = server.connection();
    for seed in 0..10 {
        let mut rng = Rng::new(seed, 7);
        let mut model = Server::new(1, Snapshot::default());
        model.set_time(1_700_000_000_000_000);
        let mut log = vec![words("FLUSHALL")];
        log.extend((0..1000).map(|_| words(&command(&mut rng))));
        for (number, arguments) in log.iter().enumerate() {
            let name = String::from_utf8_lossy(&arguments[0]).into_owned();
            let expected = normal(&name, real(&mut connection, arguments));
            let found = normal(&name, model.command(arguments));
            assert_eq!(
                found,
                expected,
                "command {number} of log {seed}: {}",
                shown(arguments)
            );
        }
    }
}

/// Commands whose replies depend on the time, the connections or the server.
const VARYING: [&str; 6] = ["TIME", "PUBLISH", "INFO", "ROLE", "CLIENT", "PING"];

#[test]
fn the_scripts_of_celeriac_have_the_replies_of_a_real_server() {
    let server = real::Server::start();
    let mut connection = server.connection();
    for seed in 1..=2 {
        let length = Duration::from_secs(30);
        let faults = ["at 9000 crash w1 kill 3000", "at 20000 cut w2"];
        let faults = faults.iter().map(|step| step.parse().unwrap()).collect();
        let plan = Plan {
            seed,
            faults,
            length,
            workers: 2,
            tasks: 40,
            record: true,
        };
        let executed = run(&plan).executed;
        let scripts = executed
            .iter()
            .filter(|one| one.arguments[0] == b"EVALSHA")
            .count();
        assert!(
            scripts > 500,
            "the log has {scripts} scripts of {} commands",
            executed.len()
        );
        real(&mut connection, &words("FLUSHALL"));
        let mut texts = std::collections::HashMap::new();
        for Executed {
            time,
            arguments,
            reply,
        } in executed
        {
            let name = String::from_utf8_lossy(&arguments[0]).into_owned();
            if VARYING.contains(&name.as_str()) {
                continue;
            }
            let mut sent = arguments.clone();
            match name.as_str() {
                "SCRIPT" => {
                    let hash = normal("", reply.clone());
                    texts.insert(
                        format!("{hash:?}"),
                        String::from_utf8(arguments[2].clone()).unwrap(),
                    );
                }
                "EVALSHA" => {
                    let Some(text) = texts.get(&format!("{:?}", Reply::Bulk(arguments[1].clone()))) else {
                        continue;
                    };
                    // Scripts read the time of the recorded run.
                    let now = format!("{{'{}', '{}'}}", time / 1_000_000, time % 1_000_000);
                    sent[0] = b"EVAL".to_vec();
                    sent[1] = text.replace("redis.call('TIME')", &now).into_bytes();
                }
                // Does not wait.
                "BLMOVE" => {
                    sent[0] = b"LMOVE".to_vec();
                    sent.truncate(5);
                }
                _ => {}
            }
            let expected = normal(&name, real(&mut connection, &sent));
            assert_eq!(
                normal(&name, reply),
                expected,
                "seed {seed}: {}",
                shown(&arguments)
            );
        }
    }
}

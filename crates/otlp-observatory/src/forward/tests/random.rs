//! Accepted requests survive random sequences of faults.

use std::time::Duration;

use tokio::task::JoinSet;

use super::{super::*, backend::Reply, *};

/// Linear congruential generator, which returns the same schedule for the same seed.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end
    }
}

fn faulty_reply(random: &mut Random) -> Reply {
    match random.below(8) {
        0 => Reply::status(503),
        1 => Reply::status(503).header("retry-after", "0"),
        2 => Reply::status(429).header("retry-after", "soon"),
        3 => Reply::status(401),
        4 => Reply::status(403),
        5 => Reply::status(302).header("location", "/"),
        _ => Reply::status(200).body(vec![0xff; 10]),
    }
}

/// Runs a schedule of faults, and returns the numbers of accepted and rejected requests.
async fn run_schedule(seed: u64) -> (usize, usize) {
    let mut random = Random(seed);
    let mut backend = Backend::start().await;
    let mut scratch = Scratch::new();
    let small = |backend: &Backend, scratch: &Scratch| Forwarding {
        queue_limit: 64 << 10,
        ..with_tokens(backend, scratch)
    };
    let mut forwarder = start(&small(&backend, &scratch));
    let (mut accepted, mut rejected) = (BTreeSet::new(), 0);
    let mut id = 0;
    for _ in 0..120 {
        match random.below(20) {
            0 => backend.go_down().await,
            1 | 2 => {
                backend.go_down().await;
                backend.up().await;
            }
            3 | 4 => backend.reply(faulty_reply(&mut random)),
            5 => backend.reply_to_token_request(Reply::status(503)),
            6 => backend.reply_to_token_request(Reply::token("short", 0)),
            // Lets operations in progress advance by a random time.
            7 => tokio::time::sleep(Duration::from_millis(random.below(20))).await,
            // A regular restart.
            8 => {
                forwarder.finish(Duration::from_millis(random.below(30))).await;
                drop(forwarder);
                forwarder = start(&small(&backend, &scratch));
            }
            // A restart after a kill.
            9 => {
                let after = scratch.copy();
                drop(forwarder);
                scratch = after;
                forwarder = start(&small(&backend, &scratch));
            }
            _ => {
                for _ in 0..random.below(12) {
                    let before = forwarder.status().dropped_requests;
                    forwarder.accept(&long(id, random.below(1000) as usize));
                    if forwarder.status().dropped_requests == before {
                        accepted.insert(id);
                    } else {
                        rejected += 1;
                    }
                    id += 1;
                    tokio::task::yield_now().await;
                }
            }
        }
    }
    backend.go_down().await;
    backend.up().await;
    until("everything is accepted", || forwarder.status().queued_bytes == 0).await;
    let received = backend.accepted();
    let lost: Vec<_> = accepted.difference(&received).collect();
    assert!(
        lost.is_empty(),
        "seed {seed}: lost {lost:?} of {id}, {rejected} rejected"
    );
    (accepted.len(), rejected)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn accepted_requests_arrive_under_faults_of_all_kinds() {
    let mut schedules = JoinSet::new();
    for seed in 0..12 {
        schedules.spawn(run_schedule(seed));
    }
    let (mut accepted, mut rejected) = (0, 0);
    while let Some(counts) = schedules.join_next().await {
        let (accepted_of_seed, rejected_of_seed) = counts.unwrap();
        accepted += accepted_of_seed;
        rejected += rejected_of_seed;
    }
    // The schedules must cover both accepted and rejected requests.
    assert!(accepted > 1500 && rejected > 20, "{accepted} {rejected}");
}

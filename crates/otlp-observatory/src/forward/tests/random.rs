//! Nothing that was accepted is lost, whatever happens in whatever order: faults by a seeded schedule.

use std::time::Duration;

use tokio::task::JoinSet;

use super::{super::*, backend::Answer, *};

/// A small generator: the schedule of a seed is always the same.
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

fn trouble(random: &mut Random) -> Answer {
    match random.below(8) {
        0 => Answer::status(503),
        1 => Answer::status(503).header("retry-after", "0"),
        2 => Answer::status(429).header("retry-after", "soon"),
        3 => Answer::status(401),
        4 => Answer::status(403),
        5 => Answer::status(302).header("location", "/"),
        _ => Answer::status(200).body(vec![0xff; 10]),
    }
}

/// How many requests were accepted, and how many refused.
async fn nothing_is_lost(seed: u64) -> (usize, usize) {
    let mut random = Random(seed);
    let mut backend = Backend::start().await;
    let mut scratch = Scratch::new();
    let small = |backend: &Backend, scratch: &Scratch| Forwarding {
        queue_limit: 64 << 10,
        ..with_tokens(backend, scratch)
    };
    let mut forwarder = start(&small(&backend, &scratch));
    let (mut accepted, mut refused) = (BTreeSet::new(), 0);
    let mut id = 0;
    for _ in 0..120 {
        match random.below(20) {
            0 => backend.go_down().await,
            1 | 2 => {
                backend.go_down().await;
                backend.up().await;
            }
            3 | 4 => backend.then(trouble(&mut random)),
            5 => backend.then_token(Answer::status(503)),
            6 => backend.then_token(Answer::token("short", 0)),
            // Some time for whatever is under way: any will do.
            7 => tokio::time::sleep(Duration::from_millis(random.below(20))).await,
            // It ends as it should, and another one starts.
            8 => {
                forwarder.finish(Duration::from_millis(random.below(30))).await;
                drop(forwarder);
                forwarder = start(&small(&backend, &scratch));
            }
            // It is killed, and another one starts from what is there.
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
                        refused += 1;
                    }
                    id += 1;
                    tokio::task::yield_now().await;
                }
            }
        }
    }
    backend.go_down().await;
    backend.up().await;
    until("all is accepted", || forwarder.status().queued_bytes == 0).await;
    let taken = backend.accepted();
    let lost: Vec<_> = accepted.difference(&taken).collect();
    assert!(
        lost.is_empty(),
        "seed {seed}: lost {lost:?} of {id}, {refused} refused"
    );
    (accepted.len(), refused)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_accepted_arrives_under_faults_of_all_kinds() {
    let mut schedules = JoinSet::new();
    for seed in 0..12 {
        schedules.spawn(nothing_is_lost(seed));
    }
    let (mut accepted, mut refused) = (0, 0);
    while let Some(counts) = schedules.join_next().await {
        let (of_seed, refused_of_seed) = counts.unwrap();
        accepted += of_seed;
        refused += refused_of_seed;
    }
    // Both were tried.
    assert!(accepted > 1500 && refused > 20, "{accepted} {refused}");
}

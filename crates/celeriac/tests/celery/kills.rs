//! Killed workers and servers, with default settings.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::{Duration, Instant},
};

use celeriac::{Broker, Client, Signature};

use crate::{
    journal::{Journal, Millis, now},
    patient_broker,
    process::WorkerProcess,
    server::Server,
    support::eventually,
};

/// Default concurrency of a worker, and the number of tasks it holds.
const CONCURRENCY: usize = 10;
const HELD: usize = 40;
const TASKS: usize = 10_000;
const KILLS: usize = 12;
/// Long enough that three workers cannot finish before the last kill.
const TASK_SECONDS: f64 = 0.05;

fn work(task: &str, seconds: f64) -> Signature {
    Signature::new("work").arg(task).arg(seconds)
}

async fn send_all(client: &Client, signatures: impl Iterator<Item = Signature>) {
    let mut signatures = signatures.peekable();
    while signatures.peek().is_some() {
        for sent in client.send_batch(signatures.by_ref().take(500).collect()).await {
            sent.unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_workers_tasks_start_elsewhere_within_10_seconds() {
    let server = Server::start();
    let journal = Journal::new("recovery");
    let client = Client::new(Arc::new(patient_broker(&server)));
    let started_at = |task: &str, worker: &str| {
        let runs = journal.runs();
        let run = runs.get(task)?.iter().rfind(|run| run.worker == worker)?;
        Some(run.started)
    };
    let mut killed = WorkerProcess::start(&server.url(), "killed", &journal);
    // Ten tasks run, and the worker holds thirty more.
    let tasks: Vec<String> = (0..HELD).map(|number| format!("t{number}")).collect();
    send_all(&client, tasks.iter().map(|task| work(task, 3600.0))).await;
    let broker = patient_broker(&server);
    eventually("the worker holds all tasks and runs ten", async || {
        let held = broker.depth("celery").await.unwrap().unacked;
        (held == HELD as u64 && journal.runs().len() == CONCURRENCY).then_some(())
    })
    .await;
    let _survivor = WorkerProcess::start(&server.url(), "survivor", &journal);
    send_all(&client, std::iter::once(work("first", 0.0))).await;
    eventually("the other worker runs tasks", async || {
        started_at("first", "survivor")
    })
    .await;
    let at = killed.kill();
    let deadline = Instant::now() + Duration::from_secs(60);
    let mut delays = Vec::new();
    for task in &tasks {
        let again = loop {
            if let Some(again) = started_at(task, "survivor") {
                break again;
            }
            assert!(Instant::now() < deadline, "{task} is not restored");
            // Pause between two reads of the journal.
            tokio::time::sleep(Duration::from_millis(50)).await;
        };
        delays.push(Duration::from_millis((again - at).try_into().unwrap()));
    }
    delays.sort();
    let (median, last) = (delays[HELD / 2], delays[HELD - 1]);
    println!("restored after {median:?} (median), {last:?} (last)");
    assert!(last <= Duration::from_secs(10), "{delays:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_task_finishes_even_if_workers_and_the_server_are_killed() {
    let mut server = Server::start();
    let journal = Journal::new("kills");
    let client = Client::new(Arc::new(patient_broker(&server)));
    send_all(
        &client,
        (0..TASKS).map(|number| work(&format!("t{number}"), TASK_SECONDS)),
    )
    .await;

    let mut deaths: HashMap<String, Millis> = HashMap::new();
    let mut started = 0;
    let mut start = |server: &Server| {
        started += 1;
        WorkerProcess::start(&server.url(), &format!("w{started}"), &journal)
    };
    let mut workers: Vec<WorkerProcess> = (0..3).map(|_| start(&server)).collect();
    for kill in 0..KILLS {
        // The interval of the kills is part of the scenario.
        tokio::time::sleep(Duration::from_secs(1)).await;
        let mut victim = workers.remove(0);
        deaths.insert(victim.name.clone(), victim.kill());
        workers.push(start(&server));
        if kill % 4 == 1 {
            server.crash();
            // Duration of the outage.
            tokio::time::sleep(Duration::from_millis(300)).await;
            server.start_again();
        }
    }
    let tasks_started = journal.runs().len();
    assert!(
        tasks_started > TASKS / 10 && tasks_started < TASKS,
        "{tasks_started} of {TASKS} tasks had started: the kills did not happen while tasks were running"
    );

    let broker = patient_broker(&server);
    let deadline = Instant::now() + Duration::from_secs(90);
    loop {
        let depth = broker.depth("celery").await.unwrap();
        if (depth.waiting, depth.unacked) == (0, 0) {
            break;
        }
        assert!(Instant::now() < deadline, "not finished: {depth:?}");
        // Pause between two reads of the queue.
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let end = now();

    let runs = journal.runs();
    let finished: HashSet<&String> = runs
        .iter()
        .filter(|(_, runs)| runs.iter().any(|run| run.finished.is_some()))
        .map(|(task, _)| task)
        .collect();
    assert_eq!(finished.len(), TASKS, "every task has finished");
    let mut twice = 0;
    for (task, runs) in &runs {
        for pair in runs.windows(2) {
            let death = deaths.get(&pair[0].worker).copied().unwrap_or(end);
            assert!(
                death <= pair[1].started,
                "{task} started elsewhere while its worker was alive: {runs:?}"
            );
        }
        twice += usize::from(runs.iter().filter(|run| run.finished.is_some()).count() > 1);
    }
    // A task finishes twice only if its worker was killed before the server received the acknowledgement.
    assert!(twice <= KILLS * HELD, "{twice} tasks finished twice");
}

//! What happens to tasks when workers and the server are killed, with the settings that everybody has by default.

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

/// How many tasks a worker runs at a time by default, and how many it holds.
const CONCURRENCY: usize = 10;
const HELD: usize = 40;
const TASKS: usize = 10_000;
const KILLS: usize = 12;
/// So long that three workers cannot be done before the last kill.
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
async fn a_killed_workers_tasks_run_elsewhere_within_30_seconds() {
    let server = Server::start();
    let journal = Journal::new("recovery");
    let client = Client::new(Arc::new(patient_broker(&server)));
    let begun = |task: &str, worker: &str| {
        let runs = journal.runs();
        let run = runs.get(task)?.iter().rfind(|run| run.worker == worker)?;
        Some(run.began)
    };
    let mut killed = WorkerProcess::start(&server.url(), "killed", &journal);
    // Ten run, thirty wait for them in the worker's hands.
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
    eventually("the other worker is there", async || begun("first", "survivor")).await;
    let at = killed.kill();
    let deadline = Instant::now() + Duration::from_secs(60);
    for task in &tasks {
        let again = loop {
            if let Some(again) = begun(task, "survivor") {
                break again;
            }
            assert!(Instant::now() < deadline, "{task} does not come back");
            // Between two looks at the journal; the deadline above is what is waited for.
            tokio::time::sleep(Duration::from_millis(50)).await;
        };
        let took = Duration::from_millis((again - at).try_into().unwrap());
        assert!(took <= Duration::from_secs(30), "{task} came back after {took:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_task_ends_though_workers_and_the_server_are_killed() {
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
        // The pace of the deaths is the scenario; what follows from them is waited for below.
        tokio::time::sleep(Duration::from_secs(1)).await;
        let mut victim = workers.remove(0);
        deaths.insert(victim.name.clone(), victim.kill());
        workers.push(start(&server));
        if kill % 4 == 1 {
            server.crash();
            // How long the server is away.
            tokio::time::sleep(Duration::from_millis(300)).await;
            server.start_again();
        }
    }
    let done = journal.runs().len();
    assert!(
        done > TASKS / 10 && done < TASKS,
        "{done} had begun: the kills came before or after the work"
    );

    let broker = patient_broker(&server);
    let deadline = Instant::now() + Duration::from_secs(90);
    loop {
        let depth = broker.depth("celery").await.unwrap();
        if (depth.waiting, depth.unacked) == (0, 0) {
            break;
        }
        assert!(Instant::now() < deadline, "not done: {depth:?}");
        // Between two looks at the queue.
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let end = now();

    let runs = journal.runs();
    let ended: HashSet<&String> = runs
        .iter()
        .filter(|(_, runs)| runs.iter().any(|run| run.ended.is_some()))
        .map(|(task, _)| task)
        .collect();
    assert_eq!(ended.len(), TASKS, "every task has ended");
    let mut twice = 0;
    for (task, runs) in &runs {
        for pair in runs.windows(2) {
            let death = deaths.get(&pair[0].worker).copied().unwrap_or(end);
            assert!(
                death <= pair[1].began,
                "{task} began elsewhere while its worker lived: {runs:?}"
            );
        }
        twice += usize::from(runs.iter().filter(|run| run.ended.is_some()).count() > 1);
    }
    // Only what the killed ones held, ended and not yet confirmed by the server.
    assert!(twice <= KILLS * HELD, "{twice} tasks ended twice");
}

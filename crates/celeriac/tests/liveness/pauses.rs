//! Blocking tasks, paused processes and cut connections.

use std::{collections::HashMap, time::Duration};

use celeriac::{Client, Signature, Status, TaskId};

use crate::{
    LEASE, broker, drained,
    journal::{Journal, Run},
    process::WorkerProcess,
    proxy::Proxy,
    server::Server,
    support::{eventually, final_result},
};

/// Settings of worker processes.
const SHORT_LEASE: (&str, &str) = ("TEST_LEASE", "1000");
const ROOM: (&str, &str) = ("TEST_PREFETCH", "20");
const ONE_THREAD: (&str, &str) = ("TOKIO_WORKER_THREADS", "1");

fn task(name: &str, label: &str, seconds: f64) -> Signature {
    Signature::new(name).arg(label).arg(seconds)
}

async fn send(client: &Client, tasks: Vec<Signature>) -> Vec<TaskId> {
    let sent = client.send_batch(tasks).await;
    sent.into_iter().map(Result::unwrap).collect()
}

fn starts(runs: &HashMap<String, Vec<Run>>, prefix: &str) -> Vec<usize> {
    let labels = runs.iter().filter(|(label, _)| label.starts_with(prefix));
    labels.map(|(_, runs)| runs.len()).collect()
}

/// Each task blocks its worker's only thread for several leases.
#[tokio::test(flavor = "multi_thread")]
async fn blocking_tasks_on_workers_with_one_thread_run_once() {
    let server = Server::start();
    let journal = Journal::new("blocking");
    let environment = [SHORT_LEASE, ONE_THREAD];
    let start = |name| WorkerProcess::start_with(&server.url(), name, &journal, &["celery"], &environment);
    let _workers = [start("one"), start("other")];
    let broker = broker(server.url());
    let client = Client::new(broker.clone());
    let blocking = (0..4).map(|number| task("block", &format!("block{number}"), 2.5));
    let sleeping = (0..6).map(|number| task("work", &format!("work{number}"), 3.0));
    let ids = send(&client, blocking.chain(sleeping).collect()).await;
    for id in &ids {
        assert_eq!(final_result(&client, id).await.status, Status::Success);
    }
    drained(&broker).await;
    let runs = journal.runs();
    assert_eq!(runs.len(), ids.len());
    assert_eq!(starts(&runs, ""), vec![1; ids.len()], "{runs:?}");
}

struct Fixture {
    server: Server,
    journal: Journal,
    client: Client,
    ids: Vec<TaskId>,
}

const RUNNING: usize = 10;
const WAITING: usize = 30;
const LATER: usize = 40;
/// Time until the tasks for later are due: longer than it takes to notice that a worker is dead.
const COUNTDOWN: Duration = Duration::from_secs(8);

impl Fixture {
    /// Sends tasks that the worker at `url` runs, holds until it has a free slot, and holds until they are
    /// due.
    async fn start(server: Server, name: &str, url: &str) -> (Self, WorkerProcess) {
        let journal = Journal::new(name);
        let broker = broker(server.url());
        let client = Client::new(broker.clone());
        let worker = Self::worker(url, "suspended", &journal, &["celery", "probe"]);
        let running = (0..RUNNING).map(|number| task("work", &format!("running{number}"), 6.0));
        let waiting = (0..WAITING).map(|number| task("work", &format!("waiting{number}"), 0.01));
        let later =
            (0..LATER).map(|number| task("work", &format!("later{number}"), 0.01).countdown(COUNTDOWN));
        let ids = send(&client, running.chain(waiting).chain(later).collect()).await;
        eventually("the worker holds everything", async || {
            let depth = celeriac::Broker::depth(broker.as_ref(), "celery").await.unwrap();
            let held = depth.unacked as usize == RUNNING + WAITING + LATER;
            (held && journal.runs().len() == RUNNING).then_some(())
        })
        .await;
        let fixture = Self {
            server,
            journal,
            client,
            ids,
        };
        (fixture, worker)
    }

    fn worker(url: &str, name: &str, journal: &Journal, queues: &[&str]) -> WorkerProcess {
        WorkerProcess::start_with(url, name, journal, queues, &[SHORT_LEASE, ROOM])
    }

    /// Starts another worker, and waits until it has run everything.
    async fn others_run_everything(&self) -> WorkerProcess {
        let other = Self::worker(&self.server.url(), "other", &self.journal, &["celery"]);
        for id in &self.ids {
            assert_eq!(final_result(&self.client, id).await.status, Status::Success);
        }
        other
    }

    /// Waits until the suspended worker runs a new task, and asserts that it ran none of those that it had
    /// lost.
    async fn assert_not_begun_tasks_ran_once(&self) {
        let probe = task("work", "probe", 0.01).queue("probe");
        let id = self.client.send(probe).await.unwrap();
        assert_eq!(final_result(&self.client, &id).await.status, Status::Success);
        // Everything that the suspended worker held is due by now, so it would start immediately.
        tokio::time::sleep(LEASE).await;
        let runs = self.journal.runs();
        assert_eq!(starts(&runs, "waiting"), [1; WAITING], "{runs:#?}");
        assert_eq!(starts(&runs, "later"), [1; LATER], "{runs:#?}");
        let running = starts(&runs, "running");
        assert_eq!(running.len(), RUNNING);
        assert!(running.iter().all(|starts| *starts <= 2), "{running:?}");
        for id in &self.ids {
            assert_eq!(final_result(&self.client, id).await.status, Status::Success);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_worker_does_not_start_what_others_have_run() {
    let server = Server::start();
    let url = server.url();
    let (fixture, worker) = Fixture::start(server, "paused", &url).await;
    worker.pause();
    let _other = fixture.others_run_everything().await;
    worker.resume();
    fixture.assert_not_begun_tasks_ran_once().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_was_cut_off_does_not_start_what_others_have_run() {
    let server = Server::start();
    let proxy = Proxy::start(server.port);
    let (fixture, _worker) = Fixture::start(server, "cut-off", &proxy.url()).await;
    proxy.set_cut(true);
    let _other = fixture.others_run_everything().await;
    proxy.set_cut(false);
    fixture.assert_not_begun_tasks_ran_once().await;
}

/// The restarted server has kept everything, so it has not lost what others have taken over.
#[tokio::test(flavor = "multi_thread")]
async fn a_paused_worker_notices_its_loss_after_a_restart_of_redis_too() {
    let server = Server::start();
    let url = server.url();
    let (mut fixture, worker) = Fixture::start(server, "restarted", &url).await;
    worker.pause();
    let _other = fixture.others_run_everything().await;
    fixture.server.crash();
    fixture.server.start_again();
    worker.resume();
    eventually("the client has connected again", async || {
        fixture.client.result(&fixture.ids[0]).await.ok()
    })
    .await;
    fixture.assert_not_begun_tasks_ran_once().await;
}

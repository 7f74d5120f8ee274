//! Plays a run: starts processes, applies the faults of a script, and waits until every task has ended.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use celeriac::{Broker, CancellationToken, Client, RedisBroker, RedisConfig, Worker, simulation};
use tokio::{
    sync::mpsc,
    task::JoinHandle,
    time::{Instant, sleep, sleep_until},
};

use crate::{
    checker::{Account, Remains, Terms, check},
    faults::{Fault, Restart, Step, When},
    history::{Event, History, Record},
    network::{Network, Surroundings},
    redis::{Executed, Reply, Snapshot},
    rng::Rng,
    workload::{self, Kind},
};

const LEASE: Duration = Duration::from_secs(6);
/// Time after the last fault within which every task must end.
const SETTLING: Duration = Duration::from_secs(300);
/// Time for which a run goes on after that, in case something happens twice.
const QUIET: Duration = Duration::from_secs(15);

/// Plan of a run.
#[derive(Debug, Clone)]
pub struct Plan {
    pub seed: u64,
    pub faults: Vec<Step>,
    /// Time during which tasks are sent and faults happen.
    pub length: Duration,
    pub workers: u64,
    pub tasks: u64,
    /// Whether the commands of the server's last run are recorded.
    pub record: bool,
}

/// Result of a run.
#[derive(Debug)]
pub struct Outcome {
    pub records: Vec<Record>,
    /// Hash of the history and of every request and reply.
    pub hash: u64,
    pub account: Account,
    /// Simulated time.
    pub length: Duration,
    /// Commands of the server, if they are recorded.
    pub executed: Vec<Executed>,
}

/// Plays a run.
///
/// # Panics
/// Panics if the code under test or the model does.
#[must_use]
pub fn run(plan: &Plan) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime without sockets needs no resources of the system");
    runtime.block_on(play(plan))
}

struct Play {
    history: Arc<History>,
    network: Arc<Network>,
    start: Instant,
    lives: BTreeMap<String, Life>,
    /// Data that restarts will need, by the time of the restart in milliseconds.
    snapshots: BTreeMap<u64, (Duration, Snapshot)>,
}

/// A life of a worker process.
struct Life {
    number: u64,
    task: JoinHandle<()>,
}

/// Step of the script, with what follows from earlier steps.
enum Action {
    Fault(Fault),
    Snapshot { restart: u64 },
    StartWorker(String),
    StartServer { restart: u64, data: Restart },
}

async fn play(plan: &Plan) -> Outcome {
    let history = Arc::new(History::begin());
    let (triggers, timed): (Vec<Step>, Vec<Step>) = plan
        .faults
        .iter()
        .cloned()
        .partition(|step| matches!(step.when, When::Request { .. }));
    let (network, mut crashes) = Network::new(plan.seed, Arc::clone(&history), triggers);
    if plan.record {
        network.record();
    }
    let installed = simulation::install(Arc::new(Surroundings(Arc::clone(&network))));
    let mut play = Play {
        start: Instant::now(),
        lives: BTreeMap::new(),
        snapshots: BTreeMap::new(),
        history,
        network,
    };
    let mut actions = play.actions(&timed);
    for worker in 1..=plan.workers {
        play.start_worker(&format!("w{worker}"));
    }
    let client = tokio::spawn(send_all(plan.clone(), Arc::clone(&play.history)));
    play.until(play.start + plan.length, &mut actions, &mut crashes)
        .await;
    let deadline = Instant::now() + SETTLING;
    while Instant::now() < deadline && !(actions.is_empty() && client.is_finished() && play.is_settled()) {
        let next = Instant::now() + Duration::from_secs(1);
        play.until(next, &mut actions, &mut crashes).await;
    }
    play.until(Instant::now() + QUIET, &mut actions, &mut crashes)
        .await;
    let length = play.start.elapsed();
    let executed = play.network.take_executed();
    let remains = play.remains();
    for life in play.lives.values() {
        life.task.abort();
    }
    client.abort();
    drop(installed);
    let (records, hash) = play.history.finish();
    let terms = Terms {
        lease: LEASE,
        end: |label| Kind::of(label).end(),
    };
    let account = check(&records, &remains, terms);
    Outcome {
        records,
        hash,
        account,
        length,
        executed,
    }
}

type Actions = BTreeMap<(u64, usize), Action>;

impl Play {
    /// Returns the actions of a script by their times in milliseconds.
    fn actions(&self, steps: &[Step]) -> Actions {
        let mut actions = Actions::new();
        for Step { when, fault } in steps {
            let When::Time(at) = *when else { continue };
            if let Fault::Restart {
                data: Restart::Older(age),
                ..
            } = fault
            {
                let number = actions.len();
                actions.insert(
                    (at.saturating_sub(*age), number),
                    Action::Snapshot { restart: at },
                );
            }
            let number = actions.len();
            actions.insert((at, number), Action::Fault(fault.clone()));
        }
        actions
    }

    /// Plays the script until a time.
    async fn until(
        &mut self,
        end: Instant,
        actions: &mut Actions,
        crashes: &mut mpsc::UnboundedReceiver<Fault>,
    ) {
        loop {
            let next = actions
                .first_key_value()
                .map(|((at, _), _)| self.start + Duration::from_millis(*at));
            let wake = next.map_or(end, |next| next.min(end));
            tokio::select! {
                biased;
                Some(crash) = crashes.recv() => self.act(Action::Fault(crash), actions),
                () = sleep_until(wake) => {
                    if next.is_none_or(|next| next > end) {
                        return;
                    }
                    if let Some(((_, _), action)) = actions.pop_first() {
                        self.act(action, actions);
                    }
                }
            }
        }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn act(&mut self, action: Action, actions: &mut Actions) {
        let now = self.now();
        let mut later = |delay: u64, action| {
            let number = actions
                .keys()
                .map(|(_, number)| number + 1)
                .max()
                .unwrap_or_default();
            actions.insert((now + delay, number), action);
        };
        match action {
            Action::Snapshot { restart } => {
                if let Some(snapshot) = self.network.snapshot() {
                    self.snapshots.insert(restart, (self.start.elapsed(), snapshot));
                }
            }
            Action::StartWorker(process) => self.start_worker(&process),
            Action::StartServer { restart, data } => {
                let (data_of, snapshot) = self.snapshots.remove(&restart).unwrap_or_default();
                self.network.start_server(snapshot);
                if data != Restart::Everything {
                    self.history.add(Event::Restored { data_of });
                }
            }
            Action::Fault(fault) => {
                let when = When::Time(now);
                let step = Step { when, fault };
                self.history.add(Event::Fault(step.to_string()));
                match step.fault {
                    Fault::Crash { process, power, down } => {
                        if let Some(life) = self.lives.get(&process) {
                            let name = format!("{process}.{}", life.number);
                            self.network.kill(&name, power);
                            life.task.abort();
                            self.history.add(Event::Died { life: name });
                            later(down, Action::StartWorker(process));
                        }
                    }
                    Fault::Restart { down, data } => {
                        let Some(last) = self.network.stop_server() else {
                            return;
                        };
                        if data == Restart::Everything {
                            self.snapshots.insert(now, (self.start.elapsed(), last));
                        }
                        later(down, Action::StartServer { restart: now, data });
                    }
                    fault => self.network.apply(&fault),
                }
            }
        }
    }

    fn start_worker(&mut self, process: &str) {
        let number = match self.lives.get(process) {
            // Two crashes have overlapped.
            Some(life) if !life.task.is_finished() => return,
            Some(life) => life.number + 1,
            None => 1,
        };
        let life = format!("{process}.{number}");
        let worker = Worker::builder(broker(&life))
            .hostname(process)
            .queue("celery")
            .concurrency(2);
        let worker = workload::register(worker, &life, &self.history).build();
        let task = tokio::spawn(async move {
            // Runs until it is aborted.
            let _ = worker.run(CancellationToken::new(), Duration::ZERO).await;
        });
        self.lives.insert(process.to_owned(), Life { number, task });
    }

    /// Returns whether no message is in a queue or reserved.
    fn is_settled(&self) -> bool {
        self.network.direct(&["PING"]).is_some() && self.messages().is_empty()
    }

    fn messages(&self) -> Vec<String> {
        let lists = [
            "celery",
            "celery\u{6}\u{16}3",
            "celery\u{6}\u{16}6",
            "celery\u{6}\u{16}9",
        ];
        let mut messages: Vec<String> = lists
            .iter()
            .flat_map(|list| self.texts(&["LRANGE", list, "0", "-1"]))
            .collect();
        messages.extend(self.texts(&["HGETALL", "unacked"]));
        messages
    }

    fn texts(&self, command: &[&str]) -> Vec<String> {
        let Some(Reply::Array(items)) = self.network.direct(command) else {
            return Vec::new();
        };
        let texts = items.into_iter().filter_map(|item| match item {
            Reply::Bulk(bytes) => Some(String::from_utf8_lossy(&bytes).into_owned()),
            _ => None,
        });
        texts.collect()
    }

    fn remains(&self) -> Remains {
        let (records, _) = self.history.finish();
        let ids = records.iter().filter_map(|record| match &record.event {
            Event::Sent { id, .. } | Event::Unconfirmed { id, .. } => Some(id.clone()),
            _ => None,
        });
        let states = ids.filter_map(|id| {
            let Some(Reply::Bulk(text)) = self.network.direct(&["GET", &format!("celery-task-meta-{id}")])
            else {
                return None;
            };
            let result: serde_json::Value = serde_json::from_slice(&text).ok()?;
            Some((id, result["status"].as_str()?.to_owned()))
        });
        Remains {
            states: states.collect(),
            dead: self.texts(&["LRANGE", "celeriac.dead", "0", "-1"]),
            messages: self.messages(),
        }
    }
}

fn broker(life: &str) -> Arc<dyn Broker> {
    let config = RedisConfig::new(format!("redis://{life}/0")).lease(LEASE);
    Arc::new(RedisBroker::new(config).expect("the settings are valid"))
}

/// Sends all tasks, each once, over the length of the run.
async fn send_all(plan: Plan, history: Arc<History>) {
    let client = Client::new(broker("c1.1"));
    let mut rng = Rng::new(plan.seed, 4);
    let last = u64::try_from(plan.length.as_millis()).unwrap_or(u64::MAX);
    // Some clients send in bursts, which leave tasks waiting in the workers.
    let grain = rng.pick(&[1, 1, 5000, 15_000]);
    let mut times: Vec<u64> = (0..plan.tasks)
        .map(|_| rng.range(0, last) / grain * grain)
        .collect();
    times.sort_unstable();
    let start = Instant::now();
    for (label, time) in (0..).zip(times) {
        sleep_until(start + Duration::from_millis(time)).await;
        let sent = client.send(workload::signature(label, &mut rng)).await;
        history.add(match sent {
            Ok(id) => Event::Sent {
                label,
                id: id.to_string(),
            },
            Err(error) => Event::Unconfirmed {
                label,
                id: error.id.to_string(),
            },
        });
    }
    // Keeps its connection.
    sleep(Duration::ZERO).await;
}

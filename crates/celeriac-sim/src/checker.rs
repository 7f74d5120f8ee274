//! Accounts for every task of a history. Knows the promises of `docs/fault-model.md` and Celery's states, and
//! nothing of how celeriac works.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use crate::history::{Event, Record};

/// Contents of the server at the end of a run.
#[derive(Debug, Clone, Default)]
pub struct Remains {
    /// States of the results, by task id.
    pub states: BTreeMap<String, String>,
    /// Texts of the dead letters.
    pub dead: Vec<String>,
    /// Messages that are still in queues or reserved.
    pub messages: Vec<String>,
}

/// Facts that the promises depend on.
#[derive(Debug, Clone, Copy)]
pub struct Terms {
    /// Length of a lease.
    pub lease: Duration,
    /// Returns the state in which the task with a label must end.
    pub end: fn(u64) -> &'static str,
}

/// Time within which a worker writes again what the server has lost.
const RECOVERY: Duration = Duration::from_secs(60);

/// Ends of the tasks, and broken promises.
#[derive(Debug, Default)]
pub struct Account {
    /// Number of tasks in each way to end.
    pub ends: BTreeMap<String, u64>,
    pub violations: Vec<String>,
}

fn is_final(status: &str) -> bool {
    matches!(status, "SUCCESS" | "FAILURE" | "REVOKED")
}

/// A run of a task's code.
struct Run<'a> {
    life: &'a str,
    begin: Duration,
    end: Option<Duration>,
}

struct Facts<'a> {
    runs: BTreeMap<u64, Vec<Run<'a>>>,
    /// Times at which final states were stored, by task id.
    finals: BTreeMap<&'a str, Vec<(Duration, &'a str)>>,
    renewals: BTreeMap<&'a str, Vec<Duration>>,
    deaths: BTreeMap<&'a str, Duration>,
    /// Times at which the server has returned with older data, and the times of the data.
    losses: Vec<(Duration, Duration)>,
}

impl<'a> Facts<'a> {
    fn collect(records: &'a [Record]) -> Self {
        let mut facts = Self {
            runs: BTreeMap::new(),
            finals: BTreeMap::new(),
            renewals: BTreeMap::new(),
            deaths: BTreeMap::new(),
            losses: Vec::new(),
        };
        for Record { at, event } in records {
            match event {
                Event::Begin { label, life } => {
                    let run = Run {
                        life,
                        begin: *at,
                        end: None,
                    };
                    facts.runs.entry(*label).or_default().push(run);
                }
                Event::End { label, life, .. } => {
                    let mut runs = facts.runs.entry(*label).or_default().iter_mut().rev();
                    if let Some(run) = runs.find(|run| run.life == life && run.end.is_none()) {
                        run.end = Some(*at);
                    }
                }
                Event::Stored { id, status } if is_final(status) => {
                    facts.finals.entry(id).or_default().push((*at, status));
                }
                Event::Renewed { life } => facts.renewals.entry(life).or_default().push(*at),
                Event::Died { life } => {
                    facts.deaths.insert(life, *at);
                }
                Event::Restored { data_of } => facts.losses.push((*at, *data_of)),
                _ => {}
            }
        }
        facts
    }

    /// Returns whether the server has lost what it had confirmed at `time`.
    fn was_lost(&self, time: Duration) -> Option<Duration> {
        let lost = self
            .losses
            .iter()
            .find(|(at, data_of)| *data_of < time && time <= *at);
        lost.map(|(at, _)| *at)
    }

    /// Returns whether a worker that survives the loss had begun the task before.
    fn survives(&self, label: u64, loss: Duration) -> bool {
        let runs = self.runs.get(&label).map(Vec::as_slice).unwrap_or_default();
        runs.iter().any(|run| {
            let death = self.deaths.get(run.life);
            run.begin < loss && death.is_none_or(|death| *death > loss + RECOVERY)
        })
    }

    /// Returns whether a life's lease was renewed without a gap of its length between two times.
    fn was_held(&self, life: &str, from: Duration, to: Duration, lease: Duration) -> bool {
        let renewals = self.renewals.get(life).map(Vec::as_slice).unwrap_or_default();
        let before = renewals.iter().rev().find(|at| **at <= from);
        let Some(mut last) = before.copied() else {
            return false;
        };
        for at in renewals.iter().filter(|at| **at > from && **at <= to) {
            if *at - last >= lease {
                return false;
            }
            last = *at;
        }
        to - last < lease
    }

    fn no_loss_in(&self, from: Duration, to: Duration) -> bool {
        !self
            .losses
            .iter()
            .any(|(at, data_of)| *at >= from && *data_of <= to)
    }
}

/// Checks a history and what is left at its end.
#[must_use]
pub fn check(records: &[Record], remains: &Remains, terms: Terms) -> Account {
    let facts = Facts::collect(records);
    let mut account = Account::default();
    let mut labels: BTreeMap<&str, (u64, Duration)> = BTreeMap::new();
    for Record { at, event } in records {
        let (label, id, confirmed) = match event {
            Event::Sent { label, id } => (*label, id.as_str(), true),
            Event::Unconfirmed { label, id } => (*label, id.as_str(), false),
            _ => continue,
        };
        labels.insert(id, (label, *at));
        let end = end_of(&facts, remains, (label, id, *at, confirmed), terms);
        if let Err(violation) = &end {
            account
                .violations
                .push(format!("task {label} ({id}): {violation}"));
        }
        *account
            .ends
            .entry(end.unwrap_or_else(|_| "violation".to_owned()))
            .or_default() += 1;
    }
    for (id, (label, sent)) in &labels {
        single_end(&facts, id, (*label, *sent), &mut account.violations);
    }
    let sent: BTreeMap<u64, Duration> = labels.into_values().collect();
    for (label, runs) in &facts.runs {
        let sent = sent.get(label).copied().unwrap_or(Duration::MAX);
        single_run(&facts, (*label, sent), runs, terms.lease, &mut account.violations);
    }
    account
}

/// Returns how a task has ended, or what is wrong.
fn end_of(
    facts: &Facts<'_>,
    remains: &Remains,
    (label, id, at, confirmed): (u64, &str, Duration, bool),
    terms: Terms,
) -> Result<String, String> {
    let state = remains.states.get(id).filter(|state| is_final(state));
    let quoted = format!("\"{id}\"");
    let dead = remains
        .dead
        .iter()
        .filter(|letter| letter.contains(&quoted))
        .count();
    let waiting = remains
        .messages
        .iter()
        .filter(|message| message.contains(&quoted))
        .count();
    if waiting > 0 {
        return Err(format!(
            "its message is still in a queue or reserved at the end; its state is {state:?}"
        ));
    }
    match (state.map(String::as_str), dead) {
        (Some("FAILURE"), 1) => Ok("dead-lettered".to_owned()),
        (Some(state), 0) if state == (terms.end)(label) => Ok(state.to_owned()),
        (Some("REVOKED"), 0) => Ok("REVOKED".to_owned()),
        (None, 0) if !confirmed => Ok("not sent".to_owned()),
        (None, 0) => match facts.was_lost(at) {
            Some(loss) if !facts.survives(label, loss) => Ok("lost with the server's data".to_owned()),
            _ => Err("it was confirmed, and is nowhere".to_owned()),
        },
        (state, dead) => Err(format!("it ends as {state:?} with {dead} dead letters")),
    }
}

/// Checks that a final state stays, and that the task does not begin after it, unless the server has lost data since the
/// task was sent.
fn single_end(facts: &Facts<'_>, id: &str, (label, sent): (u64, Duration), violations: &mut Vec<String>) {
    let finals = facts.finals.get(id).map(Vec::as_slice).unwrap_or_default();
    let states: BTreeSet<&str> = finals.iter().map(|(_, state)| *state).collect();
    if states.len() > 1 {
        violations.push(format!("task {label} ({id}): it ends as {states:?}"));
    }
    let Some((first, state)) = finals.first() else {
        return;
    };
    let runs = facts.runs.get(&label).map(Vec::as_slice).unwrap_or_default();
    for run in runs.iter().filter(|run| run.begin > *first) {
        if facts.no_loss_in(sent, run.begin) {
            violations.push(format!(
                "task {label} ({id}): it begins on {} at {:?}, but {state} was stored at {first:?}",
                run.life, run.begin
            ));
        }
    }
}

/// Checks that no run begins while another worker, whose lease is confirmed, runs the task, unless the server has lost
/// data since the task was sent.
fn single_run(
    facts: &Facts<'_>,
    (label, sent): (u64, Duration),
    runs: &[Run<'_>],
    lease: Duration,
    violations: &mut Vec<String>,
) {
    let first = runs.first().map_or(sent, |run| run.begin.min(sent));
    for (position, run) in runs.iter().enumerate() {
        for earlier in &runs[..position] {
            let death = facts.deaths.get(earlier.life).copied().unwrap_or(Duration::MAX);
            let ended = earlier.end.unwrap_or(Duration::MAX).min(death);
            if ended > run.begin
                && facts.was_held(earlier.life, earlier.begin, run.begin, lease)
                && facts.no_loss_in(first, run.begin)
            {
                violations.push(format!(
                    "task {label}: it begins on {} at {:?} while {} runs it since {:?} under a confirmed lease",
                    run.life, run.begin, earlier.life, earlier.begin
                ));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TERMS: Terms = Terms {
        lease: Duration::from_secs(6),
        end: |_| "SUCCESS",
    };

    fn record(seconds: u64, event: Event) -> Record {
        let at = Duration::from_secs(seconds);
        Record { at, event }
    }

    fn sent(label: u64) -> Event {
        let id = format!("id{label}");
        Event::Sent { label, id }
    }

    fn begin(label: u64, life: &str) -> Event {
        let life = life.to_owned();
        Event::Begin { label, life }
    }

    fn end(label: u64, life: &str) -> Event {
        let (life, dropped) = (life.to_owned(), false);
        Event::End { label, life, dropped }
    }

    fn stored(label: u64) -> Event {
        let (id, status) = (format!("id{label}"), "SUCCESS".to_owned());
        Event::Stored { id, status }
    }

    fn renewed(life: &str) -> Event {
        let life = life.to_owned();
        Event::Renewed { life }
    }

    fn remains(labels: &[u64]) -> Remains {
        let states = labels
            .iter()
            .map(|label| (format!("id{label}"), "SUCCESS".to_owned()));
        Remains {
            states: states.collect(),
            ..Remains::default()
        }
    }

    fn violations(records: &[Record], remains: &Remains) -> Vec<String> {
        check(records, remains, TERMS).violations
    }

    #[test]
    fn a_task_that_is_done_once_is_accounted_for() {
        let history = [
            record(0, renewed("w1.1")),
            record(1, sent(1)),
            record(2, begin(1, "w1.1")),
            record(3, end(1, "w1.1")),
            record(3, stored(1)),
        ];
        let account = check(&history, &remains(&[1]), TERMS);
        assert_eq!(account.violations, [] as [&str; 0]);
        assert_eq!(account.ends, BTreeMap::from([("SUCCESS".to_owned(), 1)]));
    }

    #[test]
    fn a_lost_task_is_noticed_unless_the_server_has_lost_it() {
        let history = [record(1, sent(1)), record(2, sent(2))];
        let found = violations(&history, &remains(&[1]));
        assert_eq!(found, ["task 2 (id2): it was confirmed, and is nowhere"]);

        let restored = |data_of| Event::Restored {
            data_of: Duration::from_secs(data_of),
        };
        let lost = [record(2, sent(2)), record(5, restored(1))];
        assert_eq!(violations(&lost, &remains(&[])), [] as [&str; 0]);
        let kept = [record(2, sent(2)), record(5, restored(3))];
        assert_eq!(violations(&kept, &remains(&[])).len(), 1, "the data contained it");
        let held = [
            record(2, sent(2)),
            record(3, begin(2, "w1.1")),
            record(5, restored(1)),
        ];
        assert_eq!(
            violations(&held, &remains(&[])).len(),
            1,
            "a living worker held it"
        );
        let died = record(
            20,
            Event::Died {
                life: "w1.1".to_owned(),
            },
        );
        let held = [held[0].clone(), held[1].clone(), held[2].clone(), died];
        assert_eq!(violations(&held, &remains(&[])), [] as [&str; 0]);
    }

    #[test]
    fn a_task_that_begins_twice_is_noticed_unless_the_lease_had_a_gap() {
        let history = |second: u64| {
            [
                record(0, renewed("w1.1")),
                record(1, sent(1)),
                record(1, begin(1, "w1.1")),
                record(5, renewed("w1.1")),
                record(second, begin(1, "w2.1")),
                record(30, end(1, "w1.1")),
                record(30, end(1, "w2.1")),
                record(30, stored(1)),
            ]
        };
        assert_eq!(
            violations(&history(8), &remains(&[1])),
            ["task 1: it begins on w2.1 at 8s while w1.1 runs it since 1s under a confirmed lease"]
        );
        assert_eq!(violations(&history(12), &remains(&[1])), [] as [&str; 0]);
    }

    #[test]
    fn a_task_may_run_twice_only_if_it_was_sent_before_a_loss() {
        let history = |loss: u64| {
            let data_of = Duration::ZERO;
            let mut history = vec![
                record(2, renewed("w1.1")),
                record(3, sent(1)),
                record(loss, Event::Restored { data_of }),
                record(5, begin(1, "w1.1")),
                record(5, begin(1, "w1.1")),
                record(6, end(1, "w1.1")),
                record(6, stored(1)),
                record(7, begin(1, "w2.1")),
            ];
            history.sort_by_key(|record| record.at);
            history
        };
        assert_eq!(violations(&history(4), &remains(&[1])), [] as [&str; 0]);
        assert_eq!(violations(&history(1), &remains(&[1])).len(), 3);
    }

    #[test]
    fn a_task_that_begins_after_its_end_or_ends_twice_is_noticed() {
        let history = [
            record(1, sent(1)),
            record(2, begin(1, "w1.1")),
            record(3, end(1, "w1.1")),
            record(3, stored(1)),
            record(9, begin(1, "w2.1")),
            record(9, end(1, "w2.1")),
            record(
                9,
                Event::Stored {
                    id: "id1".to_owned(),
                    status: "FAILURE".to_owned(),
                },
            ),
        ];
        let found = violations(&history, &remains(&[1]));
        assert_eq!(found.len(), 2, "{found:?}");
    }

    #[test]
    fn a_message_that_is_left_or_buried_beside_a_result_is_noticed() {
        let history = [record(1, sent(1))];
        let mut left = remains(&[1]);
        left.messages.push(r#"{"id": "id1"}"#.to_owned());
        assert_eq!(violations(&history, &left).len(), 1);
        let mut buried = remains(&[1]);
        buried.dead.push(r#"{"id": "id1"}"#.to_owned());
        assert_eq!(violations(&history, &buried).len(), 1);
    }
}

//! Decides which workers are dead, from what this process has itself seen.
//!
//! A lease is a score that its worker changes with every renewal. A worker is dead if its score has not
//! changed for the length of its lease, measured by this process's monotonic clock, between two reads of the
//! server. The score is a time for the sake of earlier releases, but no clock is compared with it, so a step
//! of any clock, including the server's, does not end a lease.
//!
//! Only uninterrupted observation counts: after a pause of this process, an outage, or a time during which
//! the server rejected commands, live workers could not renew either, so the observation starts again.

use std::{collections::HashMap, time::Duration};

use tokio::time::Instant;

#[derive(Debug, Default)]
pub(super) struct Judge {
    sightings: HashMap<String, Sighting>,
    /// Time of the last observation.
    last: Option<Instant>,
}

/// A score that was seen, of a lease or of a single delivery.
#[derive(Debug)]
struct Sighting {
    score: f64,
    /// Time of the reply that first had this score.
    since: Instant,
    /// Number of the last observation that had this score.
    round: u64,
    /// Whether all deliveries of the worker have been restored.
    restored: bool,
}

/// One read of the server.
#[derive(Debug, Clone, Copy)]
pub(super) struct Observation {
    /// Time at which the request was sent.
    pub(super) sent: Instant,
    /// Time at which the reply was received.
    pub(super) received: Instant,
    /// Time since which the server has been serving requests of this handle.
    pub(super) available_since: Instant,
}

impl Judge {
    /// Begins an observation. If more than `max_gap` has passed since the previous one, or the server was
    /// unavailable in the meantime, what was seen before does not count.
    pub(super) fn begin(&mut self, observation: Observation, max_gap: Duration) {
        let continuous = self.last.is_some_and(|last| {
            observation.received - last <= max_gap && observation.available_since <= last
        });
        if !continuous {
            for sighting in self.sightings.values_mut() {
                sighting.since = observation.received;
            }
        }
        self.last = Some(observation.received);
    }

    /// Records the current score of a lease or delivery. Returns the time for which this judge has seen it
    /// unchanged.
    pub(super) fn observe(
        &mut self,
        key: &str,
        score: f64,
        observation: Observation,
        round: u64,
    ) -> Duration {
        match self.sightings.get_mut(key) {
            Some(seen) if seen.score == score => {
                seen.round = round;
                observation.sent.saturating_duration_since(seen.since)
            }
            _ => {
                let sighting = Sighting {
                    score,
                    since: observation.received,
                    round,
                    restored: false,
                };
                self.sightings.insert(key.to_owned(), sighting);
                Duration::ZERO
            }
        }
    }

    /// Forgets what was not seen since the observation `round`.
    pub(super) fn forget_before(&mut self, round: u64) {
        self.sightings.retain(|_, seen| seen.round >= round);
    }

    /// Returns whether all deliveries of a dead worker have been restored.
    pub(super) fn is_restored(&self, instance: &str) -> bool {
        self.sightings.get(instance).is_some_and(|seen| seen.restored)
    }

    /// Records that no deliveries of a dead worker are left.
    pub(super) fn set_restored(&mut self, instance: &str) {
        if let Some(seen) = self.sightings.get_mut(instance) {
            seen.restored = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const MAX_GAP: Duration = Duration::from_secs(3);

    struct Watcher {
        judge: Judge,
        start: Instant,
    }

    impl Watcher {
        fn new() -> Self {
            let judge = Judge::default();
            let start = Instant::now();
            Self { judge, start }
        }

        /// Observes one lease at a time in seconds; the reply takes a tenth of a second.
        fn see(&mut self, score: f64, seconds: f64, available_since: f64) -> f64 {
            let at = |seconds| self.start + Duration::from_secs_f64(seconds);
            let observation = Observation {
                sent: at(seconds),
                received: at(seconds + 0.1),
                available_since: at(available_since),
            };
            self.judge.begin(observation, MAX_GAP);
            let unchanged = self.judge.observe("worker", score, observation, 0);
            (unchanged.as_secs_f64() * 10.0).round() / 10.0
        }
    }

    #[test]
    fn only_the_time_between_two_reads_counts() {
        let mut watcher = Watcher::new();
        // The score is far in the past and far in the future: neither matters.
        for score in [-1e9, 1e12] {
            let mut watcher = Watcher::new();
            assert_eq!(watcher.see(score, 0.0, 0.0), 0.0);
            assert_eq!(watcher.see(score, 2.0, 0.0), 1.9);
        }
        assert_eq!(watcher.see(5.0, 0.0, 0.0), 0.0);
        assert_eq!(watcher.see(5.0, 2.0, 0.0), 1.9);
        assert_eq!(
            watcher.see(4.0, 4.0, 0.0),
            0.0,
            "renewed by a clock that was set back"
        );
        assert_eq!(watcher.see(4.0, 6.0, 0.0), 1.9);
    }

    #[test]
    fn a_pause_or_an_outage_restarts_the_observation() {
        let mut watcher = Watcher::new();
        watcher.see(5.0, 0.0, 0.0);
        assert_eq!(watcher.see(5.0, 2.0, 0.0), 1.9);
        assert_eq!(watcher.see(5.0, 60.0, 0.0), 0.0, "this process was paused");
        assert_eq!(watcher.see(5.0, 62.0, 0.0), 1.9);
        assert_eq!(watcher.see(5.0, 64.0, 63.0), 0.0, "the server was unavailable");
        assert_eq!(watcher.see(5.0, 66.0, 63.0), 1.9);
    }

    #[test]
    fn a_restored_worker_is_remembered_until_its_score_changes() {
        let mut judge = Judge::default();
        let now = Instant::now();
        let observation = Observation {
            sent: now,
            received: now + SECOND,
            available_since: now,
        };
        judge.observe("worker", 1.0, observation, 1);
        judge.set_restored("worker");
        assert!(judge.is_restored("worker"));
        judge.observe("worker", 2.0, observation, 2);
        assert!(!judge.is_restored("worker"));
        judge.forget_before(3);
        assert!(!judge.is_restored("worker"));
        assert!(judge.sightings.is_empty());
    }
}

//! The time by which a replica lags behind. The age of its last replayed transaction does not show the lag,
//! because that transaction is also old when nothing is written. Therefore, the primary's positions are
//! recorded with the time at which they were read.

use std::{collections::VecDeque, time::Duration};

use tokio::time::Instant;

/// Maximum number of recorded positions: at one per second, more than a minute's worth.
const MAX_POSITIONS: usize = 100;

/// Positions that the primary has reached and the replica has not, the oldest first.
#[derive(Debug, Default)]
pub(super) struct Lag(VecDeque<(Instant, u64)>);

impl Lag {
    /// Returns the lag at `now` of a replica that has replayed up to `replayed`, while the primary has
    /// written up to `written`, if known.
    pub(super) fn after(&mut self, now: Instant, written: Option<u64>, replayed: u64) -> Duration {
        if let Some(written) = written
            && self.0.len() < MAX_POSITIONS
            && self.0.back().is_none_or(|(_, last)| *last < written)
        {
            self.0.push_back((now, written));
        }
        while self.0.front().is_some_and(|(_, position)| *position <= replayed) {
            self.0.pop_front();
        }
        self.0
            .front()
            .map_or(Duration::ZERO, |(reached, _)| now.duration_since(*reached))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(count: u64) -> Duration {
        Duration::from_secs(count)
    }

    #[test]
    fn a_replayed_position_causes_no_lag_however_old_it_is() {
        let (start, mut lag) = (Instant::now(), Lag::default());
        assert_eq!(lag.after(start, Some(10), 10), Duration::ZERO);
        assert_eq!(lag.after(start + seconds(3600), Some(10), 10), Duration::ZERO);
    }

    #[test]
    fn the_lag_is_the_age_of_the_oldest_missing_position() {
        let (start, mut lag) = (Instant::now(), Lag::default());
        for second in 0..5 {
            let behind = lag.after(start + seconds(second), Some(20 + second), 10);
            assert_eq!(behind, seconds(second));
        }
        assert_eq!(lag.after(start + seconds(5), Some(25), 22), seconds(2));
        assert_eq!(lag.after(start + seconds(6), Some(25), 25), Duration::ZERO);
    }

    #[test]
    fn an_unreachable_primary_adds_no_position() {
        let (start, mut lag) = (Instant::now(), Lag::default());
        assert_eq!(lag.after(start, None, 10), Duration::ZERO);
        lag.after(start, Some(20), 10);
        assert_eq!(lag.after(start + seconds(4), None, 10), seconds(4));
    }

    #[test]
    fn a_stalled_replica_uses_bounded_memory() {
        let (start, mut lag) = (Instant::now(), Lag::default());
        for second in 0..1000 {
            lag.after(start + seconds(second), Some(20 + second), 10);
        }
        assert_eq!(lag.0.len(), MAX_POSITIONS);
        assert_eq!(lag.after(start + seconds(1000), Some(2000), 10), seconds(1000));
        assert_eq!(lag.after(start + seconds(1001), Some(2000), 2000), Duration::ZERO);
    }
}

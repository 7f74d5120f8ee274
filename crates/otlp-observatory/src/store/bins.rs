//! Steps of time into which the readings of several series are aligned.

use std::ops::RangeInclusive;

/// Maximum number of steps.
const MAX_STEPS: u64 = 240;

/// Length of a step if no series has two points: ten seconds, in nanoseconds.
const DEFAULT_STEP: u64 = 10_000_000_000;

/// Steps of equal length that end with the newest sample. Samples of one exporter are in the middle of their
/// steps, so that small deviations of its interval do not matter.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bins {
    newest: u64,
    /// Length of a step in nanoseconds.
    step: u64,
    pub(super) count: usize,
}

/// Timestamps of several series, from which the steps are chosen.
#[derive(Clone, Debug, Default)]
pub(super) struct Times {
    range: Option<(u64, u64)>,
    intervals: Vec<u64>,
}

impl Times {
    /// Adds the timestamps of a series that are in `window`.
    pub(super) fn add(&mut self, times: impl Iterator<Item = u64>, window: &RangeInclusive<u64>) {
        let mut previous = None;
        for time in times.filter(|time| window.contains(time)) {
            let (oldest, newest) = self.range.unwrap_or((time, time));
            self.range = Some((oldest.min(time), newest.max(time)));
            let interval = previous.and_then(|previous| time.checked_sub(previous));
            self.intervals.extend(interval.filter(|interval| *interval > 0));
            previous = Some(time);
        }
    }

    /// Returns steps as long as the typical interval of the series, or longer if there would be too many.
    pub(super) fn bins(mut self) -> Bins {
        let (oldest, newest) = self.range.unwrap_or_default();
        let middle = self.intervals.len() / 2;
        let typical = match self.intervals.is_empty() {
            true => DEFAULT_STEP,
            false => *self.intervals.select_nth_unstable(middle).1,
        };
        let length = newest - oldest;
        let step = typical.max(length.div_ceil(MAX_STEPS)).max(1);
        Bins {
            newest,
            step,
            count: usize::try_from((length + step / 2) / step + 1).unwrap_or(1),
        }
    }
}

impl Bins {
    /// Returns the index of the step that contains `time`, from the oldest.
    pub(super) fn index(&self, time: u64) -> usize {
        let age = (self.newest.saturating_sub(time) + self.step / 2) / self.step;
        let age = usize::try_from(age).unwrap_or(usize::MAX);
        (self.count - 1).saturating_sub(age)
    }

    /// Returns the middle of a step.
    pub(super) fn time(&self, index: usize) -> u64 {
        self.newest
            .saturating_sub((self.count - 1 - index) as u64 * self.step)
    }

    /// Returns the length of a step in seconds.
    pub(super) fn seconds(&self) -> f64 {
        self.step as f64 / 1e9
    }
}

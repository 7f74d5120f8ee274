//! Times of arrival of numbered entries. All entries of a request have the same time, so the times are stored by request.

use std::{collections::VecDeque, mem::size_of};

use super::memory;

/// First number and time of arrival of each request, in ascending order.
#[derive(Debug, Default)]
pub(crate) struct Arrivals {
    requests: VecDeque<(u64, u64)>,
}

impl Arrivals {
    /// Adds a request that arrived at `now`, whose first entry will have the number `first`.
    pub(crate) fn push(&mut self, first: u64, now: u64) {
        match self.requests.back_mut() {
            // The previous request added no entry.
            Some(latest) if latest.0 == first => latest.1 = now,
            _ => {
                memory::grow(&mut self.requests);
                self.requests.push_back((first, now));
            }
        }
    }

    /// Returns the time of arrival of the entry `number`; 0 if it was removed.
    pub(crate) fn of(&self, number: u64) -> u64 {
        let next = self.requests.partition_point(|(first, _)| *first <= number);
        let request = next.checked_sub(1).and_then(|request| self.requests.get(request));
        request.map_or(0, |(_, time)| *time)
    }

    /// Removes the times of entries below `number`.
    pub(crate) fn remove_before(&mut self, number: u64) {
        while self.requests.get(1).is_some_and(|(next, _)| *next <= number) {
            self.requests.pop_front();
        }
        if self.requests.capacity() > 4 * self.requests.len() + 64 {
            self.requests.shrink_to(2 * self.requests.len());
        }
    }

    /// Returns the memory use in bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.requests.capacity() * size_of::<(u64, u64)>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_have_the_time_of_their_request() {
        let mut arrivals = Arrivals::default();
        for (first, now) in [(1, 10), (3, 20), (3, 30), (7, 40)] {
            arrivals.push(first, now);
        }
        let times = |arrivals: &Arrivals| [1, 2, 3, 6, 7, 9].map(|number| arrivals.of(number));
        assert_eq!(times(&arrivals), [10, 10, 30, 30, 40, 40]);
        arrivals.remove_before(4);
        assert_eq!(times(&arrivals), [0, 0, 30, 30, 40, 40]);
        arrivals.remove_before(7);
        assert_eq!(times(&arrivals), [0, 0, 0, 0, 40, 40]);
    }
}

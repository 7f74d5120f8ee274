//! The windows that one process keeps in memory, so many at most.

use std::collections::{HashMap, VecDeque};

use tokio::time::Instant;

use super::{Key, Limit, TooManyAttempts, WINDOW};

/// Open windows by key. All last equally long, so the order in which they began is the order in
/// which they end, and nothing is ever searched for what has ended.
#[derive(Debug)]
pub(super) struct Windows {
    open: HashMap<Key, Window>,
    /// The keys of `open`, the oldest window first.
    order: VecDeque<Key>,
    most: usize,
}

#[derive(Debug)]
struct Window {
    ends: Instant,
    attempts: u32,
}

impl Windows {
    pub(super) fn new(most: usize) -> Self {
        Self {
            open: HashMap::new(),
            order: VecDeque::new(),
            most,
        }
    }

    /// Counts an attempt in each of its windows, or in none when one of them is full.
    pub(super) fn admit(&mut self, limits: &[Limit], now: Instant) -> Result<(), TooManyAttempts> {
        self.close_ended(now);
        let full = limits.iter().filter_map(|limit| {
            let window = self.open.get(&limit.key)?;
            (window.attempts >= limit.most.get()).then(|| window.ends - now)
        });
        if let Some(retry_after) = full.max() {
            return Err(TooManyAttempts { retry_after });
        }
        for limit in limits {
            self.count(limit.key, now);
        }
        Ok(())
    }

    fn count(&mut self, key: Key, now: Instant) {
        if let Some(window) = self.open.get_mut(&key) {
            window.attempts += 1;
            return;
        }
        if self.order.len() >= self.most {
            self.close_oldest();
        }
        self.order.push_back(key);
        let window = Window {
            ends: now + WINDOW,
            attempts: 1,
        };
        self.open.insert(key, window);
    }

    fn close_ended(&mut self, now: Instant) {
        while let Some(oldest) = self.order.front()
            && self.open.get(oldest).is_none_or(|window| window.ends <= now)
        {
            self.close_oldest();
        }
    }

    fn close_oldest(&mut self) {
        if let Some(oldest) = self.order.pop_front() {
            self.open.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{num::NonZeroU32, time::Duration};

    use super::*;

    fn limit(key: u8) -> Limit {
        Limit {
            key: [key; 16],
            most: NonZeroU32::MIN,
        }
    }

    #[test]
    fn the_number_of_windows_is_bounded_and_the_oldest_make_room() {
        let now = Instant::now();
        let mut windows = Windows::new(3);
        for key in 0..4 {
            assert_eq!(windows.admit(&[limit(key)], now), Ok(()));
        }
        assert_eq!((windows.open.len(), windows.order.len()), (3, 3));
        assert!(windows.admit(&[limit(3)], now).is_err(), "is still counted");
        assert_eq!(windows.admit(&[limit(0)], now), Ok(()), "made room");
    }

    #[test]
    fn what_has_ended_is_forgotten() {
        let now = Instant::now();
        let mut windows = Windows::new(100);
        for key in 0..50 {
            assert_eq!(windows.admit(&[limit(key)], now), Ok(()));
        }
        let later = now + WINDOW - Duration::from_millis(1);
        assert_eq!(
            windows.admit(&[limit(7)], later),
            Err(TooManyAttempts {
                retry_after: Duration::from_millis(1)
            })
        );
        assert_eq!(windows.admit(&[limit(7)], now + WINDOW), Ok(()));
        assert_eq!((windows.open.len(), windows.order.len()), (1, 1));
    }
}

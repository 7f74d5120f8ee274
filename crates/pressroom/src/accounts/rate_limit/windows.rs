//! Rate-limit windows in the memory of one process, bounded in number.

use std::collections::{HashMap, VecDeque};

use tokio::time::Instant;

use super::limit::{Key, Limit, Quota, TooManyAttempts, WINDOW};

/// Open windows by key.
///
/// All windows have the same length, so they end in the order in which they started, and ended windows are at the
/// front of `order`.
#[derive(Debug)]
pub(super) struct Windows {
    open: HashMap<Key, Window>,
    /// Keys of `open`, the oldest window first.
    order: VecDeque<Key>,
    capacity: usize,
}

#[derive(Debug)]
struct Window {
    ends: Instant,
    attempts: u32,
}

impl Windows {
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            open: HashMap::new(),
            order: VecDeque::new(),
            capacity,
        }
    }

    /// Counts an attempt in the windows of all limits, or in none if a window is full.
    pub(super) fn admit(&mut self, limits: &[Limit], now: Instant) -> Result<(), TooManyAttempts> {
        self.close_ended(now);
        let full = limits.iter().filter_map(|limit| {
            let window = self.open.get(&limit.key)?;
            (window.attempts >= limit.policy.quota.get()).then(|| TooManyAttempts {
                policy: limit.policy,
                retry_after: window.ends - now,
            })
        });
        if let Some(refused) = full.max_by_key(|refused| refused.retry_after) {
            return Err(refused);
        }
        for limit in limits {
            self.count(limit.key, now);
        }
        Ok(())
    }

    /// Counts a request in the window of one limit, and returns the state of the limit.
    pub(super) fn admit_one(&mut self, limit: Limit, now: Instant) -> Result<Quota, TooManyAttempts> {
        self.admit(&[limit], now)?;
        let window = self.open.get(&limit.key);
        let (attempts, ends) = window.map_or((1, now + WINDOW), |window| (window.attempts, window.ends));
        Ok(Quota {
            policy: limit.policy,
            remaining: limit.policy.quota.get().saturating_sub(attempts),
            resets_in: ends - now,
        })
    }

    fn count(&mut self, key: Key, now: Instant) {
        if let Some(window) = self.open.get_mut(&key) {
            window.attempts += 1;
            return;
        }
        if self.order.len() >= self.capacity {
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

    use super::{super::limit::Policy, *};

    const ONCE: Policy = Policy {
        name: "once",
        quota: NonZeroU32::MIN,
    };

    fn limit(key: u8) -> Limit {
        Limit {
            policy: ONCE,
            key: [key; 16],
        }
    }

    #[test]
    fn the_oldest_window_is_dropped_when_the_capacity_is_reached() {
        let now = Instant::now();
        let mut windows = Windows::new(3);
        for key in 0..4 {
            assert_eq!(windows.admit(&[limit(key)], now), Ok(()));
        }
        assert_eq!((windows.open.len(), windows.order.len()), (3, 3));
        assert!(windows.admit(&[limit(3)], now).is_err(), "the newest is kept");
        assert_eq!(windows.admit(&[limit(0)], now), Ok(()), "the oldest was dropped");
    }

    #[test]
    fn ended_windows_are_removed() {
        let now = Instant::now();
        let mut windows = Windows::new(100);
        for key in 0..50 {
            assert_eq!(windows.admit(&[limit(key)], now), Ok(()));
        }
        let later = now + WINDOW - Duration::from_millis(1);
        assert_eq!(
            windows.admit(&[limit(7)], later),
            Err(TooManyAttempts {
                policy: ONCE,
                retry_after: Duration::from_millis(1)
            })
        );
        assert_eq!(windows.admit(&[limit(7)], now + WINDOW), Ok(()));
        assert_eq!((windows.open.len(), windows.order.len()), (1, 1));
    }
}

//! Delays between the attempts of a loop that retries. The nominal delay doubles from an initial value up to a
//! maximum; jitter shortens each delay by up to half, which spreads the retries of processes that failed
//! together.

use std::time::Duration;

use crate::system;

#[derive(Debug)]
pub(crate) struct BackOff {
    initial: Duration,
    max: Duration,
    next: Duration,
}

impl Default for BackOff {
    /// Returns a back-off from 50 ms to 2 s.
    fn default() -> Self {
        Self::new(Duration::from_millis(50), Duration::from_secs(2))
    }
}

impl BackOff {
    pub(crate) fn new(initial: Duration, max: Duration) -> Self {
        Self {
            initial,
            max,
            next: initial,
        }
    }

    /// Restarts with the initial delay, after a success.
    pub(crate) fn reset(&mut self) {
        self.next = self.initial;
    }

    /// Returns the next delay, between half of the nominal delay and all of it.
    pub(crate) fn next_delay(&mut self) -> Duration {
        let nominal = self.next;
        self.next = (nominal * 2).min(self.max);
        nominal.mul_f64(0.5 + system::random_fraction() / 2.0)
    }

    pub(crate) async fn wait(&mut self) {
        tokio::time::sleep(self.next_delay()).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_up_to_the_maximum_and_restart() {
        let mut back_off = BackOff::new(Duration::from_secs(1), Duration::from_secs(3));
        let mut is_next = |nominal: u64| {
            let nominal = Duration::from_secs(nominal);
            let delay = back_off.next_delay();
            assert!(
                (nominal / 2..=nominal).contains(&delay),
                "{delay:?} of {nominal:?}"
            );
        };
        [1, 2, 3, 3].into_iter().for_each(&mut is_next);
        back_off.reset();
        assert!(back_off.next_delay() <= Duration::from_secs(1));
    }

    #[test]
    fn delays_have_jitter() {
        let delays = [(); 10].map(|()| BackOff::default().next_delay());
        assert!(delays.iter().any(|delay| *delay != delays[0]), "{delays:?}");
    }
}

//! Duration of failed logins, which must not reveal whether an account exists or how its password is hashed.
//!
//! Stored hashes differ in cost: a database that Flask has used may contain scrypt, PBKDF2 with several numbers of
//! rounds, and argon2id. A failed login is therefore delayed until it has taken as long as one with the costliest hash
//! in the database. The delay needs no processor time.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

/// Ratio of the duration of a failed login to the usual duration of the costliest hash, so that a hash that takes
/// somewhat longer than usual does not stand out.
const MARGIN: f64 = 1.25;

/// Maximum duration that failed logins are extended to.
const MAX_DURATION: Duration = Duration::from_secs(3);

/// Maximum number of costs; more schemes than a database contains.
const MAX_COSTS: usize = 64;

/// Durations of the verification of a password by scheme, as measured by this process.
#[derive(Debug, Default)]
pub(super) struct Costs {
    measured: Mutex<HashMap<String, Duration>>,
}

impl Costs {
    /// Adds a measurement to the moving average of a scheme.
    pub(super) fn record(&self, scheme: &str, duration: Duration) {
        let mut measured = self.measured.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(average) = measured.get_mut(scheme) {
            *average = (*average * 7 + duration) / 8;
        } else if measured.len() < MAX_COSTS {
            measured.insert(scheme.to_owned(), duration);
        }
    }

    /// Returns whether the cost of a scheme has been measured.
    pub(super) fn contains(&self, scheme: &str) -> bool {
        let measured = self.measured.lock().unwrap_or_else(PoisonError::into_inner);
        measured.contains_key(scheme)
    }

    /// Returns the duration of a failed login whose verification took `own` with the scheme `own_scheme`, if the
    /// database contains `schemes`.
    ///
    /// If the verification took longer than usual, because the machine is busy, the others would have too.
    pub(super) fn duration<'a>(
        &self,
        schemes: impl IntoIterator<Item = &'a str>,
        own_scheme: Option<&str>,
        own: Duration,
    ) -> Duration {
        let measured = self.measured.lock().unwrap_or_else(PoisonError::into_inner);
        let own_average = own_scheme.and_then(|scheme| measured.get(scheme));
        let costs = schemes.into_iter().filter_map(|scheme| measured.get(scheme));
        let costliest = costs.chain(own_average).max().copied().unwrap_or_default();
        let usual = own_average.map_or(Duration::ZERO, |average| average.mul_f64(MARGIN));
        let slowdown = if own > usual && !usual.is_zero() {
            own.div_duration_f64(usual)
        } else {
            1.0
        };
        costliest.mul_f64(MARGIN * slowdown).min(MAX_DURATION)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(count: u64) -> Duration {
        Duration::from_millis(count)
    }

    #[test]
    fn all_schemes_take_as_long_as_the_costliest_in_the_database() {
        let costs = Costs::default();
        costs.record("cheap", ms(16));
        costs.record("costly", ms(160));
        costs.record("not in the database", ms(1000));
        let both = ["cheap", "costly"];
        let expected = ms(200);
        for (own, took) in [
            (Some("cheap"), 16),
            (Some("cheap"), 19),
            (Some("costly"), 170),
            (None, 0),
        ] {
            assert_eq!(costs.duration(both, own, ms(took)), expected, "{own:?} {took}");
        }
        assert_eq!(costs.duration(["cheap"], Some("cheap"), ms(17)), ms(20));
    }

    #[test]
    fn a_busy_machine_slows_all_schemes_down() {
        let costs = Costs::default();
        costs.record("cheap", ms(16));
        costs.record("costly", ms(160));
        let both = ["cheap", "costly"];
        assert_eq!(costs.duration(both, Some("cheap"), ms(40)), ms(400));
        assert_eq!(costs.duration(both, Some("costly"), ms(400)), ms(400));
    }

    #[test]
    fn costs_follow_the_measurements() {
        let costs = Costs::default();
        costs.record("scheme", ms(100));
        for _ in 0..40 {
            costs.record("scheme", ms(200));
        }
        let duration = costs.duration(["scheme"], None, ms(0));
        assert!((ms(245)..ms(251)).contains(&duration), "{duration:?}");
    }
}

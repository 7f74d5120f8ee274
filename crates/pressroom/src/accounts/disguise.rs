//! Duration of failed logins, which must not reveal whether an account exists or how its password is hashed.
//!
//! Stored hashes differ in cost: a database that Flask has used may contain scrypt, PBKDF2 with several numbers of
//! rounds, and argon2id. A failed login is therefore delayed until it has taken as long as one with the costliest hash
//! in the database. The delay needs no processor time.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// Ratio of the duration of a failed login to the usual duration of the costliest hash, so that a hash that takes
/// somewhat longer than usual does not stand out.
const MARGIN: f64 = 1.25;

/// Maximum duration that failed logins are extended to.
const MAX_DURATION: Duration = Duration::from_secs(3);

/// Time after which a cost is measured again, because the machine may have been busy.
const EXPIRY: Duration = Duration::from_hours(1);

/// Maximum number of stored costs, which exceeds the number of schemes in any real database.
const MAX_COSTS: usize = 64;

/// Time that verifying a password takes, for each scheme, as measured by this process.
#[derive(Debug, Default)]
pub(super) struct Costs {
    measured: Mutex<HashMap<String, Cost>>,
}

#[derive(Debug)]
struct Cost {
    usual: Duration,
    expires: Instant,
}

impl Costs {
    /// Whether the cost of a scheme is known.
    pub(super) fn contains(&self, scheme: &str, now: Instant) -> bool {
        self.lock().get(scheme).is_some_and(|cost| cost.expires > now)
    }

    /// Records the result of a measurement.
    pub(super) fn measured(&self, scheme: &str, usual: Duration, now: Instant) {
        let mut measured = self.lock();
        if measured.len() >= MAX_COSTS {
            measured.clear();
        }
        let expires = now + EXPIRY;
        measured.insert(scheme.to_owned(), Cost { usual, expires });
    }

    /// Raises the cost of a scheme if a verification took longer than usual. A cost never falls before it expires,
    /// because failed logins before and after would differ.
    pub(super) fn observe(&self, scheme: &str, duration: Duration) {
        if let Some(cost) = self.lock().get_mut(scheme) {
            let excess = duration.div_f64(MARGIN).saturating_sub(cost.usual);
            cost.usual += excess / 8;
        }
    }

    /// Returns the duration of a failed login whose verification took `own` with the scheme `own_scheme`, if the
    /// database contains `schemes`.
    ///
    /// If this verification took longer than usual because the machine is busy, other schemes would have, too.
    pub(super) fn duration<'a>(
        &self,
        schemes: impl IntoIterator<Item = &'a str>,
        own_scheme: Option<&str>,
        own: Duration,
    ) -> Duration {
        let measured = self.lock();
        let usual = |scheme: &str| measured.get(scheme).map(|cost| cost.usual);
        let own_usual = own_scheme.and_then(usual);
        let costs = schemes.into_iter().filter_map(usual);
        let costliest = costs.chain(own_usual).max().unwrap_or_default();
        let limit = own_usual.unwrap_or_default().mul_f64(MARGIN);
        let slowdown = if own > limit && !limit.is_zero() {
            own.div_duration_f64(limit)
        } else {
            1.0
        };
        costliest.mul_f64(MARGIN * slowdown).min(MAX_DURATION)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Cost>> {
        self.measured.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(count: u64) -> Duration {
        Duration::from_millis(count)
    }

    fn costs(measured: &[(&str, u64)]) -> Costs {
        let costs = Costs::default();
        for (scheme, usual) in measured {
            costs.measured(scheme, ms(*usual), Instant::now());
        }
        costs
    }

    #[test]
    fn all_schemes_take_as_long_as_the_costliest_in_the_database() {
        let costs = costs(&[("cheap", 16), ("costly", 160), ("not in the database", 1000)]);
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
        let costs = costs(&[("cheap", 16), ("costly", 160)]);
        let both = ["cheap", "costly"];
        assert_eq!(costs.duration(both, Some("cheap"), ms(40)), ms(400));
        assert_eq!(costs.duration(both, Some("costly"), ms(400)), ms(400));
    }

    #[test]
    fn a_cost_rises_and_does_not_fall() {
        let costs = costs(&[("scheme", 100)]);
        for _ in 0..40 {
            costs.observe("scheme", ms(10));
            costs.observe("scheme", ms(120));
        }
        assert_eq!(costs.duration(["scheme"], None, ms(0)), ms(125));
        for _ in 0..60 {
            costs.observe("scheme", ms(250));
        }
        let duration = costs.duration(["scheme"], None, ms(0));
        assert!((ms(249)..=ms(250)).contains(&duration), "{duration:?}");
    }

    #[test]
    fn a_cost_is_measured_again_after_an_hour() {
        let costs = Costs::default();
        let start = Instant::now();
        costs.measured("scheme", ms(100), start);
        assert!(costs.contains("scheme", start + EXPIRY - ms(1)));
        assert!(!costs.contains("scheme", start + EXPIRY));
        assert!(!costs.contains("another", start));
    }
}

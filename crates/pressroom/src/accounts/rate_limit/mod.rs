//! How often somebody may try to log in or register, which is what guessing passwords and filling
//! the table of users come down to.
//!
//! Attempts are counted in windows of a minute that begin with the first one: by account, whether it
//! exists or not, and by client address. With Redis the windows are shared by all API processes;
//! while it is away, and in embedded mode, each process counts for itself. An attempt that is
//! refused is not counted, so that somebody over one limit does not use up another.

mod shared;
mod windows;

use std::{
    net::{IpAddr, Ipv6Addr},
    num::NonZeroU32,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use celeriac::RedisBroker;
use tokio::time::Instant;

use self::{shared::SharedWindows, windows::Windows};
use super::token::SecretKey;
use crate::domain::Email;

/// How long a window lasts.
const WINDOW: Duration = Duration::from_mins(1);

/// How many windows one process keeps by itself; each takes about 60 bytes. The oldest make room.
const MAX_WINDOWS: usize = 100_000;

/// How many attempts a minute are let through; `None` is any number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rates {
    /// Logins to one account.
    pub login_account: Option<NonZeroU32>,
    /// Logins from one client address.
    pub login_address: Option<NonZeroU32>,
    /// Registrations from one client address.
    pub register_address: Option<NonZeroU32>,
}

impl Rates {
    pub const UNLIMITED: Self = Self {
        login_account: None,
        login_address: None,
        register_address: None,
    };
}

impl Default for Rates {
    fn default() -> Self {
        Self {
            login_account: NonZeroU32::new(10),
            login_address: NonZeroU32::new(60),
            register_address: NonZeroU32::new(30),
        }
    }
}

/// The attempt is one too many.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too many attempts")]
pub struct TooManyAttempts {
    /// When the next one may be let through.
    pub retry_after: Duration,
}

/// What is counted together: a digest, because e-mail addresses and clients' are nobody's business
/// where the counts are kept.
type Key = [u8; 16];

/// So many attempts fit into the window of this key.
#[derive(Debug, Clone, Copy)]
struct Limit {
    key: Key,
    most: NonZeroU32,
}

/// Counts attempts and says when there are too many.
#[derive(Debug)]
pub struct RateLimiter {
    rates: Rates,
    secret: SecretKey,
    own: Mutex<Windows>,
    shared: Option<SharedWindows>,
    /// Whether the shared windows could not be asked last time.
    alone: AtomicBool,
}

impl RateLimiter {
    /// Counts in this process. `secret` makes the digests; processes that share windows share it.
    #[must_use]
    pub fn new(rates: Rates, secret: SecretKey) -> Self {
        Self {
            rates,
            secret,
            own: Mutex::new(Windows::new(MAX_WINDOWS)),
            shared: None,
            alone: AtomicBool::new(false),
        }
    }

    /// Counts together with all processes on the server of this broker.
    #[must_use]
    pub fn shared_through(self, broker: &RedisBroker) -> Self {
        Self {
            shared: Some(SharedWindows::new(broker)),
            ..self
        }
    }

    /// Counts a login, unless it is one too many.
    ///
    /// # Errors
    /// [`TooManyAttempts`] for this account, or from this address.
    pub async fn login(&self, email: &Email, client: Option<IpAddr>) -> Result<(), TooManyAttempts> {
        let account = self.limit("login account", self.rates.login_account, Some(email.folded()));
        let address = self.limit("login address", self.rates.login_address, client.map(household));
        self.admit([account, address]).await
    }

    /// Counts a registration, unless it is one too many.
    ///
    /// # Errors
    /// [`TooManyAttempts`] from this address.
    pub async fn registration(&self, client: Option<IpAddr>) -> Result<(), TooManyAttempts> {
        let address = self.limit(
            "register address",
            self.rates.register_address,
            client.map(household),
        );
        self.admit([address]).await
    }

    fn limit(&self, what: &str, most: Option<NonZeroU32>, whose: Option<String>) -> Option<Limit> {
        Some(Limit {
            most: most?,
            key: self.secret.digest(what, &whose?),
        })
    }

    async fn admit<const N: usize>(&self, limits: [Option<Limit>; N]) -> Result<(), TooManyAttempts> {
        let limits: Vec<Limit> = limits.into_iter().flatten().collect();
        if limits.is_empty() {
            return Ok(());
        }
        if let Some(shared) = &self.shared {
            match shared.admit(&limits).await {
                Ok(admitted) => {
                    if self.alone.swap(false, Ordering::Relaxed) {
                        telemetry::info!("rate limits are shared with the other processes again");
                    }
                    return admitted;
                }
                Err(error) => {
                    if !self.alone.swap(true, Ordering::Relaxed) {
                        telemetry::warn!(%error, "rate limits hold for this process alone until Redis is back");
                    }
                }
            }
        }
        let mut own = self.own.lock().unwrap_or_else(PoisonError::into_inner);
        own.admit(&limits, Instant::now())
    }
}

/// An address as far as it tells clients apart: whoever has one IPv6 address has 2^64 of them.
fn household(address: IpAddr) -> String {
    match address.to_canonical() {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limiter(rates: Rates) -> RateLimiter {
        RateLimiter::new(rates, SecretKey::new("0123456789abcdef0123456789abcdef"))
    }

    fn email(text: &str) -> Email {
        Email::parse(text).unwrap()
    }

    fn client(text: &str) -> Option<IpAddr> {
        Some(text.parse().unwrap())
    }

    #[tokio::test]
    async fn an_account_is_limited_whatever_its_spelling_and_wherever_from() {
        let limiter = limiter(Rates::default());
        for i in 0..10 {
            let spelling = if i % 2 == 0 {
                "a@example.com"
            } else {
                "A@Example.com"
            };
            let client = client(&format!("192.0.2.{i}"));
            assert_eq!(limiter.login(&email(spelling), client).await, Ok(()));
        }
        let refused = limiter.login(&email("a@example.com"), client("192.0.2.99")).await;
        let TooManyAttempts { retry_after } = refused.unwrap_err();
        assert!(!retry_after.is_zero() && retry_after <= WINDOW, "{retry_after:?}");
        assert_eq!(limiter.login(&email("b@example.com"), None).await, Ok(()));
    }

    #[tokio::test]
    async fn a_client_with_many_addresses_of_one_network_is_one_client() {
        let limiter = limiter(Rates::default());
        for i in 0..30 {
            let client = client(&format!("2001:db8::{i:x}"));
            assert_eq!(limiter.registration(client).await, Ok(()));
        }
        assert!(limiter.registration(client("2001:db8::ffff")).await.is_err());
        assert_eq!(limiter.registration(client("2001:db8:0:1::")).await, Ok(()));
        assert_eq!(limiter.registration(client("192.0.2.1")).await, Ok(()));
    }

    #[tokio::test]
    async fn an_ipv4_address_is_the_same_written_as_ipv6() {
        let limiter = limiter(Rates {
            register_address: NonZeroU32::new(1),
            ..Rates::UNLIMITED
        });
        assert_eq!(limiter.registration(client("192.0.2.1")).await, Ok(()));
        assert!(limiter.registration(client("::ffff:192.0.2.1")).await.is_err());
    }

    /// Otherwise an address that is blocked anyway could keep others out of their accounts.
    #[tokio::test]
    async fn a_refused_attempt_counts_nowhere() {
        let limiter = limiter(Rates {
            login_account: NonZeroU32::new(2),
            login_address: NonZeroU32::new(1),
            register_address: None,
        });
        let alice = email("alice@example.com");
        assert_eq!(limiter.login(&alice, client("192.0.2.1")).await, Ok(()));
        for _ in 0..5 {
            assert!(limiter.login(&alice, client("192.0.2.1")).await.is_err());
        }
        assert_eq!(limiter.login(&alice, client("192.0.2.2")).await, Ok(()));
    }

    #[tokio::test]
    async fn no_limit_lets_everything_through() {
        let limiter = limiter(Rates::UNLIMITED);
        for _ in 0..1000 {
            assert_eq!(
                limiter.login(&email("a@example.com"), client("::1")).await,
                Ok(())
            );
        }
    }
}

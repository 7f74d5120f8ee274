//! Rate limits: on password attempts and registrations, against password guessing, address probing and mass
//! registration; and on writes, against users who keep the service busy.
//!
//! Requests are counted in windows of one minute that start with the first request. A rejected request is not counted,
//! because a client over one limit must not use up another limit.
//!
//! Password attempts are counted per account, even if it does not exist, and per client address. With Redis, all API
//! processes share the windows of password attempts and registrations; during an outage of Redis, and in embedded mode,
//! each process has its own. Writes are counted per user and process, so that a write does not depend on Redis.

mod limit;
mod shared;
mod windows;

use std::{
    net::{IpAddr, Ipv6Addr},
    num::NonZeroU32,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use celeriac::RedisBroker;
use tokio::time::Instant;

pub use self::limit::{Policy, Quota, TooManyAttempts};
use self::{limit::Limit, shared::SharedWindows, windows::Windows};
use super::token::SecretKey;
use crate::domain::{Email, UserId};

/// Maximum number of windows in memory, about 60 bytes each; the oldest are dropped.
const MAX_WINDOWS: usize = 100_000;

/// Maximum number of attempts per minute; `None` means no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rates {
    /// Logins to one account, including changes of its e-mail address or password.
    pub login_account: Option<NonZeroU32>,
    /// Logins, and changes of an e-mail address or password, from one client address.
    pub login_address: Option<NonZeroU32>,
    /// Registrations from one client address.
    pub register_address: Option<NonZeroU32>,
    /// Writes of one user, counted by each process.
    pub writes_user: Option<NonZeroU32>,
}

impl Rates {
    /// No limits.
    pub const UNLIMITED: Self = Self {
        login_account: None,
        login_address: None,
        register_address: None,
        writes_user: None,
    };
}

impl Default for Rates {
    fn default() -> Self {
        Self {
            login_account: NonZeroU32::new(10),
            login_address: NonZeroU32::new(60),
            register_address: NonZeroU32::new(30),
            writes_user: NonZeroU32::new(600),
        }
    }
}

/// Account that a password attempt is for.
///
/// Only the store knows which spellings of an address belong to one account, so attempts are counted by the id of the
/// account if it exists.
#[derive(Debug, Clone, Copy)]
pub enum Account<'a> {
    Known(UserId),
    Unknown(&'a Email),
}

/// Counts requests and rejects those over a limit.
#[derive(Debug)]
pub struct RateLimiter {
    rates: Rates,
    secret: SecretKey,
    local: Mutex<Windows>,
    shared: Option<SharedWindows>,
    /// Whether the last access to the shared windows failed.
    shared_unavailable: AtomicBool,
}

impl RateLimiter {
    /// Creates a limiter with windows in memory.
    ///
    /// `secret` is the key of the digests; processes that share windows must have the same secret.
    #[must_use]
    pub fn new(rates: Rates, secret: SecretKey) -> Self {
        Self {
            rates,
            secret,
            local: Mutex::new(Windows::new(MAX_WINDOWS)),
            shared: None,
            shared_unavailable: AtomicBool::new(false),
        }
    }

    /// Shares the windows with all processes that use the Redis server of `broker`.
    #[must_use]
    pub fn shared_through(self, broker: &RedisBroker) -> Self {
        Self {
            shared: Some(SharedWindows::new(broker)),
            ..self
        }
    }

    /// Counts a password attempt.
    ///
    /// # Errors
    /// [`TooManyAttempts`] when the account or the client address is over its limit.
    pub async fn password(
        &self,
        account: Account<'_>,
        client: Option<IpAddr>,
    ) -> Result<(), TooManyAttempts> {
        let account = match account {
            Account::Known(UserId(id)) => id.to_string(),
            Account::Unknown(email) => email.folded(),
        };
        let account = self.limit("login-account", self.rates.login_account, Some(account));
        let client = client.map(client_network);
        let address = self.limit("login-address", self.rates.login_address, client);
        self.admit([account, address]).await
    }

    /// Counts a write. Returns `None` if there is no limit.
    ///
    /// # Errors
    /// [`TooManyAttempts`] when the user is over the limit.
    pub fn write(&self, user: UserId) -> Result<Option<Quota>, TooManyAttempts> {
        let limit = self.limit("writes", self.rates.writes_user, Some(user.0.to_string()));
        let admit = |limit| {
            let mut local = self.local.lock().unwrap_or_else(PoisonError::into_inner);
            local.admit_one(limit, Instant::now())
        };
        limit.map(admit).transpose()
    }

    /// Counts a registration attempt.
    ///
    /// # Errors
    /// [`TooManyAttempts`] when the client address is over its limit.
    pub async fn registration(&self, client: Option<IpAddr>) -> Result<(), TooManyAttempts> {
        let client = client.map(client_network);
        let address = self.limit("register-address", self.rates.register_address, client);
        self.admit([address]).await
    }

    fn limit(&self, name: &'static str, quota: Option<NonZeroU32>, subject: Option<String>) -> Option<Limit> {
        Some(Limit {
            policy: Policy { name, quota: quota? },
            key: self.secret.digest(name, &subject?),
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
                    if self.shared_unavailable.swap(false, Ordering::Relaxed) {
                        telemetry::info!("rate limits are shared with the other processes again");
                    }
                    return admitted;
                }
                Err(error) => {
                    if !self.shared_unavailable.swap(true, Ordering::Relaxed) {
                        telemetry::warn!(
                            %error,
                            "this process enforces rate limits on its own until Redis is available again"
                        );
                    }
                }
            }
        }
        let mut local = self.local.lock().unwrap_or_else(PoisonError::into_inner);
        local.admit(&limits, Instant::now())
    }
}

/// Returns the part of an address that identifies a client: an IPv4 address, or the /64 network of an IPv6 address,
/// because a client usually controls a whole /64.
fn client_network(address: IpAddr) -> String {
    match address.to_canonical() {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::{limit::WINDOW, *};

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
    async fn an_account_is_limited_across_client_addresses() {
        let limiter = limiter(Rates::default());
        let alice = Account::Known(UserId(1));
        for i in 0..10 {
            let client = client(&format!("192.0.2.{i}"));
            assert_eq!(limiter.password(alice, client).await, Ok(()));
        }
        let refused = limiter.password(alice, client("192.0.2.99")).await;
        let TooManyAttempts { policy, retry_after } = refused.unwrap_err();
        assert_eq!((policy.name, policy.quota.get()), ("login-account", 10));
        assert!(!retry_after.is_zero() && retry_after <= WINDOW, "{retry_after:?}");
        assert_eq!(limiter.password(Account::Known(UserId(2)), None).await, Ok(()));
    }

    #[tokio::test]
    async fn an_unknown_account_is_limited_across_spellings() {
        let limiter = limiter(Rates::default());
        let spellings = ["ii@example.com", "II@Example.com", "I\u{130}@EXAMPLE.com"].map(email);
        for i in 0..10 {
            let account = Account::Unknown(&spellings[i % spellings.len()]);
            assert_eq!(limiter.password(account, None).await, Ok(()));
        }
        for spelling in &spellings {
            assert!(limiter.password(Account::Unknown(spelling), None).await.is_err());
        }
        let other = email("b@example.com");
        assert_eq!(limiter.password(Account::Unknown(&other), None).await, Ok(()));
    }

    #[tokio::test]
    async fn writes_are_counted_for_each_user() {
        let limiter = limiter(Rates {
            writes_user: NonZeroU32::new(2),
            ..Rates::UNLIMITED
        });
        for remaining in [1, 0] {
            let quota = limiter.write(UserId(1)).unwrap().unwrap();
            assert_eq!((quota.policy.name, quota.policy.quota.get()), ("writes", 2));
            assert_eq!(quota.remaining, remaining);
            assert!(!quota.resets_in.is_zero() && quota.resets_in <= WINDOW);
        }
        assert_eq!(limiter.write(UserId(1)).unwrap_err().policy.name, "writes");
        assert!(limiter.write(UserId(2)).is_ok());
    }

    #[tokio::test]
    async fn all_addresses_of_an_ipv6_network_count_as_one_client() {
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

    /// Otherwise a blocked client could lock users out of their accounts.
    #[tokio::test]
    async fn a_rejected_attempt_is_not_counted() {
        let limiter = limiter(Rates {
            login_account: NonZeroU32::new(2),
            login_address: NonZeroU32::new(1),
            ..Rates::UNLIMITED
        });
        let alice = Account::Known(UserId(1));
        assert_eq!(limiter.password(alice, client("192.0.2.1")).await, Ok(()));
        for _ in 0..5 {
            assert!(limiter.password(alice, client("192.0.2.1")).await.is_err());
        }
        assert_eq!(limiter.password(alice, client("192.0.2.2")).await, Ok(()));
    }

    #[tokio::test]
    async fn without_limits_every_attempt_is_admitted() {
        let limiter = limiter(Rates::UNLIMITED);
        for _ in 0..1000 {
            let account = Account::Known(UserId(1));
            assert_eq!(limiter.password(account, client("::1")).await, Ok(()));
            assert_eq!(limiter.write(UserId(1)), Ok(None));
        }
    }
}

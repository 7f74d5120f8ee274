//! Hashing and verification of passwords, on blocking threads and with bounded concurrency.
//!
//! New hashes use argon2id, or werkzeug's scrypt while a Flask process must verify them too. Stored hashes may use
//! either scheme or werkzeug's PBKDF2. A login replaces a hash whose scheme is not the configured scheme.

use std::{sync::Arc, time::Duration};

use argon2::{
    Algorithm, Argon2, Params, Version,
    password_hash::{PasswordHasher as _, PasswordVerifier as _},
};
use tokio::sync::Semaphore;

use super::werkzeug;
use crate::{domain::PasswordHash, ids::IdSource};

/// Maximum time that a request waits for the computation of its hash to start.
const QUEUE_TIMEOUT: Duration = Duration::from_secs(10);

/// Maximum number of waiting requests.
const MAX_WAITING: usize = 512;

/// A password in plain text. Never printed.
#[derive(Clone)]
pub struct Password(pub String);

impl std::fmt::Debug for Password {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Password(***)")
    }
}

/// Scheme for hashing new passwords.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PasswordScheme {
    /// argon2id with 12 MiB and three passes. OWASP recommends several equally strong settings; this setting
    /// uses little memory, which the allocator does not return to the system.
    Argon2id,
    /// werkzeug's scrypt, which a Flask process can verify.
    WerkzeugScrypt,
}

/// Result of verifying a password.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The password is wrong.
    Wrong,
    /// The password is right.
    Right,
    /// The password is right, but the stored hash does not use the configured scheme; store this hash instead.
    Upgrade(PasswordHash),
}

/// Error if too many requests wait for hashes; a later retry may succeed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too many passwords are being hashed")]
pub struct Overloaded;

/// Hashes and verifies passwords with bounded concurrency.
#[derive(Debug, Clone)]
pub struct Passwords {
    scheme: PasswordScheme,
    /// One permit for each concurrent computation.
    running: Arc<Semaphore>,
    /// One permit for each running or waiting computation.
    admitted: Arc<Semaphore>,
    ids: Arc<dyn IdSource>,
    /// Hash to verify against if there is no account, because the response time must not reveal that.
    decoy: PasswordHash,
}

impl Passwords {
    /// Creates a hasher that computes at most `parallel` hashes concurrently. Blocks while it computes a hash.
    #[must_use]
    pub fn new(scheme: PasswordScheme, parallel: usize, ids: Arc<dyn IdSource>) -> Self {
        let decoy = hash(scheme, b"nobody's password", ids.next().as_bytes());
        Self {
            scheme,
            running: Arc::new(Semaphore::new(parallel.max(1))),
            admitted: Arc::new(Semaphore::new(parallel.max(1) + MAX_WAITING)),
            ids,
            decoy,
        }
    }

    /// Hashes a password with the configured scheme.
    ///
    /// # Errors
    /// [`Overloaded`] when too many requests wait or the computation does not start in time.
    pub async fn hash(&self, password: Password) -> Result<PasswordHash, Overloaded> {
        let (scheme, salt) = (self.scheme, self.ids.next());
        let work = move || hash(scheme, password.0.as_bytes(), salt.as_bytes());
        self.compute(work).await
    }

    /// Verifies a password against a stored hash. Without a stored hash, does the same work and returns
    /// [`Verdict::Wrong`].
    ///
    /// # Errors
    /// [`Overloaded`] when too many requests wait or the computation does not start in time.
    pub async fn verify(
        &self,
        password: Password,
        stored: Option<PasswordHash>,
    ) -> Result<Verdict, Overloaded> {
        let (scheme, salt) = (self.scheme, self.ids.next());
        let known = stored.is_some();
        let stored = stored.unwrap_or_else(|| self.decoy.clone());
        self.compute(move || {
            let password = password.0.as_bytes();
            if !verify(password, &stored) || !known {
                Verdict::Wrong
            } else if scheme_of(&stored) == Some(scheme) {
                Verdict::Right
            } else {
                Verdict::Upgrade(hash(scheme, password, salt.as_bytes()))
            }
        })
        .await
    }

    async fn compute<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Overloaded> {
        let admitted = self
            .admitted
            .clone()
            .try_acquire_owned()
            .map_err(|_| Overloaded)?;
        let running = tokio::time::timeout(QUEUE_TIMEOUT, self.running.clone().acquire_owned());
        let Ok(Ok(running)) = running.await else {
            return Err(Overloaded);
        };
        // The blocking task holds the permits, because it continues even if the caller is dropped.
        let work = tokio::task::spawn_blocking(move || {
            let _permits = (admitted, running);
            work()
        });
        match work.await {
            Ok(value) => Ok(value),
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            Err(_) => Err(Overloaded),
        }
    }
}

fn hash(scheme: PasswordScheme, password: &[u8], salt: &[u8; 16]) -> PasswordHash {
    PasswordHash(match scheme {
        PasswordScheme::Argon2id => argon2id()
            .hash_password_with_salt(password, salt)
            .expect("argon2 accepts any password that fits into a request")
            .to_string(),
        PasswordScheme::WerkzeugScrypt => werkzeug::hash(password, &werkzeug::hex(salt)),
    })
}

fn argon2id() -> Argon2<'static> {
    let params = Params::new(12 * 1024, 3, 1, None).expect("the parameters are valid");
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
}

fn verify(password: &[u8], stored: &PasswordHash) -> bool {
    match scheme_of(stored) {
        // Verification uses the parameters in the stored hash.
        Some(PasswordScheme::Argon2id) => Argon2::default()
            .verify_password(password, stored.0.as_str())
            .is_ok(),
        Some(PasswordScheme::WerkzeugScrypt) | None => werkzeug::verify(password, &stored.0),
    }
}

fn scheme_of(stored: &PasswordHash) -> Option<PasswordScheme> {
    if stored.0.starts_with("$argon2id$") {
        Some(PasswordScheme::Argon2id)
    } else if stored.0.starts_with("scrypt:32768:8:1$") {
        Some(PasswordScheme::WerkzeugScrypt)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::RandomIds;

    fn passwords(scheme: PasswordScheme) -> Passwords {
        Passwords::new(scheme, 2, Arc::new(RandomIds))
    }

    fn password(text: &str) -> Password {
        Password(text.to_owned())
    }

    #[tokio::test]
    async fn hashes_are_accepted_and_rejected_as_by_werkzeug() {
        let vectors: serde_json::Value =
            serde_json::from_str(include_str!("../../tests/vectors/werkzeug-and-jwt.json")).unwrap();
        let cases = vectors["password_hashes"].as_array().unwrap();
        assert!(cases.len() > 40);
        let passwords = passwords(PasswordScheme::Argon2id);
        for case in cases {
            let stored = PasswordHash(case["hash"].as_str().unwrap().to_owned());
            let verdict = passwords
                .verify(password(case["password"].as_str().unwrap()), Some(stored))
                .await
                .unwrap();
            let expected = case["ok"].as_bool().unwrap();
            assert_eq!(matches!(verdict, Verdict::Upgrade(_)), expected, "{case}");
        }
    }

    #[tokio::test]
    async fn an_upgraded_hash_verifies_and_is_not_upgraded_again() {
        for scheme in [PasswordScheme::Argon2id, PasswordScheme::WerkzeugScrypt] {
            let passwords = passwords(scheme);
            let old = PasswordHash(werkzeug_pbkdf2());
            let Verdict::Upgrade(new) = passwords
                .verify(password("password123"), Some(old))
                .await
                .unwrap()
            else {
                panic!("not upgraded");
            };
            assert!(new.0.len() <= 255, "fits the column");
            let again = passwords
                .verify(password("password123"), Some(new.clone()))
                .await
                .unwrap();
            assert_eq!(again, Verdict::Right);
            let wrong = passwords
                .verify(password("password124"), Some(new))
                .await
                .unwrap();
            assert_eq!(wrong, Verdict::Wrong);
        }
    }

    #[tokio::test]
    async fn no_password_is_right_for_an_unknown_account() {
        let passwords = passwords(PasswordScheme::Argon2id);
        let verdict = passwords
            .verify(password("nobody's password"), None)
            .await
            .unwrap();
        assert_eq!(verdict, Verdict::Wrong);
    }

    #[tokio::test]
    async fn a_request_is_rejected_if_too_many_requests_wait() {
        let mut passwords = passwords(PasswordScheme::Argon2id);
        passwords.admitted = Arc::new(Semaphore::new(0));
        assert_eq!(passwords.hash(password("x")).await, Err(Overloaded));
    }

    fn werkzeug_pbkdf2() -> String {
        let vectors: serde_json::Value =
            serde_json::from_str(include_str!("../../tests/vectors/werkzeug-and-jwt.json")).unwrap();
        let hash = vectors["password_hashes"]
            .as_array()
            .unwrap()
            .iter()
            .find(|case| {
                case["ok"] == true && case["hash"].as_str().unwrap().starts_with("pbkdf2:sha256:1000$")
            })
            .unwrap();
        hash["hash"].as_str().unwrap().to_owned()
    }
}

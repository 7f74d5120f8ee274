//! Hashing and verification of passwords.
//!
//! New hashes use argon2id, or werkzeug's scrypt while a Flask process must verify them too. Stored hashes may use
//! either scheme or werkzeug's PBKDF2. A login replaces a hash whose scheme is not the configured scheme.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use argon2::{Algorithm, Argon2, Params, Version};
use base64::{Engine as _, engine::general_purpose::STANDARD_NO_PAD};
use subtle::ConstantTimeEq as _;

use super::{
    disguise::Costs,
    hashing::{HashQueue, HashSize, KEPT_BLOCKS, Memory, Overloaded},
    werkzeug,
};
use crate::{domain::PasswordHash, ids::IdSource};

/// Maximum number of waiting requests.
const MAX_WAITING: usize = 512;

/// Scheme and cost of new argon2id hashes, in the form in which a hash starts with them.
const ARGON2ID: &str = "$argon2id$v=19$m=12288,t=3,p=1";

/// Maximum memory of a stored argon2 hash, which another program may have written, in blocks of 1 KiB.
const MAX_ARGON2_BLOCKS: usize = 256 << 10;

/// Maximum number of measurements of a scheme's cost, the greatest of which counts.
const MEASUREMENTS: usize = 3;

/// Time after which no further measurement of a scheme's cost starts.
const MEASURING: Duration = Duration::from_millis(500);

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
    /// uses little memory.
    Argon2id,
    /// werkzeug's scrypt, which a Flask process can verify.
    WerkzeugScrypt,
}

impl PasswordScheme {
    /// Returns the start of a hash: its scheme and cost.
    const fn label(self) -> &'static str {
        match self {
            Self::Argon2id => ARGON2ID,
            Self::WerkzeugScrypt => werkzeug::SCRYPT,
        }
    }

    fn size(self) -> HashSize {
        match self {
            Self::Argon2id => HashSize::Usual,
            Self::WerkzeugScrypt => HashSize::Large,
        }
    }
}

/// Result of verifying a password.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The password is wrong.
    Wrong(Computation),
    /// The password is right.
    Right,
    /// The password is right, but the stored hash does not use the configured scheme; store this hash instead.
    Upgrade(PasswordHash),
}

/// The computation that found a password to be wrong.
#[derive(Debug, PartialEq, Eq)]
pub struct Computation {
    /// Scheme and cost of the hash; `None` if this program cannot verify the hash.
    scheme: Option<String>,
    started: Instant,
    took: Duration,
}

/// Hashes and verifies passwords on dedicated threads.
#[derive(Debug, Clone)]
pub struct Passwords {
    scheme: PasswordScheme,
    queue: HashQueue,
    ids: Arc<dyn IdSource>,
    costs: Arc<Costs>,
    /// Held while costs are measured, so that concurrent requests do not repeat the measurements.
    measuring: Arc<tokio::sync::Mutex<()>>,
}

impl Passwords {
    /// Creates a hasher that computes at most `parallel` hashes concurrently.
    #[must_use]
    pub fn new(scheme: PasswordScheme, parallel: usize, ids: Arc<dyn IdSource>) -> Self {
        Self {
            scheme,
            queue: HashQueue::start(parallel.max(1), MAX_WAITING),
            ids,
            costs: Arc::default(),
            measuring: Arc::default(),
        }
    }

    /// Hashes a password with the configured scheme.
    ///
    /// # Errors
    /// [`Overloaded`] when too many requests wait or the computation does not start in time.
    pub async fn hash(&self, password: Password) -> Result<PasswordHash, Overloaded> {
        let (scheme, salt) = (self.scheme, self.ids.next());
        let work = move |memory: &mut Memory| hash(scheme, password.0.as_bytes(), salt.as_bytes(), memory);
        self.queue.compute(scheme.size(), work).await
    }

    /// Verifies a password against a stored hash. Without a stored hash, computes one of the configured scheme and
    /// returns [`Verdict::Wrong`].
    ///
    /// # Errors
    /// [`Overloaded`] when too many requests wait or the computation does not start in time.
    pub async fn verify(
        &self,
        password: Password,
        stored: Option<PasswordHash>,
    ) -> Result<Verdict, Overloaded> {
        let (scheme, salt, costs) = (self.scheme, self.ids.next(), Arc::clone(&self.costs));
        let known = stored.is_some();
        let stored = stored.unwrap_or_else(|| decoy(scheme.label()));
        let size = size(&stored, scheme);
        let work = move |memory: &mut Memory| {
            let password = password.0.as_bytes();
            let started = Instant::now();
            let matches = verify(password, &stored, memory);
            let took = started.elapsed();
            let own = label(&stored);
            if let Some(own) = own {
                costs.observe(own, took);
            }
            if !matches || !known {
                let scheme = own.map(str::to_owned);
                Verdict::Wrong(Computation {
                    scheme,
                    started,
                    took,
                })
            } else if own == Some(scheme.label()) {
                Verdict::Right
            } else {
                Verdict::Upgrade(hash(scheme, password, salt.as_bytes(), memory))
            }
        };
        self.queue.compute(size, work).await
    }

    /// Waits until a failed login has taken as long as one with the costliest of `schemes`, which are those of the
    /// stored hashes. Measures the cost of schemes that were not measured in the last hour; those that cannot be
    /// measured now do not count.
    pub async fn disguise(&self, wrong: Computation, schemes: &[String]) {
        // A login to an account that does not exist uses the configured scheme.
        let schemes = || {
            let own = std::iter::once(self.scheme.label());
            schemes.iter().map(String::as_str).chain(own)
        };
        let is_unknown = |scheme: &str| !self.costs.contains(scheme, Instant::now());
        if schemes().any(is_unknown) {
            let _measuring = self.measuring.lock().await;
            for scheme in schemes() {
                if is_unknown(scheme)
                    && let Some(cost) = self.measure(scheme).await
                {
                    self.costs.measured(scheme, cost, Instant::now());
                }
            }
        }
        let duration = self
            .costs
            .duration(schemes(), wrong.scheme.as_deref(), wrong.took);
        tokio::time::sleep_until((wrong.started + duration).into()).await;
    }

    async fn measure(&self, scheme: &str) -> Option<Duration> {
        let start = Instant::now();
        let mut greatest = None;
        for _ in 0..MEASUREMENTS {
            let stored = decoy(scheme);
            let size = size(&stored, self.scheme);
            let work = move |memory: &mut Memory| {
                let started = Instant::now();
                verify(b"any password", &stored, memory);
                started.elapsed()
            };
            let cost = self.queue.compute(size, work).await.ok()?;
            greatest = greatest.max(Some(cost));
            if start.elapsed() > MEASURING {
                break;
            }
        }
        greatest
    }
}

fn hash(scheme: PasswordScheme, password: &[u8], salt: &[u8; 16], memory: &mut Memory) -> PasswordHash {
    PasswordHash(match scheme {
        PasswordScheme::Argon2id => {
            let params = Params::new(12 * 1024, 3, 1, None).expect("the parameters are valid");
            let mut output = [0; Params::DEFAULT_OUTPUT_LEN];
            Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
                .hash_password_into_with_memory(password, salt, &mut output, memory.blocks(KEPT_BLOCKS))
                .expect("argon2 accepts any password that fits into a request");
            let [salt, output] = [&salt[..], &output].map(|bytes| STANDARD_NO_PAD.encode(bytes));
            format!("{ARGON2ID}${salt}${output}")
        }
        PasswordScheme::WerkzeugScrypt => werkzeug::hash(password, &werkzeug::hex(salt)),
    })
}

fn verify(password: &[u8], stored: &PasswordHash, memory: &mut Memory) -> bool {
    if stored.0.starts_with("$argon2id$") {
        verify_argon2(password, &stored.0, memory).unwrap_or(false)
    } else {
        werkzeug::verify(password, &stored.0)
    }
}

/// Returns whether an argon2 hash matches `password`, or `None` if the hash is malformed or needs too much memory.
fn verify_argon2(password: &[u8], stored: &str, memory: &mut Memory) -> Option<bool> {
    let stored = argon2::PasswordHash::new(stored).ok()?;
    let algorithm = Algorithm::try_from(stored.algorithm.as_str()).ok()?;
    let version = stored.version.map(Version::try_from).transpose().ok()?;
    let params = Params::try_from(&stored).ok()?;
    let (salt, expected) = (stored.salt?, stored.hash?);
    let blocks = params.block_count();
    if blocks > MAX_ARGON2_BLOCKS {
        return None;
    }
    let mut output = vec![0; expected.len()];
    Argon2::new(algorithm, version.unwrap_or_default(), params)
        .hash_password_into_with_memory(password, &salt, &mut output, memory.blocks(blocks))
        .ok()?;
    Some(output.ct_eq(expected.as_bytes()).into())
}

/// Returns the memory needed to verify a stored hash, and to replace it by one of the configured scheme.
fn size(stored: &PasswordHash, scheme: PasswordScheme) -> HashSize {
    if stored.0.starts_with(ARGON2ID) || stored.0.starts_with("pbkdf2:") {
        scheme.size()
    } else {
        HashSize::Large
    }
}

/// Returns a hash with this scheme and cost that matches no known password.
fn decoy(scheme: &str) -> PasswordHash {
    let rest = if scheme.starts_with("$argon2") {
        format!(
            "{}${}",
            STANDARD_NO_PAD.encode([0; 16]),
            STANDARD_NO_PAD.encode([0; 32])
        )
    } else {
        "salt$00".to_owned()
    };
    PasswordHash(format!("{scheme}${rest}"))
}

/// Returns the start of a hash: its scheme and cost, as [`AccountStore::password_schemes`] does.
///
/// [`AccountStore::password_schemes`]: crate::store::AccountStore::password_schemes
fn label(stored: &PasswordHash) -> Option<&str> {
    let stored = stored.0.as_str();
    let length = if stored.starts_with("$argon2id$v=19$") {
        let (end, _) = stored.match_indices('$').nth(3)?;
        end
    } else if stored.starts_with("scrypt:") || stored.starts_with("pbkdf2:") {
        stored.find('$')?
    } else {
        return None;
    };
    Some(&stored[..length])
}

#[cfg(test)]
mod tests {
    use argon2::PasswordHasher as _;

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
            assert!(matches!(wrong, Verdict::Wrong(_)));
        }
    }

    #[tokio::test]
    async fn no_password_is_right_for_an_unknown_account() {
        let passwords = passwords(PasswordScheme::Argon2id);
        let verdict = passwords.verify(password("password123"), None).await.unwrap();
        assert!(matches!(verdict, Verdict::Wrong(_)));
    }

    #[tokio::test]
    async fn the_parameters_of_an_argon2_hash_are_those_in_the_hash() {
        let params = Params::new(256, 2, 2, Some(24)).unwrap();
        let stored = Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
            .hash_password_with_salt(b"password123", b"some salt")
            .unwrap()
            .to_string();
        let passwords = passwords(PasswordScheme::Argon2id);
        let verify = async |text: &str| {
            let stored = Some(PasswordHash(stored.clone()));
            passwords.verify(password(text), stored).await.unwrap()
        };
        assert!(matches!(verify("password123").await, Verdict::Upgrade(_)));
        assert!(matches!(verify("password124").await, Verdict::Wrong(_)));
    }

    #[test]
    fn a_label_is_the_scheme_and_cost_of_a_hash() {
        let labelled = [
            ("$argon2id$v=19$m=12288,t=3,p=1$c2FsdA$aGFzaA", Some(ARGON2ID)),
            ("scrypt:32768:8:1$salt$00", Some("scrypt:32768:8:1")),
            ("pbkdf2:sha256:600000$salt$00", Some("pbkdf2:sha256:600000")),
            ("$2b$12$bcrypt", None),
            ("$argon2id$v=19$m=1", None),
            ("scrypt:", None),
            ("", None),
        ];
        for (hash, expected) in labelled {
            assert_eq!(label(&PasswordHash(hash.to_owned())), expected, "{hash}");
        }
        for scheme in [PasswordScheme::Argon2id, PasswordScheme::WerkzeugScrypt] {
            let hash = hash(scheme, b"password", &[7; 16], &mut Memory::default());
            assert_eq!(label(&hash), Some(scheme.label()));
            assert_eq!(label(&decoy(scheme.label())), Some(scheme.label()));
        }
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

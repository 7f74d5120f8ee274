//! JSON Web Tokens (RFC 7519) signed with HS256, compatible with PyJWT, which the reference implementation
//! uses.
//!
//! The claims are `user_id`, `email`, `exp`, `iat`, and two that the reference implementation does not set: `jti`,
//! and `generation`, the user's session generation. A token is valid if its signature is correct, it has not expired,
//! and PyJWT accepts its other claims, except that `iat` may be [`IAT_LEEWAY`] seconds ahead. The store contains the
//! tokens that were revoked by a logout, and the users whose sessions have ended.
//!
//! While the key is rotated, tokens signed with the previous key are also valid.
//!
//! No JWT crate is used, because HS256 needs little code, and a crate would not provide the injected clock and
//! PyJWT's rules for `iat`, `sub`, `jti`, `aud` and `crit`.

use std::{sync::Arc, time::Duration};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use hmac::{Hmac, KeyInit as _, Mac as _};
use jiff::Timestamp;
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

use crate::{
    clock::Clock,
    domain::{EndedSessions, SessionGeneration, TokenKey, User, UserId},
    ids::IdSource,
};

/// Maximum lead of the issuer's clock over this one, in seconds.
const IAT_LEEWAY: i64 = 5;

/// Key that signs tokens. Never printed.
#[derive(Clone)]
pub struct SecretKey(Vec<u8>);

impl SecretKey {
    /// Creates a key from a secret text.
    #[must_use]
    pub fn new(secret: &str) -> Self {
        Self(secret.as_bytes().to_vec())
    }

    /// Returns a keyed digest of `text`, which is stored instead of personal data.
    ///
    /// Digests of the same text for different purposes differ. A digest is never the signature of a token, because
    /// no token contains the NUL between purpose and text.
    pub(super) fn digest(&self, purpose: &str, text: &str) -> [u8; 16] {
        let mac = self.mac(&format!("{purpose}\0{text}"));
        let mut digest = [0; 16];
        digest.copy_from_slice(&mac.finalize().into_bytes()[..16]);
        digest
    }

    fn mac(&self, text: &str) -> Hmac<Sha256> {
        Hmac::<Sha256>::new_from_slice(&self.0)
            .expect("HMAC accepts keys of any length")
            .chain_update(text)
    }
}

impl std::fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SecretKey(***)")
    }
}

/// Contents of a valid token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claims {
    pub user: UserId,
    /// Key of the token in the list of revoked tokens.
    pub key: TokenKey,
    pub expires_at: Timestamp,
    /// Time at which the token was issued, in whole seconds; `None` if another issuer left it out.
    pub issued_at: Option<Timestamp>,
    /// Generation of the user's sessions; `None` if another issuer left it out.
    pub generation: Option<SessionGeneration>,
}

impl Claims {
    /// Whether the session of this token has ended.
    ///
    /// Without a generation, the time of issue decides. Its resolution is a second, so a token issued within the
    /// second of the end is also rejected.
    #[must_use]
    pub fn is_ended_by(&self, ended: &EndedSessions) -> bool {
        if ended.last.kept.as_ref() == Some(&self.key) {
            return false;
        }
        match self.generation {
            Some(generation) => generation < ended.generation,
            None => self.issued_at.is_none_or(|issued| issued <= ended.last.at),
        }
    }
}

/// Reason a token is rejected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidToken {
    /// Malformed, signed with another key, expired, or not yet valid.
    #[error("Invalid or expired token")]
    Untrusted,
    /// Correctly signed, but without a user id.
    #[error("Invalid token payload")]
    NoUser,
}

/// Issues and checks tokens.
#[derive(Debug, Clone)]
pub struct Tokens {
    secret: SecretKey,
    /// Key that verifies tokens but signs none.
    previous: Option<SecretKey>,
    lifetime: Duration,
    clock: Arc<dyn Clock>,
    ids: Arc<dyn IdSource>,
}

impl Tokens {
    /// Creates an issuer of tokens that are valid for `lifetime`.
    #[must_use]
    pub fn new(secret: SecretKey, lifetime: Duration, clock: Arc<dyn Clock>, ids: Arc<dyn IdSource>) -> Self {
        Self {
            secret,
            previous: None,
            lifetime,
            clock,
            ids,
        }
    }

    /// Accepts tokens signed with this key as well.
    #[must_use]
    pub fn also_accepting(self, previous: Option<SecretKey>) -> Self {
        Self { previous, ..self }
    }

    /// Returns a new token for `user`, whose sessions are in `generation`.
    #[must_use]
    pub fn issue(&self, user: &User, generation: SessionGeneration) -> String {
        let now = self.clock.now().as_second();
        let lifetime = i64::try_from(self.lifetime.as_secs()).unwrap_or(i64::MAX);
        self.sign(&json!({
            "user_id": user.id.0,
            "email": user.email,
            "exp": now.saturating_add(lifetime),
            "iat": now,
            "jti": self.ids.next().to_string(),
            "generation": generation.0,
        }))
    }

    /// Signs arbitrary claims.
    #[must_use]
    pub fn sign(&self, claims: &Value) -> String {
        let header = json!({"alg": "HS256", "typ": "JWT"});
        let encode = |part: &Value| URL_SAFE_NO_PAD.encode(part.to_string());
        let signed = format!("{}.{}", encode(&header), encode(claims));
        let signature = URL_SAFE_NO_PAD.encode(self.secret.mac(&signed).finalize().into_bytes());
        format!("{signed}.{signature}")
    }

    /// Verifies a token and returns its contents.
    ///
    /// # Errors
    /// [`InvalidToken`] with the reason.
    pub fn check(&self, token: &str) -> Result<Claims, InvalidToken> {
        // PyJWT accepts base64 padding, which RFC 7515 omits.
        let token = token.trim_end_matches('=');
        let (signed, claims, expires_at) = self.verified(token).ok_or(InvalidToken::Untrusted)?;
        Ok(Claims {
            user: user_id(&claims).ok_or(InvalidToken::NoUser)?,
            key: key(&claims, signed),
            expires_at,
            issued_at: claims.get("iat").and_then(seconds).map(saturated),
            generation: generation(&claims),
        })
    }

    /// Returns the signed part of a token that can be trusted, its claims, and its expiry time.
    fn verified<'t>(&self, token: &'t str) -> Option<(&'t str, Map<String, Value>, Timestamp)> {
        let (signed, signature) = token.rsplit_once('.')?;
        let signature = URL_SAFE_NO_PAD.decode(signature).ok()?;
        let keys = [Some(&self.secret), self.previous.as_ref()];
        let signs = |key: &SecretKey| key.mac(signed).verify_slice(&signature).is_ok();
        if !keys.into_iter().flatten().any(signs) {
            return None;
        }
        let (header, payload) = signed.split_once('.')?;
        let header = object(header)?;
        if header.get("alg").and_then(Value::as_str) != Some("HS256") || header.contains_key("crit") {
            return None;
        }
        let claims = object(payload)?;
        let expires_at = self.check_registered(&claims)?;
        Some((signed, claims, expires_at))
    }

    /// Checks the registered claims (RFC 7519, section 4.1) by PyJWT's rules and returns the expiry time.
    fn check_registered(&self, claims: &Map<String, Value>) -> Option<Timestamp> {
        let now = self.clock.now().as_second();
        let expires = seconds(claims.get("exp")?)?;
        let not_after = |claim, latest| {
            let is_past = |value| seconds(value).is_some_and(|time| time <= latest);
            claims.get(claim).is_none_or(is_past)
        };
        let text_if_present = |claim| claims.get(claim).is_none_or(Value::is_string);
        let holds = expires > now
            && not_after("iat", now.saturating_add(IAT_LEEWAY))
            && not_after("nbf", now)
            && text_if_present("sub")
            && text_if_present("jti")
            && claims.get("aud").is_none_or(Value::is_null);
        holds.then(|| saturated(expires))
    }
}

fn object(part: &str) -> Option<Map<String, Value>> {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).ok()?).ok()
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "a float beyond 64 bits saturates, which is far enough in the future"
)]
fn seconds(value: &Value) -> Option<i64> {
    let truncated = || value.as_f64().map(|seconds| seconds as i64);
    value.as_i64().or_else(truncated)
}

/// Returns the time that is this number of seconds after the Unix epoch, up to the maximum.
fn saturated(seconds: i64) -> Timestamp {
    Timestamp::from_second(seconds).unwrap_or(Timestamp::MAX)
}

fn generation(claims: &Map<String, Value>) -> Option<SessionGeneration> {
    let generation = claims.get("generation")?.as_i64()?;
    i32::try_from(generation).ok().map(SessionGeneration)
}

/// Returns the claim `user_id`. A float without a fraction is accepted, as by the reference implementation.
#[expect(clippy::cast_possible_truncation, reason = "the range is checked first")]
fn user_id(claims: &Map<String, Value>) -> Option<UserId> {
    let id = claims.get("user_id").filter(|id| id.is_number())?.as_f64()?;
    (id.fract() == 0.0 && (1.0..=f64::from(i32::MAX)).contains(&id)).then_some(UserId(id as i32))
}

fn key(claims: &Map<String, Value>, signed: &str) -> TokenKey {
    match claims.get("jti").and_then(Value::as_str) {
        // A `jti` of another issuer may have any length and may not be unique.
        Some(jti) if jti.len() == 36 => TokenKey(jti.to_owned()),
        _ => TokenKey(URL_SAFE_NO_PAD.encode(Sha256::digest(signed))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{domain::SessionEnd, ids::RandomIds};

    const SECRET: &str = "dev-secret-key-change-in-production";

    #[derive(Debug, Clone, Copy)]
    struct At(i64);

    impl Clock for At {
        fn now(&self) -> Timestamp {
            Timestamp::from_second(self.0).unwrap()
        }
    }

    fn tokens_at(second: i64) -> Tokens {
        Tokens::new(
            SecretKey::new(SECRET),
            Duration::from_secs(3600),
            Arc::new(At(second)),
            Arc::new(RandomIds),
        )
    }

    fn alice() -> User {
        User {
            id: UserId(7),
            email: "alice@example.com".to_owned(),
            name: "Alice".to_owned(),
            bio: String::new(),
            image: String::new(),
            created_at: Timestamp::UNIX_EPOCH,
        }
    }

    #[test]
    fn tokens_are_accepted_and_rejected_as_by_pyjwt() {
        let vectors: Value =
            serde_json::from_str(include_str!("../../tests/vectors/werkzeug-and-jwt.json")).unwrap();
        assert_eq!(vectors["secret"], SECRET);
        let cases = vectors["tokens"].as_array().unwrap();
        assert!(cases.len() > 10);
        let tokens = tokens_at(1_800_000_000);
        for case in cases {
            let accepted = tokens.check(case["token"].as_str().unwrap()).is_ok();
            assert_eq!(
                accepted,
                case["accepted_by_signature_and_claims"].as_bool().unwrap(),
                "{}",
                case["name"]
            );
        }
    }

    #[test]
    fn an_issued_token_is_valid_until_it_expires() {
        let issued = tokens_at(1000).issue(&alice(), SessionGeneration(0));
        let claims = tokens_at(4599).check(&issued).unwrap();
        assert_eq!(claims.user, UserId(7));
        assert_eq!(claims.expires_at, Timestamp::from_second(4600).unwrap());
        assert_eq!(tokens_at(4600).check(&issued), Err(InvalidToken::Untrusted));
    }

    #[test]
    fn two_tokens_issued_in_one_second_have_different_keys() {
        let tokens = tokens_at(1000);
        let keys = [(); 2].map(|()| {
            tokens
                .check(&tokens.issue(&alice(), SessionGeneration(0)))
                .unwrap()
                .key
        });
        assert_ne!(keys[0], keys[1]);
    }

    /// Returns a token that was issued at this second, and expires at second 5000.
    fn issued_at(iat: &Value) -> String {
        tokens_at(0).sign(&json!({"user_id": 7, "exp": 5000, "iat": iat}))
    }

    #[test]
    fn the_clock_of_the_issuer_may_be_a_few_seconds_ahead() {
        let tokens = tokens_at(1000);
        for iat in [json!(1000), json!(1001), json!(1005), json!(1005.9)] {
            assert!(tokens.check(&issued_at(&iat)).is_ok(), "{iat}");
        }
        for iat in [json!(1006), json!(4600), json!(1e300), json!("1000")] {
            assert_eq!(
                tokens.check(&issued_at(&iat)),
                Err(InvalidToken::Untrusted),
                "{iat}"
            );
        }
        let expired = tokens.sign(&json!({"user_id": 7, "exp": 1000, "iat": 999}));
        assert_eq!(
            tokens.check(&expired),
            Err(InvalidToken::Untrusted),
            "exp has no leeway"
        );
        let not_before = tokens.sign(&json!({"user_id": 7, "exp": 5000, "nbf": 1001}));
        assert_eq!(
            tokens.check(&not_before),
            Err(InvalidToken::Untrusted),
            "nbf has no leeway"
        );
    }

    #[test]
    fn the_previous_key_verifies_and_does_not_sign() {
        let old = tokens_at(1000);
        let new = || {
            Tokens::new(
                SecretKey::new("another key of at least 32 characters"),
                Duration::from_secs(3600),
                Arc::new(At(1000)),
                Arc::new(RandomIds),
            )
        };
        let issued_before = old.issue(&alice(), SessionGeneration(0));
        assert_eq!(new().check(&issued_before), Err(InvalidToken::Untrusted));
        let rotating = new().also_accepting(Some(SecretKey::new(SECRET)));
        assert_eq!(rotating.check(&issued_before).unwrap().user, UserId(7));
        let issued_after = rotating.issue(&alice(), SessionGeneration(0));
        assert!(new().check(&issued_after).is_ok());
        assert_eq!(old.check(&issued_after), Err(InvalidToken::Untrusted));
    }

    #[test]
    fn a_session_ends_with_its_generation_or_its_time_of_issue() {
        let claims = |token: &str| tokens_at(1000).check(token).unwrap();
        let ended = |kept: Option<&Claims>| EndedSessions {
            generation: SessionGeneration(2),
            last: SessionEnd {
                at: Timestamp::from_millisecond(1_000_500).unwrap(),
                kept: kept.map(|claims| claims.key.clone()),
            },
        };
        for (generation, is_ended) in [(0, true), (1, true), (2, false), (3, false)] {
            let token = tokens_at(1000).issue(&alice(), SessionGeneration(generation));
            assert_eq!(claims(&token).is_ended_by(&ended(None)), is_ended, "{generation}");
            assert!(!claims(&token).is_ended_by(&ended(Some(&claims(&token)))), "kept");
        }
        for (iat, is_ended) in [(999, true), (1000, true), (1001, false)] {
            let token = issued_at(&json!(iat));
            assert_eq!(claims(&token).is_ended_by(&ended(None)), is_ended, "{iat}");
        }
        let undated = tokens_at(0).sign(&json!({"user_id": 7, "exp": 5000}));
        assert!(claims(&undated).is_ended_by(&ended(None)));
    }

    #[test]
    fn a_change_of_any_signed_character_is_detected() {
        let tokens = tokens_at(1000);
        let issued = tokens.issue(&alice(), SessionGeneration(0));
        let signed = issued.rfind('.').unwrap();
        for i in 0..signed {
            let mut bytes = issued.clone().into_bytes();
            bytes[i] = if bytes[i] == b'A' { b'B' } else { b'A' };
            assert!(
                tokens.check(&String::from_utf8(bytes).unwrap()).is_err(),
                "byte {i}"
            );
        }
    }
}

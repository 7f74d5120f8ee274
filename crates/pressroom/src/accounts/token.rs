//! JSON Web Tokens (RFC 7519) signed with HS256, as the reference's PyJWT makes and checks them.
//!
//! Claims: `user_id`, `email`, `exp`, `iat`, and our own `jti`. A token is good when its signature
//! is, when it has not expired, and when no claim has a type that PyJWT refuses. Whether it was
//! logged out is the store's to say.
//!
//! Written here rather than taken from a crate: HS256 alone is this little, the clock is ours, and
//! PyJWT's rules (`iat`, `sub`, `jti`, `aud`, `crit`) would have to be added either way.

use std::{sync::Arc, time::Duration};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use hmac::{Hmac, KeyInit as _, Mac as _};
use jiff::Timestamp;
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

use crate::{
    clock::Clock,
    domain::{TokenKey, User, UserId},
    ids::IdSource,
};

/// The key that signs. Never printed.
#[derive(Clone)]
pub struct SecretKey(Vec<u8>);

impl SecretKey {
    #[must_use]
    pub fn new(secret: &str) -> Self {
        Self(secret.as_bytes().to_vec())
    }

    /// What stands for `text` where it must not be readable. The same for everybody with the key,
    /// and another one for each purpose. No token's signature is one: a NUL is in no token.
    pub(super) fn digest(&self, purpose: &str, text: &str) -> [u8; 16] {
        let mac = self.mac(&format!("{purpose}\0{text}"));
        let mut digest = [0; 16];
        digest.copy_from_slice(&mac.finalize().into_bytes()[..16]);
        digest
    }

    fn mac(&self, text: &str) -> Hmac<Sha256> {
        Hmac::<Sha256>::new_from_slice(&self.0)
            .expect("HMAC takes a key of any length")
            .chain_update(text)
    }
}

impl std::fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SecretKey(***)")
    }
}

/// What a good token says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claims {
    pub user: UserId,
    /// What logging it out is recorded under.
    pub key: TokenKey,
    pub expires_at: Timestamp,
}

/// Why a token is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidToken {
    /// Not a token, not signed by us, expired, or not yet valid.
    #[error("Invalid or expired token")]
    Untrusted,
    /// Ours, but it names no user.
    #[error("Invalid token payload")]
    NoUser,
}

/// Issues and checks tokens.
#[derive(Clone)]
pub struct Tokens {
    secret: SecretKey,
    lifetime: Duration,
    clock: Arc<dyn Clock>,
    ids: Arc<dyn IdSource>,
}

impl std::fmt::Debug for Tokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tokens")
            .field("lifetime", &self.lifetime)
            .finish_non_exhaustive()
    }
}

impl Tokens {
    #[must_use]
    pub fn new(secret: SecretKey, lifetime: Duration, clock: Arc<dyn Clock>, ids: Arc<dyn IdSource>) -> Self {
        Self {
            secret,
            lifetime,
            clock,
            ids,
        }
    }

    /// A fresh token for `user`.
    #[must_use]
    pub fn issue(&self, user: &User) -> String {
        let now = self.clock.now().as_second();
        let lifetime = i64::try_from(self.lifetime.as_secs()).unwrap_or(i64::MAX);
        self.sign(&json!({
            "user_id": user.id.0,
            "email": user.email,
            "exp": now.saturating_add(lifetime),
            "iat": now,
            "jti": self.ids.next().to_string(),
        }))
    }

    /// A token that says what it is told to.
    #[must_use]
    pub fn sign(&self, claims: &Value) -> String {
        let header = json!({"alg": "HS256", "typ": "JWT"});
        let encode = |part: &Value| URL_SAFE_NO_PAD.encode(part.to_string());
        let signed = format!("{}.{}", encode(&header), encode(claims));
        let signature = URL_SAFE_NO_PAD.encode(self.secret.mac(&signed).finalize().into_bytes());
        format!("{signed}.{signature}")
    }

    /// # Errors
    /// [`InvalidToken`], saying which.
    pub fn check(&self, token: &str) -> Result<Claims, InvalidToken> {
        // PyJWT tolerates the padding that the standard leaves out.
        let token = token.trim_end_matches('=');
        let (signed, signature) = token.rsplit_once('.').ok_or(InvalidToken::Untrusted)?;
        let signature = URL_SAFE_NO_PAD
            .decode(signature)
            .map_err(|_| InvalidToken::Untrusted)?;
        self.secret
            .mac(signed)
            .verify_slice(&signature)
            .map_err(|_| InvalidToken::Untrusted)?;

        let (header, payload) = signed.split_once('.').ok_or(InvalidToken::Untrusted)?;
        let header = object(header).ok_or(InvalidToken::Untrusted)?;
        if header.get("alg").and_then(Value::as_str) != Some("HS256") || header.contains_key("crit") {
            return Err(InvalidToken::Untrusted);
        }
        let claims = object(payload).ok_or(InvalidToken::Untrusted)?;
        let expires_at = self.check_registered(&claims).ok_or(InvalidToken::Untrusted)?;
        Ok(Claims {
            user: user_id(&claims).ok_or(InvalidToken::NoUser)?,
            key: key(&claims, signed),
            expires_at,
        })
    }

    /// The registered claims (RFC 7519, section 4.1) under PyJWT's rules; the time of expiry when all hold.
    fn check_registered(&self, claims: &Map<String, Value>) -> Option<Timestamp> {
        let now = self.clock.now().as_second();
        let expires = seconds(claims.get("exp")?)?;
        let not_ahead = |claim| match claims.get(claim) {
            None => true,
            Some(value) => seconds(value).is_some_and(|time| time <= now),
        };
        let text_if_present = |claim| claims.get(claim).is_none_or(Value::is_string);
        let holds = expires > now
            && not_ahead("iat")
            && not_ahead("nbf")
            && text_if_present("sub")
            && text_if_present("jti")
            && claims.get("aud").is_none_or(Value::is_null);
        holds.then(|| Timestamp::from_second(expires).unwrap_or(Timestamp::MAX))
    }
}

fn object(part: &str) -> Option<Map<String, Value>> {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).ok()?).ok()
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "a float beyond 64 bits saturates, which is as far away"
)]
fn seconds(value: &Value) -> Option<i64> {
    value
        .as_i64()
        .or_else(|| value.as_f64().map(|seconds| seconds as i64))
}

/// `user_id` as a row number; a float without a fraction counts, as it does for the reference.
#[expect(clippy::cast_possible_truncation, reason = "checked to be a row number first")]
fn user_id(claims: &Map<String, Value>) -> Option<UserId> {
    let id = claims.get("user_id").filter(|id| id.is_number())?.as_f64()?;
    (id.fract() == 0.0 && (1.0..=f64::from(i32::MAX)).contains(&id)).then_some(UserId(id as i32))
}

fn key(claims: &Map<String, Value>, signed: &str) -> TokenKey {
    match claims.get("jti").and_then(Value::as_str) {
        // A foreign `jti` may be of any length, and two issuers might choose the same one.
        Some(jti) if jti.len() == 36 => TokenKey(jti.to_owned()),
        _ => TokenKey(URL_SAFE_NO_PAD.encode(Sha256::digest(signed))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::RandomIds;

    const SECRET: &str = "dev-secret-key-change-in-production";

    #[derive(Clone, Copy)]
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
    fn tokens_made_by_pyjwt_get_the_verdict_it_gave() {
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
    fn an_issued_token_is_good_until_it_expires() {
        let issued = tokens_at(1000).issue(&alice());
        let claims = tokens_at(4599).check(&issued).unwrap();
        assert_eq!(claims.user, UserId(7));
        assert_eq!(claims.expires_at, Timestamp::from_second(4600).unwrap());
        assert_eq!(tokens_at(4600).check(&issued), Err(InvalidToken::Untrusted));
    }

    #[test]
    fn two_tokens_of_one_second_are_logged_out_apart() {
        let tokens = tokens_at(1000);
        let keys = [(); 2].map(|()| tokens.check(&tokens.issue(&alice())).unwrap().key);
        assert_ne!(keys[0], keys[1]);
    }

    #[test]
    fn any_changed_character_of_the_signed_part_is_noticed() {
        let tokens = tokens_at(1000);
        let issued = tokens.issue(&alice());
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

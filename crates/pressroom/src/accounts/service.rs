//! Operations on accounts: registration, login, profile changes and logout.

use std::{net::IpAddr, sync::Arc};

use telemetry::{
    Failure, KeyValue, Span,
    names::attribute::{REASON, STATUS},
};

use super::{
    hashing::Overloaded,
    password::{Password, Passwords, Verdict},
    rate_limit::{Account, Quota, RateLimiter, TooManyAttempts},
    token::{Claims, InvalidToken, Tokens},
};
use crate::{
    clock::Clock,
    domain::{Credentials, Email, NewUser, SessionEnd, SessionGeneration, User, UserChanges, UserId},
    names::{attribute, metric, span},
    store::{AccountStore, Constraint, StoreError},
};

static LOGIN_ATTEMPTS: telemetry::Counter = telemetry::counter(
    metric::AUTH_LOGIN_ATTEMPTS,
    "{attempt}",
    "Login attempts by result",
);

/// Maximum number of password schemes whose costs affect the duration of a failed login.
const MAX_SCHEMES: i64 = 32;

/// Reason an operation on an account failed.
#[derive(Debug, thiserror::Error)]
pub enum AccountError {
    #[error("Email already registered")]
    EmailTaken,
    #[error("Invalid credentials")]
    InvalidCredentials,
    /// The password that confirms a change is wrong.
    #[error("Current password is incorrect")]
    WrongPassword,
    #[error(transparent)]
    InvalidToken(#[from] InvalidToken),
    /// The token's user no longer exists.
    #[error("User not found")]
    UserNotFound,
    #[error(transparent)]
    TooManyAttempts(#[from] TooManyAttempts),
    #[error(transparent)]
    Overloaded(#[from] Overloaded),
    #[error(transparent)]
    Store(StoreError),
}

impl From<StoreError> for AccountError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Conflict(Constraint::UserEmail) => Self::EmailTaken,
            error => Self::Store(error),
        }
    }
}

impl Failure for AccountError {
    fn error_type(&self) -> Option<std::borrow::Cow<'static, str>> {
        match self {
            Self::Store(error) => error.error_type(),
            Self::Overloaded(_) => Some("overloaded".into()),
            _ => None,
        }
    }

    fn message(&self) -> String {
        self.to_string()
    }
}

/// An authenticated user, with a new token.
#[derive(Debug)]
pub struct SignedIn {
    pub user: User,
    pub token: String,
}

/// A new e-mail address or password, with the current password.
#[derive(Debug)]
pub struct NewCredentials {
    pub email: Option<Email>,
    pub password: Option<Password>,
    pub current_password: Password,
}

/// Operations on accounts.
#[derive(Debug, Clone)]
pub struct Accounts {
    store: Arc<dyn AccountStore>,
    passwords: Passwords,
    tokens: Tokens,
    limiter: Arc<RateLimiter>,
    clock: Arc<dyn Clock>,
}

impl Accounts {
    #[must_use]
    pub fn new(
        store: Arc<dyn AccountStore>,
        passwords: Passwords,
        tokens: Tokens,
        limiter: RateLimiter,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self {
            store,
            passwords,
            tokens,
            limiter: Arc::new(limiter),
            clock,
        }
    }

    /// Registers a user and logs them in.
    ///
    /// # Errors
    /// [`AccountError::TooManyAttempts`], [`AccountError::EmailTaken`], or a failure of the store or of hashing.
    pub async fn register(
        &self,
        email: Email,
        password: Password,
        name: String,
        client: Option<IpAddr>,
    ) -> Result<SignedIn, AccountError> {
        Span::internal(span::USER_REGISTER)
            .run(async {
                self.limiter.registration(client).await?;
                let user = NewUser {
                    email,
                    password_hash: self.passwords.hash(password).await?,
                    name,
                    created_at: self.clock.now(),
                };
                let user = self.store.insert_user(user).await?;
                telemetry::set_attribute(KeyValue::new("user.id", user.id.0.to_string()));
                telemetry::info!(user.id = %user.id.0, "User registered: {}", user.email);
                Ok(self.sign_in(user, SessionGeneration::default()))
            })
            .await
    }

    /// Logs a user in.
    ///
    /// # Errors
    /// [`AccountError::TooManyAttempts`], even for an unknown address; [`AccountError::InvalidCredentials`] for an
    /// unknown address or a wrong password; or a failure of the store or of hashing.
    pub async fn login(
        &self,
        email: Email,
        password: Password,
        client: Option<IpAddr>,
    ) -> Result<SignedIn, AccountError> {
        Span::internal(span::USER_LOGIN)
            .run(async {
                let result = self.verify_login(&email, password, client).await;
                let (status, reason) = match &result {
                    Ok(_) => ("success", None),
                    Err(AccountError::InvalidCredentials) => ("failed", Some("invalid_credentials")),
                    Err(AccountError::TooManyAttempts(_)) => ("failed", Some("rate_limited")),
                    Err(_) => ("failed", Some("unavailable")),
                };
                telemetry::set_attribute(KeyValue::new(attribute::AUTH_STATUS, status));
                let mut attributes = vec![KeyValue::new(STATUS, status)];
                attributes.extend(reason.map(|reason| KeyValue::new(REASON, reason)));
                LOGIN_ATTEMPTS.add(1, &attributes);
                // Outages and overload are logged elsewhere. Neither the address nor the account is in the record.
                if let Some(reason) = reason.filter(|reason| *reason != "unavailable") {
                    telemetry::warn!(reason, "Login failed");
                }

                let (user, generation) = result?;
                telemetry::set_attribute(KeyValue::new("user.id", user.id.0.to_string()));
                telemetry::info!(user.id = %user.id.0, "User logged in: {}", user.email);
                Ok(self.sign_in(user, generation))
            })
            .await
    }

    /// Finds the user of a valid token that has not been revoked and whose session has not ended.
    ///
    /// # Errors
    /// [`AccountError::InvalidToken`], [`AccountError::UserNotFound`], or a failure of the store.
    pub async fn authenticate(&self, token: &str) -> Result<(User, Claims), AccountError> {
        let claims = self.tokens.check(token)?;
        let session = self.store.find_session(claims.user, &claims.key).await?;
        let session = session.ok_or(AccountError::UserNotFound)?;
        let ended = session.ended.is_some_and(|ended| claims.is_ended_by(&ended));
        if session.revoked || ended {
            return Err(InvalidToken::Untrusted.into());
        }
        Ok((session.user, claims))
    }

    /// Counts a write by this user. Returns `None` if writes have no limit.
    ///
    /// # Errors
    /// [`AccountError::TooManyAttempts`].
    pub fn admit_write(&self, user: UserId) -> Result<Option<Quota>, AccountError> {
        Ok(self.limiter.write(user)?)
    }

    /// Changes the profile of a user and, with `credentials`, the e-mail address or password. Such a change ends all
    /// sessions of the user except that of `claims`.
    ///
    /// # Errors
    /// [`AccountError::TooManyAttempts`] and [`AccountError::WrongPassword`] for the credentials,
    /// [`AccountError::InvalidToken`] if the session ends meanwhile, [`AccountError::EmailTaken`],
    /// [`AccountError::UserNotFound`], or a failure of the store or of hashing.
    pub async fn update(
        &self,
        user: &User,
        claims: &Claims,
        mut changes: UserChanges,
        credentials: Option<NewCredentials>,
        client: Option<IpAddr>,
    ) -> Result<User, AccountError> {
        if let Some(credentials) = credentials {
            self.confirm(user, claims, &mut changes, credentials, client)
                .await?;
        }
        let ends_sessions = changes.session_end.is_some();
        let updated = self.store.update_user(user.id, changes, self.clock.now());
        let updated = updated.await?.ok_or(if ends_sessions {
            // Another session has ended this one since the password was verified.
            AccountError::InvalidToken(InvalidToken::Untrusted)
        } else {
            AccountError::UserNotFound
        })?;
        if ends_sessions {
            telemetry::info!(user.id = %user.id.0, "Credentials changed, other sessions ended");
        }
        Ok(updated)
    }

    /// Revokes a token or, with `all`, ends all sessions of its user. All processes reject the tokens from then on.
    ///
    /// # Errors
    /// A failure of the store.
    pub async fn logout(&self, user: &User, claims: &Claims, all: bool) -> Result<(), AccountError> {
        Span::internal(span::USER_LOGOUT)
            .attribute(KeyValue::new("user.id", user.id.0.to_string()))
            .run(async {
                if all {
                    let now = self.clock.now();
                    let end = SessionEnd {
                        // The clock of the token's issuer may be ahead.
                        at: claims.issued_at.map_or(now, |issued| issued.max(now)),
                        kept: None,
                    };
                    self.store.end_sessions(user.id, end).await?;
                } else {
                    self.store.revoke_token(&claims.key, claims.expires_at).await?;
                }
                telemetry::info!(user.id = %user.id.0, "User logged out");
                Ok(())
            })
            .await
    }

    /// Verifies the current password, and adds the new credentials to `changes`.
    async fn confirm(
        &self,
        user: &User,
        claims: &Claims,
        changes: &mut UserChanges,
        new: NewCredentials,
        client: Option<IpAddr>,
    ) -> Result<(), AccountError> {
        self.limiter.password(Account::Known(user.id), client).await?;
        let found = self.store.find_credentials_by_id(user.id).await?;
        let stored = found.ok_or(AccountError::UserNotFound)?;
        let verdict = self
            .passwords
            .verify(new.current_password, Some(stored.password_hash));
        if let Verdict::Wrong(_) = verdict.await? {
            return Err(AccountError::WrongPassword);
        }
        // The user may have changed the address since the request was authenticated.
        changes.email = new.email.filter(|email| email.as_str() != stored.user.email);
        if changes.email.is_some() || new.password.is_some() {
            changes.session_end = Some(SessionEnd {
                at: self.clock.now(),
                kept: Some(claims.key.clone()),
            });
            changes.verified_in = Some(stored.generation);
        }
        if let Some(password) = new.password {
            changes.password_hash = Some(self.passwords.hash(password).await?);
        }
        Ok(())
    }

    async fn verify_login(
        &self,
        email: &Email,
        password: Password,
        client: Option<IpAddr>,
    ) -> Result<(User, SessionGeneration), AccountError> {
        let found = self.store.find_credentials(email).await?;
        let account = match &found {
            Some(found) => Account::Known(found.user.id),
            None => Account::Unknown(email),
        };
        self.limiter.password(account, client).await?;
        let stored = found.as_ref().map(|found| found.password_hash.clone());
        let verdict = self.passwords.verify(password, stored).await?;
        if let Verdict::Wrong(computation) = verdict {
            let schemes = self.store.password_schemes(MAX_SCHEMES).await?;
            self.passwords.disguise(computation, &schemes).await;
            return Err(AccountError::InvalidCredentials);
        }
        let Credentials {
            user,
            password_hash,
            generation,
        } = found.ok_or(AccountError::InvalidCredentials)?;
        if let Verdict::Upgrade(new) = verdict {
            let upgraded = self.store.upgrade_password_hash(user.id, &password_hash, &new);
            // The login succeeds even if the upgrade fails; the next login retries the upgrade.
            if let Err(error) = upgraded.await {
                telemetry::warn!(user.id = %user.id.0, %error, "password hash not upgraded");
            }
        }
        Ok((user, generation))
    }

    fn sign_in(&self, user: User, generation: SessionGeneration) -> SignedIn {
        let token = self.tokens.issue(&user, generation);
        SignedIn { user, token }
    }
}

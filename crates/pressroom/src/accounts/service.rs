//! Operations on accounts: registration, login, profile changes and logout.

use std::{net::IpAddr, sync::Arc};

use telemetry::{
    Failure, KeyValue, Span,
    names::attribute::{REASON, STATUS},
};

use super::{
    password::{Overloaded, Password, Passwords, Verdict},
    rate_limit::{RateLimiter, TooManyAttempts},
    token::{Claims, InvalidToken, Tokens},
};
use crate::{
    clock::Clock,
    domain::{Credentials, Email, NewUser, User, UserChanges},
    names::{attribute, metric, span},
    store::{AccountStore, Constraint, StoreError},
};

static LOGIN_ATTEMPTS: telemetry::Counter = telemetry::counter(
    metric::AUTH_LOGIN_ATTEMPTS,
    "{attempt}",
    "Login attempts by result",
);

/// Reason an operation on an account failed.
#[derive(Debug, thiserror::Error)]
pub enum AccountError {
    #[error("Email already registered")]
    EmailTaken,
    #[error("Invalid credentials")]
    InvalidCredentials,
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

    /// Registers a user and logs the user in.
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
                telemetry::set_attribute(KeyValue::new("user.id", i64::from(user.id.0)));
                telemetry::info!(user.id = user.id.0, "User registered: {}", user.email);
                Ok(self.sign_in(user))
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

                let user = result?;
                telemetry::set_attribute(KeyValue::new("user.id", i64::from(user.id.0)));
                telemetry::info!(user.id = user.id.0, "User logged in: {}", user.email);
                Ok(self.sign_in(user))
            })
            .await
    }

    /// Finds the user of a token that is valid and not revoked.
    ///
    /// # Errors
    /// [`AccountError::InvalidToken`], [`AccountError::UserNotFound`], or a failure of the store.
    pub async fn authenticate(&self, token: &str) -> Result<(User, Claims), AccountError> {
        let claims = self.tokens.check(token)?;
        let session = self.store.find_session(claims.user, &claims.key).await?;
        let session = session.ok_or(AccountError::UserNotFound)?;
        if session.revoked {
            return Err(InvalidToken::Untrusted.into());
        }
        Ok((session.user, claims))
    }

    /// Changes a user's profile and, with `password`, the password hash.
    ///
    /// # Errors
    /// [`AccountError::EmailTaken`], [`AccountError::UserNotFound`], or a failure of the store or of hashing.
    pub async fn update(
        &self,
        user: &User,
        mut changes: UserChanges,
        password: Option<Password>,
    ) -> Result<User, AccountError> {
        if let Some(password) = password {
            changes.password_hash = Some(self.passwords.hash(password).await?);
        }
        let updated = self.store.update_user(user.id, changes, self.clock.now());
        updated.await?.ok_or(AccountError::UserNotFound)
    }

    /// Revokes a token. All processes reject the token from then on.
    ///
    /// # Errors
    /// A failure of the store.
    pub async fn logout(&self, user: &User, claims: &Claims) -> Result<(), AccountError> {
        Span::internal(span::USER_LOGOUT)
            .attribute(KeyValue::new("user.id", i64::from(user.id.0)))
            .run(async {
                self.store.revoke_token(&claims.key, claims.expires_at).await?;
                telemetry::info!(user.id = user.id.0, "User logged out");
                Ok(())
            })
            .await
    }

    async fn verify_login(
        &self,
        email: &Email,
        password: Password,
        client: Option<IpAddr>,
    ) -> Result<User, AccountError> {
        self.limiter.login(email, client).await?;
        let found = self.store.find_credentials(email).await?;
        let stored = found.as_ref().map(|found| found.password_hash.clone());
        let verdict = self.passwords.verify(password, stored).await?;
        let Credentials { user, password_hash } = found.ok_or(AccountError::InvalidCredentials)?;
        match verdict {
            Verdict::Wrong => return Err(AccountError::InvalidCredentials),
            Verdict::Right => {}
            Verdict::Upgrade(new) => {
                let upgraded = self.store.upgrade_password_hash(user.id, &password_hash, &new);
                // The login succeeds even if the upgrade fails; the next login retries the upgrade.
                if let Err(error) = upgraded.await {
                    telemetry::warn!(user.id = user.id.0, %error, "password hash not upgraded");
                }
            }
        }
        Ok(user)
    }

    fn sign_in(&self, user: User) -> SignedIn {
        let token = self.tokens.issue(&user);
        SignedIn { user, token }
    }
}

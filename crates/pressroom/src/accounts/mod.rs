//! Who may sign in: users, their passwords and their tokens.
//!
//! Pure types and decisions; SQL is in [`crate::store`], HTTP in [`crate::api`].

mod email;
mod password;
mod rate_limit;
mod service;
mod token;
mod werkzeug;

use jiff::Timestamp;

pub use self::{
    email::{Email, InvalidEmail},
    password::{Overloaded, Password, PasswordScheme, Passwords, Verdict},
    rate_limit::{RateLimiter, Rates, TooManyAttempts},
    service::{AccountError, Accounts, ProfileUpdate, SignedIn},
    token::{Claims, InvalidToken, SecretKey, Tokens},
};

/// A user's row number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct UserId(pub i32);

impl std::fmt::Display for UserId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// A user as the API shows one to its owner. The password hash is not part of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    pub id: UserId,
    /// As it was typed. A plain string: rows made by others may hold what [`Email`] refuses.
    pub email: String,
    pub name: String,
    pub bio: String,
    pub image: String,
    pub created_at: Timestamp,
}

/// A user about to be inserted.
#[derive(Debug, Clone)]
pub struct NewUser {
    pub email: Email,
    pub password_hash: PasswordHash,
    pub name: String,
    pub created_at: Timestamp,
}

/// What a profile update changes; `None` leaves a column as it is.
#[derive(Debug, Clone, Default)]
pub struct UserChanges {
    pub email: Option<Email>,
    pub password_hash: Option<PasswordHash>,
    pub name: Option<String>,
    pub bio: Option<String>,
    pub image: Option<String>,
}

/// A stored password hash, in the PHC string format or werkzeug's. Never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct PasswordHash(pub String);

impl std::fmt::Debug for PasswordHash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PasswordHash(***)")
    }
}

/// What signing in needs of an account.
#[derive(Debug, Clone)]
pub struct Credentials {
    pub user: User,
    pub password_hash: PasswordHash,
}

/// Identifies a token without being one: its `jti`, or the SHA-256 of what it signs when it has none.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TokenKey(pub String);

/// The account a token names, and whether that token was logged out.
#[derive(Debug, Clone)]
pub struct Session {
    pub user: User,
    pub revoked: bool,
}

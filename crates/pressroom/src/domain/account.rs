//! Users, their credentials and their sessions.

use std::fmt;

use jiff::Timestamp;

use super::email::Email;

/// A user's primary key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct UserId(pub i32);

/// A user, without the password hash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    pub id: UserId,
    /// The address as typed. A plain string: rows written by other programs may hold an address that
    /// [`Email`] refuses.
    pub email: String,
    pub name: String,
    pub bio: String,
    pub image: String,
    pub created_at: Timestamp,
}

/// A user to insert.
#[derive(Debug, Clone)]
pub struct NewUser {
    pub email: Email,
    pub password_hash: PasswordHash,
    pub name: String,
    pub created_at: Timestamp,
}

/// Changes to a user; `None` leaves a column unchanged.
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

impl fmt::Debug for PasswordHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PasswordHash(***)")
    }
}

/// A user with the password hash that a login is verified against.
#[derive(Debug, Clone)]
pub struct Credentials {
    pub user: User,
    pub password_hash: PasswordHash,
}

/// Identifies a token without revealing it: its `jti`, or the SHA-256 of its signed part.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TokenKey(pub String);

/// The user that a token names, and whether the token was revoked.
#[derive(Debug, Clone)]
pub struct Session {
    pub user: User,
    pub revoked: bool,
}

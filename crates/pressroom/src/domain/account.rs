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
    /// E-mail address as typed. Not an [`Email`], because rows written by other programs may contain
    /// addresses that [`Email`] rejects.
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
    /// End of the user's sessions, in the same transaction; `None` lets them continue.
    pub session_end: Option<SessionEnd>,
    /// Generation of the user's sessions when the current password was verified. Nothing changes if the
    /// sessions have ended since, unless the session that [`Self::session_end`] keeps has ended them.
    pub verified_in: Option<SessionGeneration>,
}

/// A stored password hash, in the PHC string format or Werkzeug's. `Debug` does not print it.
#[derive(Clone, PartialEq, Eq)]
pub struct PasswordHash(pub String);

impl fmt::Debug for PasswordHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PasswordHash(***)")
    }
}

/// A user and the password hash for verifying a login.
#[derive(Debug, Clone)]
pub struct Credentials {
    pub user: User,
    pub password_hash: PasswordHash,
    /// Generation of the user's sessions when the hash was read.
    pub generation: SessionGeneration,
}

/// Identifier that does not reveal the token: its `jti`, or the SHA-256 of its signed part.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TokenKey(pub String);

/// Number of times that a user's sessions have ended. A token contains the generation in which it was issued.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionGeneration(pub i32);

/// The end of a user's sessions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionEnd {
    pub at: Timestamp,
    /// Token that remains valid.
    pub kept: Option<TokenKey>,
}

/// State of a user's sessions after they have ended at least once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndedSessions {
    /// The current generation.
    pub generation: SessionGeneration,
    /// The latest end.
    pub last: SessionEnd,
}

/// The user to whom a token was issued, and whether the token or its session has ended.
#[derive(Debug, Clone)]
pub struct Session {
    pub user: User,
    pub revoked: bool,
    /// `None` if the user's sessions have never ended.
    pub ended: Option<EndedSessions>,
}

//! Users, revoked tokens and ended sessions. E-mail addresses are stored as typed; another column contains them
//! in lower case and makes them unique.

use async_trait::async_trait;
use jiff::Timestamp;
use rusqlite::params;
use telemetry::Statement;

use super::SqliteStore;
use crate::{
    domain::{
        Credentials, Email, NewUser, PasswordHash, Session, SessionEnd, TokenKey, User, UserChanges, UserId,
    },
    store::{
        AccountStore, Result, StoreError,
        rows::{self, Utc},
        sql::{END_SESSIONS, PURGE_REVOKED_TOKENS, REVOKE_TOKEN, statement, user_columns},
    },
};

const INSERT_USER: Statement = statement!(
    "INSERT users",
    "
        INSERT INTO users
            (email, email_folded, password_hash, name, bio, image, created_at, updated_at)
        VALUES (?1, ?2, ?3, ?4, '', '', ?5, ?5)
        RETURNING ",
    user_columns!(),
);

/// Selects a user's credentials. `?1` is the value in `$condition`.
macro_rules! find_credentials {
    ($condition:literal) => {
        statement!(
            "SELECT users",
            "SELECT ",
            user_columns!(),
            ", password_hash,
            coalesce((SELECT generation FROM ended_sessions WHERE user_id = users.id), 0) AS generation
        FROM users
        WHERE ",
            $condition,
        )
    };
}

const FIND_CREDENTIALS: Statement = find_credentials!("email_folded = ?1");

const FIND_CREDENTIALS_BY_ID: Statement = find_credentials!("id = ?1");

/// Reads one index entry per scheme, not one per user.
const PASSWORD_SCHEMES: Statement = statement!(
    "SELECT users",
    "
        WITH RECURSIVE scheme (name) AS (
            VALUES ('')
            UNION ALL
            SELECT (
                SELECT password_scheme
                FROM users
                WHERE password_scheme > scheme.name
                ORDER BY password_scheme
                LIMIT 1
            )
            FROM scheme
            WHERE scheme.name IS NOT NULL
        )
        SELECT name FROM scheme WHERE name <> '' LIMIT ?1",
);

const UPDATE_USER: Statement = statement!(
    "UPDATE users",
    "
        UPDATE users
        SET email = coalesce(?2, email),
            email_folded = coalesce(?3, email_folded),
            password_hash = coalesce(?4, password_hash),
            name = coalesce(?5, name),
            bio = coalesce(?6, bio),
            image = coalesce(?7, image),
            updated_at = ?8
        WHERE id = ?1
            AND NOT EXISTS (
                SELECT 1
                FROM ended_sessions
                WHERE user_id = ?1 AND generation > ?9 AND kept_token IS NOT ?10
            )
        RETURNING ",
    user_columns!(),
);

const UPGRADE_PASSWORD_HASH: Statement = statement!(
    "UPDATE users",
    "UPDATE users SET password_hash = ?3 WHERE id = ?1 AND password_hash = ?2",
);

/// `$1` is the token, `$2` the user.
const FIND_SESSION: Statement = statement!(
    "SELECT users",
    "SELECT ",
    user_columns!(),
    ", EXISTS (SELECT 1 FROM revoked_tokens WHERE token_key = $1) AS revoked,
            generation, ended_at, kept_token
        FROM users
        LEFT JOIN ended_sessions ON user_id = id
        WHERE id = $2",
);

#[async_trait]
impl AccountStore for SqliteStore {
    async fn insert_user(&self, new: NewUser) -> Result<User> {
        let inserted = self.write(&INSERT_USER, move |db| {
            let params = params![
                new.email.as_str(),
                new.email.folded(),
                new.password_hash.0,
                new.name,
                Utc(new.created_at),
            ];
            db.row(&INSERT_USER, params, |row| rows::user(row))
        });
        inserted.await?.ok_or_else(StoreError::no_row)
    }

    async fn find_credentials(&self, email: &Email) -> Result<Option<Credentials>> {
        self.row(&FIND_CREDENTIALS, (email.folded(),), |row| rows::credentials(row))
            .await
    }

    async fn find_credentials_by_id(&self, id: UserId) -> Result<Option<Credentials>> {
        self.row(&FIND_CREDENTIALS_BY_ID, (id.0,), |row| rows::credentials(row))
            .await
    }

    async fn password_schemes(&self, limit: i64) -> Result<Vec<String>> {
        self.read(&PASSWORD_SCHEMES, move |db| {
            db.rows(&PASSWORD_SCHEMES, (limit,), |row| rows::password_scheme(row))
        })
        .await
    }

    async fn update_user(&self, id: UserId, changes: UserChanges, now: Timestamp) -> Result<Option<User>> {
        self.write(&UPDATE_USER, move |db| {
            let params = params![
                id.0,
                changes.email.as_ref().map(Email::as_str),
                changes.email.as_ref().map(Email::folded),
                changes.password_hash.map(|hash| hash.0),
                changes.name,
                changes.bio,
                changes.image,
                Utc(now),
                changes.verified_in.map(|generation| generation.0),
                changes
                    .session_end
                    .as_ref()
                    .and_then(|end| end.kept.as_ref().map(|token| token.0.as_str())),
            ];
            let updated = db.row(&UPDATE_USER, params, |row| rows::user(row))?;
            if let (Some(_), Some(SessionEnd { at, kept })) = (&updated, changes.session_end) {
                db.execute(&END_SESSIONS, (id.0, Utc(at), kept.map(|token| token.0)))?;
            }
            Ok(updated)
        })
        .await
    }

    async fn upgrade_password_hash(&self, id: UserId, old: &PasswordHash, new: &PasswordHash) -> Result<()> {
        let params = (id.0, old.0.clone(), new.0.clone());
        self.execute(&UPGRADE_PASSWORD_HASH, params).await?;
        Ok(())
    }

    async fn find_session(&self, user: UserId, token: &TokenKey) -> Result<Option<Session>> {
        self.row(&FIND_SESSION, (token.0.clone(), user.0), |row| rows::session(row))
            .await
    }

    async fn end_sessions(&self, user: UserId, end: SessionEnd) -> Result<()> {
        let params = (user.0, Utc(end.at), end.kept.map(|token| token.0));
        self.execute(&END_SESSIONS, params).await?;
        Ok(())
    }

    async fn revoke_token(&self, token: &TokenKey, expires_at: Timestamp) -> Result<()> {
        let params = (token.0.clone(), Utc(expires_at));
        self.execute(&REVOKE_TOKEN, params).await?;
        Ok(())
    }

    async fn purge_revoked_tokens(&self, now: Timestamp) -> Result<u64> {
        self.execute(&PURGE_REVOKED_TOKENS, (Utc(now),)).await
    }
}

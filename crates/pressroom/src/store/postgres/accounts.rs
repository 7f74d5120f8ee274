//! Users, revoked tokens and ended sessions.
//!
//! E-mail addresses are stored as typed, because the reference implementation finds the same rows by exact
//! match. This program does not allow two accounts whose addresses differ only in letter case. A unique index
//! cannot enforce this rule, because a database written by the reference may already contain such accounts.

use async_trait::async_trait;
use jiff::Timestamp;
use telemetry::Statement;

use super::{PostgresStore, calls::FindSession, connections::Params};
use crate::{
    domain::{
        Credentials, Email, NewUser, PasswordHash, Session, SessionEnd, TokenKey, User, UserChanges, UserId,
    },
    store::{
        AccountStore, Constraint, Result, StoreError,
        rows::{self, Utc},
        sql::{END_SESSIONS, PURGE_REVOKED_TOKENS, REVOKE_TOKEN, statement, user_columns},
    },
};

/// Allows one writer at a time for each address, ignoring letter case.
///
/// This is a separate statement before the one that reads `users`, so that under READ COMMITTED the latter
/// sees the changes by the previous lock holder. The reference does not take this lock, but the index
/// `ix_users_email` rejects a second account with the same spelling.
const LOCK_EMAIL: Statement = Statement::new(
    "SELECT",
    "",
    "SELECT pg_advisory_xact_lock",
    "SELECT pg_advisory_xact_lock(hashtextextended(lower($1::text), 0))",
);

/// A separate statement, so that the update sees the rows of `ended_sessions` that earlier updates have committed.
const LOCK_USER: Statement = statement!("SELECT users", "SELECT FROM users WHERE id = $1 FOR UPDATE");

const INSERT_USER: Statement = statement!(
    "INSERT users",
    "
        INSERT INTO users (email, password_hash, name, bio, image, created_at, updated_at)
        SELECT $1::text, $2::text, $3::text, '', '', $4::timestamp, $4::timestamp
        WHERE NOT EXISTS (SELECT FROM users AS other WHERE lower(other.email) = lower($1::text))
        RETURNING ",
    user_columns!(),
);

/// Selects a user's credentials. `$1` is the value in `$condition`.
macro_rules! find_credentials {
    ($condition:literal) => {
        statement!(
            "SELECT users",
            "SELECT ",
            user_columns!(),
            ", password_hash,
            COALESCE((SELECT generation FROM ended_sessions WHERE user_id = users.id), 0) AS generation
        FROM users
        WHERE ",
            $condition,
        )
    };
}

const FIND_CREDENTIALS: Statement = find_credentials!(
    "lower(users.email) = lower($1::text)
        ORDER BY users.email = $1::text DESC, users.id
        LIMIT 1"
);

const FIND_CREDENTIALS_BY_ID: Statement = find_credentials!("users.id = $1");

/// Expression for the scheme and cost of a password hash, the same as in the index `ix_users_password_scheme`.
macro_rules! password_scheme {
    () => {
        r"substring(
                    password_hash,
                    '^(\$argon2id\$v=19\$m=[0-9]+,t=[0-9]+,p=[0-9]+|scrypt:[0-9]+:[0-9]+:[0-9]+|pbkdf2:[a-z0-9]+:[0-9]+)'
                )"
    };
}

/// Reads one index entry per scheme, not one per user.
const PASSWORD_SCHEMES: Statement = statement!(
    "SELECT users",
    "
        WITH RECURSIVE scheme (name) AS (
            VALUES (''::text)
            UNION ALL
            SELECT (
                SELECT ",
    password_scheme!(),
    "
                FROM users
                WHERE ",
    password_scheme!(),
    " > scheme.name
                ORDER BY 1
                LIMIT 1
            )
            FROM scheme
            WHERE scheme.name IS NOT NULL
        )
        SELECT name FROM scheme WHERE name <> '' LIMIT $1",
);

/// Returns one row: the changed user, or nulls and whether the address was taken. Also ends the sessions if
/// `$9` is not null.
///
/// A user who already shares an address with others may keep it, but cannot change it to another address that
/// is in use.
const UPDATE_USER: Statement = statement!(
    "UPDATE users",
    "
        WITH taken AS (
            SELECT
            FROM users AS own
            JOIN users AS other ON lower(other.email) = lower($2::text) AND other.id <> own.id
            WHERE own.id = $1 AND lower(own.email) <> lower($2::text)
        ), users AS (
            UPDATE users
            SET email = COALESCE($2::text, email),
                password_hash = COALESCE($3::text, password_hash),
                name = COALESCE($4::text, name),
                bio = COALESCE($5::text, bio),
                image = COALESCE($6::text, image),
                updated_at = $7
            WHERE id = $1
                AND NOT EXISTS (
                    SELECT
                    FROM ended_sessions
                    WHERE user_id = $1 AND generation > $8::integer AND kept_token IS DISTINCT FROM $10::text
                )
                AND NOT EXISTS (SELECT FROM taken)
            RETURNING *
        ), ended AS (
            INSERT INTO ended_sessions AS held (user_id, generation, ended_at, kept_token)
            SELECT users.id, 1, $9::timestamp, $10::text
            FROM users
            WHERE $9::timestamp IS NOT NULL
            ON CONFLICT (user_id) DO UPDATE
            SET generation = held.generation + 1,
                ended_at = GREATEST(held.ended_at, EXCLUDED.ended_at),
                kept_token = EXCLUDED.kept_token
        )
        SELECT ",
    user_columns!(),
    ", EXISTS (SELECT FROM taken) AS taken
        FROM (VALUES (1)) AS always LEFT JOIN users ON true",
);

const UPGRADE_PASSWORD_HASH: Statement = statement!(
    "UPDATE users",
    "UPDATE users SET password_hash = $3::text WHERE id = $1 AND password_hash = $2::text",
);

#[async_trait]
impl AccountStore for PostgresStore {
    async fn insert_user(&self, new: NewUser) -> Result<User> {
        let email = new.email.as_str();
        let insert: Params<'_> = &[&email, &new.password_hash.0, &new.name, &Utc(new.created_at)];
        let inserted = self
            .primary
            .transaction(email, &[(&LOCK_EMAIL, &[&email])], (&INSERT_USER, insert))
            .await?;
        let user = inserted.first(rows::user)?;
        user.ok_or(StoreError::Conflict(Constraint::UserEmail))
    }

    async fn find_credentials(&self, email: &Email) -> Result<Option<Credentials>> {
        match self.primary.read(&FIND_CREDENTIALS, &[&email.as_str()]).await {
            Err(error) if error.is_unsuitable_value() => Ok(None),
            found => Ok(found?.first(rows::credentials)?),
        }
    }

    async fn find_credentials_by_id(&self, id: UserId) -> Result<Option<Credentials>> {
        let found = self.primary.read(&FIND_CREDENTIALS_BY_ID, &[&id.0]).await?;
        Ok(found.first(rows::credentials)?)
    }

    async fn password_schemes(&self, limit: i64) -> Result<Vec<String>> {
        let found = self.primary.list(&PASSWORD_SCHEMES, &[&limit]).await?;
        Ok(found.all(rows::password_scheme)?)
    }

    async fn update_user(&self, id: UserId, changes: UserChanges, now: Timestamp) -> Result<Option<User>> {
        let email = changes.email.as_ref().map(Email::as_str);
        let password_hash = changes.password_hash.as_ref().map(|hash| hash.0.as_str());
        let ended_at = changes.session_end.as_ref().map(|end| Utc(end.at));
        let kept = changes.session_end.as_ref().and_then(|end| end.kept.as_ref());
        let update: Params<'_> = &[
            &id.0,
            &email,
            &password_hash,
            &changes.name,
            &changes.bio,
            &changes.image,
            &Utc(now),
            &changes.verified_in.map(|generation| generation.0),
            &ended_at,
            &kept.map(|token| token.0.as_str()),
        ];
        let locks: [(_, Params<'_>); 2] = [(&LOCK_EMAIL, &[&email]), (&LOCK_USER, &[&id.0])];
        let locks = match (email, changes.verified_in) {
            (None, None) => &[],
            (Some(_), None) => &locks[..1],
            (None, Some(_)) => &locks[1..],
            (Some(_), Some(_)) => &locks[..],
        };
        let updated = if locks.is_empty() {
            self.primary.write(id.0, &UPDATE_USER, update).await?
        } else {
            self.primary
                .transaction(id.0, locks, (&UPDATE_USER, update))
                .await?
        };
        let Some(row) = updated.rows.first() else {
            return Ok(None);
        };
        if row.try_get("taken")? {
            return Err(StoreError::Conflict(Constraint::UserEmail));
        }
        let found: Option<i32> = row.try_get("id")?;
        Ok(found.map(|_| rows::user(row)).transpose()?)
    }

    async fn upgrade_password_hash(&self, id: UserId, old: &PasswordHash, new: &PasswordHash) -> Result<()> {
        let params: Params<'_> = &[&id.0, &old.0, &new.0];
        self.primary.write(id.0, &UPGRADE_PASSWORD_HASH, params).await?;
        Ok(())
    }

    async fn find_session(&self, user: UserId, token: &TokenKey) -> Result<Option<Session>> {
        let call = FindSession {
            user,
            token: token.clone(),
        };
        Ok(self.groups.found_sessions.run(&self.primary, call).await?)
    }

    async fn end_sessions(&self, user: UserId, end: SessionEnd) -> Result<()> {
        let kept = end.kept.as_ref().map(|token| token.0.as_str());
        let params: Params<'_> = &[&user.0, &Utc(end.at), &kept];
        self.primary.write(user.0, &END_SESSIONS, params).await?;
        Ok(())
    }

    async fn revoke_token(&self, token: &TokenKey, expires_at: Timestamp) -> Result<()> {
        let params: Params<'_> = &[&token.0, &Utc(expires_at)];
        self.primary.write(&token.0, &REVOKE_TOKEN, params).await?;
        Ok(())
    }

    async fn purge_revoked_tokens(&self, now: Timestamp) -> Result<u64> {
        let purged = self.primary.maintain(&PURGE_REVOKED_TOKENS, &[&Utc(now)]).await?;
        Ok(purged.affected)
    }
}

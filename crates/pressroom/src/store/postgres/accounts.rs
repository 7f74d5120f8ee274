//! Users and the tokens they gave back.
//!
//! Addresses keep the spelling typed, because the reference signs in by exact match on the same
//! rows. That no two accounts differ in letter case alone is our rule, not the schema's: a
//! database that the reference filled may already break it, so no unique index can state it.

use jiff::Timestamp;
use telemetry::Statement;
use tokio_postgres::Row;

use super::{connections::Connections, error::StatementError, value::Utc};
use crate::{
    accounts::{Credentials, Email, NewUser, PasswordHash, Session, TokenKey, User, UserChanges, UserId},
    store::Constraint,
};

/// The columns of a [`User`], in the order that [`user`] reads them.
macro_rules! user_columns {
    () => {
        "users.id, users.email, users.name, users.bio, users.image, users.created_at"
    };
}

fn user(row: &Row) -> Result<User, StatementError> {
    let Utc(created_at) = row.try_get(5)?;
    Ok(User {
        id: UserId(row.try_get(0)?),
        email: row.try_get(1)?,
        name: row.try_get(2)?,
        bio: row.try_get(3)?,
        image: row.try_get(4)?,
        created_at,
    })
}

/// One writer at a time for each address, letter case aside. Taken in a statement of its own,
/// before the one that looks: at READ COMMITTED that one then sees what the last holder committed.
/// The reference takes no lock; against it `ix_users_email` still refuses the same spelling.
const LOCK_EMAIL: Statement = Statement::new(
    "SELECT",
    "users",
    "SELECT pg_advisory_xact_lock",
    "SELECT pg_advisory_xact_lock(hashtextextended(lower($1::text), 0))",
);

const INSERT_USER: Statement = Statement::new(
    "INSERT",
    "users",
    "INSERT users",
    concat!(
        "
        INSERT INTO users (email, password_hash, name, bio, image, created_at, updated_at)
        SELECT $1::text, $2::text, $3::text, '', '', $4::timestamp, $4::timestamp
        WHERE NOT EXISTS (SELECT FROM users AS other WHERE lower(other.email) = lower($1::text))
        RETURNING ",
        user_columns!(),
    ),
);

pub(super) async fn insert_user(store: &Connections, new: &NewUser) -> Result<User, StatementError> {
    let email = new.email.as_str();
    let insert: super::Params<'_> = &[&email, &new.password_hash.0, &new.name, &Utc(new.created_at)];
    let rows = store
        .transaction(&[(&LOCK_EMAIL, &[&email])], (&INSERT_USER, insert))
        .await?;
    match rows.first() {
        Some(row) => user(row),
        None => Err(StatementError::conflict(Constraint::UserEmail)),
    }
}

const FIND_CREDENTIALS: Statement = Statement::new(
    "SELECT",
    "users",
    "SELECT users",
    concat!(
        "SELECT ",
        user_columns!(),
        ", users.password_hash
        FROM users
        WHERE lower(users.email) = lower($1::text)
        ORDER BY users.email = $1::text DESC, users.id
        LIMIT 1",
    ),
);

pub(super) async fn find_credentials(
    store: &Connections,
    email: &Email,
) -> Result<Option<Credentials>, StatementError> {
    let row = store.row(&FIND_CREDENTIALS, &[&email.as_str()]).await?;
    row.map(|row| {
        Ok(Credentials {
            user: user(&row)?,
            password_hash: PasswordHash(row.try_get(6)?),
        })
    })
    .transpose()
}

/// Always one row: the changed user, or nulls and whether the address was the reason. A user who
/// already shares an address with others may keep it, and may not move to another shared one.
const UPDATE_USER: Statement = Statement::new(
    "UPDATE",
    "users",
    "UPDATE users",
    concat!(
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
            WHERE id = $1 AND NOT EXISTS (SELECT FROM taken)
            RETURNING *
        )
        SELECT ",
        user_columns!(),
        ", EXISTS (SELECT FROM taken)
        FROM (VALUES (1)) AS always LEFT JOIN users ON true",
    ),
);

pub(super) async fn update_user(
    store: &Connections,
    id: UserId,
    changes: &UserChanges,
    now: Timestamp,
) -> Result<Option<User>, StatementError> {
    let email = changes.email.as_ref().map(Email::as_str);
    let password_hash = changes.password_hash.as_ref().map(|hash| hash.0.as_str());
    let update: super::Params<'_> = &[
        &id.0,
        &email,
        &password_hash,
        &changes.name,
        &changes.bio,
        &changes.image,
        &Utc(now),
    ];
    let rows = if email.is_some() {
        store
            .transaction(&[(&LOCK_EMAIL, &[&email])], (&UPDATE_USER, update))
            .await?
    } else {
        store.rows(&UPDATE_USER, update).await?
    };
    let Some(row) = rows.first() else {
        return Ok(None);
    };
    if row.try_get(6)? {
        return Err(StatementError::conflict(Constraint::UserEmail));
    }
    let found: Option<i32> = row.try_get(0)?;
    found.map(|_| user(row)).transpose()
}

const UPGRADE_PASSWORD_HASH: Statement = Statement::new(
    "UPDATE",
    "users",
    "UPDATE users",
    "UPDATE users SET password_hash = $3::text WHERE id = $1 AND password_hash = $2::text",
);

pub(super) async fn upgrade_password_hash(
    store: &Connections,
    id: UserId,
    old: &PasswordHash,
    new: &PasswordHash,
) -> Result<(), StatementError> {
    store
        .execute(&UPGRADE_PASSWORD_HASH, &[&id.0, &old.0, &new.0])
        .await?;
    Ok(())
}

const FIND_SESSION: Statement = Statement::new(
    "SELECT",
    "users",
    "SELECT users",
    concat!(
        "SELECT ",
        user_columns!(),
        ", EXISTS (SELECT FROM revoked_tokens WHERE token_key = $2)
        FROM users
        WHERE users.id = $1",
    ),
);

pub(super) async fn find_session(
    store: &Connections,
    id: UserId,
    token: &TokenKey,
) -> Result<Option<Session>, StatementError> {
    let row = store.row(&FIND_SESSION, &[&id.0, &token.0]).await?;
    row.map(|row| {
        Ok(Session {
            user: user(&row)?,
            revoked: row.try_get(6)?,
        })
    })
    .transpose()
}

const REVOKE_TOKEN: Statement = Statement::new(
    "INSERT",
    "revoked_tokens",
    "INSERT revoked_tokens",
    "INSERT INTO revoked_tokens (token_key, expires_at) VALUES ($1, $2) ON CONFLICT DO NOTHING",
);

pub(super) async fn revoke_token(
    store: &Connections,
    token: &TokenKey,
    expires_at: Timestamp,
) -> Result<(), StatementError> {
    store
        .execute(&REVOKE_TOKEN, &[&token.0, &Utc(expires_at)])
        .await?;
    Ok(())
}

const PURGE_REVOKED_TOKENS: Statement = Statement::new(
    "DELETE",
    "revoked_tokens",
    "DELETE revoked_tokens",
    "DELETE FROM revoked_tokens WHERE expires_at <= $1",
);

pub(super) async fn purge_revoked_tokens(store: &Connections, now: Timestamp) -> Result<u64, StatementError> {
    store.sweep(&PURGE_REVOKED_TOKENS, &[&Utc(now)]).await
}

//! Users and the tokens they gave back. Addresses keep the spelling typed; a folded column makes
//! them unique, letter case aside.

use jiff::Timestamp;
use rusqlite::{Row, params};
use telemetry::Statement;

use super::{connections::Connections, error::StatementError, value::Utc};
use crate::accounts::{
    Credentials, Email, NewUser, PasswordHash, Session, TokenKey, User, UserChanges, UserId,
};

/// The columns of a [`User`], in the order that [`user`] reads them.
macro_rules! user_columns {
    () => {
        "id, email, name, bio, image, created_at"
    };
}

fn user(row: &Row<'_>) -> rusqlite::Result<User> {
    let Utc(created_at) = row.get(5)?;
    Ok(User {
        id: UserId(row.get(0)?),
        email: row.get(1)?,
        name: row.get(2)?,
        bio: row.get(3)?,
        image: row.get(4)?,
        created_at,
    })
}

const INSERT_USER: Statement = Statement::new(
    "INSERT",
    "users",
    "INSERT users",
    concat!(
        "
        INSERT INTO users
            (email, email_folded, password_hash, name, bio, image, created_at, updated_at)
        VALUES (?1, ?2, ?3, ?4, '', '', ?5, ?5)
        RETURNING ",
        user_columns!(),
    ),
);

pub(super) async fn insert_user(store: &Connections, new: NewUser) -> Result<User, StatementError> {
    let inserted = store.write(&INSERT_USER, move |db| {
        let params = params![
            new.email.as_str(),
            new.email.folded(),
            new.password_hash.0,
            new.name,
            Utc(new.created_at),
        ];
        db.row(&INSERT_USER, params, user)
    });
    inserted
        .await?
        .ok_or_else(|| StatementError::failed("an inserted user gave no row"))
}

const FIND_CREDENTIALS: Statement = Statement::new(
    "SELECT",
    "users",
    "SELECT users",
    concat!(
        "SELECT ",
        user_columns!(),
        ", password_hash FROM users WHERE email_folded = ?1",
    ),
);

pub(super) async fn find_credentials(
    store: &Connections,
    email: &Email,
) -> Result<Option<Credentials>, StatementError> {
    let folded = email.folded();
    let found = store.read(&FIND_CREDENTIALS, move |db| {
        let credentials = |row: &Row<'_>| {
            Ok(Credentials {
                user: user(row)?,
                password_hash: PasswordHash(row.get(6)?),
            })
        };
        db.row(&FIND_CREDENTIALS, [folded], credentials)
    });
    found.await
}

const UPDATE_USER: Statement = Statement::new(
    "UPDATE",
    "users",
    "UPDATE users",
    concat!(
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
        RETURNING ",
        user_columns!(),
    ),
);

pub(super) async fn update_user(
    store: &Connections,
    id: UserId,
    changes: UserChanges,
    now: Timestamp,
) -> Result<Option<User>, StatementError> {
    let updated = store.write(&UPDATE_USER, move |db| {
        let params = params![
            id.0,
            changes.email.as_ref().map(Email::as_str),
            changes.email.as_ref().map(Email::folded),
            changes.password_hash.map(|hash| hash.0),
            changes.name,
            changes.bio,
            changes.image,
            Utc(now),
        ];
        db.row(&UPDATE_USER, params, user)
    });
    updated.await
}

const UPGRADE_PASSWORD_HASH: Statement = Statement::new(
    "UPDATE",
    "users",
    "UPDATE users",
    "UPDATE users SET password_hash = ?3 WHERE id = ?1 AND password_hash = ?2",
);

pub(super) async fn upgrade_password_hash(
    store: &Connections,
    id: UserId,
    old: PasswordHash,
    new: PasswordHash,
) -> Result<(), StatementError> {
    let upgraded = store.write(&UPGRADE_PASSWORD_HASH, move |db| {
        db.execute(&UPGRADE_PASSWORD_HASH, params![id.0, old.0, new.0])?;
        Ok(())
    });
    upgraded.await
}

const FIND_SESSION: Statement = Statement::new(
    "SELECT",
    "users",
    "SELECT users",
    concat!(
        "SELECT ",
        user_columns!(),
        ", EXISTS (SELECT 1 FROM revoked_tokens WHERE token_key = ?2) FROM users WHERE id = ?1",
    ),
);

pub(super) async fn find_session(
    store: &Connections,
    id: UserId,
    token: TokenKey,
) -> Result<Option<Session>, StatementError> {
    let found = store.read(&FIND_SESSION, move |db| {
        let session = |row: &Row<'_>| {
            Ok(Session {
                user: user(row)?,
                revoked: row.get(6)?,
            })
        };
        let params = params![id.0, token.0];
        db.row(&FIND_SESSION, params, session)
    });
    found.await
}

const REVOKE_TOKEN: Statement = Statement::new(
    "INSERT",
    "revoked_tokens",
    "INSERT revoked_tokens",
    "INSERT INTO revoked_tokens (token_key, expires_at) VALUES (?1, ?2) ON CONFLICT DO NOTHING",
);

pub(super) async fn revoke_token(
    store: &Connections,
    token: TokenKey,
    expires_at: Timestamp,
) -> Result<(), StatementError> {
    let revoked = store.write(&REVOKE_TOKEN, move |db| {
        db.execute(&REVOKE_TOKEN, params![token.0, Utc(expires_at)])?;
        Ok(())
    });
    revoked.await
}

const PURGE_REVOKED_TOKENS: Statement = Statement::new(
    "DELETE",
    "revoked_tokens",
    "DELETE revoked_tokens",
    "DELETE FROM revoked_tokens WHERE expires_at <= ?1",
);

pub(super) async fn purge_revoked_tokens(store: &Connections, now: Timestamp) -> Result<u64, StatementError> {
    let purged = store.write(&PURGE_REVOKED_TOKENS, move |db| {
        Ok(db.execute(&PURGE_REVOKED_TOKENS, [Utc(now)])? as u64)
    });
    purged.await
}

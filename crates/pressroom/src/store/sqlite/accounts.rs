//! Users and revoked tokens. E-mail addresses are stored as typed; another column contains them in lower case
//! and makes them unique.

use async_trait::async_trait;
use jiff::Timestamp;
use rusqlite::params;
use telemetry::Statement;

use super::SqliteStore;
use crate::{
    domain::{Credentials, Email, NewUser, PasswordHash, Session, TokenKey, User, UserChanges, UserId},
    store::{
        AccountStore, Result, StoreError,
        rows::{self, Utc},
        sql::{FIND_SESSION, PURGE_REVOKED_TOKENS, REVOKE_TOKEN, statement, user_columns},
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

const FIND_CREDENTIALS: Statement = statement!(
    "SELECT users",
    "SELECT ",
    user_columns!(),
    ", password_hash FROM users WHERE email_folded = ?1",
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
        RETURNING ",
    user_columns!(),
);

const UPGRADE_PASSWORD_HASH: Statement = statement!(
    "UPDATE users",
    "UPDATE users SET password_hash = ?3 WHERE id = ?1 AND password_hash = ?2",
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
            ];
            db.row(&UPDATE_USER, params, |row| rows::user(row))
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

    async fn revoke_token(&self, token: &TokenKey, expires_at: Timestamp) -> Result<()> {
        let params = (token.0.clone(), Utc(expires_at));
        self.execute(&REVOKE_TOKEN, params).await?;
        Ok(())
    }

    async fn purge_revoked_tokens(&self, now: Timestamp) -> Result<u64> {
        self.execute(&PURGE_REVOKED_TOKENS, (Utc(now),)).await
    }
}

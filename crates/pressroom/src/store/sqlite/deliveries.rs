//! Who is to be notified, and which notifications were made.

use std::time::Duration;

use jiff::Timestamp;
use rusqlite::{Row, params};
use telemetry::Statement;

use super::{
    connections::Connections,
    error::StatementError,
    value::{Id, Utc},
};
use crate::{
    accounts::UserId,
    articles::ArticleId,
    store::StoreError,
    tasks::{ArticleEvent, DeliveryClaim, DeliveryKey, Recipient},
};

const FOLLOWERS_OF_THE_AUTHOR: Statement = Statement::new(
    "SELECT",
    "users",
    "SELECT users",
    "
        SELECT reader.id, reader.email, reader.name
        FROM articles AS article
        JOIN users AS reader ON reader.id <> article.author_id
        WHERE article.id = ?1
            AND reader.id > ?2
            AND EXISTS (
                SELECT 1
                FROM favorites
                JOIN articles AS other ON other.id = favorites.article_id
                WHERE favorites.user_id = reader.id
                    AND other.author_id = article.author_id
                    AND other.id <> article.id
            )
        ORDER BY reader.id
        LIMIT ?3",
);

const FOLLOWERS_OF_THE_ARTICLE: Statement = Statement::new(
    "SELECT",
    "users",
    "SELECT users",
    "
        SELECT reader.id, reader.email, reader.name
        FROM articles AS article
        JOIN favorites ON favorites.article_id = article.id
        JOIN users AS reader ON reader.id = favorites.user_id AND reader.id <> article.author_id
        WHERE article.id = ?1 AND favorites.user_id > ?2
        ORDER BY reader.id
        LIMIT ?3",
);

pub(super) async fn recipients(
    store: &Connections,
    article: ArticleId,
    event: ArticleEvent,
    after: UserId,
    limit: i64,
) -> Result<Vec<Recipient>, StatementError> {
    let statement = match event {
        ArticleEvent::Created => FOLLOWERS_OF_THE_AUTHOR,
        ArticleEvent::Updated => FOLLOWERS_OF_THE_ARTICLE,
    };
    let found = store.read(&statement, move |db| {
        let recipient = |row: &Row<'_>| {
            Ok(Recipient {
                id: UserId(row.get(0)?),
                email: row.get(1)?,
                name: row.get(2)?,
            })
        };
        db.rows(&statement, params![article.0, after.0, limit.max(0)], recipient)
    });
    found.await
}

/// Gives a row only to the one who may deliver: the first, or the first after a lease ran out.
const CLAIM_DELIVERY: Statement = Statement::new(
    "INSERT",
    "notification_deliveries",
    "INSERT notification_deliveries",
    "
        INSERT INTO notification_deliveries AS held (task_id, recipient_id, channel, claimed_until)
        VALUES (?1, ?2, ?3, ?5)
        ON CONFLICT (task_id, recipient_id, channel) DO UPDATE
        SET claimed_until = excluded.claimed_until
        WHERE held.delivered_at IS NULL AND held.claimed_until <= ?4
        RETURNING true",
);

const FIND_DELIVERY: Statement = Statement::new(
    "SELECT",
    "notification_deliveries",
    "SELECT notification_deliveries",
    "
        SELECT delivered_at IS NOT NULL, claimed_until
        FROM notification_deliveries
        WHERE task_id = ?1 AND recipient_id = ?2 AND channel = ?3",
);

pub(super) async fn claim_delivery(
    store: &Connections,
    key: DeliveryKey,
    now: Timestamp,
    lease: Duration,
) -> Result<DeliveryClaim, StoreError> {
    let until = now.saturating_add(lease).unwrap_or(Timestamp::MAX);
    let claim = store.write(&CLAIM_DELIVERY, move |db| {
        let params = params![
            Id(key.task_id),
            key.recipient.0,
            key.channel,
            Utc(now),
            Utc(until)
        ];
        let claimed = db.row(&CLAIM_DELIVERY, params, |_| Ok(()))?;
        if claimed.is_some() {
            return Ok(Some(DeliveryClaim::Claimed));
        }
        let holder = |row: &Row<'_>| {
            let delivered: bool = row.get(0)?;
            let Utc(until) = row.get(1)?;
            Ok(if delivered {
                DeliveryClaim::Delivered
            } else {
                let remaining = until.duration_since(now).try_into().unwrap_or(Duration::ZERO);
                DeliveryClaim::Held { remaining }
            })
        };
        let params = params![Id(key.task_id), key.recipient.0, key.channel];
        db.row(&FIND_DELIVERY, params, holder)
    });
    claim
        .await?
        .ok_or_else(|| StoreError::Failed("a delivery neither free nor held".to_owned()))
}

/// Also where the claim is gone: what was delivered must stay known.
const COMPLETE_DELIVERY: Statement = Statement::new(
    "INSERT",
    "notification_deliveries",
    "INSERT notification_deliveries",
    "
        INSERT INTO notification_deliveries
            (task_id, recipient_id, channel, claimed_until, delivered_at)
        VALUES (?1, ?2, ?3, ?4, ?4)
        ON CONFLICT (task_id, recipient_id, channel) DO UPDATE
        SET delivered_at = excluded.delivered_at",
);

pub(super) async fn complete_delivery(
    store: &Connections,
    key: DeliveryKey,
    now: Timestamp,
) -> Result<(), StatementError> {
    let completed = store.write(&COMPLETE_DELIVERY, move |db| {
        let params = params![Id(key.task_id), key.recipient.0, key.channel, Utc(now)];
        db.execute(&COMPLETE_DELIVERY, params)?;
        Ok(())
    });
    completed.await
}

const RELEASE_DELIVERY: Statement = Statement::new(
    "DELETE",
    "notification_deliveries",
    "DELETE notification_deliveries",
    "
        DELETE FROM notification_deliveries
        WHERE task_id = ?1 AND recipient_id = ?2 AND channel = ?3 AND delivered_at IS NULL",
);

pub(super) async fn release_delivery(store: &Connections, key: DeliveryKey) -> Result<(), StatementError> {
    let released = store.write(&RELEASE_DELIVERY, move |db| {
        let params = params![Id(key.task_id), key.recipient.0, key.channel];
        db.execute(&RELEASE_DELIVERY, params)?;
        Ok(())
    });
    released.await
}

const PURGE_DELIVERIES: Statement = Statement::new(
    "DELETE",
    "notification_deliveries",
    "DELETE notification_deliveries",
    "DELETE FROM notification_deliveries WHERE delivered_at < ?1",
);

pub(super) async fn purge_deliveries(store: &Connections, before: Timestamp) -> Result<u64, StatementError> {
    let purged = store.write(&PURGE_DELIVERIES, move |db| {
        Ok(db.execute(&PURGE_DELIVERIES, [Utc(before)])? as u64)
    });
    purged.await
}

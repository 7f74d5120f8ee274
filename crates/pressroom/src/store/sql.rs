//! Statements and column lists that are the same for both databases.
//!
//! The parameters `$1`, `$2`, ... must first appear in this order, because SQLite numbers them by their first
//! appearance.

use telemetry::Statement;

use crate::domain::ArticleEvent;

/// Defines a statement by its summary (operation and table) and the parts of its text.
macro_rules! statement {
    ($summary:literal, $($text:expr),+ $(,)?) => {
        $crate::store::sql::summarized($summary, concat!($($text),+))
    };
}

pub(super) const fn summarized(summary: &'static str, text: &'static str) -> Statement {
    let mut space = 0;
    while summary.as_bytes()[space] != b' ' {
        space += 1;
    }
    let (operation, table) = summary.split_at(space);
    Statement::new(operation, table.split_at(1).1, summary, text)
}

/// The columns of a user, for [`super::rows::user`].
macro_rules! user_columns {
    () => {
        "id, email, name, bio, image, created_at"
    };
}

/// The columns of an article except `favorited`, for [`super::rows::article`]. The statement must name the
/// article's row `article` and its author's row `author`.
macro_rules! article_columns {
    () => {
        $crate::store::sql::article_columns!("article.body")
    };
    ($body:literal) => {
        concat!(
            "article.id, article.slug, article.title, article.description, ",
            $body,
            ",
            article.favorites_count, article.created_at, article.updated_at,
            author.id AS author_id, author.email AS author_email, author.name AS author_name"
        )
    };
}

pub(super) use {article_columns, statement, user_columns};

/// Starts a new generation. `$1` is the user, `$2` the time of the end, and `$3` the token that remains valid.
pub(super) const END_SESSIONS: Statement = statement!(
    "INSERT ended_sessions",
    "
        INSERT INTO ended_sessions AS held (user_id, generation, ended_at, kept_token)
        VALUES ($1, 1, $2, $3)
        ON CONFLICT (user_id) DO UPDATE
        SET generation = held.generation + 1,
            ended_at = CASE WHEN held.ended_at > excluded.ended_at THEN held.ended_at ELSE excluded.ended_at END,
            kept_token = excluded.kept_token",
);

pub(super) const REVOKE_TOKEN: Statement = statement!(
    "INSERT revoked_tokens",
    "INSERT INTO revoked_tokens (token_key, expires_at) VALUES ($1, $2) ON CONFLICT DO NOTHING",
);

pub(super) const PURGE_REVOKED_TOKENS: Statement = statement!(
    "DELETE revoked_tokens",
    "DELETE FROM revoked_tokens WHERE expires_at <= $1",
);

/// Selects an article as a viewer sees it. `$1` is the viewer, and `$2` the value in `$condition`.
macro_rules! find_article {
    ($condition:literal) => {
        $crate::store::sql::find_article!($condition, "article.body")
    };
    ($condition:literal, $body:literal) => {
        $crate::store::sql::statement!(
            "SELECT articles",
            "SELECT ",
            $crate::store::sql::article_columns!($body),
            ",
            EXISTS (SELECT 1 FROM favorites WHERE article_id = article.id AND user_id = $1) AS favorited
        FROM articles AS article
        JOIN users AS author ON author.id = article.author_id
        WHERE ",
            $condition,
        )
    };
}

pub(super) use find_article;

pub(super) const FIND_ARTICLE: Statement = find_article!("article.slug = $2");

pub(super) const FIND_ARTICLE_BY_ID: Statement = find_article!("article.id = $2");

/// Selects a stored response, with the columns of the article as it was created.
pub(super) const FIND_STORED_RESPONSE: Statement = statement!(
    "SELECT idempotency_keys",
    "
        SELECT fingerprint, article_id AS id, slug, title, description, body, 0 AS favorites_count,
            created_at, created_at AS updated_at, user_id AS author_id, author_email, author_name,
            false AS favorited
        FROM idempotency_keys
        WHERE user_id = $1 AND key = $2 AND created_at > $3",
);

pub(super) const RELEASE_ALL_OUTBOX: Statement = statement!(
    "UPDATE outbox",
    "UPDATE outbox SET claimable_at = created_at WHERE claimable_at <> created_at",
);

pub(super) const OUTBOX_BACKLOG: Statement = statement!(
    "SELECT outbox",
    "SELECT count(*) AS tasks, min(created_at) AS oldest FROM outbox",
);

/// Returns the statement that selects the users to notify of `event`.
pub(super) const fn select_recipients(event: ArticleEvent) -> &'static Statement {
    match event {
        ArticleEvent::Created => &FOLLOWERS_OF_THE_AUTHOR,
        ArticleEvent::Updated => &FOLLOWERS_OF_THE_ARTICLE,
    }
}

const FOLLOWERS_OF_THE_AUTHOR: Statement = statement!(
    "SELECT users",
    "
        SELECT reader.id, reader.email, reader.name
        FROM articles AS article
        JOIN users AS reader ON reader.id <> article.author_id
        WHERE article.id = $1
            AND reader.id > $2
            AND EXISTS (
                SELECT 1
                FROM favorites
                JOIN articles AS other ON other.id = favorites.article_id
                WHERE favorites.user_id = reader.id
                    AND other.author_id = article.author_id
                    AND other.id <> article.id
            )
        ORDER BY reader.id
        LIMIT $3",
);

const FOLLOWERS_OF_THE_ARTICLE: Statement = statement!(
    "SELECT users",
    "
        SELECT reader.id, reader.email, reader.name
        FROM articles AS article
        JOIN favorites ON favorites.article_id = article.id
        JOIN users AS reader ON reader.id = favorites.user_id AND reader.id <> article.author_id
        WHERE article.id = $1 AND favorites.user_id > $2
        ORDER BY reader.id
        LIMIT $3",
);

/// Returns a row if the task has already recorded its event, or if the event is within the limits. `$5` is the current
/// time, `$6` the time after which earlier events count, and `$7` the maximum number of events of the author, or null.
/// The update changes nothing, but makes the statement return a row for a recorded event.
pub(super) const CLAIM_EVENT: Statement = statement!(
    "INSERT notified_events",
    "
        INSERT INTO notified_events (task_id, author_id, article_id, event, notified_at)
        SELECT $1, $2, $3, $4, $5
        WHERE EXISTS (SELECT 1 FROM notified_events WHERE task_id = $1)
            OR NOT EXISTS (
                SELECT 1
                FROM notified_events
                WHERE author_id = $2 AND article_id = $3 AND event = $4 AND event = 'updated' AND notified_at > $6
            )
            AND (
                CAST($7 AS bigint) IS NULL
                OR CAST($7 AS bigint) > (
                    SELECT count(*) FROM notified_events WHERE author_id = $2 AND notified_at > $6
                )
            )
        ON CONFLICT (task_id) DO UPDATE
        SET task_id = excluded.task_id
        RETURNING true",
);

pub(super) const PURGE_EVENTS: Statement = statement!(
    "DELETE notified_events",
    "
        DELETE FROM notified_events
        WHERE task_id IN (
                SELECT task_id
                FROM notified_events
                WHERE notified_at < $1
                ORDER BY notified_at
                LIMIT $2
            )",
);

pub(super) const FIND_DELIVERY: Statement = statement!(
    "SELECT notification_deliveries",
    "
        SELECT delivered_at IS NOT NULL AS delivered, claimed_until
        FROM notification_deliveries
        WHERE task_id = $1 AND recipient_id = $2 AND channel = $3",
);

pub(super) const RELEASE_DELIVERY: Statement = statement!(
    "DELETE notification_deliveries",
    "
        DELETE FROM notification_deliveries
        WHERE task_id = $1 AND recipient_id = $2 AND channel = $3 AND delivered_at IS NULL",
);

pub(super) const PURGE_DELIVERIES: Statement = statement!(
    "DELETE notification_deliveries",
    "
        DELETE FROM notification_deliveries
        WHERE (task_id, recipient_id, channel) IN (
                SELECT task_id, recipient_id, channel
                FROM notification_deliveries
                WHERE delivered_at < $1
                ORDER BY delivered_at
                LIMIT $2
            )",
);

pub(super) const PING: Statement = Statement::new("SELECT", "", "SELECT 1", "SELECT 1");

pub(super) const NEWEST_MIGRATION: Statement = statement!(
    "SELECT refinery_schema_history",
    "SELECT max(version) AS version FROM refinery_schema_history",
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_first_appear_in_order() {
        for statement in [
            END_SESSIONS,
            REVOKE_TOKEN,
            PURGE_REVOKED_TOKENS,
            FIND_ARTICLE,
            FIND_ARTICLE_BY_ID,
            FIND_STORED_RESPONSE,
            FOLLOWERS_OF_THE_AUTHOR,
            FOLLOWERS_OF_THE_ARTICLE,
            CLAIM_EVENT,
            PURGE_EVENTS,
            FIND_DELIVERY,
            RELEASE_DELIVERY,
            PURGE_DELIVERIES,
        ] {
            let numbers = statement.text.split('$').skip(1).map(|after| {
                let digits = after.chars().take_while(char::is_ascii_digit);
                digits.collect::<String>().parse::<usize>().unwrap()
            });
            let mut highest = 0;
            for number in numbers {
                assert!(number <= highest + 1, "{}", statement.text);
                highest = highest.max(number);
            }
        }
    }
}

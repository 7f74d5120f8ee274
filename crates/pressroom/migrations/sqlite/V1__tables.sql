-- The same tables as on PostgreSQL, as far as SQLite goes. Times are microseconds since 1970, UTC.
-- Folded columns hold lower case by Unicode's rules, which SQLite's own functions do not know.

CREATE TABLE users (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    email TEXT NOT NULL,
    email_folded TEXT NOT NULL UNIQUE,
    password_hash TEXT NOT NULL,
    name TEXT NOT NULL,
    bio TEXT NOT NULL,
    image TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL
) STRICT;

CREATE TABLE articles (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    slug TEXT NOT NULL UNIQUE,
    title TEXT NOT NULL,
    title_folded TEXT NOT NULL,
    description TEXT NOT NULL,
    body TEXT NOT NULL,
    author_id INTEGER NOT NULL REFERENCES users (id),
    favorites_count INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL
) STRICT;

CREATE INDEX ix_articles_newest ON articles (created_at DESC, id DESC);
CREATE INDEX ix_articles_author_id ON articles (author_id);

CREATE TABLE favorites (
    user_id INTEGER NOT NULL REFERENCES users (id),
    article_id INTEGER NOT NULL REFERENCES articles (id),
    created_at INTEGER NOT NULL,
    PRIMARY KEY (user_id, article_id)
) STRICT, WITHOUT ROWID;

CREATE INDEX ix_favorites_article_id ON favorites (article_id);

CREATE TABLE outbox (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    task_id TEXT NOT NULL,
    name TEXT NOT NULL,
    args TEXT NOT NULL,
    trace TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    claimable_at INTEGER NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0
) STRICT;

CREATE TABLE revoked_tokens (
    token_key TEXT NOT NULL PRIMARY KEY,
    expires_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX ix_revoked_tokens_expires_at ON revoked_tokens (expires_at);

CREATE TABLE notification_deliveries (
    task_id TEXT NOT NULL,
    recipient_id INTEGER NOT NULL,
    channel TEXT NOT NULL,
    claimed_until INTEGER NOT NULL,
    delivered_at INTEGER,
    PRIMARY KEY (task_id, recipient_id, channel)
) STRICT, WITHOUT ROWID;

CREATE INDEX ix_notification_deliveries_delivered_at
    ON notification_deliveries (delivered_at)
    WHERE delivered_at IS NOT NULL;

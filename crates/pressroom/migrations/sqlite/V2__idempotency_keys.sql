-- What clients called the requests that created articles, with what they were answered, for a day.
CREATE TABLE idempotency_keys (
    user_id INTEGER NOT NULL,
    key TEXT NOT NULL,
    -- SHA-256 of what was asked for.
    fingerprint BLOB NOT NULL,
    created_at INTEGER NOT NULL,
    -- The article as it was created; it may have changed since.
    article_id INTEGER NOT NULL,
    slug TEXT NOT NULL,
    title TEXT NOT NULL,
    description TEXT NOT NULL,
    body TEXT NOT NULL,
    author_email TEXT NOT NULL,
    author_name TEXT NOT NULL,
    PRIMARY KEY (user_id, key)
) STRICT;

CREATE INDEX ix_idempotency_keys_created_at ON idempotency_keys (created_at);

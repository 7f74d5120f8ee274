-- What the reference does not have. Timestamps are UTC without a zone, as in its tables.

-- Tasks written in the same commit as the change they tell of, until the broker has taken them.
CREATE TABLE outbox (
    id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    task_id UUID NOT NULL,
    name TEXT NOT NULL,
    args JSONB NOT NULL,
    trace JSONB NOT NULL,
    created_at TIMESTAMP WITHOUT TIME ZONE NOT NULL,
    -- From when on it may be claimed; a claim moves it to the end of its lease.
    claimable_at TIMESTAMP WITHOUT TIME ZONE NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0
);

-- Tokens that were logged out before they expired.
CREATE TABLE revoked_tokens (
    token_key TEXT PRIMARY KEY,
    expires_at TIMESTAMP WITHOUT TIME ZONE NOT NULL
);

CREATE INDEX ix_revoked_tokens_expires_at ON revoked_tokens (expires_at);

-- Which notifications were made, so that a task that runs twice does not notify twice.
CREATE TABLE notification_deliveries (
    task_id UUID NOT NULL,
    recipient_id INTEGER NOT NULL,
    channel TEXT NOT NULL,
    claimed_until TIMESTAMP WITHOUT TIME ZONE NOT NULL,
    delivered_at TIMESTAMP WITHOUT TIME ZONE,
    PRIMARY KEY (task_id, recipient_id, channel)
);

CREATE INDEX ix_notification_deliveries_delivered_at
    ON notification_deliveries (delivered_at)
    WHERE delivered_at IS NOT NULL;

-- The list, newest first; favourites of an article; articles of an author; sign-in without regard
-- to letter case. The last cannot be unique: a database of the reference may already hold
-- addresses that differ only in case.
CREATE INDEX IF NOT EXISTS ix_articles_newest ON articles (created_at DESC, id DESC);
CREATE INDEX IF NOT EXISTS ix_articles_author_id ON articles (author_id);
CREATE INDEX IF NOT EXISTS ix_favorites_article_id ON favorites (article_id);
CREATE INDEX IF NOT EXISTS ix_users_email_lower ON users (lower(email));

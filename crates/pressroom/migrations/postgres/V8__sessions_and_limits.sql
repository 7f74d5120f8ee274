-- Users who have ended all their sessions at least once. A token of an earlier generation is refused, and so is a token
-- without a generation (Flask's) that was issued up to `ended_at`, unless it is the kept one.
CREATE TABLE ended_sessions (
    user_id INTEGER PRIMARY KEY,
    generation INTEGER NOT NULL,
    ended_at TIMESTAMP WITHOUT TIME ZONE NOT NULL,
    kept_token TEXT
);

-- Events that readers were notified of, to limit the notifications that one author causes.
CREATE TABLE notified_events (
    task_id UUID PRIMARY KEY,
    author_id INTEGER NOT NULL,
    article_id INTEGER NOT NULL,
    event TEXT NOT NULL,
    notified_at TIMESTAMP WITHOUT TIME ZONE NOT NULL
);

CREATE INDEX ix_notified_events_author ON notified_events (author_id, notified_at);
CREATE INDEX ix_notified_events_notified_at ON notified_events (notified_at);

-- Schemes and costs of the password hashes, to hide the scheme of an account in the duration of a failed login.
CREATE INDEX ix_users_password_scheme ON users (
    substring(
        password_hash,
        '^(\$argon2id\$v=19\$m=[0-9]+,t=[0-9]+,p=[0-9]+|scrypt:[0-9]+:[0-9]+:[0-9]+|pbkdf2:[a-z0-9]+:[0-9]+)'
    )
);

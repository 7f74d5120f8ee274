-- Users who have ended all their sessions at least once. A token of an earlier generation is refused, and so is a token
-- without a generation (Flask's) that was issued up to `ended_at`, unless it is the kept one.
CREATE TABLE ended_sessions (
    user_id INTEGER NOT NULL PRIMARY KEY,
    generation INTEGER NOT NULL,
    ended_at INTEGER NOT NULL,
    kept_token TEXT
) STRICT;

-- Events that readers were notified of, to limit the notifications that one author causes.
CREATE TABLE notified_events (
    task_id TEXT NOT NULL PRIMARY KEY,
    author_id INTEGER NOT NULL,
    article_id INTEGER NOT NULL,
    event TEXT NOT NULL,
    notified_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX ix_notified_events_author ON notified_events (author_id, notified_at);
CREATE INDEX ix_notified_events_notified_at ON notified_events (notified_at);

-- Schemes and costs of the password hashes, to hide the scheme of an account in the duration of a failed login.
ALTER TABLE users ADD COLUMN password_scheme TEXT GENERATED ALWAYS AS (
    CASE
        WHEN substr(password_hash, 1, 15) = '$argon2id$v=19$'
            THEN substr(password_hash, 1, 14 + instr(substr(password_hash, 16), '$'))
        WHEN substr(password_hash, 1, 7) IN ('scrypt:', 'pbkdf2:')
            THEN substr(password_hash, 1, instr(password_hash, '$') - 1)
    END
) VIRTUAL;

CREATE INDEX ix_users_password_scheme ON users (password_scheme);

-- A capital I with a dot folds to one letter, as on PostgreSQL. An account that would collide keeps its old value.
UPDATE OR IGNORE users
SET email_folded = replace(email_folded, 'i' || char(775), 'i')
WHERE instr(email, char(304)) > 0;

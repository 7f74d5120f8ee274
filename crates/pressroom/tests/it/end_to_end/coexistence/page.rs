//! The commands of `docs/coming-from-flask.md`, run as they stand there.

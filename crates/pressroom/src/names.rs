//! The names of our own telemetry, for use where it is made. Written by `scripts/telemetry-registry` from
//! `crates/otel-service/registry`; change them there.

/// Attributes.
pub mod attribute {
    /// The article's number. Its type is int.
    pub const ARTICLE_ID: &str = "article.id";

    /// The article's name in addresses. Its type is string.
    pub const ARTICLE_SLUG: &str = "article.slug";

    /// How a login ended. Its type is string.
    pub const AUTH_STATUS: &str = "auth.status";

    /// The author's number, as text because the Flask system sends it so. Its type is string.
    pub const AUTHOR_ID: &str = "author_id";

    /// What happened to the article. Its type is string.
    pub const EVENT_TYPE: &str = "event.type";

    /// Which attempt this is; the first is 1. Its type is int.
    pub const JOB_ATTEMPT: &str = "job.attempt";

    /// The task's id. Its type is string.
    pub const JOB_ID: &str = "job.id";

    /// What is done. Its type is string.
    pub const JOB_NAME: &str = "job.name";
}

/// Metrics.
pub mod metric {
    /// Articles created, by author. A counter in `{article}`.
    pub const ARTICLES_CREATED: &str = "articles.created";

    /// Login attempts by outcome. A counter in `{attempt}`.
    pub const AUTH_LOGIN_ATTEMPTS: &str = "auth.login.attempts";

    /// Age of the oldest task that waits to be published. A gauge in seconds.
    pub const OUTBOX_AGE: &str = "outbox.age";

    /// Tasks that wait to be published. A gauge in `{task}`.
    pub const OUTBOX_TASKS: &str = "outbox.tasks";
}

/// Spans, where they have one name.
pub mod span {
    /// An article is written, with the task that tells its readers. Its kind is internal.
    pub const ARTICLE_CREATE: &str = "article.create";

    /// An article is deleted. Its kind is internal.
    pub const ARTICLE_DELETE: &str = "article.delete";

    /// An article becomes one of a user's favorites. Its kind is internal.
    pub const ARTICLE_FAVORITE: &str = "article.favorite";

    /// An article is no longer one of a user's favorites. Its kind is internal.
    pub const ARTICLE_UNFAVORITE: &str = "article.unfavorite";

    /// An article is changed, with the task that tells its readers. Its kind is internal.
    pub const ARTICLE_UPDATE: &str = "article.update";

    /// Readers are told of an article. Its kind is internal.
    pub const JOB_SEND_NOTIFICATION: &str = "job.send_notification";

    /// Tasks are taken from the outbox, several at once. Its kind is internal.
    pub const OUTBOX_CLAIM: &str = "outbox.claim";

    /// A login. A wrong password is no failure of the service and leaves the status unset. Its kind is
    /// internal.
    pub const USER_LOGIN: &str = "user.login";

    /// A token is refused from now on. Its kind is internal.
    pub const USER_LOGOUT: &str = "user.logout";

    /// A registration. Its kind is internal.
    pub const USER_REGISTER: &str = "user.register";
}

//! Operations on articles and favourites, with their permissions.

use std::{sync::Arc, time::Duration};

use celeriac::RetryDelay;
use telemetry::{Failure, KeyValue, Span};
use tokio::sync::Notify;

use super::slug::slug;
use crate::{
    clock::Clock,
    domain::{
        ARTICLE_NOTIFICATION, Article, ArticleChanges, ArticleEvent, ArticleId, ArticlePage, Draft,
        IdempotencyKey, IdempotentRequest, ListQuery, NewArticle, NewOutboxTask, Precondition, User, UserId,
    },
    ids::IdSource,
    names::{attribute, metric, span},
    store::{ArticleStore, Constraint, StoreError},
};

static CREATED: telemetry::Counter = telemetry::counter(
    metric::ARTICLES_CREATED,
    "{article}",
    "Articles created, by author",
);

/// Maximum number of slugs tried for one article; all but the first have a random suffix.
const SLUG_ATTEMPTS: u32 = 5;

/// Maximum number of attempts if concurrent requests win the idempotency key.
const ONCE_ATTEMPTS: u32 = 3;

/// Back-off between these attempts if the response of the other request is not found.
const ONCE_BACK_OFF: RetryDelay = RetryDelay::Exponential {
    first: Duration::from_millis(50),
    longest: Duration::from_millis(200),
    jitter: true,
};
const ONCE_MIN_DELAY: Duration = Duration::from_millis(25);

/// Reason an operation on an article failed.
#[derive(Debug, thiserror::Error)]
pub enum ArticleError {
    #[error("Article not found")]
    NotFound,
    #[error("You can only update your own articles")]
    UpdateForbidden,
    #[error("You can only delete your own articles")]
    DeleteForbidden,
    /// The current version does not meet the request's precondition.
    #[error("Article has changed")]
    PreconditionFailed,
    /// The key belongs to another request.
    #[error("Idempotency-Key was used for another request")]
    IdempotencyKeyReused,
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Failure for ArticleError {
    fn error_type(&self) -> Option<std::borrow::Cow<'static, str>> {
        match self {
            Self::Store(error) => error.error_type(),
            _ => None,
        }
    }

    fn message(&self) -> String {
        self.to_string()
    }
}

/// The article that a request created.
#[derive(Debug)]
pub struct Creation {
    pub article: Article,
    /// Whether an earlier request with the same idempotency key created it.
    pub replayed: bool,
}

/// An article that the requesting user wrote and may change.
#[derive(Debug)]
pub struct OwnArticle(Article);

/// Operations on articles.
#[derive(Debug, Clone)]
pub struct Articles {
    store: Arc<dyn ArticleStore>,
    clock: Arc<dyn Clock>,
    ids: Arc<dyn IdSource>,
    /// Notified when a row is added to the outbox.
    outbox: Arc<Notify>,
}

impl Articles {
    #[must_use]
    pub fn new(
        store: Arc<dyn ArticleStore>,
        clock: Arc<dyn Clock>,
        ids: Arc<dyn IdSource>,
        outbox: Arc<Notify>,
    ) -> Self {
        Self {
            store,
            clock,
            ids,
            outbox,
        }
    }

    /// Creates an article. With a key, retries within a day return the article of the first request.
    ///
    /// # Errors
    /// [`ArticleError::IdempotencyKeyReused`], or a failure of the store.
    pub async fn create(
        &self,
        author: &User,
        draft: Draft,
        key: Option<IdempotencyKey>,
    ) -> Result<Creation, ArticleError> {
        Span::internal(span::ARTICLE_CREATE)
            .attribute(user_id(author.id))
            .run(async {
                let (article, replayed) = match key {
                    None => (self.insert(author.id, &draft, None).await?, false),
                    Some(key) => self.insert_once(author.id, &draft, key).await?,
                };
                telemetry::set_attribute(KeyValue::new(attribute::ARTICLE_SLUG, article.slug.clone()));
                if replayed {
                    telemetry::debug!(
                        article.id = article.id.0,
                        "returned the article of an earlier request"
                    );
                    return Ok(Creation { article, replayed });
                }
                CREATED.add(1, &[KeyValue::new(attribute::AUTHOR_ID, author.id.0.to_string())]);
                self.outbox.notify_one();
                telemetry::info!(article.id = article.id.0, article.slug, "Article created");
                Ok(Creation { article, replayed })
            })
            .await
    }

    /// Returns the article with this slug, as `viewer` sees it.
    ///
    /// # Errors
    /// [`ArticleError::NotFound`], or a failure of the store.
    pub async fn get(&self, slug: &str, viewer: Option<UserId>) -> Result<Article, ArticleError> {
        let article = self.store.find_article(slug, viewer).await?;
        article.ok_or(ArticleError::NotFound)
    }

    /// Returns a page of articles.
    ///
    /// # Errors
    /// A failure of the store.
    pub async fn list(&self, query: ListQuery) -> Result<ArticlePage, ArticleError> {
        Ok(self.store.list_articles(query).await?)
    }

    /// Finds an article that `user` may update.
    ///
    /// # Errors
    /// [`ArticleError::NotFound`], [`ArticleError::UpdateForbidden`], or a failure of the store.
    pub async fn find_to_update(&self, slug: &str, user: &User) -> Result<OwnArticle, ArticleError> {
        let article = self.get(slug, Some(user.id)).await?;
        if article.author.id != user.id {
            return Err(ArticleError::UpdateForbidden);
        }
        // The body may be large, and is not needed.
        Ok(OwnArticle(Article {
            body: String::new(),
            ..article
        }))
    }

    /// Changes an article if its version meets `precondition`. An update that changes nothing creates a new
    /// version, but no task to notify readers.
    ///
    /// # Errors
    /// [`ArticleError::NotFound`] if the article was deleted meanwhile, [`ArticleError::PreconditionFailed`], or a
    /// failure of the store.
    pub async fn update(
        &self,
        article: &OwnArticle,
        changes: ArticleChanges,
        precondition: Precondition,
    ) -> Result<Article, ArticleError> {
        let OwnArticle(article) = article;
        change(span::ARTICLE_UPDATE, article.author.id, &article.slug)
            .run(async {
                let task = self.task(ArticleEvent::Updated);
                let viewer = article.author.id;
                let updated = self
                    .store
                    .update_article(article.id, changes, precondition, viewer, task);
                let Some(updated) = updated.await? else {
                    return Err(self.unmet(article.id).await?);
                };
                self.outbox.notify_one();
                telemetry::info!(
                    article.id = updated.id.0,
                    article.slug = updated.slug,
                    "Article updated"
                );
                Ok(updated)
            })
            .await
    }

    /// Deletes an article if its version meets `precondition`.
    ///
    /// # Errors
    /// [`ArticleError::NotFound`], [`ArticleError::DeleteForbidden`],
    /// [`ArticleError::PreconditionFailed`], or a failure of the store.
    pub async fn delete(
        &self,
        slug: &str,
        user: &User,
        precondition: Precondition,
    ) -> Result<(), ArticleError> {
        change(span::ARTICLE_DELETE, user.id, slug)
            .run(async {
                let article = self.get(slug, Some(user.id)).await?;
                if article.author.id != user.id {
                    return Err(ArticleError::DeleteForbidden);
                }
                if !self.store.delete_article(article.id, precondition).await? {
                    return Err(self.unmet(article.id).await?);
                }
                telemetry::info!(article.id = article.id.0, article.slug, "Article deleted");
                Ok(())
            })
            .await
    }

    /// Adds a favourite; idempotent.
    ///
    /// # Errors
    /// [`ArticleError::NotFound`], or a failure of the store.
    pub async fn favorite(&self, slug: &str, user: &User) -> Result<Article, ArticleError> {
        change(span::ARTICLE_FAVORITE, user.id, slug)
            .run(async {
                let favorited = self.store.favorite(slug, user.id, self.clock.now());
                favorited.await?.ok_or(ArticleError::NotFound)
            })
            .await
    }

    /// Removes a favourite; idempotent.
    ///
    /// # Errors
    /// [`ArticleError::NotFound`], or a failure of the store.
    pub async fn unfavorite(&self, slug: &str, user: &User) -> Result<Article, ArticleError> {
        change(span::ARTICLE_UNFAVORITE, user.id, slug)
            .run(async {
                let unfavorited = self.store.unfavorite(slug, user.id);
                unfavorited.await?.ok_or(ArticleError::NotFound)
            })
            .await
    }

    /// Returns the error for an article that existed before but could not be changed.
    async fn unmet(&self, id: ArticleId) -> Result<ArticleError, StoreError> {
        Ok(match self.store.find_article_by_id(id).await? {
            Some(_) => ArticleError::PreconditionFailed,
            None => ArticleError::NotFound,
        })
    }

    /// Returns the article and whether an earlier request created it. One of several concurrent requests with
    /// the same key inserts the article; the others wait in the database and return the stored response.
    async fn insert_once(
        &self,
        author: UserId,
        draft: &Draft,
        key: IdempotencyKey,
    ) -> Result<(Article, bool), ArticleError> {
        let once = IdempotentRequest::new(key, draft, self.clock.now());
        for attempt in 1..=ONCE_ATTEMPTS {
            let first = self.store.find_stored_response(author, &once.key, once.since);
            if let Some(first) = first.await? {
                return if first.fingerprint == once.fingerprint {
                    Ok((first.article, true))
                } else {
                    Err(ArticleError::IdempotencyKeyReused)
                };
            }
            if attempt > 1 {
                let delay = ONCE_BACK_OFF.after(attempt - 2);
                tokio::time::sleep(delay.max(ONCE_MIN_DELAY)).await;
            }
            match self.insert(author, draft, Some(&once)).await {
                Err(StoreError::Conflict(Constraint::IdempotencyKey)) => {
                    telemetry::debug!(
                        retry.attempts = attempt,
                        "a concurrent request won the idempotency key"
                    );
                }
                inserted => return Ok((inserted?, false)),
            }
        }
        let reason = "concurrent requests use one idempotency key";
        Err(StoreError::Unavailable(reason.to_owned()).into())
    }

    async fn insert(
        &self,
        author: UserId,
        draft: &Draft,
        once: Option<&IdempotentRequest>,
    ) -> Result<Article, StoreError> {
        let now = self.clock.now();
        let mut attempt = 1;
        let mut suffix: Option<String> = None;
        loop {
            let article = NewArticle {
                slug: slug(&draft.title, now, suffix.as_deref()),
                draft: draft.clone(),
                author,
                created_at: now,
            };
            let task = self.task(ArticleEvent::Created);
            let inserted = match once {
                None => self.store.insert_article(article, task).await,
                Some(once) => self.store.insert_article_once(article, once, task).await,
            };
            match inserted {
                Err(StoreError::Conflict(Constraint::ArticleSlug)) if attempt < SLUG_ATTEMPTS => {
                    attempt += 1;
                    telemetry::debug!(retry.attempts = attempt, "the slug is taken, trying another");
                    let id = self.ids.next().simple().to_string();
                    suffix = Some(id[..8].to_owned());
                }
                result => return result,
            }
        }
    }

    fn task(&self, event: ArticleEvent) -> NewOutboxTask {
        NewOutboxTask {
            task_id: self.ids.next(),
            name: ARTICLE_NOTIFICATION,
            event,
            trace: telemetry::inject_context(),
            created_at: self.clock.now(),
        }
    }
}

fn user_id(id: UserId) -> KeyValue {
    KeyValue::new("user.id", id.0.to_string())
}

/// Returns the span of an operation on the article with this slug.
fn change(name: &'static str, user: UserId, slug: &str) -> Span {
    Span::internal(name)
        .attribute(user_id(user))
        .attribute(KeyValue::new(attribute::ARTICLE_SLUG, slug.to_owned()))
}

//! Operations on articles and favourites, with their permissions.

use std::sync::Arc;

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

/// Maximum number of slugs tried for one article; the second one is already random.
const SLUG_ATTEMPTS: u32 = 5;

/// Attempts at a request when concurrent requests win its idempotency key.
const ONCE_ATTEMPTS: u32 = 3;

/// The reason an operation on an article failed.
#[derive(Debug, thiserror::Error)]
pub enum ArticleError {
    #[error("Article not found")]
    NotFound,
    #[error("You can only update your own articles")]
    UpdateForbidden,
    #[error("You can only delete your own articles")]
    DeleteForbidden,
    /// The article is not in a version that the caller allows.
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

/// An article that its author requested, and may therefore change.
#[derive(Debug)]
pub struct OwnArticle(Article);

/// The articles of the service.
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
    ) -> Result<Article, ArticleError> {
        Span::internal(span::ARTICLE_CREATE)
            .attribute(user_id(author.id))
            .run(async {
                let (article, new) = match key {
                    None => (self.insert(author.id, &draft, None).await?, true),
                    Some(key) => self.insert_once(author.id, &draft, key).await?,
                };
                telemetry::set_attribute(KeyValue::new(attribute::ARTICLE_SLUG, article.slug.clone()));
                if !new {
                    telemetry::debug!(article.id = article.id.0, "answered with the stored article");
                    return Ok(article);
                }
                CREATED.add(1, &[KeyValue::new(attribute::AUTHOR_ID, author.id.0.to_string())]);
                self.outbox.notify_one();
                telemetry::info!(article.id = article.id.0, article.slug, "Article created");
                Ok(article)
            })
            .await
    }

    /// # Errors
    /// [`ArticleError::NotFound`], or a failure of the store.
    pub async fn get(&self, slug: &str, viewer: Option<UserId>) -> Result<Article, ArticleError> {
        let article = self.store.find_article(slug, viewer).await?;
        article.ok_or(ArticleError::NotFound)
    }

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
        Ok(OwnArticle(article))
    }

    /// Changes an article that is in a version which `precondition` allows.
    ///
    /// # Errors
    /// [`ArticleError::NotFound`] when the article was deleted meanwhile,
    /// [`ArticleError::PreconditionFailed`], or a failure of the store.
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
                let updated = self
                    .store
                    .update_article(article.id, changes, precondition, article.author.id, task)
                    .await?;
                let Some(updated) = updated else {
                    return Err(self.change_refusal(article.id).await?);
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

    /// Deletes an article that is in a version which `precondition` allows.
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
                    return Err(self.change_refusal(article.id).await?);
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
                let article = self.store.favorite(slug, user.id, self.clock.now()).await?;
                article.ok_or(ArticleError::NotFound)
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
                let article = self.store.unfavorite(slug, user.id).await?;
                article.ok_or(ArticleError::NotFound)
            })
            .await
    }

    /// Returns the reason an article that existed before could not be changed.
    async fn change_refusal(&self, id: ArticleId) -> Result<ArticleError, StoreError> {
        Ok(match self.store.find_article_by_id(id).await? {
            Some(_) => ArticleError::PreconditionFailed,
            None => ArticleError::NotFound,
        })
    }

    /// Returns the article, and whether it is new. Of concurrent requests with the same key, one inserts the
    /// article; the others wait in the database and return the stored answer.
    async fn insert_once(
        &self,
        author: UserId,
        draft: &Draft,
        key: IdempotencyKey,
    ) -> Result<(Article, bool), ArticleError> {
        let once = IdempotentRequest::new(key, draft, self.clock.now());
        for attempt in 1..=ONCE_ATTEMPTS {
            let first = self
                .store
                .find_stored_response(author, &once.key, once.since)
                .await?;
            if let Some(first) = first {
                return if first.fingerprint == once.fingerprint {
                    Ok((first.article, false))
                } else {
                    Err(ArticleError::IdempotencyKeyReused)
                };
            }
            match self.insert(author, draft, Some(&once)).await {
                Err(StoreError::Conflict(Constraint::IdempotencyKey)) => {
                    telemetry::debug!(attempt, "a concurrent request won the idempotency key");
                }
                inserted => return Ok((inserted?, true)),
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
        let mut suffix = None;
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
                    telemetry::debug!(attempt, "the slug is taken, trying another");
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
    KeyValue::new("user.id", i64::from(id.0))
}

/// Returns the span of a change to the article with this slug.
fn change(name: &'static str, user: UserId, slug: &str) -> Span {
    Span::internal(name)
        .attribute(user_id(user))
        .attribute(KeyValue::new(attribute::ARTICLE_SLUG, slug.to_owned()))
}

//! What can be done with articles, and by whom.

use std::sync::Arc;

use telemetry::{Failure, KeyValue, Span};
use tokio::sync::Notify;

use super::slug::slug;
use crate::{
    clock::Clock,
    domain::{
        ARTICLE_NOTIFICATION, Article, ArticleChanges, ArticleEvent, ArticleId, ArticlePage, Draft,
        IdempotencyKey, ListQuery, NewArticle, NewOutboxTask, OnceOnly, Precondition, User, UserId,
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

/// How many slugs are tried for one article. The second one is already random.
const SLUG_ATTEMPTS: u32 = 5;

/// How often a request with a key is begun anew that another one with its key came before.
const ONCE_ATTEMPTS: u32 = 3;

/// Why something could not be done with an article.
#[derive(Debug, thiserror::Error)]
pub enum ArticleError {
    #[error("Article not found")]
    NotFound,
    #[error("You can only update your own articles")]
    UpdateForbidden,
    #[error("You can only delete your own articles")]
    DeleteForbidden,
    /// The article is another version than the caller demands.
    #[error("Article has changed")]
    PreconditionFailed,
    /// The key was another request's.
    #[error("Idempotency-Key was used for another request")]
    IdempotencyKeyReused,
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Failure for ArticleError {
    fn error_type(&self) -> Option<std::borrow::Cow<'static, str>> {
        match self {
            Self::Store(error) => error.error_type(),
            Self::NotFound
            | Self::UpdateForbidden
            | Self::DeleteForbidden
            | Self::PreconditionFailed
            | Self::IdempotencyKeyReused => None,
        }
    }

    fn message(&self) -> String {
        self.to_string()
    }
}

/// An article that its author asked for, and may therefore change.
#[derive(Debug)]
pub struct OwnArticle(Article);

/// The articles of the service.
#[derive(Clone)]
pub struct Articles {
    store: Arc<dyn ArticleStore>,
    clock: Arc<dyn Clock>,
    ids: Arc<dyn IdSource>,
    /// Told when the outbox has something new.
    outbox: Arc<Notify>,
}

impl std::fmt::Debug for Articles {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Articles").finish_non_exhaustive()
    }
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

    /// Creates an article; under a key once in a day, and the same answer is given each time.
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
                    telemetry::debug!(article.id = article.id.0, "answered as the first time");
                    return Ok(article);
                }
                CREATED.add(1, &[KeyValue::new(attribute::AUTHOR_ID, author.id.to_string())]);
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

    /// The article, if `user` may update it.
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

    /// Changes an article, if it is still a version that the caller means.
    ///
    /// # Errors
    /// [`ArticleError::NotFound`] when it was deleted meanwhile,
    /// [`ArticleError::PreconditionFailed`], or a failure of the store.
    pub async fn update(
        &self,
        article: &OwnArticle,
        changes: ArticleChanges,
        precondition: Precondition,
    ) -> Result<Article, ArticleError> {
        let OwnArticle(article) = article;
        Span::internal(span::ARTICLE_UPDATE)
            .attribute(user_id(article.author.id))
            .attribute(KeyValue::new(attribute::ARTICLE_SLUG, article.slug.clone()))
            .run(async {
                let task = self.task(ArticleEvent::Updated);
                let updated = self
                    .store
                    .update_article(article.id, changes, precondition, article.author.id, task)
                    .await?;
                let Some(updated) = updated else {
                    return Err(self.why_not(article.id).await?);
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

    /// Deletes an article, if it is a version that the caller means.
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
        Span::internal(span::ARTICLE_DELETE)
            .attribute(user_id(user.id))
            .attribute(KeyValue::new(attribute::ARTICLE_SLUG, slug.to_owned()))
            .run(async {
                let article = self.get(slug, Some(user.id)).await?;
                if article.author.id != user.id {
                    return Err(ArticleError::DeleteForbidden);
                }
                if !self.store.delete_article(article.id, precondition).await? {
                    return Err(self.why_not(article.id).await?);
                }
                telemetry::info!(article.id = article.id.0, article.slug, "Article deleted");
                Ok(())
            })
            .await
    }

    /// Favourites an article; idempotent.
    ///
    /// # Errors
    /// [`ArticleError::NotFound`], or a failure of the store.
    pub async fn favorite(&self, slug: &str, user: &User) -> Result<Article, ArticleError> {
        Span::internal(span::ARTICLE_FAVORITE)
            .attribute(user_id(user.id))
            .attribute(KeyValue::new(attribute::ARTICLE_SLUG, slug.to_owned()))
            .run(async {
                let article = self.store.favorite(slug, user.id, self.clock.now()).await?;
                article.ok_or(ArticleError::NotFound)
            })
            .await
    }

    /// Takes a favourite back; idempotent.
    ///
    /// # Errors
    /// [`ArticleError::NotFound`], or a failure of the store.
    pub async fn unfavorite(&self, slug: &str, user: &User) -> Result<Article, ArticleError> {
        Span::internal(span::ARTICLE_UNFAVORITE)
            .attribute(user_id(user.id))
            .attribute(KeyValue::new(attribute::ARTICLE_SLUG, slug.to_owned()))
            .run(async {
                let article = self.store.unfavorite(slug, user.id).await?;
                article.ok_or(ArticleError::NotFound)
            })
            .await
    }

    /// Why an article could not be changed that was there a moment ago.
    async fn why_not(&self, id: ArticleId) -> Result<ArticleError, StoreError> {
        Ok(match self.store.find_article_by_id(id).await? {
            Some(_) => ArticleError::PreconditionFailed,
            None => ArticleError::NotFound,
        })
    }

    /// The article, and whether it is new. Of several requests at once that have one key, one
    /// inserts; the others wait for it in the database and find what it was answered.
    async fn insert_once(
        &self,
        author: UserId,
        draft: &Draft,
        key: IdempotencyKey,
    ) -> Result<(Article, bool), ArticleError> {
        let once = OnceOnly::new(key, draft, self.clock.now());
        for attempt in 1..=ONCE_ATTEMPTS {
            let first = self
                .store
                .find_first_answer(author, &once.key, once.since)
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
                    telemetry::debug!(attempt, "another request with this key came before");
                }
                inserted => return Ok((inserted?, true)),
            }
        }
        let reason = "requests with one key overtake each other";
        Err(StoreError::Unavailable(reason.to_owned()).into())
    }

    async fn insert(
        &self,
        author: UserId,
        draft: &Draft,
        once: Option<&OnceOnly>,
    ) -> Result<Article, StoreError> {
        let now = self.clock.now();
        let mut attempt = 1;
        let mut suffix = None;
        loop {
            let article = NewArticle {
                slug: slug(&draft.title, now, suffix.as_deref()),
                title: draft.title.clone(),
                description: draft.description.clone(),
                body: draft.body.clone(),
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
                    telemetry::debug!(attempt, "slug taken, trying another");
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

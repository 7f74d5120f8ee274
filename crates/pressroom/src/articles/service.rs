//! What can be done with articles, and by whom.

use std::sync::Arc;

use telemetry::{Failure, KeyValue, Span};
use tokio::sync::Notify;

use super::{Article, ArticleChanges, ArticlePage, ListQuery, NewArticle, slug};
use crate::{
    accounts::{User, UserId},
    clock::Clock,
    ids::IdSource,
    names::{attribute, metric, span},
    store::{Constraint, Store, StoreError},
    tasks::{ArticleEvent, NewOutboxTask},
};

static CREATED: telemetry::Counter = telemetry::counter(
    metric::ARTICLES_CREATED,
    "{article}",
    "Articles created, by author",
);

/// How many slugs are tried for one article. The second one is already random.
const SLUG_ATTEMPTS: u32 = 5;

/// Why something could not be done with an article.
#[derive(Debug, thiserror::Error)]
pub enum ArticleError {
    #[error("Article not found")]
    NotFound,
    #[error("You can only update your own articles")]
    UpdateForbidden,
    #[error("You can only delete your own articles")]
    DeleteForbidden,
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Failure for ArticleError {
    fn error_type(&self) -> Option<std::borrow::Cow<'static, str>> {
        match self {
            Self::Store(error) => error.error_type(),
            Self::NotFound | Self::UpdateForbidden | Self::DeleteForbidden => None,
        }
    }

    fn message(&self) -> String {
        self.to_string()
    }
}

/// What an author writes.
#[derive(Debug)]
pub struct Draft {
    pub title: String,
    pub description: String,
    pub body: String,
}

/// An article that its author asked for, and may therefore change.
#[derive(Debug)]
pub struct OwnArticle(Article);

/// The articles of the service.
#[derive(Clone)]
pub struct Articles {
    store: Arc<dyn Store>,
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
        store: Arc<dyn Store>,
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

    /// # Errors
    /// A failure of the store.
    pub async fn create(&self, author: &User, draft: Draft) -> Result<Article, ArticleError> {
        Span::internal(span::ARTICLE_CREATE)
            .attribute(user_id(author.id))
            .run(async {
                let article = self.insert(author.id, draft).await?;
                telemetry::set_attribute(KeyValue::new(attribute::ARTICLE_SLUG, article.slug.clone()));
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

    /// # Errors
    /// [`ArticleError::NotFound`] when it was deleted meanwhile, or a failure of the store.
    pub async fn update(
        &self,
        article: &OwnArticle,
        changes: ArticleChanges,
    ) -> Result<Article, ArticleError> {
        let OwnArticle(article) = article;
        Span::internal(span::ARTICLE_UPDATE)
            .attribute(user_id(article.author.id))
            .attribute(KeyValue::new(attribute::ARTICLE_SLUG, article.slug.clone()))
            .run(async {
                let task = self.task(ArticleEvent::Updated);
                let updated = self
                    .store
                    .update_article(article.id, changes, article.author.id, task)
                    .await?
                    .ok_or(ArticleError::NotFound)?;
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

    /// # Errors
    /// [`ArticleError::NotFound`], [`ArticleError::DeleteForbidden`], or a failure of the store.
    pub async fn delete(&self, slug: &str, user: &User) -> Result<(), ArticleError> {
        Span::internal(span::ARTICLE_DELETE)
            .attribute(user_id(user.id))
            .attribute(KeyValue::new(attribute::ARTICLE_SLUG, slug.to_owned()))
            .run(async {
                let article = self.get(slug, None).await?;
                if article.author.id != user.id {
                    return Err(ArticleError::DeleteForbidden);
                }
                if !self.store.delete_article(article.id).await? {
                    return Err(ArticleError::NotFound);
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

    async fn insert(&self, author: UserId, draft: Draft) -> Result<Article, StoreError> {
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
            match self
                .store
                .insert_article(article, self.task(ArticleEvent::Created))
                .await
            {
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
            event,
            trace: telemetry::inject_context(),
            created_at: self.clock.now(),
        }
    }
}

fn user_id(id: UserId) -> KeyValue {
    KeyValue::new("user.id", i64::from(id.0))
}

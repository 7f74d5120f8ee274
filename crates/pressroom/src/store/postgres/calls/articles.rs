//! Inserts and reads of articles.

use std::{collections::HashMap, sync::Arc};

use async_trait::async_trait;
use telemetry::Statement;
use tokio::time::Instant;

use crate::{
    domain::{Article, ArticleId, NewArticle, NewOutboxTask},
    store::{
        postgres::{
            connections::{Call, Params, Primary},
            error::StatementError,
        },
        rows::{self, Utc},
        sql::{article_columns, statement},
    },
};

/// Selects an article from a row named `article`.
macro_rules! select_article {
    ($favorited:literal) => {
        concat!(
            "SELECT ",
            article_columns!(),
            ", ",
            $favorited,
            " AS favorited
        FROM article
        JOIN users AS author ON author.id = article.author_id"
        )
    };
}
pub(in crate::store::postgres) use select_article;

/// Inserts several articles with their tasks, except those whose slug is taken. Of several articles with the same slug,
/// inserts the first. The unique index rejects a slug that another transaction takes meanwhile.
///
/// A scalar query looks up each slug in the index; with `NOT EXISTS`, the planner may join the whole index.
const INSERT_ARTICLES: Statement = statement!(
    "INSERT articles",
    "
        WITH new AS (
            SELECT DISTINCT ON (slug) *
            FROM unnest(
                $1::text[], $2::text[], $3::text[], $4::text[], $5::integer[], $6::timestamp[],
                $7::uuid[], $8::text[], $9::text[], $10::jsonb[], $11::timestamp[]
            ) WITH ORDINALITY AS asked
                (slug, title, description, body, author_id, created_at, task_id, task, event, trace, caused_at, number)
            WHERE (SELECT taken.id FROM articles AS taken WHERE taken.slug = asked.slug) IS NULL
            ORDER BY slug, number
        ), article AS (
            INSERT INTO articles
                (slug, title, description, body, author_id, favorites_count, created_at, updated_at)
            SELECT slug, title, description, body, author_id, 0, created_at, created_at
            FROM new
            RETURNING *
        ), task AS (
            INSERT INTO outbox (task_id, name, args, trace, created_at, claimable_at)
            SELECT task_id, task, jsonb_build_array(article.id, event), trace, caused_at, caused_at
            FROM new
            JOIN article ON article.slug = new.slug
            ORDER BY number
        )
        ",
    select_article!("false"),
);

const FIND_ARTICLES: Statement = statement!(
    "SELECT articles",
    "SELECT ",
    article_columns!(),
    ", false AS favorited
        FROM articles AS article
        JOIN users AS author ON author.id = article.author_id
        WHERE article.id = ANY ($1)",
);

/// An article to insert, and its task.
#[derive(Clone)]
pub(in crate::store::postgres) struct InsertArticle(
    pub(in crate::store::postgres) Arc<(NewArticle, NewOutboxTask)>,
);

#[async_trait]
impl Call for InsertArticle {
    /// `None` if the slug is taken.
    type Answer = Option<Article>;
    const STATEMENT: Statement = INSERT_ARTICLES;

    fn returned_rows(article: &Option<Article>) -> Option<i64> {
        Some(article.is_some().into())
    }

    fn bytes(&self) -> usize {
        let draft = &self.0.0.draft;
        draft.title.len() + draft.description.len() + draft.body.len()
    }

    fn is_blocked(&self, primary: &Primary) -> bool {
        primary.is_locked(self.0.0.author.0, &INSERT_ARTICLES)
    }

    async fn run(
        primary: &Primary,
        calls: &[Self],
        start: Instant,
    ) -> Result<Vec<Option<Article>>, StatementError> {
        let articles = || calls.iter().map(|call| &call.0.0);
        let tasks = || calls.iter().map(|call| &call.0.1);
        let params: Params<'_> = &[
            &articles().map(|new| new.slug.as_str()).collect::<Vec<_>>(),
            &articles().map(|new| new.draft.title.as_str()).collect::<Vec<_>>(),
            &articles()
                .map(|new| new.draft.description.as_str())
                .collect::<Vec<_>>(),
            &articles().map(|new| new.draft.body.as_str()).collect::<Vec<_>>(),
            &articles().map(|new| new.author.0).collect::<Vec<_>>(),
            &articles().map(|new| Utc(new.created_at)).collect::<Vec<_>>(),
            &tasks().map(|task| task.task_id).collect::<Vec<_>>(),
            &tasks().map(|task| task.name).collect::<Vec<_>>(),
            &tasks().map(|task| task.event.as_str()).collect::<Vec<_>>(),
            &tasks()
                .map(|task| rows::trace_column(&task.trace))
                .collect::<Vec<_>>(),
            &tasks().map(|task| Utc(task.created_at)).collect::<Vec<_>>(),
        ];
        let inserted = if let [InsertArticle(single)] = calls {
            let author = single.0.author.0;
            primary
                .run_single_write(author, &INSERT_ARTICLES, params, start)
                .await?
        } else {
            primary
                .run_group_of_writes(&INSERT_ARTICLES, params, start)
                .await?
        };
        let mut by_slug: HashMap<String, Article> = HashMap::new();
        for article in inserted.all(rows::article)? {
            by_slug.insert(article.slug.clone(), article);
        }
        // The first of several calls with the same slug is the one whose article was inserted.
        Ok(articles().map(|new| by_slug.remove(&new.slug)).collect())
    }
}

/// An article to find by its id.
#[derive(Clone)]
pub(in crate::store::postgres) struct FindArticle(pub(in crate::store::postgres) ArticleId);

#[async_trait]
impl Call for FindArticle {
    type Answer = Option<Article>;
    const STATEMENT: Statement = FIND_ARTICLES;

    fn returned_rows(article: &Option<Article>) -> Option<i64> {
        Some(article.is_some().into())
    }

    async fn run(
        primary: &Primary,
        calls: &[Self],
        _start: Instant,
    ) -> Result<Vec<Option<Article>>, StatementError> {
        let ids: Vec<i32> = calls.iter().map(|call| call.0.0).collect();
        let found = primary
            .run_read(&FIND_ARTICLES, &[&ids])
            .await?
            .all(rows::article)?;
        let by_id = |call: &Self| found.iter().find(|article| article.id == call.0).cloned();
        Ok(calls.iter().map(by_id).collect())
    }
}

//! Handlers for articles and favourites.

use axum::{
    extract::{FromRequestParts, Path, RawQuery, State},
    http::{HeaderName, HeaderValue, StatusCode, Uri, header, request::Parts},
    response::{IntoResponse, Response},
};
use serde::Serialize;
use utoipa::ToSchema;

use super::{
    app::AppState,
    auth::{Caller, Writer},
    conditions::Conditions,
    entity_tag::{entity_tag, tag_of_body},
    error::{ApiError, ErrorBody, json_response},
    idempotency_key::Keyed,
    json::{JsonBody, request_body, timestamp, to_json},
    middleware::NO_CACHE,
    paging::{Paging, encode_cursor},
};
use crate::{
    articles::Creation,
    domain::{Article, ArticleChanges, Draft},
};

/// Marks the response to an earlier request with the same idempotency key.
const IDEMPOTENCY_REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");

/// The author of an article, as shown to readers.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Author)]
pub struct AuthorView {
    #[schema(example = 1)]
    id: i32,
    #[schema(example = "alice@example.com")]
    email: String,
    #[schema(example = "Alice")]
    name: String,
}

/// An article as the caller sees it.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Article)]
pub struct ArticleView {
    #[schema(example = "my-article-1735284134")]
    slug: String,
    #[schema(example = "My Article")]
    title: String,
    description: String,
    body: String,
    author: AuthorView,
    favorites_count: i32,
    /// Whether the caller has favourited it; false without a token.
    favorited: bool,
    #[schema(value_type = String, format = DateTime)]
    #[serde(serialize_with = "timestamp")]
    created_at: jiff::Timestamp,
    #[schema(value_type = String, format = DateTime)]
    #[serde(serialize_with = "timestamp")]
    updated_at: jiff::Timestamp,
}

impl From<Article> for ArticleView {
    fn from(article: Article) -> Self {
        Self {
            slug: article.slug,
            title: article.title,
            description: article.description,
            body: article.body,
            author: AuthorView {
                id: article.author.id.0,
                email: article.author.email,
                name: article.author.name,
            },
            favorites_count: article.favorites_count,
            favorited: article.favorited,
            created_at: article.created_at,
            updated_at: article.updated_at,
        }
    }
}

/// One page of articles.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ArticleList)]
pub struct ArticleListView {
    articles: Vec<ArticleView>,
    /// Number of articles that match, on all pages.
    total: i64,
    page: i64,
    per_page: i64,
    /// Value of `cursor` for the next page; null on the last page.
    #[schema(required = true)]
    next_cursor: Option<String>,
}

request_body! {
    /// An article to create.
    NewArticle {
        title: String as String = required text { min_length = 1, max_length = 255, example = "My Article" },
        body: String as String = required text { min_length = 1, example = "Article content here" },
        description: Option<String> as Option<String> = optional text {
            max_length = 1000, example = "A brief description"
        },
    }
}

request_body! {
    /// Fields to change; omitted fields keep their values. The slug never changes.
    ArticleUpdate {
        title: Option<String> as Option<String> = optional text { min_length = 1, max_length = 255 },
        description: Option<String> as Option<String> = optional text { max_length = 1000 },
        body: Option<String> as Option<String> = optional text { min_length = 1 },
    }
}

/// Slug in a path. Text that cannot be a slug (invalid UTF-8, or text with NUL) results in 404.
#[derive(Debug)]
pub struct Slug(String);

impl<S: Send + Sync> FromRequestParts<S> for Slug {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Self::Rejection> {
        match Path::<String>::from_request_parts(parts, state).await {
            Ok(Path(slug)) if !slug.contains('\0') => Ok(Self(slug)),
            _ => Err(ApiError::article_not_found()),
        }
    }
}

/// List articles, newest first
#[utoipa::path(
    get, path = "/api/articles/", operation_id = "list_articles", tag = "articles",
    security((), ("bearer" = [])),
    params(
        Paging,
        ("If-None-Match" = Option<String>, Header,
            description = "Entity tags of the pages that the client has cached"),
    ),
    responses(
        (status = OK, body = ArticleListView, description = "A page of articles", headers(
            ("ETag" = String, description = "Entity tag of the page as this caller sees it"),
        )),
        (status = NOT_MODIFIED, description = "The client's cached page is current"),
    )
)]
pub async fn list(
    State(app): AppState,
    caller: Option<Caller>,
    RawQuery(query): RawQuery,
    conditions: Conditions,
) -> Result<Response, ApiError> {
    let paging = Paging::parse(query.as_deref().unwrap_or_default())?;
    let viewer = caller.map(|caller| caller.user.id);
    let page = app.articles.list(paging.query(viewer)).await?;
    let next_cursor = page.articles.last().filter(|_| page.more).map(encode_cursor);
    let text_bytes = page
        .articles
        .iter()
        .map(|article| 512 + article.text_bytes())
        .sum();
    let list = ArticleListView {
        articles: page.articles.into_iter().map(ArticleView::from).collect(),
        total: page.total,
        page: paging.page,
        per_page: paging.per_page,
        next_cursor,
    };
    let body = to_json(&list, text_bytes)?;
    let tag = tag_of_body(&body);
    Ok(revalidated(&conditions, tag, json_response(body)))
}

fn article_response(article: Article) -> Result<Response, ApiError> {
    let text_bytes = article.text_bytes();
    to_json(&ArticleView::from(article), text_bytes).map(json_response)
}

/// Turns a response into 304 if the client's cached version is current. Caches revalidate the response before each use.
///
/// The middleware that compresses responses removes the body.
fn revalidated(conditions: &Conditions, tag: HeaderValue, mut response: Response) -> Response {
    if conditions.include(&tag) {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
    }
    let headers = [(header::CACHE_CONTROL, NO_CACHE), (header::ETAG, tag)];
    (headers, response).into_response()
}

/// Create an article
#[utoipa::path(
    post, path = "/api/articles/", operation_id = "create_article", tag = "articles",
    security(("bearer" = [])), request_body = NewArticle,
    params(
        ("Idempotency-Key" = Option<String>, Header, max_length = 255, pattern = "^[!-~]([ -~]*[!-~])?$",
            description = "Makes the request safe to retry: for 24 hours, the same request with the same key \
                returns the first response and creates nothing. Printable ASCII; separate for each user."),
    ),
    responses(
        (status = CREATED, body = ArticleView, description = "The article", headers(
            ("Location" = String, description = "Path of the article"),
            ("ETag" = String, description = "Entity tag of the article"),
            ("Idempotency-Replayed" = String,
                description = "`true` if this is the response to an earlier request with the same key"),
        )),
        (status = UNPROCESSABLE_ENTITY, body = ErrorBody,
            description = "The idempotency key was used for a request with a different body"),
    )
)]
pub async fn create(
    State(app): AppState,
    Writer(caller): Writer,
    Keyed(key): Keyed,
    body: JsonBody,
) -> Result<impl IntoResponse, ApiError> {
    let new = NewArticle::read(body)?;
    let draft = Draft {
        title: new.title,
        description: new.description.unwrap_or_default(),
        body: new.body,
    };
    let Creation { article, replayed } = app.articles.create(&caller.user, draft, key).await?;
    let headers = [
        (header::ETAG, entity_tag(&article)),
        (header::LOCATION, path(format!("/api/articles/{}", article.slug))?),
    ];
    let mark = replayed.then_some([(IDEMPOTENCY_REPLAYED, "true")]);
    Ok((StatusCode::CREATED, headers, mark, article_response(article)?))
}

/// Get an article
#[utoipa::path(
    get, path = "/api/articles/{slug}", operation_id = "get_article", tag = "articles",
    security((), ("bearer" = [])),
    params(
        ("slug" = String, Path),
        ("If-None-Match" = Option<String>, Header,
            description = "Entity tags of the versions that the client has cached"),
    ),
    responses(
        (status = OK, body = ArticleView, description = "The article", headers(
            ("ETag" = String, description = "Entity tag of the article as this caller sees it"),
        )),
        (status = NOT_MODIFIED, description = "The client's cached version is current"),
    )
)]
pub async fn get(
    State(app): AppState,
    caller: Option<Caller>,
    Slug(slug): Slug,
    conditions: Conditions,
) -> Result<Response, ApiError> {
    let viewer = caller.map(|caller| caller.user.id);
    let article = app.articles.get(&slug, viewer).await?;
    let tag = entity_tag(&article);
    Ok(revalidated(&conditions, tag, article_response(article)?))
}

/// Update your own article
#[utoipa::path(
    put, path = "/api/articles/{slug}", operation_id = "update_article", tag = "articles",
    security(("bearer" = [])),
    params(
        ("slug" = String, Path),
        ("If-Match" = Option<String>, Header,
            description = "Entity tags of the versions that may be replaced. \
                Favourites do not create a new version."),
    ),
    request_body = ArticleUpdate,
    responses(
        (status = OK, body = ArticleView, description = "The article", headers(
            ("ETag" = String, description = "Entity tag of the updated article"),
            ("Content-Location" = String, description = "Path of the article"),
        )),
        (status = FORBIDDEN, body = ErrorBody, description = "The article belongs to another user"),
        (status = PRECONDITION_FAILED, body = ErrorBody,
            description = "`If-Match` does not list the current version"),
    )
)]
pub async fn update(
    State(app): AppState,
    Writer(caller): Writer,
    Slug(slug): Slug,
    uri: Uri,
    conditions: Conditions,
    body: JsonBody,
) -> Result<impl IntoResponse, ApiError> {
    let article = app.articles.find_to_update(&slug, &caller.user).await?;
    let update = ArticleUpdate::read(body)?;
    let changes = ArticleChanges {
        title: update.title,
        description: update.description,
        body: update.body,
    };
    let precondition = conditions.precondition();
    let article = app.articles.update(&article, changes, precondition).await?;
    let headers = [
        // RFC 9110, section 6.4.2: the entity tag describes the content of the response, not of the request.
        (header::CONTENT_LOCATION, path(uri.path().to_owned())?),
        (header::ETAG, entity_tag(&article)),
    ];
    Ok((headers, article_response(article)?))
}

/// Converts a path to the value of a header field. Slugs are ASCII, so the conversion succeeds.
fn path(path: String) -> Result<HeaderValue, ApiError> {
    HeaderValue::try_from(path).map_err(|_| ApiError::internal_error())
}

/// Delete your own article
#[utoipa::path(
    delete, path = "/api/articles/{slug}", operation_id = "delete_article", tag = "articles",
    security(("bearer" = [])),
    params(
        ("slug" = String, Path),
        ("If-Match" = Option<String>, Header,
            description = "Entity tags of the versions that may be deleted"),
    ),
    responses(
        (status = NO_CONTENT, description = "The article is deleted"),
        (status = FORBIDDEN, body = ErrorBody, description = "The article belongs to another user"),
        (status = PRECONDITION_FAILED, body = ErrorBody,
            description = "`If-Match` does not list the current version"),
    )
)]
pub async fn delete(
    State(app): AppState,
    Writer(caller): Writer,
    Slug(slug): Slug,
    conditions: Conditions,
) -> Result<StatusCode, ApiError> {
    let precondition = conditions.precondition();
    app.articles.delete(&slug, &caller.user, precondition).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Favourite an article (idempotent)
#[utoipa::path(
    post, path = "/api/articles/{slug}/favorite", operation_id = "favorite_article", tag = "articles",
    security(("bearer" = [])),
    params(("slug" = String, Path)),
    responses((status = OK, body = ArticleView, description = "The article"))
)]
pub async fn favorite(
    State(app): AppState,
    Writer(caller): Writer,
    Slug(slug): Slug,
) -> Result<Response, ApiError> {
    article_response(app.articles.favorite(&slug, &caller.user).await?)
}

/// Remove a favourite (idempotent)
#[utoipa::path(
    delete, path = "/api/articles/{slug}/favorite", operation_id = "unfavorite_article", tag = "articles",
    security(("bearer" = [])),
    params(("slug" = String, Path)),
    responses((status = OK, body = ArticleView, description = "The article"))
)]
pub async fn unfavorite(
    State(app): AppState,
    Writer(caller): Writer,
    Slug(slug): Slug,
) -> Result<Response, ApiError> {
    article_response(app.articles.unfavorite(&slug, &caller.user).await?)
}

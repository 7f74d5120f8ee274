//! Handlers for articles and favourites.

use axum::{
    extract::{FromRequestParts, Path, RawQuery, State},
    http::{HeaderName, HeaderValue, StatusCode, Uri, header, request::Parts},
    response::IntoResponse,
};
use serde::Serialize;
use utoipa::ToSchema;

use super::{
    app::AppState,
    auth::{Caller, Writer},
    conditions::Conditions,
    entity_tag::entity_tag,
    error::{ApiError, ErrorBody},
    idempotency_key::Keyed,
    json::{Json, JsonBody, request_body},
    paging::{Paging, encode_cursor},
};
use crate::domain::{Article, ArticleChanges, Draft};

/// Caching rules for an article: caches revalidate before each use and store responses by `Authorization`.
const REVALIDATED: [(HeaderName, HeaderValue); 2] = [
    (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
    (header::VARY, HeaderValue::from_static("Authorization")),
];

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
    created_at: jiff::Timestamp,
    #[schema(value_type = String, format = DateTime)]
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

/// One page of articles, newest first.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ArticleList)]
pub struct ArticleListView {
    articles: Vec<ArticleView>,
    /// Number of articles that match, on all pages.
    total: i64,
    page: i64,
    per_page: i64,
    /// Value of `cursor` for the next page; null on the last page.
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
    get, path = "/api/articles/", tag = "articles", params(Paging), security((), ("bearer" = [])),
    responses(
        (status = OK, body = ArticleListView),
        (status = BAD_REQUEST, body = ErrorBody),
    )
)]
pub async fn list(
    State(app): AppState,
    caller: Option<Caller>,
    RawQuery(query): RawQuery,
) -> Result<Json<ArticleListView>, ApiError> {
    let paging = Paging::parse(query.as_deref().unwrap_or_default())?;
    let viewer = caller.map(|caller| caller.user.id);
    let page = app.articles.list(paging.query(viewer)).await?;
    let next_cursor = page.articles.last().filter(|_| page.more).map(encode_cursor);
    Ok(Json(ArticleListView {
        articles: page.articles.into_iter().map(ArticleView::from).collect(),
        total: page.total,
        page: paging.page,
        per_page: paging.per_page,
        next_cursor,
    }))
}

/// Create an article
#[utoipa::path(
    post, path = "/api/articles/", tag = "articles", security(("bearer" = [])), request_body = NewArticle,
    params(
        ("Idempotency-Key" = Option<String>, Header, max_length = 255,
            description = "Makes the request safe to retry: for 24 hours, the same request with the same key \
                returns the first response and creates nothing. Printable ASCII; separate for each user."),
    ),
    responses(
        (status = CREATED, body = ArticleView, headers(
            ("Location" = String, description = "Path of the article"),
            ("ETag" = String, description = "Entity tag of the article"),
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
    let article = app.articles.create(&caller.user, draft, key).await?;
    let headers = [
        (header::ETAG, entity_tag(&article)),
        (header::LOCATION, path(format!("/api/articles/{}", article.slug))?),
    ];
    Ok((StatusCode::CREATED, headers, Json(ArticleView::from(article))))
}

/// Get an article
#[utoipa::path(
    get, path = "/api/articles/{slug}", tag = "articles", security((), ("bearer" = [])),
    params(
        ("slug" = String, Path),
        ("If-None-Match" = Option<String>, Header,
            description = "Entity tags of the versions that the client has cached"),
    ),
    responses(
        (status = OK, body = ArticleView, headers(
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
) -> Result<impl IntoResponse, ApiError> {
    let viewer = caller.map(|caller| caller.user.id);
    let article = app.articles.get(&slug, viewer).await?;
    let tag = entity_tag(&article);
    let response = if conditions.include(&tag) {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        Json(ArticleView::from(article)).into_response()
    };
    let etag = [(header::ETAG, tag)];
    Ok((REVALIDATED, etag, response))
}

/// Update your own article
#[utoipa::path(
    put, path = "/api/articles/{slug}", tag = "articles", security(("bearer" = [])),
    params(
        ("slug" = String, Path),
        ("If-Match" = Option<String>, Header,
            description = "Entity tags of the versions that may be replaced. \
                Favourites do not create a new version."),
    ),
    request_body = ArticleUpdate,
    responses(
        (status = OK, body = ArticleView, headers(
            ("ETag" = String, description = "Entity tag of the updated article"),
        )),
        (status = FORBIDDEN, body = ErrorBody),
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
    Ok((headers, Json(ArticleView::from(article))))
}

/// Converts a path to the value of a header field. Slugs are ASCII, so the conversion succeeds.
fn path(path: String) -> Result<HeaderValue, ApiError> {
    HeaderValue::try_from(path).map_err(|_| ApiError::internal_error())
}

/// Delete your own article
#[utoipa::path(
    delete, path = "/api/articles/{slug}", tag = "articles", security(("bearer" = [])),
    params(
        ("slug" = String, Path),
        ("If-Match" = Option<String>, Header,
            description = "Entity tags of the versions that may be deleted"),
    ),
    responses(
        (status = NO_CONTENT),
        (status = FORBIDDEN, body = ErrorBody),
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
    post, path = "/api/articles/{slug}/favorite", tag = "articles", security(("bearer" = [])),
    params(("slug" = String, Path)),
    responses((status = OK, body = ArticleView))
)]
pub async fn favorite(
    State(app): AppState,
    Writer(caller): Writer,
    Slug(slug): Slug,
) -> Result<Json<ArticleView>, ApiError> {
    Ok(Json(app.articles.favorite(&slug, &caller.user).await?.into()))
}

/// Remove a favourite (idempotent)
#[utoipa::path(
    delete, path = "/api/articles/{slug}/favorite", tag = "articles", security(("bearer" = [])),
    params(("slug" = String, Path)),
    responses((status = OK, body = ArticleView))
)]
pub async fn unfavorite(
    State(app): AppState,
    Writer(caller): Writer,
    Slug(slug): Slug,
) -> Result<Json<ArticleView>, ApiError> {
    Ok(Json(app.articles.unfavorite(&slug, &caller.user).await?.into()))
}

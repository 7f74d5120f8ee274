//! The OpenAPI document, and a page to read and try it. The page is part of the binary and asks no
//! address but this server's own.

use axum::{
    Extension,
    http::{HeaderValue, header},
    response::{Html, IntoResponse},
};
use utoipa::{
    Modify, OpenApi,
    openapi::security::{Http, HttpAuthScheme, SecurityScheme},
};

/// What the document says beside the paths, which come from the handlers.
#[derive(Debug, OpenApi)]
#[openapi(
    info(
        title = "Pressroom",
        description = "Articles, with favourites and background notifications.",
        license(name = "MIT", identifier = "MIT"),
    ),
    tags(
        (name = "health", description = "Whether the service works"),
        (name = "accounts", description = "Registering, signing in and out, your own profile"),
        (name = "articles", description = "Articles and favourites"),
    ),
    modifiers(&BearerToken),
)]
pub(super) struct Description;

struct BearerToken;

impl Modify for BearerToken {
    fn modify(&self, openapi: &mut utoipa::openapi::OpenApi) {
        let mut bearer = Http::new(HttpAuthScheme::Bearer);
        bearer.bearer_format = Some("JWT".to_owned());
        openapi
            .components
            .get_or_insert_default()
            .add_security_scheme("bearer", SecurityScheme::Http(bearer));
    }
}

/// The document as it is served.
#[derive(Clone)]
pub(super) struct Document(pub(super) bytes::Bytes);

/// The OpenAPI 3.1 document.
pub(super) async fn document(Extension(Document(json)): Extension<Document>) -> impl IntoResponse {
    let json_type = HeaderValue::from_static("application/json");
    ([(header::CONTENT_TYPE, json_type)], json)
}

/// The page.
pub(super) async fn page() -> impl IntoResponse {
    let own_address_only = "default-src 'none'; connect-src 'self'; script-src 'unsafe-inline'; \
                            style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'";
    (
        [(
            header::CONTENT_SECURITY_POLICY,
            HeaderValue::from_static(own_address_only),
        )],
        Html(include_str!("docs.html")),
    )
}

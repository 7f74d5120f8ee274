//! The OpenAPI document, and a page to browse and try the API. The page is embedded in the binary and
//! loads nothing from other hosts.

use axum::{
    Extension,
    http::{HeaderValue, header},
    response::{Html, IntoResponse},
};
use utoipa::{
    Modify, OpenApi,
    openapi::security::{Http, HttpAuthScheme, SecurityScheme},
};

/// Parts of the document other than the paths, which come from the handlers.
#[derive(Debug, OpenApi)]
#[openapi(
    info(
        title = "Pressroom",
        description = "Articles, with favourites and background notifications.",
        license(name = "MIT", identifier = "MIT"),
    ),
    tags(
        (name = "health", description = "Health of the service"),
        (name = "accounts", description = "Registration, login, logout and your own profile"),
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

/// The serialised document.
#[derive(Clone)]
pub(super) struct Document(pub(super) bytes::Bytes);

/// Serves the OpenAPI 3.1 document.
pub(super) async fn document(Extension(Document(json)): Extension<Document>) -> impl IntoResponse {
    let json_type = HeaderValue::from_static("application/json");
    ([(header::CONTENT_TYPE, json_type)], json)
}

/// Serves the API page.
pub(super) async fn page() -> impl IntoResponse {
    let own_origin_only = "default-src 'none'; connect-src 'self'; script-src 'unsafe-inline'; \
                            style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'";
    (
        [(
            header::CONTENT_SECURITY_POLICY,
            HeaderValue::from_static(own_origin_only),
        )],
        Html(include_str!("docs.html")),
    )
}

//! The OpenAPI document, and a page to browse and try the API. The page is part of the binary and loads nothing
//! from other hosts.

use axum::{
    http::header,
    response::{Html, IntoResponse},
};
use utoipa::{
    Modify, OpenApi,
    openapi::{
        Content, Ref, ResponseBuilder,
        security::{Http, HttpAuthScheme, SecurityScheme},
    },
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

/// Adds the error responses that an operation has because of its other parts.
pub(super) fn add_common_errors(document: &mut utoipa::openapi::OpenApi) {
    let body = Content::new(Some(Ref::from_schema_name("ErrorBody")));
    let error = ResponseBuilder::new().content("application/json", body).build();
    for (path, item) in &mut document.paths.paths {
        let operations = [&mut item.get, &mut item.put, &mut item.post, &mut item.delete];
        for operation in operations.into_iter().flatten() {
            let security = operation.security.as_ref();
            let statuses = [
                ("400", operation.request_body.is_some()),
                // An operation whose token is optional lists two alternatives.
                (
                    "401",
                    security.is_some_and(|alternatives| alternatives.len() == 1),
                ),
                ("404", path.contains("{slug}")),
                ("413", operation.request_body.is_some()),
                ("415", operation.request_body.is_some()),
                (
                    "429",
                    path.starts_with("/api/articles")
                        && security.is_some_and(|alternatives| alternatives.len() == 1),
                ),
                ("503", !path.starts_with("/api/health")),
            ];
            for (status, _) in statuses.into_iter().filter(|(_, applies)| *applies) {
                let responses = &mut operation.responses.responses;
                responses
                    .entry(status.to_owned())
                    .or_insert_with(|| error.clone().into());
            }
        }
    }
}

/// Serves the API page.
pub(super) async fn page() -> impl IntoResponse {
    let own_origin_only = "default-src 'none'; connect-src 'self'; script-src 'unsafe-inline'; \
                            style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'";
    let policy = [(header::CONTENT_SECURITY_POLICY, own_origin_only)];
    (policy, Html(include_str!("docs.html")))
}

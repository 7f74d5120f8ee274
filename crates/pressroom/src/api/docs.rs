//! The OpenAPI document, and a page to browse and try the API. The page is part of the binary and loads
//! nothing from other hosts.

use std::collections::BTreeSet;

use axum::{
    http::header,
    response::{Html, IntoResponse},
};
use serde_json::json;
use utoipa::{
    Modify, OpenApi,
    openapi::{
        Content, Ref, RefOr, ResponseBuilder, Schema,
        extensions::Extensions,
        path::{Operation, Parameter},
        schema::{AdditionalProperties, SchemaType, Type},
        security::{Http, HttpAuthScheme, SecurityScheme},
    },
};

use super::middleware::NO_CACHE;

/// Regular expression for text without NUL.
const WITHOUT_NUL: &str = r"^[^\u0000]*$";

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

/// Completes each operation with what its other parts imply: common errors and the validation of request bodies.
pub(super) fn complete(document: &mut utoipa::openapi::OpenApi) {
    let mut request_bodies = BTreeSet::new();
    for (path, item) in &mut document.paths.paths {
        let operations = [&mut item.get, &mut item.put, &mut item.post, &mut item.delete];
        for operation in operations.into_iter().flatten() {
            add_common_errors(path, operation);
            for parameter in operation.parameters.iter_mut().flatten() {
                if let RefOr::T(Parameter {
                    schema: Some(schema), ..
                }) = parameter
                {
                    remove_null(schema);
                }
            }
            if let Some(RefOr::T(body)) = &operation.request_body {
                request_bodies.extend(body.content.values().filter_map(schema_name));
            }
        }
    }
    let components = document.components.get_or_insert_default();
    for (name, schema) in &mut components.schemas {
        if request_bodies.contains(name) {
            describe_validation(schema);
        }
    }
}

/// Adds the error responses that an operation has because of its other parts.
fn add_common_errors(path: &str, operation: &mut Operation) {
    let (has_body, security) = (operation.request_body.is_some(), operation.security.as_ref());
    // An operation whose token is optional lists two alternatives.
    let needs_token = security.is_some_and(|alternatives| alternatives.len() == 1);
    let errors = [
        ("400", true, "The request is malformed or invalid"),
        (
            "401",
            needs_token,
            "The token is missing, invalid, expired or revoked",
        ),
        ("404", path.contains("{slug}"), "The article does not exist"),
        ("413", has_body, "The request body is too large"),
        ("415", has_body, "The request body is not JSON"),
        (
            "429",
            needs_token && path.starts_with("/api/articles"),
            "Too many writes; retry after `Retry-After` seconds",
        ),
        ("431", true, "A request header field is too large"),
        (
            "503",
            true,
            "Temporarily unavailable; retry after `Retry-After` seconds",
        ),
    ];
    for (status, _, description) in errors.into_iter().filter(|(_, applies, _)| *applies) {
        let body = Content::new(Some(Ref::from_schema_name("ErrorBody")));
        let error = ResponseBuilder::new()
            .description(description)
            .content("application/json", body);
        let responses = &mut operation.responses.responses;
        responses
            .entry(status.to_owned())
            .or_insert_with(|| error.build().into());
    }
}

/// Returns the name of the component that describes a body.
fn schema_name(body: &RefOr<Content>) -> Option<String> {
    match body {
        RefOr::T(Content {
            schema: Some(RefOr::Ref(component)),
            ..
        }) => {
            let (_, name) = component.ref_location.rsplit_once('/')?;
            Some(name.to_owned())
        }
        _ => None,
    }
}

/// Adds the rules of [`Form`](super::json::Form) that hold for all fields: null, unknown fields and NUL are
/// invalid.
fn describe_validation(schema: &mut RefOr<Schema>) {
    let RefOr::T(Schema::Object(body)) = schema else {
        return;
    };
    body.additional_properties = Some(Box::new(AdditionalProperties::FreeForm(false)));
    if body.properties.contains_key("current_password") {
        let confirmed = json!({"email": ["current_password"], "password": ["current_password"]});
        body.extensions = Some(Extensions::from_iter([("dependentRequired", confirmed)]));
    }
    for field in body.properties.values_mut() {
        remove_null(field);
        // Fields with a format have their own rules.
        if let RefOr::T(Schema::Object(text)) = field
            && text.format.is_none()
        {
            text.pattern = Some(WITHOUT_NUL.to_owned());
        }
    }
}

/// Removes the type `null`, which utoipa adds for an `Option`: an absent parameter or field is omitted, not
/// null.
fn remove_null(schema: &mut RefOr<Schema>) {
    if let RefOr::T(Schema::Object(object)) = schema
        && let SchemaType::Array(types) = &object.schema_type
        && let [only, Type::Null] = types.as_slice()
    {
        object.schema_type = SchemaType::Type(only.clone());
    }
}

/// Serves the API page.
pub(super) async fn page() -> impl IntoResponse {
    let own_origin_only = "default-src 'none'; connect-src 'self'; script-src 'unsafe-inline'; \
                            style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; \
                            frame-ancestors 'none'";
    let policy = [(header::CONTENT_SECURITY_POLICY, own_origin_only)];
    (
        policy,
        [(header::CACHE_CONTROL, NO_CACHE)],
        Html(include_str!("docs.html")),
    )
}

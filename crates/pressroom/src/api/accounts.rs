//! Registration, login, logout and the caller's own profile.

use std::net::IpAddr;

use axum::{Extension, extract::State, http::StatusCode, response::IntoResponse};
use serde::Serialize;
use telemetry::ClientAddress;
use utoipa::ToSchema;

use super::{
    auth::Caller,
    error::{ApiError, ErrorBody},
    json::{Json, JsonBody, Length},
};
use crate::accounts::{Accounts, Password, ProfileUpdate, SignedIn};
use crate::domain::User;

const NAME: Length = Length::Between(1, 255);
const BIO: Length = Length::AtMost(1000);
const IMAGE: Length = Length::AtMost(500);
const PASSWORD_MIN_CHARS: usize = 6;
const PASSWORD_MAX_BYTES: usize = 1024;

/// The caller's own user.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = User)]
pub struct UserView {
    #[schema(example = 1)]
    id: i32,
    #[schema(example = "alice@example.com")]
    email: String,
    #[schema(example = "Alice")]
    name: String,
    bio: String,
    /// URL of a picture.
    image: String,
    #[schema(value_type = String, format = DateTime)]
    created_at: jiff::Timestamp,
}

impl From<User> for UserView {
    fn from(user: User) -> Self {
        Self {
            id: user.id.0,
            email: user.email,
            name: user.name,
            bio: user.bio,
            image: user.image,
            created_at: user.created_at,
        }
    }
}

/// A bearer token (RFC 6750), valid until it expires or its owner logs out.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Token)]
pub struct TokenView {
    access_token: String,
    #[schema(example = "Bearer")]
    token_type: &'static str,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = SignedIn)]
pub struct SignedInView {
    user: UserView,
    token: TokenView,
}

impl From<SignedIn> for SignedInView {
    fn from(signed_in: SignedIn) -> Self {
        Self {
            user: signed_in.user.into(),
            token: TokenView {
                access_token: signed_in.token,
                token_type: "Bearer",
            },
        }
    }
}

// The request body types only describe the bodies in the OpenAPI document; handlers read a `JsonBody`.

/// A new account.
#[derive(Debug, ToSchema)]
#[expect(dead_code, reason = "only its description is used")]
pub struct Registration {
    #[schema(format = Email, max_length = 255, example = "alice@example.com")]
    email: String,
    #[schema(format = Password, min_length = 6, max_length = 1024, example = "password123")]
    password: String,
    #[schema(min_length = 1, max_length = 255, example = "Alice")]
    name: String,
}

/// Credentials of an account.
#[derive(Debug, ToSchema)]
#[expect(dead_code, reason = "only its description is used")]
pub struct Login {
    #[schema(format = Email, example = "alice@example.com")]
    email: String,
    #[schema(format = Password, example = "password123")]
    password: String,
}

/// Fields to change; omitted fields keep their values.
#[derive(Debug, ToSchema)]
#[expect(dead_code, reason = "only its description is used")]
pub struct Profile {
    #[schema(format = Email, max_length = 255)]
    email: Option<String>,
    #[schema(format = Password, min_length = 6, max_length = 1024)]
    password: Option<String>,
    #[schema(min_length = 1, max_length = 255)]
    name: Option<String>,
    #[schema(max_length = 1000)]
    bio: Option<String>,
    #[schema(max_length = 500)]
    image: Option<String>,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct Message {
    #[schema(example = "Logged out successfully")]
    message: &'static str,
}

/// Register a user
#[utoipa::path(
    post, path = "/api/register", tag = "accounts", request_body = Registration,
    responses(
        (status = CREATED, body = SignedInView),
        (status = BAD_REQUEST, body = ErrorBody),
        (status = CONFLICT, body = ErrorBody,
            description = "The e-mail address is already registered, ignoring case"),
        (status = PAYLOAD_TOO_LARGE, body = ErrorBody),
        (status = UNSUPPORTED_MEDIA_TYPE, body = ErrorBody),
        (status = TOO_MANY_REQUESTS, body = ErrorBody, description = "Retry after `Retry-After` seconds"),
        (status = SERVICE_UNAVAILABLE, body = ErrorBody),
    )
)]
pub async fn register(
    State(accounts): State<Accounts>,
    client: Option<Extension<ClientAddress>>,
    body: JsonBody,
) -> Result<impl IntoResponse, ApiError> {
    let mut form = body.into_form()?;
    let email = form.required_email("email");
    let password = form.required_new_secret("password", PASSWORD_MIN_CHARS, PASSWORD_MAX_BYTES);
    let name = form.required("name", NAME);
    form.finish()?;
    let email = email.ok_or_else(ApiError::bad_request)?;
    let signed_in = accounts
        .register(email, Password(password), name, address(client))
        .await?;
    Ok((StatusCode::CREATED, Json(SignedInView::from(signed_in))))
}

/// Log in
#[utoipa::path(
    post, path = "/api/login", tag = "accounts", request_body = Login,
    responses(
        (status = OK, body = SignedInView),
        (status = BAD_REQUEST, body = ErrorBody),
        (status = UNAUTHORIZED, body = ErrorBody, description = "Unknown e-mail address or wrong password"),
        (status = PAYLOAD_TOO_LARGE, body = ErrorBody),
        (status = UNSUPPORTED_MEDIA_TYPE, body = ErrorBody),
        (status = TOO_MANY_REQUESTS, body = ErrorBody, description = "Retry after `Retry-After` seconds"),
        (status = SERVICE_UNAVAILABLE, body = ErrorBody),
    )
)]
pub async fn login(
    State(accounts): State<Accounts>,
    client: Option<Extension<ClientAddress>>,
    body: JsonBody,
) -> Result<impl IntoResponse, ApiError> {
    let mut form = body.into_form()?;
    let email = form.required_email("email");
    let password = form.required_secret("password");
    form.finish()?;
    let email = email.ok_or_else(ApiError::bad_request)?;
    let signed_in = accounts.login(email, Password(password), address(client)).await?;
    Ok(Json(SignedInView::from(signed_in)))
}

/// Get your own profile
#[utoipa::path(
    get, path = "/api/user", tag = "accounts", security(("bearer" = [])),
    responses(
        (status = OK, body = UserView),
        (status = UNAUTHORIZED, body = ErrorBody),
        (status = SERVICE_UNAVAILABLE, body = ErrorBody),
    )
)]
pub async fn profile(caller: Caller) -> Json<UserView> {
    Json(caller.user.into())
}

/// Update your own profile
#[utoipa::path(
    put, path = "/api/user", tag = "accounts", security(("bearer" = [])), request_body = Profile,
    responses(
        (status = OK, body = UserView),
        (status = BAD_REQUEST, body = ErrorBody),
        (status = UNAUTHORIZED, body = ErrorBody),
        (status = CONFLICT, body = ErrorBody, description = "The e-mail address belongs to another user"),
        (status = PAYLOAD_TOO_LARGE, body = ErrorBody),
        (status = UNSUPPORTED_MEDIA_TYPE, body = ErrorBody),
        (status = SERVICE_UNAVAILABLE, body = ErrorBody),
    )
)]
pub async fn update_profile(
    State(accounts): State<Accounts>,
    caller: Caller,
    body: JsonBody,
) -> Result<Json<UserView>, ApiError> {
    let mut form = body.into_form()?;
    let update = ProfileUpdate {
        email: form.optional_email("email"),
        password: form
            .optional_new_secret("password", PASSWORD_MIN_CHARS, PASSWORD_MAX_BYTES)
            .map(Password),
        name: form.optional("name", NAME),
        bio: form.optional("bio", BIO),
        image: form.optional("image", IMAGE),
    };
    form.finish()?;
    let user = accounts.update(&caller.user, update).await?;
    Ok(Json(user.into()))
}

/// Log out, which revokes the token
#[utoipa::path(
    post, path = "/api/logout", tag = "accounts", security(("bearer" = [])),
    responses(
        (status = OK, body = Message),
        (status = UNAUTHORIZED, body = ErrorBody),
        (status = SERVICE_UNAVAILABLE, body = ErrorBody),
    )
)]
pub async fn logout(State(accounts): State<Accounts>, caller: Caller) -> Result<Json<Message>, ApiError> {
    accounts.logout(&caller.user, &caller.claims).await?;
    Ok(Json(Message {
        message: "Logged out successfully",
    }))
}

fn address(client: Option<Extension<ClientAddress>>) -> Option<IpAddr> {
    client.map(|Extension(ClientAddress(client))| client.ip())
}

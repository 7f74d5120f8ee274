//! Registration, login, logout and the caller's own profile.

use std::net::IpAddr;

use axum::{
    Extension,
    extract::{RawQuery, State},
    http::StatusCode,
    response::IntoResponse,
};
use serde::Serialize;
use telemetry::ClientAddress;
use utoipa::ToSchema;

use super::{
    app::AppState,
    auth::{Caller, Writer},
    error::{ApiError, ErrorBody},
    json::{Json, JsonBody, request_body, timestamp},
};
use crate::{
    accounts::{NewCredentials, Password, SignedIn},
    domain::{Email, User, UserChanges},
};

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
    #[serde(serialize_with = "timestamp")]
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

request_body! {
    /// A new account.
    Registration {
        email: Email as String = required email {
            format = Email, max_length = 255, example = "alice@example.com"
        },
        password: Password as String = required new_password {
            format = Password, min_length = 6, max_length = 1024, example = "password123"
        },
        name: String as String = required text { min_length = 1, max_length = 255, example = "Alice" },
    }
}

request_body! {
    /// Credentials of an account.
    Login {
        email: Email as String = required email {
            format = Email, max_length = 255, example = "alice@example.com"
        },
        password: Password as String = required password { format = Password, example = "password123" },
    }
}

request_body! {
    /// Fields to change; omitted fields keep their values.
    Profile {
        /// Required to change the e-mail address or the password.
        current_password: Option<Password> as Option<String> = confirming password { format = Password },
        email: Option<Email> as Option<String> = optional email { format = Email, max_length = 255 },
        password: Option<Password> as Option<String> = optional new_password {
            format = Password, min_length = 6, max_length = 1024
        },
        name: Option<String> as Option<String> = optional text { min_length = 1, max_length = 255 },
        bio: Option<String> as Option<String> = optional text { max_length = 1000 },
        image: Option<String> as Option<String> = optional text { max_length = 500 },
    }
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
        (status = CREATED, body = SignedInView, description = "The user and a token"),
        (status = CONFLICT, body = ErrorBody,
            description = "The e-mail address is already registered, ignoring case"),
        (status = TOO_MANY_REQUESTS, body = ErrorBody, description = "Retry after `Retry-After` seconds"),
    )
)]
pub async fn register(
    State(app): AppState,
    client: Option<Extension<ClientAddress>>,
    body: JsonBody,
) -> Result<impl IntoResponse, ApiError> {
    let new = Registration::read(body)?;
    let registered = app
        .accounts
        .register(new.email, new.password, new.name, address(client));
    let signed_in = registered.await?;
    Ok((StatusCode::CREATED, view(signed_in)))
}

/// Log in
#[utoipa::path(
    post, path = "/api/login", tag = "accounts", request_body = Login,
    responses(
        (status = OK, body = SignedInView, description = "The user and a token"),
        (status = UNAUTHORIZED, body = ErrorBody, description = "Unknown e-mail address or wrong password"),
        (status = TOO_MANY_REQUESTS, body = ErrorBody, description = "Retry after `Retry-After` seconds"),
    )
)]
pub async fn login(
    State(app): AppState,
    client: Option<Extension<ClientAddress>>,
    body: JsonBody,
) -> Result<impl IntoResponse, ApiError> {
    let Login { email, password } = Login::read(body)?;
    let signed_in = app.accounts.login(email, password, address(client)).await?;
    Ok(view(signed_in))
}

/// Get your own profile
#[utoipa::path(
    get, path = "/api/user", tag = "accounts", security(("bearer" = [])),
    responses((status = OK, body = UserView, description = "Your profile"))
)]
pub async fn profile(caller: Caller) -> Json<UserView> {
    Json(caller.user.into())
}

/// Update your own profile
///
/// A new e-mail address or password requires `current_password`, and ends all sessions except the one of this request.
#[utoipa::path(
    put, path = "/api/user", tag = "accounts", security(("bearer" = [])), request_body = Profile,
    responses(
        (status = OK, body = UserView, description = "Your updated profile"),
        (status = FORBIDDEN, body = ErrorBody, description = "The current password is incorrect"),
        (status = CONFLICT, body = ErrorBody, description = "The e-mail address belongs to another user"),
        (status = TOO_MANY_REQUESTS, body = ErrorBody, description = "Retry after `Retry-After` seconds"),
    )
)]
pub async fn update_profile(
    State(app): AppState,
    client: Option<Extension<ClientAddress>>,
    Writer(caller): Writer,
    body: JsonBody,
) -> Result<Json<UserView>, ApiError> {
    let profile = Profile::read(body)?;
    let changes = UserChanges {
        name: profile.name,
        bio: profile.bio,
        image: profile.image,
        ..UserChanges::default()
    };
    let (email, password) = (profile.email, profile.password);
    let credentials = match profile.current_password {
        Some(current_password) if email.is_some() || password.is_some() => Some(NewCredentials {
            email,
            password,
            current_password,
        }),
        _ => None,
    };
    let updated = app.accounts.update(
        &caller.user,
        &caller.claims,
        changes,
        credentials,
        address(client),
    );
    Ok(Json(updated.await?.into()))
}

/// Log out and revoke the token
///
/// With `all`, ends all sessions of the user.
#[utoipa::path(
    post, path = "/api/logout", tag = "accounts", security(("bearer" = [])),
    params(("all" = Option<bool>, Query,
        description = "Whether to end all sessions of the user; `?all` means true")),
    responses((status = OK, body = Message, description = "The token is no longer valid"))
)]
pub async fn logout(
    State(app): AppState,
    caller: Caller,
    RawQuery(query): RawQuery,
) -> Result<Json<Message>, ApiError> {
    let all = ends_all_sessions(query.as_deref().unwrap_or_default())?;
    app.accounts.logout(&caller.user, &caller.claims, all).await?;
    Ok(Json(Message {
        message: "Logged out successfully",
    }))
}

fn ends_all_sessions(query: &str) -> Result<bool, ApiError> {
    let value = url::form_urlencoded::parse(query.as_bytes()).find(|(name, _)| name == "all");
    match value.as_ref().map(|(_, value)| value.as_ref()) {
        Some("" | "true" | "1") => Ok(true),
        None | Some("false" | "0") => Ok(false),
        Some(_) => Err(ApiError::invalid_field("all", "Not a valid boolean.")),
    }
}

fn view(SignedIn { user, token }: SignedIn) -> Json<SignedInView> {
    let token = TokenView {
        access_token: token,
        token_type: "Bearer",
    };
    let user = user.into();
    Json(SignedInView { user, token })
}

fn address(client: Option<Extension<ClientAddress>>) -> Option<IpAddr> {
    client.map(|Extension(ClientAddress(client))| client.ip())
}

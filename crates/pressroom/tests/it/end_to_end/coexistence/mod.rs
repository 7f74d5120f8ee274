//! Pressroom beside a Flask, SQLAlchemy and Celery application (`tests/flask`) on one PostgreSQL, one Redis and one
//! `SECRET_KEY`: what a team sees that moves from one to the other, and back.

mod accounts;
mod articles;
mod flask;
mod page;
mod rollback;
mod schema;
mod tasks;

use std::net::SocketAddr;

use jiff::{Timestamp, civil::DateTime, tz::TimeZone};
use serde_json::{Value, json};

use self::flask::{Flask, flask_url};
use super::installation::Installation;
use crate::support::{
    postgres::{self, Database},
    process::Process,
    raw,
};

const PASSWORD: &str = "password123";

/// Both sides, and what they share.
struct SideBySide {
    installation: Installation,
    flask: Flask,
    /// Flask's API.
    old: SocketAddr,
    serve: Process,
    /// Pressroom's API.
    new: SocketAddr,
}

impl SideBySide {
    /// Flask made the database and runs; Pressroom came later. New passwords are hashed as Flask does.
    async fn start() -> Self {
        Self::with(&[("PASSWORD_SCHEME", "scrypt")]).await
    }

    async fn with(variables: &[(&'static str, &str)]) -> Self {
        let database = Database::empty().await;
        let installation = Installation::unmigrated(flask_url(&database.url), Some(database)).await;
        let flask = Flask::start(&installation).await;
        installation.migrate();
        let (serve, new) = installation.serve_with(variables).await;
        Self {
            old: flask.address,
            installation,
            flask,
            serve,
            new,
        }
    }

    /// Each side, and the other one.
    fn both(&self) -> [(SocketAddr, SocketAddr); 2] {
        [(self.old, self.new), (self.new, self.old)]
    }

    async fn database(&self) -> tokio_postgres::Client {
        postgres::client(&self.installation.variable("DATABASE_URL").replace("+psycopg", "")).await
    }
}

/// Sends a request that is expected to be answered with `status`; gives back the body.
async fn expect(
    status: u16,
    address: SocketAddr,
    (method, target): (&str, &str),
    token: Option<&str>,
    body: Option<Value>,
) -> Value {
    let answer = raw::request(address, method, target, token, body.as_ref()).await;
    let text = String::from_utf8_lossy(&answer.body);
    assert_eq!(answer.status, status, "{method} {target} at {address}: {text}");
    serde_json::from_str(&text).unwrap_or(Value::Null)
}

async fn login(status: u16, address: SocketAddr, email: &str, password: &str) -> Value {
    let credentials = json!({"email": email, "password": password});
    expect(status, address, ("POST", "/api/login"), None, Some(credentials)).await
}

async fn create(address: SocketAddr, token: &str, title: &str) -> Value {
    let article = json!({"title": title, "description": "short", "body": "long"});
    expect(
        201,
        address,
        ("POST", "/api/articles/"),
        Some(token),
        Some(article),
    )
    .await
}

fn slug(article: &Value) -> &str {
    article["slug"].as_str().unwrap()
}

/// A timestamp of either side: Flask writes no zone and means UTC.
fn timestamp(text: &Value) -> Timestamp {
    let text = text.as_str().unwrap();
    let civil: DateTime = text.trim_end_matches('Z').parse().unwrap();
    civil.to_zoned(TimeZone::UTC).unwrap().timestamp()
}

/// What both sides show of an article, with their two ways of writing a time made one.
fn shown(article: &Value) -> Value {
    json!({
        "slug": article["slug"],
        "title": article["title"],
        "description": article["description"],
        "body": article["body"],
        "author": [article["author"]["id"], article["author"]["email"], article["author"]["name"]],
        "favorites_count": article["favorites_count"],
        "favorited": article["favorited"],
        "created_at": timestamp(&article["created_at"]).to_string(),
        "updated_at": timestamp(&article["updated_at"]).to_string(),
    })
}

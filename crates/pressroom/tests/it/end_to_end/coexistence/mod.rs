//! Pressroom beside a Flask, SQLAlchemy and Celery application (`tests/flask`), with the same PostgreSQL,
//! Redis and `SECRET_KEY`: moving from one to the other and back.

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

/// Both applications on one installation.
struct SideBySide {
    installation: Installation,
    flask: Flask,
    /// Address of the Flask API.
    old: SocketAddr,
    serve: Process,
    /// Address of the Pressroom API.
    new: SocketAddr,
}

impl SideBySide {
    /// Starts Flask, which creates the database, then Pressroom, which hashes new passwords as Flask does.
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

    /// Returns both addresses in both orders.
    fn both(&self) -> [(SocketAddr, SocketAddr); 2] {
        [(self.old, self.new), (self.new, self.old)]
    }

    async fn database(&self) -> tokio_postgres::Client {
        postgres::client(&self.installation.variable("DATABASE_URL").replace("+psycopg", "")).await
    }
}

/// Sends a request, asserts the status of the response and returns its body.
async fn expect(
    status: u16,
    address: SocketAddr,
    (method, target): (&str, &str),
    token: Option<&str>,
    body: Option<Value>,
) -> Value {
    let response = raw::request(address, method, target, token, body.as_ref()).await;
    let text = String::from_utf8_lossy(&response.body);
    assert_eq!(response.status, status, "{method} {target} at {address}: {text}");
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

/// Parses a timestamp of either side; Flask omits the zone, which is UTC.
fn timestamp(text: &Value) -> Timestamp {
    let text = text.as_str().unwrap();
    let civil: DateTime = text.trim_end_matches('Z').parse().unwrap();
    civil.to_zoned(TimeZone::UTC).unwrap().timestamp()
}

/// Returns the fields of an article that both sides show, with timestamps in one format.
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

//! The request that every variant records: a server span with ten attributes and, below it, the client span
//! of a database statement with seven. The status code is known only at the end.

use crate::Result;

pub const SCOPE: &str = "recorder-bench";
pub const SERVICE: &str = "bench";

pub const SPAN_NAME: &str = "GET /api/articles/{slug}";
pub const METHOD: &str = "GET";
pub const ROUTE: &str = "/api/articles/{slug}";
pub const SCHEME: &str = "http";
pub const HOST: &str = "api.example.com";
pub const PORT: i64 = 8080;
pub const HTTP_VERSION: &str = "1.1";
pub const STATUS: i64 = 200;

pub const STATEMENT_NAME: &str = "SELECT articles";
pub const DATABASE_SYSTEM: &str = "postgresql";
pub const DATABASE: &str = "articles";
pub const OPERATION: &str = "SELECT";
pub const TABLE: &str = "articles";
pub const QUERY: &str = "SELECT id, slug, title, description, body, created_at FROM articles WHERE slug = $1";
pub const DATABASE_HOST: &str = "db.internal";
pub const DATABASE_PORT: i64 = 5432;

/// Values that differ between requests.
pub struct Request {
    pub path: String,
    pub client: String,
    pub user_agent: String,
}

/// Returns the requests that the batches repeat.
pub fn inputs() -> Vec<Request> {
    let input = |number| Request {
        path: format!("/api/articles/how-to-measure-{number}"),
        client: format!("203.0.113.{number}"),
        user_agent: "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0".to_owned(),
    };
    (0..64).map(input).collect()
}

/// A way to record and export spans.
pub trait Variant {
    /// Records the two spans of a request.
    fn request(&self, request: &Request);

    /// Completes the export of a full batch, which gives batches the same size in every run. The SDK's batch
    /// processor counts spans as queued until the response has arrived, and fastrace exports once a second.
    fn end_batch(&self) -> Result {
        Ok(())
    }

    /// Exports everything and stops.
    fn shutdown(self: Box<Self>) -> Result;
}

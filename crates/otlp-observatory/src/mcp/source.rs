//! The JSON of an observatory's pages: of this process, or of another one over HTTP.

use axum::{
    Router,
    body::{Body, Bytes},
    http::Request,
};
use http_body_util::BodyExt as _;
use serde::{Deserialize, de::DeserializeOwned};
use tower_service::Service as _;
use url::form_urlencoded;

/// Reason a tool has no answer, for the model.
pub(super) type Failure = String;

/// Query parameters of a page.
pub(super) type Parameters = Vec<(&'static str, String)>;

/// Pages that the tools read.
#[derive(Clone, Debug)]
pub(super) enum Source {
    /// The pages of this process.
    Pages(Router),
    /// The pages of another process.
    #[cfg(feature = "cli")]
    Remote(crate::client::Client),
}

/// Body of an error response.
#[derive(Deserialize)]
struct ErrorBody {
    error: String,
}

impl Source {
    /// Requests the page whose path consists of `segments`.
    ///
    /// # Errors
    /// Fails if the observatory cannot be reached, does not have the page or entry, or rejects a parameter.
    pub(super) async fn get<T: DeserializeOwned>(
        &self,
        segments: &[&str],
        parameters: &Parameters,
    ) -> Result<T, Failure> {
        let body = match self {
            Self::Pages(router) => from_router(router.clone(), segments, parameters).await?,
            #[cfg(feature = "cli")]
            Self::Remote(client) => {
                let body = client.get(segments, parameters).await;
                body.map_err(|error| format!("{error:#}"))?.into()
            }
        };
        serde_json::from_slice(&body).map_err(|_| "the observatory is of another version".to_owned())
    }
}

async fn from_router(
    mut router: Router,
    segments: &[&str],
    parameters: &Parameters,
) -> Result<Bytes, Failure> {
    let mut address = String::new();
    for segment in segments {
        address.push('/');
        address.extend(form_urlencoded::byte_serialize(segment.as_bytes()));
    }
    let query = form_urlencoded::Serializer::new(String::new())
        .extend_pairs(parameters)
        .finish();
    let request = Request::get(format!("{}?{query}", address.replace('+', "%20")))
        .body(Body::empty())
        .map_err(|_| "the arguments are too long")?;
    let response = router.call(request).await.unwrap_or_else(|never| match never {});
    let status = response.status();
    let body = response.into_body().collect().await;
    let body = body.map_err(|error| error.to_string())?.to_bytes();
    if status.is_success() {
        return Ok(body);
    }
    let body: Result<ErrorBody, _> = serde_json::from_slice(&body);
    Err(body.map_or_else(
        |_| format!("the observatory responded with {status}"),
        |body| body.error,
    ))
}

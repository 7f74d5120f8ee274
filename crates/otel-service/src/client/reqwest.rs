//! Support for reqwest.

use std::net::SocketAddr;
use std::task::{Context as Task, Poll};

use ::http::{HeaderMap, StatusCode, Version};
use ::reqwest::{Error, Request, RequestBuilder, Response};
use tower_service::Service;

use super::call::Call;
use super::http::{HttpClientFuture, HttpClientLayer, HttpClientService, ResponseHead, Url};

impl HttpClientLayer {
    /// Sends a reqwest request.
    ///
    /// One span covers the redirects that reqwest follows; `url.full` is the URL of the first request.
    ///
    /// ```no_run
    /// use otel_service::HttpClientLayer;
    ///
    /// # async fn example(client: reqwest::Client) -> reqwest::Result<()> {
    /// const OUTGOING: HttpClientLayer = HttpClientLayer::new();
    ///
    /// let response = OUTGOING.send(client.get("https://example.com/articles")).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// Returns the errors of reqwest.
    pub async fn send(&self, request: RequestBuilder) -> Result<Response, Error> {
        let (client, request) = request.build_split();
        let mut request = request?;
        let call = self.start_request(&mut request);
        let sent = call.poll(|| client.execute(request));
        HttpClientFuture::new(sent, call).await
    }

    fn start_request(&self, request: &mut Request) -> Call {
        let (method, url) = (request.method().clone(), request.url().clone());
        let url = Url {
            scheme: url.scheme(),
            has_credentials: !url.username().is_empty() || url.password().is_some(),
            host: url.host_str(),
            port: url.port(),
            path: url.path(),
            query: url.query(),
        };
        self.start(&method, &url, request.headers_mut())
    }
}

impl<S> Service<Request> for HttpClientService<S>
where
    S: Service<Request, Response = Response, Error = Error>,
{
    type Response = Response;
    type Error = Error;
    type Future = HttpClientFuture<S::Future>;

    fn poll_ready(&mut self, task: &mut Task<'_>) -> Poll<Result<(), Error>> {
        self.inner.poll_ready(task)
    }

    fn call(&mut self, mut request: Request) -> Self::Future {
        let call = self.layer.start_request(&mut request);
        let inner = call.poll(|| self.inner.call(request));
        HttpClientFuture::new(inner, call)
    }
}

impl ResponseHead for Response {
    fn status(&self) -> StatusCode {
        self.status()
    }

    fn version(&self) -> Version {
        self.version()
    }

    fn headers(&self) -> &HeaderMap {
        self.headers()
    }

    fn peer(&self) -> Option<SocketAddr> {
        self.remote_addr()
    }
}

//! Spans of otel-service: a request through its HTTP layer and one database statement, with the metrics of both. The
//! instructions include those of the request and the response. The endpoint comes from `OTEL_EXPORTER_OTLP_ENDPOINT`.

use std::convert::Infallible;
use std::future::{Future, ready};
use std::pin::pin;
use std::sync::Mutex;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use http::Response;
use http_body_util::Empty;
use otel_service::{ClientAddress, Database, DbError, Failure, HttpLayer, Service, Statement, Telemetry};
use prost::bytes::Bytes;
use tower::util::BoxCloneSyncService;
use tower::{Layer, Service as _, ServiceExt};

use crate::Result;
use crate::request::{self, Request, Variant};

static STATEMENT: Statement = Statement::new(
    request::OPERATION,
    request::TABLE,
    request::STATEMENT_NAME,
    request::QUERY,
);

type Http = BoxCloneSyncService<http::Request<()>, (), Infallible>;

pub struct Instrumented {
    telemetry: Telemetry,
    http: Mutex<Http>,
}

impl Instrumented {
    pub fn start() -> Result<Self> {
        let telemetry = otel_service::init(Service::new(request::SERVICE, "0"))?;
        let server = (request::DATABASE_HOST.to_owned(), request::DATABASE_PORT as u16);
        let database = Database::new(
            request::DATABASE_SYSTEM,
            request::DATABASE.to_owned(),
            Some(server),
        );
        let respond = move |_: http::Request<()>| {
            let database = database.clone();
            async move {
                let found = database.observe(&STATEMENT, ready(Ok::<_, Never>(Some(1)))).await;
                drop(found);
                Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new()))
            }
        };
        let layer = HttpLayer::new(|_| Some(request::ROUTE));
        let http = layer.layer(tower::service_fn(respond)).map_response(drop);
        Ok(Self {
            telemetry,
            http: Mutex::new(Http::new(http)),
        })
    }
}

impl Variant for Instrumented {
    fn request(&self, request: &Request) {
        let built = http::Request::builder()
            .uri(&*request.path)
            .header("host", format!("{}:{}", request::HOST, request::PORT))
            .header("user-agent", &*request.user_agent)
            .extension(ClientAddress(
                (
                    request.client.parse::<std::net::Ipv4Addr>().expect("an address"),
                    54_321,
                )
                    .into(),
            ))
            .body(())
            .expect("the request is valid");
        let mut http = self.http.lock().expect("no panic has happened");
        match pin!(http.call(built)).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Ok(())) => {}
            Poll::Pending => unreachable!("the future is ready"),
        }
    }

    fn shutdown(self: Box<Self>) -> Result {
        Ok(self.telemetry.shutdown(Duration::from_secs(10))?)
    }
}

/// An error that never occurs.
#[derive(Debug)]
struct Never;

impl Failure for Never {
    fn error_type(&self) -> Option<std::borrow::Cow<'static, str>> {
        None
    }

    fn message(&self) -> String {
        String::new()
    }
}

impl DbError for Never {
    fn status_code(&self) -> Option<String> {
        None
    }
}

//! Randomly mutated request bodies.

use bytes::Bytes;
use otlp_recorder::RawCodec;
use prost::Message as _;
use reqwest::StatusCode;
use tonic::{Code, Request, client::Grpc, transport::Endpoint};

use super::requests::{ADDRESSES, gzip, logs, metrics, traces};
use crate::support::{Running, client, within};

/// Xorshift generator with a fixed seed, which returns the same bodies in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 33).unwrap() % bound
    }

    fn byte(&mut self) -> u8 {
        self.below(256).to_le_bytes()[0]
    }

    /// Returns `valid` with a few random changes, or random bytes.
    fn mutated(&mut self, valid: &[u8]) -> Vec<u8> {
        if self.below(8) == 0 {
            let length = self.below(300);
            return (0..length).map(|_| self.byte()).collect();
        }
        let mut body = valid.to_vec();
        for _ in 0..=self.below(6) {
            let at = self.below(body.len() + 1);
            match self.below(4) {
                0 => body.insert(at, self.byte()),
                1 => body.truncate(at),
                2 if at < body.len() => body[at] = self.byte(),
                3 if at < body.len() => {
                    body.remove(at);
                }
                _ => body.extend_from_within(at..),
            }
        }
        body
    }
}

#[tokio::test]
async fn mutated_bodies_are_accepted_or_client_errors() {
    let observatory = Running::start().await;
    let client = client();
    let valid = [
        (traces(2).encode_to_vec(), serde_json::to_vec(&traces(2)).unwrap()),
        (metrics().encode_to_vec(), serde_json::to_vec(&metrics()).unwrap()),
        (logs().encode_to_vec(), serde_json::to_vec(&logs()).unwrap()),
    ];
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let mut rejected = 0;
    for _ in 0..150 {
        for (path, (protobuf, json)) in ADDRESSES.into_iter().zip(&valid) {
            for (content_type, valid) in [("application/x-protobuf", protobuf), ("application/json", json)] {
                let mut body = random.mutated(valid);
                let mut request = client
                    .post(observatory.http(path))
                    .header("content-type", content_type);
                if random.below(4) == 0 {
                    request = request.header("content-encoding", "gzip");
                    body = random.mutated(&gzip(&body));
                }
                let shown = String::from_utf8_lossy(&body).into_owned();
                let status = within(request.body(body).send()).await.unwrap().status();
                assert!(
                    status == StatusCode::OK || status.is_client_error(),
                    "{path} {content_type} {status} {shown}"
                );
                rejected += usize::from(status != StatusCode::OK);
            }
        }
    }
    assert!(rejected > 300, "too few bodies were rejected: {rejected}");
    // The server still accepts a valid request.
    let request = client
        .post(observatory.http(ADDRESSES[0]))
        .header("content-type", "application/x-protobuf")
        .body(valid[0].0.clone());
    assert_eq!(within(request.send()).await.unwrap().status(), 200);
    observatory.stop().await.unwrap();
}

#[tokio::test]
async fn mutated_grpc_messages_are_accepted_or_permanent_errors() {
    let observatory = Running::start().await;
    let address = observatory.addresses.grpc.unwrap();
    let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap();
    let mut grpc = Grpc::new(within(endpoint.connect()).await.unwrap());
    let valid = [
        ("trace.v1.TraceService", traces(2).encode_to_vec()),
        ("metrics.v1.MetricsService", metrics().encode_to_vec()),
        ("logs.v1.LogsService", logs().encode_to_vec()),
    ];
    let mut random = Random(0x853c_49e6_748f_ea9b);
    let mut rejected = 0;
    for _ in 0..150 {
        for (service, valid) in &valid {
            let path = format!("/opentelemetry.proto.collector.{service}/Export")
                .parse()
                .unwrap();
            let message = Bytes::from(random.mutated(valid));
            within(grpc.ready()).await.unwrap();
            let response = within(grpc.unary(Request::new(message.clone()), path, RawCodec)).await;
            let code = response.map_or_else(|status| status.code(), |_| Code::Ok);
            assert!(
                matches!(code, Code::Ok | Code::InvalidArgument),
                "{service} {code:?} {message:?}"
            );
            rejected += usize::from(code != Code::Ok);
        }
    }
    assert!(rejected > 100, "too few messages were rejected: {rejected}");
    observatory.stop().await.unwrap();
}

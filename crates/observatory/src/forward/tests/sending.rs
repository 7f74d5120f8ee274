use std::time::Duration;

use super::{super::*, backend::Answer, *};

const ENOUGH: Duration = Duration::from_secs(20);

#[tokio::test]
async fn what_is_accepted_arrives_compressed_and_with_the_headers() {
    let (backend, scratch) = (Backend::start().await, Scratch::new());
    let forwarder = start(&Forwarding {
        endpoint: backend.url("/in/?key=1"),
        headers: vec![("x-api-key".to_owned(), Secret::new("the key"))],
        ..to(&backend, &scratch)
    });
    forwarder.accept(&one(1));
    until("it arrives", || !backend.asked("/in/v1/traces").is_empty()).await;
    let asked = backend.asked("/in/v1/traces").remove(0);
    assert_eq!(asked.header("x-api-key"), "the key");
    assert_eq!(asked.header("content-encoding"), "gzip");
    assert_eq!(asked.header("content-type"), "application/x-protobuf");
    assert_eq!(asked.header("authorization"), "");
    assert_eq!(asked.request(), one(1).encode());
}

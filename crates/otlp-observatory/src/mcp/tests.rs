//! Tests of the tools on a store of known contents, without a transport.

use std::{net::SocketAddr, sync::Arc};

use serde_json::{Value, json};

use super::{source::Source, tools};
use crate::{
    access::Access,
    config::Addresses,
    ingest::Received,
    pages::{self, Explorer},
    store::Store,
};

fn source(store: Store) -> Source {
    let address = SocketAddr::from(([127, 0, 0, 1], 4319));
    let explorer = Explorer {
        store: Arc::new(store),
        addresses: Addresses { http: address, grpc: None, health: None, pages: address },
        received: Arc::new(Received::default()),
        forwarder: None,
        first_steps: Vec::new(),
    };
    Source::Pages(pages::json(explorer))
}

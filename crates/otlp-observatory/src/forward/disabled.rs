//! Uninhabited stand-ins for the types of `forward`, compiled when the `forward` feature is off, so that
//! other modules need no conditional code.

use std::{convert::Infallible, time::Duration};

use serde::Serialize;

use crate::export::Export;

#[derive(Debug)]
pub(crate) enum Forwarding {}

#[derive(Debug, Serialize)]
pub(crate) enum Status {}

#[derive(Clone, Debug)]
pub(crate) enum Forwarder {}

impl Forwarder {
    pub(crate) fn start(forwarding: &Forwarding) -> Result<Self, Infallible> {
        match *forwarding {}
    }

    pub(crate) fn accept(&self, _: &Export) {
        match *self {}
    }

    pub(crate) async fn finish(&self, _: Duration) {
        match *self {}
    }

    pub(crate) fn status(&self) -> Status {
        match *self {}
    }
}

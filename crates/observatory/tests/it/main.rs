//! The observatory over real sockets.

mod receive;
mod support;

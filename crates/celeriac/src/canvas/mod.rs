//! Work that consists of several tasks: one after the other ([`chain`]), at the same time ([`group`]), or a group whose
//! results go to one more task ([`chord`]). It is sent as Celery's canvas sends it, so that Python and Rust workers can
//! share it. What a worker does when one of the tasks has ended is in `worker::follow`.

mod compose;
mod freeze;
mod message;
mod node;
mod options;
mod send;
#[cfg(test)]
mod tests;

pub use self::{
    compose::{Canvas, chain, chord, group},
    node::CanvasError,
};
pub(crate) use self::{
    message::SendContext,
    node::{Kind, Node, list},
    send::Sender,
};

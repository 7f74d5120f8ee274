//! Canvases: tasks that run one after another ([`chain`]), concurrently ([`group`]), or concurrently and
//! followed by a task that receives their results ([`chord`]). Canvases are sent in Celery's format, which
//! Python and Rust workers share. `worker::follow` settles their tasks.

mod compose;
mod freeze;
mod message;
mod node;
mod options;
mod replace;
mod send;
#[cfg(test)]
mod tests;

pub use self::{
    compose::{Canvas, chain, chord, chunks, group},
    node::CanvasError,
};
pub(crate) use self::{
    message::SendContext,
    node::{Kind, MAP, Node, STARMAP, list},
    replace::{ACCUMULATE, replacement},
    send::Sender,
};

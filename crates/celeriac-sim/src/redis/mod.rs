//! Model of a Redis server: the commands that celeriac sends, its real Lua scripts, transactions, pub/sub and
//! blocking reads, at the level of single commands. The network, restarts and clocks belong to the simulation.

mod call;
mod data;
mod lua;
mod reply;
mod server;
mod strings;
mod zset;

pub use self::{
    call::Write,
    reply::{Reply, take_request},
    server::{Answer, Executed, Server, Snapshot},
};

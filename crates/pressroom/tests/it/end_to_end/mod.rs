//! Real processes against real servers: what a team that runs Pressroom would see.

mod command_line;
mod dead_letters;
mod embedded;
mod installation;
mod production;
mod rate_limits;
mod remote_control;
mod telemetry;

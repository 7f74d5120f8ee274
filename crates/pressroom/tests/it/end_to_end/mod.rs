//! Real processes against real servers: what a team that runs Pressroom would see.

mod browser;
mod clients;
mod coexistence;
mod command_line;
mod databases;
mod dead_letters;
mod draining;
mod embedded;
mod installation;
mod observatory;
mod production;
mod remote_control;
mod telemetry;

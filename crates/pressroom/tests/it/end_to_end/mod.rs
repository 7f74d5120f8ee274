//! End-to-end tests: processes of the program with real servers.

mod backup;
mod browser;
mod clients;
mod coexistence;
mod command_line;
mod connections;
mod databases;
mod dead_letters;
mod draining;
mod embedded;
mod health;
mod installation;
mod log_output;
mod login_storm;
mod lost_tasks;
mod observatory;
mod openapi;
mod production;
mod remote_control;
mod signals;
mod telemetry;
mod variables;

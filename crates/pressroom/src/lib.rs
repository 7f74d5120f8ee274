//! Pressroom: an articles service with JWT login, PostgreSQL, Celery-compatible background
//! tasks and OpenTelemetry.
//!
//! A request comes in through [`api`], which parses and answers; [`accounts`] and [`articles`]
//! decide; [`store`] talks SQL; [`tasks`] hands work to a queue and runs it. [`config`] is the
//! only place that reads the environment.

pub mod accounts;
pub mod api;
pub mod articles;
pub mod cli;
pub mod clock;
pub mod commands;
pub mod config;
pub mod domain;
pub mod health;
pub mod ids;
pub mod lifecycle;
pub mod names;
pub mod server;
pub mod store;
pub mod tasks;

//! Pressroom: an articles service with JWT login, PostgreSQL, Celery-compatible background
//! tasks and OpenTelemetry.
//!
//! [`api`] parses requests and builds responses; [`accounts`] and [`articles`] contain the rules; [`store`] runs the
//! SQL; [`tasks`] publishes and runs background tasks. They share the types of [`domain`]. [`commands`] assembles
//! them according to [`config`].

pub mod accounts;
pub mod api;
pub mod articles;
pub mod cli;
pub mod clock;
pub mod commands;
pub mod config;
pub mod descriptors;
pub mod domain;
pub mod health;
pub mod ids;
pub mod lifecycle;
pub mod names;
pub mod outage;
pub mod server;
pub mod store;
pub mod tasks;
pub mod threads;

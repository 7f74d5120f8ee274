//! Pressroom: an articles service with JWT login, PostgreSQL, Celery-compatible background
//! tasks and OpenTelemetry.
//!
//! A request comes in through [`api`], which parses and answers; [`accounts`] and [`articles`]
//! decide; [`store`] talks SQL; [`tasks`] hands work to a queue and runs it. [`config`] is the
//! only place that reads the environment.

pub mod accounts;
pub mod articles;
pub mod clock;
pub mod ids;
pub mod store;
pub mod tasks;

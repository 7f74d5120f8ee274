//! Integration tests: the stores, the HTTP API over them, and whole installations.
//!
//! PostgreSQL is the server at `TEST_DATABASE_URL` or one started from the binaries on this machine; tests
//! that stop a server start their own. No test is skipped: without its servers, a test fails.

#[cfg(test)]
mod end_to_end;
#[cfg(test)]
mod http;
#[cfg(test)]
mod own_task;
#[cfg(test)]
mod store;
#[cfg(test)]
mod support;

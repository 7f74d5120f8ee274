//! Everything that needs servers, in one program: what is promised of the stores, of the HTTP API
//! over them, and of whole installations.
//!
//! PostgreSQL is the server that `TEST_DATABASE_URL` names, or one started from the binaries on this
//! machine; tests that stop a server start their own. Nothing is skipped: what is missing fails.

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

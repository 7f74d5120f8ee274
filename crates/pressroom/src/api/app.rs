//! The state that all handlers share.

use std::sync::Arc;

use axum::extract::State;

use super::{cors::AllowedOrigins, limits::Limits, memory::BodyMemory, proxies::TrustedProxies};
use crate::{accounts::Accounts, articles::Articles, health::Health};

/// The services behind the API, and its settings.
#[derive(Debug)]
pub struct App {
    pub accounts: Accounts,
    pub articles: Articles,
    pub health: Health,
    pub limits: Limits,
    pub proxies: TrustedProxies,
    pub origins: AllowedOrigins,
    pub memory: BodyMemory,
}

/// The state of a router, which axum clones for each request.
pub(super) type AppState = State<Arc<App>>;

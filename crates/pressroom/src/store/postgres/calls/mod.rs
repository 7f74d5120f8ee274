//! Calls that share statements with concurrent calls.

mod accounts;
mod articles;
mod deliveries;

use std::sync::Arc;

pub(super) use self::{
    accounts::FindSession,
    articles::{FindArticle, InsertArticle, select_article},
    deliveries::{ClaimDelivery, CompleteDelivery},
};
use super::connections::{Groups, Primary};

/// The groups of each kind of call.
pub(super) struct StatementGroups {
    pub(super) found_sessions: Groups<FindSession>,
    pub(super) inserted_articles: Groups<InsertArticle>,
    pub(super) found_articles: Groups<FindArticle>,
    pub(super) claimed_deliveries: Groups<ClaimDelivery>,
    pub(super) completed_deliveries: Groups<CompleteDelivery>,
}

impl StatementGroups {
    /// Starts the tasks that run the groups. Must be called within a Tokio runtime.
    pub(super) fn new(primary: &Arc<Primary>) -> Self {
        Self {
            found_sessions: Groups::new(primary),
            inserted_articles: Groups::new(primary),
            found_articles: Groups::new(primary),
            claimed_deliveries: Groups::new(primary),
            completed_deliveries: Groups::new(primary),
        }
    }
}

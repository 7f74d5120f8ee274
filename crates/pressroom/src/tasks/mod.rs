//! Background tasks: the dispatcher that publishes tasks from the outbox, the reconciler that sends tasks again
//! that Redis has lost, the notification task, and the channels that deliver notifications.

mod backlog;
mod dispatcher;
mod notification;
pub mod notifier;
mod reconciler;

pub use self::{
    backlog::watch_backlog,
    dispatcher::{Dispatcher, Durability},
    notification::{NotificationTask, deliveries_expired_by},
    reconciler::Reconciler,
};

//! Background tasks: the dispatcher that publishes tasks from the outbox, the reconciler that returns tasks to
//! the outbox if Redis has lost them, the notification task, and the channels that deliver notifications.

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

//! Background work: the dispatcher that publishes the outbox, the task that a worker runs, and the channels
//! that deliver notifications.

mod backlog;
mod dispatcher;
mod notification;
pub mod notifier;

pub use self::{
    backlog::watch_backlog,
    dispatcher::{Dispatcher, Durability},
    notification::{NotificationTask, deliveries_expired_by},
};

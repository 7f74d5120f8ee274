//! Background tasks: the dispatcher that publishes tasks from the outbox, the notification task, and the
//! channels that deliver notifications.

mod backlog;
mod dispatcher;
mod notification;
pub mod notifier;

pub use self::{
    backlog::watch_backlog,
    dispatcher::{Dispatcher, Durability},
    notification::{NotificationTask, deliveries_expired_by},
};

//! What senders see of the receivers.

mod requests;
mod walking;

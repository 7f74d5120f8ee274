//! The worker's mailbox: subscribes to remote control commands, executes them one at a time, and replies. A
//! lost subscription is renewed while the worker runs.

use std::{panic::AssertUnwindSafe, sync::Arc, time::Duration};

use futures_util::{FutureExt, StreamExt, stream::BoxStream};
use serde_json::json;
use tokio::time::{Instant, interval, timeout};

use super::{methods, mingle, shared::Shared};
use crate::{
    back_off::BackOff,
    broker::BrokerError,
    control::{
        command::{Command, EXCHANGE},
        envelope::{self, TRANSIENT},
    },
    failure_log::FailureLog,
    log::{debug, error, warn},
};

/// Interval between two declarations of the mailbox: kombu 5.7 drops bindings after an hour.
const DECLARE_INTERVAL: Duration = Duration::from_secs(20 * 60);
/// Time-out for a command, including its reply.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(10);
/// Minimum lifetime of a subscription that resets the back-off.
const STABLE_AFTER: Duration = Duration::from_secs(10);

pub(super) async fn serve(shared: Arc<Shared>) {
    let mut back_off = BackOff::new(Duration::from_millis(100), Duration::from_secs(5));
    let mut failures = FailureLog::new("listening for remote control commands");
    loop {
        match shared.broker.listen(EXCHANGE, "").await {
            Ok(commands) => {
                failures.worked();
                let since = Instant::now();
                process_all(&shared, commands).await;
                if since.elapsed() > STABLE_AFTER {
                    back_off.reset();
                }
                // An outage is logged by the broker's other connections.
                debug!("lost the remote control connection; reconnecting");
            }
            Err(error) => {
                if matches!(error, BrokerError::Refused { .. }) {
                    // The worker can run tasks without remote control.
                    shared.mingled.cancel();
                }
                failures.failed(&error);
            }
        }
        back_off.wait().await;
    }
}

/// Executes commands until the connection is lost. Meanwhile greets the other workers, whose own greetings
/// arrive as commands.
async fn process_all(shared: &Shared, mut commands: BoxStream<'static, Vec<u8>>) {
    let mut greeting = std::pin::pin!(mingle::mingle(shared).fuse());
    let mut declare = interval(DECLARE_INTERVAL);
    loop {
        tokio::select! {
            biased;
            _ = declare.tick() => {
                if let Err(error) = shared.broker.declare_mailbox(EXCHANGE, &shared.hostname).await {
                    debug!(%error, "failed to declare the mailbox");
                }
            }
            () = &mut greeting => shared.mingled.cancel(),
            raw = commands.next() => match raw {
                Some(raw) => process(shared, &raw).await,
                None => return,
            },
        }
    }
}

/// Executes a command. Panics and time-outs are logged and do not affect the next command.
async fn process(shared: &Shared, raw: &[u8]) {
    let content = match envelope::decode(raw, envelope::MAX_BROADCAST_SIZE) {
        Ok(content) => content,
        Err(reason) => {
            warn!(
                messaging.message.envelope.size = raw.len(),
                %reason,
                "ignored a remote control command that cannot be decoded"
            );
            return;
        }
    };
    shared.clock.adjust(content.headers["clock"].as_u64());
    let Ok(command) = serde_json::from_value::<Command>(content.body) else {
        warn!(
            messaging.message.envelope.size = raw.len(),
            "ignored a remote control command without a method or with invalid fields"
        );
        return;
    };
    // Like Celery, does not check the command's expiry: clocks differ, and late replies are dropped.
    if !command.is_for(&shared.hostname) {
        return;
    }
    let work = AssertUnwindSafe(execute(shared, command)).catch_unwind();
    match timeout(COMMAND_TIMEOUT, work).await {
        Ok(Ok(())) => {}
        Ok(Err(_)) => error!("a remote control command panicked"),
        Err(_) => warn!("a remote control command timed out"),
    }
}

async fn execute(shared: &Shared, command: Command) {
    let method = command.method;
    debug!(celery.command = method, "received a remote control command");
    let reply = match methods::call(shared, &method, command.arguments.unwrap_or_default()).await {
        Ok(Some(reply)) => reply,
        Ok(None) => return,
        Err(failure) => {
            warn!(celery.command = method, reason = %failure, "rejected a remote control command");
            json!({"error": failure.to_string()})
        }
    };
    let Some(to) = command.reply_to else { return };
    let headers = json!({"ticket": command.ticket, "clock": shared.clock.tick()});
    let body = json!({shared.hostname.as_str(): reply});
    let text = envelope::encode(&to.exchange, &to.routing_key, TRANSIENT, &headers, &body);
    if let Err(error) = shared.broker.reply(&to, text).await {
        warn!(celery.command = method, %error, "failed to reply to a remote control command");
    }
}

/// Removes the worker's mailbox from the exchange.
pub(super) async fn close(shared: &Shared) -> Result<(), BrokerError> {
    shared.broker.remove_mailbox(EXCHANGE, &shared.hostname).await
}

//! The worker's mailbox: hears remote control commands on one subscription, carries out one at a time, and replies. A
//! subscription that is lost is made again for as long as the worker runs.

use std::{panic::AssertUnwindSafe, sync::Arc, time::Duration};

use futures_util::{FutureExt, StreamExt, stream::BoxStream};
use serde_json::{Value, json};
use tokio::time::{Instant, interval, timeout};

use super::{Shared, methods, mingle};
use crate::{
    backoff::Backoff,
    broker::BrokerError,
    bus::ReplyTo,
    control::{
        command::{Command, EXCHANGE},
        envelope::{self, Address},
    },
    log::{debug, error, warn},
    streak::Streak,
};

/// Bindings are forgotten by kombu 5.7 after an hour.
const DECLARE: Duration = Duration::from_secs(20 * 60);
/// A command may take this long, its reply included.
const LONGEST: Duration = Duration::from_secs(10);
/// A subscription that lived for this long was a good one.
const STABLE: Duration = Duration::from_secs(10);

pub(super) async fn serve(shared: Arc<Shared>) {
    let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));
    let mut streak = Streak::new("listening to remote control");
    loop {
        match shared.broker.listen(EXCHANGE, "").await {
            Ok(commands) => {
                streak.worked();
                let since = Instant::now();
                attend(&shared, commands).await;
                if since.elapsed() > STABLE {
                    backoff.reset();
                }
                // An outage of the broker is said by its other connections.
                debug!("remote control has lost its connection and connects again");
            }
            Err(error) => {
                if matches!(error, BrokerError::Refused { .. }) {
                    // Tasks can be run without.
                    shared.mingled.cancel();
                }
                streak.failed(&error);
            }
        }
        backoff.wait().await;
    }
}

/// Carries out commands until the connection is lost. Meets the other workers meanwhile: their greetings come as
/// commands too.
async fn attend(shared: &Shared, mut commands: BoxStream<'static, Vec<u8>>) {
    let mut meeting = std::pin::pin!(mingle::mingle(shared));
    let mut met = false;
    let mut declare = interval(DECLARE);
    loop {
        tokio::select! {
            raw = commands.next() => match raw {
                Some(raw) => attend_to(shared, &raw).await,
                None => return,
            },
            () = &mut meeting, if !met => {
                met = true;
                shared.mingled.cancel();
            }
            _ = declare.tick() => {
                if let Err(error) = shared.broker.declare_mailbox(EXCHANGE, &shared.hostname).await {
                    debug!(%error, "the mailbox was not declared");
                }
            }
        }
    }
}

/// One command. Whatever it is, the next one is heard.
async fn attend_to(shared: &Shared, raw: &[u8]) {
    let content = match envelope::open(raw, envelope::LONGEST_BROADCAST) {
        Ok(content) => content,
        Err(reason) => {
            warn!(bytes = raw.len(), %reason, "a remote control command cannot be read");
            return;
        }
    };
    let clock = content.headers.get("clock").and_then(Value::as_u64);
    shared.clock.adjust(clock.unwrap_or(0));
    let Ok(command) = serde_json::from_value::<Command>(content.body) else {
        warn!(
            bytes = raw.len(),
            "a remote control command without method or with wrong fields"
        );
        return;
    };
    // When the asker stops waiting is not looked at, as in Celery: clocks differ, and a late reply is dropped.
    if !command.is_for(&shared.hostname) {
        return;
    }
    let work = AssertUnwindSafe(carry_out(shared, command)).catch_unwind();
    match timeout(LONGEST, work).await {
        Ok(Ok(())) => {}
        Ok(Err(_)) => error!("a remote control command was abandoned by a panic"),
        Err(_) => warn!("a remote control command took too long and was abandoned"),
    }
}

async fn carry_out(shared: &Shared, command: Command) {
    let Command {
        method,
        arguments,
        ticket,
        reply_to,
        ..
    } = command;
    debug!(method, "remote control");
    let reply = match methods::call(shared, &method, arguments).await {
        Ok(Some(reply)) => reply,
        Ok(None) => return,
        Err(failure) => {
            warn!(method, %failure, "a remote control command was refused");
            json!({"error": failure.to_string()})
        }
    };
    if let Some(to) = reply_to
        && let Err(error) = send(shared, &to, ticket.as_deref(), &reply).await
    {
        warn!(method, %error, "a remote control command was not replied to");
    }
}

async fn send(shared: &Shared, to: &ReplyTo, ticket: Option<&str>, reply: &Value) -> Result<(), BrokerError> {
    let address = Address {
        exchange: &to.exchange,
        routing_key: &to.routing_key,
        delivery_mode: 1,
    };
    let headers = json!({"ticket": ticket, "clock": shared.clock.forward()});
    let text = envelope::seal(&address, &headers, &json!({shared.hostname.as_str(): reply}));
    shared.broker.reply(to, text).await
}

/// Takes the worker's name out of the list of mailboxes.
pub(super) async fn close(shared: &Shared) {
    match timeout(STABLE, shared.broker.remove_mailbox(EXCHANGE, &shared.hostname)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => debug!(%error, "the mailbox was not removed"),
        Err(_) => debug!("the mailbox was not removed in time"),
    }
}

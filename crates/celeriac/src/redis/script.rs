//! Invocations of Lua scripts that know the hash of their script, unlike those of redis-rs.

use redis::{FromRedisValue, RedisResult, Script, ScriptInvocation, ToRedisArgs, aio::MultiplexedConnection};

use super::{destination::Destination, names::Names};
use crate::broker::DeliveryTag;

/// Defines scripts that are hashed on first use.
macro_rules! scripts {
    ($($(#[$doc:meta])* $name:ident = $text:expr;)*) => {$(
        $(#[$doc])*
        pub(super) static $name: std::sync::LazyLock<redis::Script> =
            std::sync::LazyLock::new(|| redis::Script::new($text));
    )*};
}
pub(super) use scripts;

/// A script with the keys and arguments of one call.
pub(super) struct Invocation<'a> {
    /// SHA-1 of the script's text, by which the server knows the script.
    pub hash: &'a str,
    invocation: ScriptInvocation<'a>,
}

impl<'a> Invocation<'a> {
    pub(super) fn new(script: &'a Script) -> Self {
        Self {
            hash: script.get_hash(),
            invocation: script.prepare_invoke(),
        }
    }

    /// Creates an invocation on a delivery: the first keys are unacked_index and unacked, the first argument
    /// is the tag.
    pub(super) fn on_delivery(script: &'a Script, names: &Names, tag: &DeliveryTag) -> Self {
        let mut invocation = Self::new(script);
        invocation
            .key(&names.unacked_index)
            .key(&names.unacked)
            .arg(tag.as_str());
        invocation
    }

    pub(super) fn key(&mut self, key: impl ToRedisArgs) -> &mut Self {
        self.invocation.key(key);
        self
    }

    pub(super) fn arg(&mut self, argument: impl ToRedisArgs) -> &mut Self {
        self.invocation.arg(argument);
        self
    }

    /// Adds the keys and arguments with which the function in [`SEND`](super::scripts::SEND) sends a message. Keys:
    /// the queue's binding and the list; arguments: the binding's member and the message. For a fan-out exchange, both
    /// keys are the exchange's binding, and the channel replaces the member.
    pub(super) fn message(
        &mut self,
        names: &Names,
        destination: &Destination,
        raw: impl ToRedisArgs,
    ) -> &mut Self {
        match destination {
            Destination::Queue { queue, priority } => self
                .key(names.binding_key(queue))
                .key(names.list(queue, *priority))
                .arg(names.binding(queue)),
            Destination::Fanout { exchange, channel } => {
                let binding = names.binding_key(exchange);
                self.key(&binding).key(&binding).arg(channel)
            }
        }
        .arg(raw)
    }

    /// Runs the script by its hash; loads it first if the server does not know it.
    #[expect(
        clippy::disallowed_methods,
        reason = "called by the connection, which reports every command to the observer"
    )]
    pub(super) async fn run<T: FromRedisValue>(
        &self,
        connection: &mut MultiplexedConnection,
    ) -> RedisResult<T> {
        self.invocation.invoke_async(connection).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_depends_only_on_the_text_of_the_script() {
        let (one, other) = (Script::new("return 1"), Script::new("return 2"));
        let hash = Invocation::new(&one).hash;
        assert_eq!(Invocation::new(&one).key("a").arg("b").hash, hash);
        assert_ne!(Invocation::new(&other).key("a").arg("b").hash, hash);
    }
}

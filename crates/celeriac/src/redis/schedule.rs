//! Last ticks of periodic tasks, in the hash `celeriac.schedule`. All schedulers use the clock of the Redis
//! server.

use async_trait::async_trait;
use jiff::Timestamp;
use redis::pipe;

use super::{RedisBroker, commands, script::Invocation, scripts};
use crate::{
    broker::{BrokerError, LastTicks, Timetable},
    message::Message,
};

#[async_trait]
impl Timetable for RedisBroker {
    async fn last_ticks(&self, entries: &[String]) -> Result<LastTicks, BrokerError> {
        let mut pipeline = pipe();
        pipeline.cmd("TIME");
        pipeline.cmd("HMGET").arg(&self.names().schedule).arg(entries);
        let ((seconds, microseconds), ticks): ((i64, i32), Vec<Option<Vec<u8>>>) =
            self.commands.pipeline(commands::LAST_TICKS, &pipeline).await?;
        let now = Timestamp::new(seconds, microseconds.saturating_mul(1000));
        let now = now.map_err(|_| BrokerError::Refused {
            cause: "the Redis server's clock is out of range".to_owned(),
        })?;
        Ok(LastTicks { now, ticks })
    }

    async fn advance(
        &self,
        entry: &str,
        from: Option<&[u8]>,
        to: &str,
        message: Option<Message>,
    ) -> Result<bool, BrokerError> {
        let mut script = Invocation::new(&scripts::ADVANCE);
        script
            .key(&self.names().schedule)
            .arg(entry)
            .arg(from.unwrap_or_default())
            .arg(to);
        let message = message.as_slice();
        let routes = self.routes(message).await?;
        for message in message {
            for destination in self.destinations(&routes, message)? {
                script.message(self.names(), &destination, message.encode());
            }
        }
        self.commands.script(&script).await
    }
}

//! Windows on Redis, shared by all API processes. A script checks and counts an attempt atomically, by the rules of
//! the windows in memory.
//!
//! A window is a counter that expires at the end of the window, so the number of keys is at most the number of
//! attempts in a minute.

use std::time::Duration;

use celeriac::{BrokerError, RedisBroker, RedisScript};

use super::limit::{Limit, TooManyAttempts, WINDOW};

/// Time-out of the script; short, because a slow login is worse than a login that other processes do not count.
const TIMEOUT: Duration = Duration::from_millis(250);

/// Script that counts an attempt.
///
/// KEYS: the windows. ARGV: the length of a window in ms, then the maximum number of attempts of each window.
/// Returns 0 if the attempt was counted. Otherwise returns the time until the next attempt in ms, times 16, plus the
/// number (from 1) of the window that remains full for that time.
const ADMIT: &str = "
    local length = tonumber(ARGV[1])
    local wait, full = 0, 0
    for i, window in ipairs(KEYS) do
        if tonumber(redis.call('GET', window) or '0') >= tonumber(ARGV[i + 1]) then
            local left = redis.call('PTTL', window)
            if left < 0 then
                redis.call('PEXPIRE', window, length)
                left = length
            end
            if math.max(left, 1) > wait then
                wait, full = math.max(left, 1), i
            end
        end
    end
    if wait > 0 then
        return wait * 16 + full
    end
    for _, window in ipairs(KEYS) do
        if redis.call('INCR', window) == 1 then
            redis.call('PEXPIRE', window, length)
        end
    end
    return 0
";

#[derive(Debug)]
pub(super) struct SharedWindows {
    admit: RedisScript,
}

impl SharedWindows {
    pub(super) fn new(broker: &RedisBroker) -> Self {
        Self {
            admit: broker.script(ADMIT, TIMEOUT),
        }
    }

    /// Counts an attempt in the windows of all limits, or in none if a window is full.
    ///
    /// # Errors
    /// [`BrokerError`] if Redis is unavailable.
    pub(super) async fn admit(&self, limits: &[Limit]) -> Result<Result<(), TooManyAttempts>, BrokerError> {
        let keys: Vec<String> = limits
            .iter()
            .map(|limit| format!("pressroom:rate:{:032x}", u128::from_be_bytes(limit.key)))
            .collect();
        let length = u64::try_from(WINDOW.as_millis()).unwrap_or(u64::MAX);
        let mut arguments = vec![length];
        arguments.extend(limits.iter().map(|limit| u64::from(limit.policy.quota.get())));
        let result = self.admit.run(&keys, &arguments).await?;
        let result = u64::try_from(result).unwrap_or_default();
        let full = usize::try_from(result % 16).unwrap_or_default();
        let full = full.checked_sub(1).and_then(|full| limits.get(full));
        Ok(full.map_or(Ok(()), |limit| {
            Err(TooManyAttempts {
                policy: limit.policy,
                retry_after: Duration::from_millis(result / 16),
            })
        }))
    }
}

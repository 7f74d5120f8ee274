//! Repeats a broker operation until the broker has confirmed it: a finished task must not run again only
//! because Redis was unavailable when the task finished.

use crate::{back_off::BackOff, broker::BrokerError, failure_log::FailureLog, log::error};

/// Number of attempts at an operation that the server refuses. An unavailable server is retried without
/// limit.
const MAX_REFUSALS: u32 = 10;

/// Calls `operation` until the broker confirms it, and returns the broker's answer; `None` if the broker
/// keeps refusing.
///
/// The operation may run several times, so it must be safe to repeat.
pub(super) async fn until_confirmed<T, F>(task_id: &str, operation: impl Fn() -> F) -> Option<T>
where
    F: Future<Output = Result<T, BrokerError>>,
{
    let mut back_off = BackOff::default();
    let mut refusals = 0;
    let mut failures = FailureLog::new("settling the end of a task");
    loop {
        match operation().await {
            Ok(answer) => {
                failures.worked();
                return Some(answer);
            }
            Err(error) => {
                if let BrokerError::Refused { cause } = &error {
                    refusals += 1;
                    if refusals == MAX_REFUSALS {
                        error!(
                            task_id,
                            cause, "the broker refused to settle the task; its message will be redelivered"
                        );
                        return None;
                    }
                }
                failures.failed(&error);
            }
        }
        back_off.wait().await;
    }
}

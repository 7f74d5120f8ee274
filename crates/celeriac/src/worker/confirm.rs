//! Retries a broker operation until the broker confirms it: a finished task must not run again only because
//! Redis was unavailable when it finished.

use crate::{back_off::BackOff, broker::BrokerError, failure_log::FailureLog, log::error};

/// Maximum number of attempts at an operation that the server rejects. While the server is unavailable, the
/// operation is retried without limit.
const MAX_REJECTIONS: u32 = 10;

/// Calls `operation` until the broker confirms it, and returns the broker's response, or `None` if the broker
/// keeps rejecting it.
///
/// The operation may run several times and must be safe to repeat.
pub(super) async fn until_confirmed<T, F>(task_id: &str, operation: impl Fn() -> F) -> Option<T>
where
    F: Future<Output = Result<T, BrokerError>>,
{
    let mut back_off = BackOff::default();
    let mut rejections = 0;
    let mut failures = FailureLog::new("settling a task");
    loop {
        match operation().await {
            Ok(response) => {
                failures.worked();
                return Some(response);
            }
            Err(BrokerError::Refused { cause }) if rejections + 1 == MAX_REJECTIONS => {
                error!(
                    messaging.message.id = task_id,
                    exception.message = cause,
                    "the broker refused to settle the task; its message will be redelivered"
                );
                return None;
            }
            Err(error) => {
                rejections += u32::from(matches!(error, BrokerError::Refused { .. }));
                failures.failed(&error);
            }
        }
        back_off.wait().await;
    }
}

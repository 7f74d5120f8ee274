//! Batching and limits: `OTEL_BSP_*`, `OTEL_BLRP_*` and the limits of spans and log records.

use opentelemetry_sdk::trace::SpanLimits;
use otlp_recorder::BatchSettings;

use super::variables::Variables;

/// Reads the batch settings of a signal from the variables with this prefix; `delay` is the default delay in
/// milliseconds.
///
/// Queues are limited to a million entries, to bound their memory. Delays must be positive, because the
/// export thread would spin otherwise.
pub(super) fn batches(prefix: &str, delay: u64, variables: &mut Variables<'_>) -> BatchSettings {
    let mut size = |name: &str, default| {
        let size = variables.whole(&format!("{prefix}_{name}"), default, 1, 1_000_000);
        usize::try_from(size).unwrap_or(usize::MAX)
    };
    let queue_size = size("MAX_QUEUE_SIZE", 2_048);
    let batch_size = size("MAX_EXPORT_BATCH_SIZE", 512);
    let name = format!("{prefix}_MAX_EXPORT_BATCH_SIZE");
    if batch_size > queue_size && variables.text(&name).is_some() {
        variables.warn(format!(
            "{name} is larger than {prefix}_MAX_QUEUE_SIZE, which is {queue_size}; {queue_size} is used"
        ));
    }
    BatchSettings {
        queue_size,
        batch_size: batch_size.min(queue_size),
        delay: variables.milliseconds(&format!("{prefix}_SCHEDULE_DELAY"), delay),
        timeout: variables.timeout(&format!("{prefix}_EXPORT_TIMEOUT"), 30_000),
    }
}

/// Reads the maximum number of attributes of a log record.
pub(super) fn log_attributes(variables: &mut Variables<'_>) -> usize {
    let names = [
        "OTEL_LOGRECORD_ATTRIBUTE_COUNT_LIMIT",
        "OTEL_ATTRIBUTE_COUNT_LIMIT",
    ];
    usize::try_from(variables.count(&names)).unwrap_or(usize::MAX)
}

/// Reads the maximum numbers of attributes, events and links of a span. `OTEL_ATTRIBUTE_COUNT_LIMIT` applies
/// to the attributes of spans, but not of events and links.
pub(super) fn span_limits(variables: &mut Variables<'_>) -> SpanLimits {
    let names = ["OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", "OTEL_ATTRIBUTE_COUNT_LIMIT"];
    SpanLimits {
        max_attributes_per_span: variables.count(&names),
        max_events_per_span: variables.count(&["OTEL_SPAN_EVENT_COUNT_LIMIT"]),
        max_links_per_span: variables.count(&["OTEL_SPAN_LINK_COUNT_LIMIT"]),
        max_attributes_per_event: variables.count(&["OTEL_EVENT_ATTRIBUTE_COUNT_LIMIT"]),
        max_attributes_per_link: variables.count(&["OTEL_LINK_ATTRIBUTE_COUNT_LIMIT"]),
    }
}

/// Reads the maximum length of a string attribute of a `SPAN` or `LOGRECORD`, in characters.
pub(super) fn value_length(item: &str, variables: &mut Variables<'_>) -> Option<usize> {
    variables
        .limit(&format!("OTEL_{item}_ATTRIBUTE_VALUE_LENGTH_LIMIT"))
        .or_else(|| variables.limit("OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT"))
}

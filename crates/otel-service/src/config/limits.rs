//! Batching and limits: `OTEL_BSP_*`, `OTEL_BLRP_*` and the limits of spans and log records.

use opentelemetry_sdk::trace::SpanLimits;
use otlp_recorder::BatchSettings;

use super::variables::Variables;

/// Default of every count limit in the specification.
const DEFAULT_COUNT: u32 = 128;

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
    BatchSettings {
        queue_size,
        batch_size: size("MAX_EXPORT_BATCH_SIZE", 512).min(queue_size),
        delay: variables.milliseconds(&format!("{prefix}_SCHEDULE_DELAY"), delay),
        timeout: variables.timeout(&format!("{prefix}_EXPORT_TIMEOUT"), 30_000),
    }
}

/// Reads the maximum number of attributes of a log record.
pub(super) fn log_attributes(variables: &mut Variables<'_>) -> usize {
    let attributes = variables
        .count("OTEL_LOGRECORD_ATTRIBUTE_COUNT_LIMIT", DEFAULT_COUNT)
        .or_else(|| variables.count("OTEL_ATTRIBUTE_COUNT_LIMIT", DEFAULT_COUNT));
    usize::try_from(attributes.unwrap_or(DEFAULT_COUNT)).unwrap_or(usize::MAX)
}

/// Reads the maximum numbers of attributes, events and links of a span. `OTEL_ATTRIBUTE_COUNT_LIMIT` applies
/// to the attributes of spans, not to those of events and links.
pub(super) fn span_limits(variables: &mut Variables<'_>) -> SpanLimits {
    let mut count = |name: &str| variables.count(name, DEFAULT_COUNT);
    let attributes = count("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT").or_else(|| count("OTEL_ATTRIBUTE_COUNT_LIMIT"));
    SpanLimits {
        max_attributes_per_span: attributes.unwrap_or(DEFAULT_COUNT),
        max_events_per_span: count("OTEL_SPAN_EVENT_COUNT_LIMIT").unwrap_or(DEFAULT_COUNT),
        max_links_per_span: count("OTEL_SPAN_LINK_COUNT_LIMIT").unwrap_or(DEFAULT_COUNT),
        max_attributes_per_event: count("OTEL_EVENT_ATTRIBUTE_COUNT_LIMIT").unwrap_or(DEFAULT_COUNT),
        max_attributes_per_link: count("OTEL_LINK_ATTRIBUTE_COUNT_LIMIT").unwrap_or(DEFAULT_COUNT),
    }
}

/// Reads the maximum length of a text attribute of a `SPAN` or `LOGRECORD` in characters.
pub(super) fn value_length(item: &str, variables: &mut Variables<'_>) -> Option<usize> {
    variables
        .limit(&format!("OTEL_{item}_ATTRIBUTE_VALUE_LENGTH_LIMIT"))
        .or_else(|| variables.limit("OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT"))
}

//! Items that a receiver removes from an otherwise accepted request, and the `partial_success` that names them (OTLP 1.9):
//! spans without valid ids, and items that are too large to be kept.

use opentelemetry_proto::tonic::{
    collector::trace::v1::{ExportTracePartialSuccess, ExportTraceServiceResponse},
    common::v1::InstrumentationScope,
    logs::v1::LogRecord,
    metrics::v1::metric::Data,
    resource::v1::Resource,
    trace::v1::Span,
};
use prost::Message;

use super::ids;
use crate::export::{Export, Signal};

/// Allowance for what the store adds to an item, in bytes.
const OVERHEAD: usize = 256;

/// Maximum number of large items that the message names.
const MAX_NAMED: usize = 3;

/// Maximum length of a name in the message, in characters.
const MAX_NAME: usize = 100;

/// Items removed from a request.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Refused {
    pub(super) items: usize,
    reasons: Vec<String>,
}

impl Refused {
    /// Removes spans with invalid ids and items of more than `max_item` bytes from the decoded body of a request.
    pub(super) fn remove(export: &mut Export, body: usize, max_item: usize) -> Self {
        let items = ids::check(export);
        let reasons = (items > 0).then(|| ids::REASON.to_owned());
        let mut refused = Self {
            items,
            reasons: reasons.into_iter().collect(),
        };
        let max = max_item.saturating_sub(OVERHEAD);
        // No encoding of an item or resource is shorter than half of what it needs in the store.
        if body > max / 2 {
            refused.remove_large(export, max);
        }
        refused
    }

    fn remove_large(&mut self, export: &mut Export, max: usize) {
        let fits = |resource: Option<&Resource>, scope: Option<&InstrumentationScope>| {
            let resource = resource.map_or(0, Message::encoded_len);
            2 * resource + scope.map_or(0, |scope| scope.name.len()) <= max
        };
        macro_rules! retain {
            ($group:ident, $scope_groups:ident, $scope_group:ident => $items:expr, $name:expr) => {
                for $scope_group in &mut $group.$scope_groups {
                    let is_bounded = fits($group.resource.as_ref(), $scope_group.scope.as_ref());
                    $items.retain(|item| {
                        let size = item.encoded_len();
                        let is_kept = is_bounded && size <= max;
                        if !is_kept {
                            self.refuse(&$name(item), size, max);
                        }
                        is_kept
                    });
                }
            };
        }
        match export {
            Export::Traces(request) => {
                for group in &mut request.resource_spans {
                    retain!(group, scope_spans, scope => scope.spans, |span: &Span| named("span", &span.name));
                }
            }
            Export::Logs(request) => {
                for group in &mut request.resource_logs {
                    retain!(group, scope_logs, scope => scope.log_records, |_: &LogRecord| "log record".to_owned());
                }
            }
            Export::Metrics(request) => {
                for group in &mut request.resource_metrics {
                    for scope in &mut group.scope_metrics {
                        let is_bounded = fits(group.resource.as_ref(), scope.scope.as_ref());
                        for metric in &mut scope.metrics {
                            let texts = metric.name.len() + metric.unit.len() + metric.description.len();
                            let is_bounded = is_bounded && texts <= max;
                            let name = named("point of", &metric.name);
                            macro_rules! retain_points {
                                ($data:ident) => {
                                    $data.data_points.retain(|point| {
                                        let size = point.encoded_len();
                                        let is_kept = is_bounded && size <= max;
                                        if !is_kept {
                                            self.refuse(&name, size, max);
                                        }
                                        is_kept
                                    })
                                };
                            }
                            match &mut metric.data {
                                Some(Data::Gauge(data)) => retain_points!(data),
                                Some(Data::Sum(data)) => retain_points!(data),
                                Some(Data::Histogram(data)) => retain_points!(data),
                                Some(Data::ExponentialHistogram(data)) => retain_points!(data),
                                Some(Data::Summary(data)) => retain_points!(data),
                                None => {}
                            }
                        }
                    }
                }
            }
        }
    }

    fn refuse(&mut self, name: &str, size: usize, max: usize) {
        self.items += 1;
        if self.reasons.len() < MAX_NAMED {
            self.reasons.push(format!(
                "{name} ({size} bytes): an item and its resource must fit in {max} bytes, an eighth of the memory limit"
            ));
        }
    }

    /// Returns the error message of `partial_success`; `None` if nothing was removed.
    pub(super) fn message(&self) -> Option<String> {
        (self.items > 0).then(|| self.reasons.join("; "))
    }

    /// Returns the name of the number of removed items in OTLP/JSON.
    pub(super) fn json_name(signal: Signal) -> &'static str {
        match signal {
            Signal::Traces => "rejectedSpans",
            Signal::Metrics => "rejectedDataPoints",
            Signal::Logs => "rejectedLogRecords",
        }
    }

    /// Returns the response, whose encoding is the same for all signals.
    pub(super) fn response(&self) -> ExportTraceServiceResponse {
        ExportTraceServiceResponse {
            partial_success: self.message().map(|error_message| ExportTracePartialSuccess {
                rejected_spans: i64::try_from(self.items).unwrap_or(i64::MAX),
                error_message,
            }),
        }
    }
}

fn named(what: &str, name: &str) -> String {
    let short: String = name.chars().take(MAX_NAME).collect();
    format!("{what} {short:?}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples;

    #[test]
    fn items_within_the_limit_are_kept() {
        for mut export in samples::exports("") {
            let original = export.clone();
            assert_eq!(Refused::remove(&mut export, 1 << 20, 1 << 20), Refused::default());
            assert_eq!(export, original);
        }
    }

    #[test]
    fn large_items_are_removed_counted_and_named() {
        let long = "x".repeat(10_000);
        for (mut export, plain) in samples::exports(&long).into_iter().zip(samples::exports("")) {
            let (items, body) = (export.items(), export.encoded_len());
            let refused = Refused::remove(&mut export, body, 5_000);
            assert!(refused.items > 0, "{:?}", plain.signal());
            assert_eq!(export.items() + refused.items, items);
            let message = refused.message().expect("a message");
            assert!(message.contains("bytes"), "{message}");
            assert!(message.len() < 1_000, "{message}");
            assert_eq!(
                refused
                    .response()
                    .partial_success
                    .expect("a count")
                    .rejected_spans,
                refused.items as i64
            );
        }
    }
}

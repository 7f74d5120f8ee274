//! Selection of the exposition format by the header `Accept`.

/// Exposition format.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(super) enum Format {
    /// Prometheus text, version 0.0.4.
    Text,
    /// OpenMetrics text.
    OpenMetrics,
    /// OpenMetrics text of version 0.0.1, which differs only in the name of its version.
    OpenMetrics001,
}

impl Format {
    /// Returns the format with the highest quality in `accept`; by default Prometheus text.
    pub(super) fn accepted(accept: &str) -> Self {
        let mut best = (0.0, Self::Text);
        for range in accept.split(',') {
            let mut parts = range.split(';').map(str::trim);
            let media_type = parts.next().unwrap_or_default().to_ascii_lowercase();
            let (mut quality, mut version) = (1.0, "");
            for parameter in parts {
                match parameter
                    .split_once('=')
                    .map(|(name, value)| (name.trim(), value.trim()))
                {
                    Some(("q", value)) => quality = value.parse().unwrap_or(0.0),
                    Some(("version", value)) => version = value.trim_matches('"'),
                    _ => {}
                }
            }
            let format = match (media_type.as_str(), version) {
                ("application/openmetrics-text", "" | "1.0.0") => Self::OpenMetrics,
                ("application/openmetrics-text", "0.0.1") => Self::OpenMetrics001,
                ("text/plain" | "text/*" | "*/*", "" | "0.0.4") => Self::Text,
                _ => continue,
            };
            if quality > best.0 {
                best = (quality, format);
            }
        }
        best.1
    }

    pub(super) fn is_open_metrics(self) -> bool {
        self != Self::Text
    }

    /// Returns the value of `Content-Type`.
    pub(super) fn content_type(self) -> &'static str {
        match self {
            Self::Text => "text/plain; version=0.0.4; charset=utf-8; escaping=underscores",
            Self::OpenMetrics => {
                "application/openmetrics-text; version=1.0.0; charset=utf-8; escaping=underscores"
            }
            Self::OpenMetrics001 => "application/openmetrics-text; version=0.0.1; charset=utf-8",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_accepted_format_with_the_highest_quality_is_used() {
        for (accept, expected) in [
            ("", Format::Text),
            ("*/*", Format::Text),
            ("text/html, application/xml;q=0.9, */*;q=0.8", Format::Text),
            ("application/openmetrics-text", Format::OpenMetrics),
            (
                "application/openmetrics-text; version=0.0.1,text/plain;q=0.5",
                Format::OpenMetrics001,
            ),
            (
                "application/openmetrics-text;q=0.4,text/plain;version=0.0.4;q=0.5",
                Format::Text,
            ),
            ("application/openmetrics-text;q=0", Format::Text),
            (
                "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily",
                Format::Text,
            ),
            // Prometheus 3.
            (
                "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,\
                 application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,\
                 text/plain;version=0.0.4;q=0.3,*/*;q=0.2",
                Format::OpenMetrics,
            ),
        ] {
            assert_eq!(Format::accepted(accept), expected, "{accept}");
        }
    }
}

//! `get_metrics`: the instruments, or a summary of the series of one of them.

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::query::{Query, parameters};
use crate::{
    mcp::{
        answer::{Answer, attribute, clipped},
        source::{Failure, Source},
    },
    text::count,
};

/// Maximum length of a name and of a description, in characters.
const MAX_NAME: usize = 100;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct GetMetrics {
    /// Name of the instrument; without it, all instruments are listed
    name: Option<String>,
    /// Name of the service
    service: Option<String>,
    /// Part of the name, the description or an attribute, for the list
    text: Option<String>,
    /// Attribute that the series must have, as key=value; may be several
    #[serde(default)]
    attribute: Vec<String>,
    /// Start of the time range: an age such as 15m, or an RFC 3339 time
    from: Option<String>,
    /// End of the time range
    to: Option<String>,
    /// Maximum size of the answer in bytes, 1024 to 65536 (default 4096)
    max_bytes: Option<usize>,
}

#[derive(Deserialize)]
struct Found {
    instruments: Vec<Instrument>,
}

#[derive(Deserialize)]
struct Instrument {
    #[serde(default)]
    name: String,
    service: String,
    r#type: String,
    unit: String,
    description: String,
    #[serde(default)]
    attributes: Map<String, Value>,
    series: u64,
}

#[derive(Deserialize)]
struct Details {
    service: String,
    r#type: String,
    unit: String,
    matches: Vec<Instrument>,
    series: Vec<Series>,
}

#[derive(Deserialize)]
struct Series {
    attributes: Map<String, Value>,
    points: Vec<Point>,
}

/// A point of any type of instrument.
#[derive(Deserialize)]
struct Point {
    rate: Option<f64>,
    value: Option<f64>,
    count: Option<f64>,
    sum: Option<f64>,
    p50: Option<f64>,
    p95: Option<f64>,
    p99: Option<f64>,
    #[serde(default)]
    quantiles: Map<String, Value>,
}

impl Query for GetMetrics {
    const NAME: &'static str = "get_metrics";
    const TITLE: &'static str = "Summarise metrics";
    const DESCRIPTION: &'static str = "\
Without name: lists the instruments of all services with type, unit and attributes. With name: a summary of each series of \
that instrument in the range, largest first: counters as total and rates per second, gauges as last, min, mean and max; \
histograms as count, mean and percentiles.";

    async fn answer(self, source: &Source) -> Result<String, Failure> {
        match &self.name {
            None => self.list(source).await,
            Some(name) => self.details(name, source).await,
        }
    }
}

impl GetMetrics {
    async fn list(&self, source: &Source) -> Result<String, Failure> {
        let given = parameters([("service", self.service.clone()), ("text", self.text.clone())]);
        let found: Found = source.get(&["metrics"], &given).await?;
        let mut answer = Answer::new(
            self.max_bytes,
            &count(found.instruments.len() as u64, "instrument"),
        );
        for instrument in &found.instruments {
            answer.line(&instrument.line());
        }
        let foot = match answer.cut() {
            0 => String::new(),
            cut => format!("{cut} left out: pass service or text, or a larger max_bytes.\n"),
        };
        Ok(answer.finish(&foot))
    }

    async fn details(&self, name: &str, source: &Source) -> Result<String, Failure> {
        let mut given = parameters([
            ("service", self.service.clone()),
            ("from", self.from.clone()),
            ("to", self.to.clone()),
        ]);
        given.extend(
            self.attribute
                .iter()
                .map(|attribute| ("attribute", attribute.clone())),
        );
        let mut found: Details = source.get(&["metrics", name], &given).await?;
        let shown = found.series.len();
        let of_service = found
            .matches
            .iter()
            .find(|other| other.service == found.service && other.r#type == found.r#type);
        let all = of_service.map_or(shown as u64, |instrument| instrument.series);
        let head = match self.attribute.is_empty() && all > shown as u64 {
            true => format!("{shown} of {}", count(all, "series")),
            false => format!("{shown} series"),
        };
        let mut answer = Answer::new(self.max_bytes, &head);
        answer.line(&format!(
            "{name} of {}: {}, unit {:?}",
            found.service, found.r#type, found.unit
        ));
        for other in found
            .matches
            .iter()
            .filter(|other| other.service != found.service)
        {
            answer.line(&format!(
                "also of service {}: {} series",
                clipped(&other.service, MAX_NAME),
                other.series
            ));
        }
        found.series.sort_by(|a, b| b.size().total_cmp(&a.size()));
        for series in &found.series {
            answer.line(&series.line(&found.r#type));
        }
        let foot = match answer.cut() {
            0 => String::new(),
            cut => format!("{cut} left out: pass attribute or service, or a larger max_bytes.\n"),
        };
        Ok(answer.finish(&foot))
    }
}

impl Instrument {
    fn line(&self) -> String {
        let keys: Vec<_> = self.attributes.keys().map(|key| clipped(key, MAX_NAME)).collect();
        format!(
            "{}  {}  {} {:?}  {}  [{}]  {}",
            clipped(&self.name, MAX_NAME),
            clipped(&self.service, MAX_NAME),
            self.r#type,
            self.unit,
            if self.series == 1 {
                "1 series".to_owned()
            } else {
                format!("{} series", self.series)
            },
            keys.join(", "),
            clipped(&self.description, MAX_NAME),
        )
    }
}

impl Series {
    /// Returns the number by which series are ordered: observations, the total of a counter, or the last value.
    fn size(&self) -> f64 {
        let observed = self.sum_of(|point| point.count);
        if observed > 0.0 {
            return observed;
        }
        self.last(|point| point.value).unwrap_or_default()
    }

    fn line(&self, r#type: &str) -> String {
        let attributes: Vec<_> = self
            .attributes
            .iter()
            .filter_map(|(key, value)| attribute(key, value))
            .collect();
        let attributes = if attributes.is_empty() {
            "(no attributes)".to_owned()
        } else {
            attributes.join(" ")
        };
        let mut numbers: Vec<(&str, Option<f64>)> = Vec::new();
        match r#type {
            "counter" => {
                let rates = self.all(|point| point.rate);
                numbers.push(("total", self.last(|point| point.value)));
                numbers.push(("rate/s", rates.last().copied()));
                numbers.push(("highest", rates.into_iter().reduce(f64::max)));
            }
            "gauge" | "updowncounter" => {
                let values = self.all(|point| point.value);
                let mean = values.iter().sum::<f64>() / values.len() as f64;
                numbers.push(("last", values.last().copied()));
                numbers.push(("min", values.iter().copied().reduce(f64::min)));
                numbers.push(("mean", Some(mean)));
                numbers.push(("max", values.into_iter().reduce(f64::max)));
            }
            _ => {
                // The counts of a summary are totals.
                let is_summary = r#type == "summary";
                let total = |number: fn(&Point) -> Option<f64>| match is_summary {
                    true => self.last(number).unwrap_or_default(),
                    false => self.sum_of(number),
                };
                let observed = total(|point| point.count);
                numbers.push(("count", Some(observed)));
                numbers.push(("mean", Some(total(|point| point.sum) / observed)));
                numbers.push(("last p50", self.last(|point| point.p50)));
                numbers.push(("p95", self.last(|point| point.p95)));
                numbers.push(("p99", self.last(|point| point.p99)));
                numbers.push((
                    "highest p95",
                    self.all(|point| point.p95).into_iter().reduce(f64::max),
                ));
                let quantiles = self.points.last().into_iter().flat_map(|point| &point.quantiles);
                numbers.extend(quantiles.map(|(name, value)| (&**name, value.as_f64())));
            }
        }
        let numbers: Vec<_> = numbers
            .into_iter()
            .filter_map(|(name, number)| {
                Some(format!(
                    "{name} {}",
                    rounded(number.filter(|number| number.is_finite())?)
                ))
            })
            .collect();
        format!(
            "{attributes}  {}",
            if numbers.is_empty() {
                "no points in this range".to_owned()
            } else {
                numbers.join(", ")
            }
        )
    }

    fn all(&self, number: fn(&Point) -> Option<f64>) -> Vec<f64> {
        self.points.iter().filter_map(number).collect()
    }

    fn last(&self, number: fn(&Point) -> Option<f64>) -> Option<f64> {
        self.points.iter().rev().find_map(number)
    }

    fn sum_of(&self, number: fn(&Point) -> Option<f64>) -> f64 {
        self.points.iter().filter_map(number).sum()
    }
}

/// Formats a number with four significant digits.
fn rounded(number: f64) -> String {
    if number.fract() == 0.0 && number.abs() < 1e15 {
        return format!("{number:.0}");
    }
    let digits = (3 - number.abs().log10().floor() as i32).clamp(0, 12);
    format!("{number:.*}", digits.unsigned_abs() as usize)
}

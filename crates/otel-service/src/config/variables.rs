//! Parsing of single variables. An invalid value causes a warning with the name of the variable, and with the value
//! if it should be one of a few keywords; other values may be secrets.

use std::time::Duration;

use otlp_recorder::Signal;

/// Maximum of every duration: one hour. Much longer durations would overflow the clock.
const MAX_MILLISECONDS: u64 = 3_600_000;

/// A source of variables, and the warnings about invalid values.
pub(super) struct Variables<'a> {
    lookup: &'a dyn Fn(&str) -> Option<String>,
    pub(super) warnings: Vec<String>,
}

impl<'a> Variables<'a> {
    pub(super) fn new(lookup: &'a dyn Fn(&str) -> Option<String>) -> Self {
        Self {
            lookup,
            warnings: Vec::new(),
        }
    }

    pub(super) fn warn(&mut self, warning: impl Into<String>) {
        self.warnings.push(warning.into());
    }

    /// Returns the value; an empty value counts as unset.
    pub(super) fn text(&self, name: &str) -> Option<String> {
        (self.lookup)(name).filter(|value| !value.trim().is_empty())
    }

    /// Returns the value in lower case, for a variable with a list of allowed values.
    pub(super) fn keyword(&self, name: &str) -> Option<String> {
        Some(self.text(name)?.trim().to_ascii_lowercase())
    }

    /// Returns the choice that the keyword in `name` selects, by default the first one. `invalid` completes
    /// the warning about an unknown keyword.
    pub(super) fn choice<T: Copy>(&mut self, name: &str, choices: &[(&str, T)], invalid: &str) -> T {
        let default = choices[0].1;
        let Some(keyword) = self.keyword(name) else {
            return default;
        };
        let chosen = choices.iter().find(|(known, _)| *known == keyword);
        if chosen.is_none() {
            self.warn(format!("{name} is {}, {invalid}", shown(&keyword)));
        }
        chosen.map_or(default, |(_, value)| *value)
    }

    /// Reads a boolean by the rules of the OpenTelemetry specification: only `true` is true.
    pub(super) fn is_true(&mut self, name: &str) -> bool {
        let value = self.text(name).unwrap_or_default().to_ascii_lowercase();
        if !matches!(value.trim(), "" | "true" | "false") {
            self.warn(format!("{name} is neither true nor false; false is used"));
        }
        value.trim() == "true"
    }

    /// Reads `on` or `off`, in their usual spellings.
    pub(super) fn is_on(&mut self, name: &str, default: bool) -> bool {
        let value = self.text(name).unwrap_or_default().to_ascii_lowercase();
        match value.trim() {
            "" => default,
            "true" | "on" | "yes" | "1" => true,
            "false" | "off" | "no" | "0" => false,
            _ => {
                let used = if default { "on" } else { "off" };
                self.warn(format!("{name} is neither on nor off; {used} is used"));
                default
            }
        }
    }

    /// Reads a whole number from `min` to `max`.
    pub(super) fn whole(&mut self, name: &str, default: u64, min: u64, max: u64) -> u64 {
        let Some(value) = self.text(name) else {
            return default;
        };
        match value.trim().parse() {
            Ok(number) if (min..=max).contains(&number) => number,
            _ => {
                self.warn(format!(
                    "{name} is not a whole number from {min} to {max}; {default} is used"
                ));
                default
            }
        }
    }

    /// Reads a positive number of milliseconds.
    pub(super) fn milliseconds(&mut self, name: &str, default: u64) -> Duration {
        Duration::from_millis(self.whole(name, default, 1, MAX_MILLISECONDS))
    }

    /// Reads a time-out in milliseconds. Zero, which means no time-out in the specification, means one hour.
    pub(super) fn timeout(&mut self, name: &str, default: u64) -> Duration {
        match self.whole(name, default, 0, MAX_MILLISECONDS) {
            0 => Duration::from_millis(MAX_MILLISECONDS),
            milliseconds => Duration::from_millis(milliseconds),
        }
    }

    /// Reads a limit on a number of items from the first of `names` that is set. The default is 128, as in the
    /// specification.
    pub(super) fn count(&mut self, names: &[&str]) -> u32 {
        const DEFAULT: u32 = 128;
        let set = names.iter().find(|name| self.text(name).is_some());
        let count = set.map(|name| self.whole(name, DEFAULT.into(), 0, u32::MAX.into()));
        count
            .and_then(|count| u32::try_from(count).ok())
            .unwrap_or(DEFAULT)
    }

    /// Reads a limit; returns `None`, for no limit, if the variable is not set.
    pub(super) fn limit(&mut self, name: &str) -> Option<usize> {
        let value = self.text(name)?;
        let parsed = value.trim().parse().ok();
        if parsed.is_none() {
            self.warn(format!("{name} is not a whole number; no limit is used"));
        }
        parsed
    }
}

/// Returns a keyword for a warning, quoted and shortened.
pub(super) fn shown(keyword: &str) -> String {
    const MAX_LENGTH: usize = 40;
    format!("{:?}", keyword.chars().take(MAX_LENGTH).collect::<String>())
}

/// Returns the per-signal variable if it is set, otherwise the common variable.
pub(super) fn in_force(signal: Signal, name: &str, variables: &Variables<'_>) -> String {
    let own = format!("OTEL_EXPORTER_OTLP_{}_{name}", in_variables(signal));
    if variables.text(&own).is_some() {
        return own;
    }
    format!("OTEL_EXPORTER_OTLP_{name}")
}

/// Returns the name of a signal as variables spell it.
pub(super) fn in_variables(signal: Signal) -> &'static str {
    match signal {
        Signal::Traces => "TRACES",
        Signal::Metrics => "METRICS",
        Signal::Logs => "LOGS",
    }
}

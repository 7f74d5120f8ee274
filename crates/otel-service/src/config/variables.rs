//! Reading single variables. Whatever cannot be read leaves a warning that names the variable and never its value, where
//! that could be a secret.

use std::time::Duration;

/// An hour: more makes no sense for any of them, and much more overflows the clock.
const LONGEST_MILLISECONDS: u64 = 3_600_000;

/// The variables, and what was wrong with them.
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

    /// The value; empty counts as unset.
    pub(super) fn text(&self, name: &str) -> Option<String> {
        (self.lookup)(name).filter(|value| !value.trim().is_empty())
    }

    /// The value of a variable with a list of allowed ones, in lower case.
    pub(super) fn keyword(&self, name: &str) -> Option<String> {
        Some(self.text(name)?.trim().to_ascii_lowercase())
    }

    /// A boolean as the OpenTelemetry specification has them: only `true` is true.
    pub(super) fn is_true(&mut self, name: &str) -> bool {
        let value = self.text(name).unwrap_or_default().to_ascii_lowercase();
        if !matches!(value.trim(), "" | "true" | "false") {
            self.warn(format!("{name} is neither true nor false; false is used"));
        }
        value.trim() == "true"
    }

    /// `on` or `off`, in their usual spellings.
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

    /// A number from `least` to `most`.
    pub(super) fn whole(&mut self, name: &str, default: u64, least: u64, most: u64) -> u64 {
        let Some(value) = self.text(name) else {
            return default;
        };
        match value.trim().parse() {
            Ok(number) if (least..=most).contains(&number) => number,
            _ => {
                self.warn(format!(
                    "{name} is not a whole number from {least} to {most}; {default} is used"
                ));
                default
            }
        }
    }

    /// A positive number of milliseconds.
    pub(super) fn milliseconds(&mut self, name: &str, default: u64) -> Duration {
        Duration::from_millis(self.whole(name, default, 1, LONGEST_MILLISECONDS))
    }

    /// A time-out in milliseconds, where the specification has 0 mean none; an hour is taken for that.
    pub(super) fn timeout(&mut self, name: &str, default: u64) -> Duration {
        match self.whole(name, default, 0, LONGEST_MILLISECONDS) {
            0 => Duration::from_millis(LONGEST_MILLISECONDS),
            milliseconds => Duration::from_millis(milliseconds),
        }
    }

    /// A number of entries; `None` where the variable is not set.
    pub(super) fn count(&mut self, name: &str, default: u32) -> Option<u32> {
        self.text(name)?;
        let count = self.whole(name, u64::from(default), 0, u64::from(u32::MAX));
        u32::try_from(count).ok()
    }

    /// A limit, where unset means none.
    pub(super) fn limit(&mut self, name: &str) -> Option<usize> {
        let value = self.text(name)?;
        let parsed = value.trim().parse().ok();
        if parsed.is_none() {
            self.warn(format!("{name} is not a whole number; no limit is used"));
        }
        parsed
    }
}

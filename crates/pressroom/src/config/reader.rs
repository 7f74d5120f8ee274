//! Parses the values of settings, and keeps each as text for output.

use std::{collections::BTreeMap, fmt, num::NonZeroUsize, ops::RangeInclusive, str::FromStr, time::Duration};

use super::{
    error::{ConfigError, Result},
    secret::Secret,
    setting::Setting,
};

/// Accepted durations: up to a year, so that adding one to a timestamp cannot overflow.
const UP_TO_A_YEAR: RangeInclusive<Duration> = Duration::from_nanos(1)..=Duration::from_hours(24 * 366);

/// Reader of settings. `Display` prints the settings read so far in the format of an environment file, with
/// secrets masked.
#[derive(Debug)]
pub struct Reader {
    given: BTreeMap<&'static str, String>,
    shown: Vec<(&'static str, Option<String>)>,
}

impl Reader {
    pub(super) fn new(given: BTreeMap<&'static str, String>) -> Self {
        Self {
            given,
            shown: Vec::new(),
        }
    }

    /// Reads an optional setting. `parse` also returns the text that represents the value in output.
    pub(super) fn optional<T, E: fmt::Display>(
        &mut self,
        setting: Setting,
        parse: impl FnOnce(&str) -> Result<(T, String), E>,
    ) -> Result<Option<T>> {
        let parsed = self.given(setting).map(|text| parse(&text)).transpose();
        let parsed = parsed.map_err(|problem| ConfigError::new(setting.variable, problem))?;
        let (value, shown) = parsed.unzip();
        self.show(setting, shown);
        Ok(value)
    }

    /// Reads a setting that is required or has a default.
    pub(super) fn required<T, E: fmt::Display>(
        &mut self,
        setting: Setting,
        parse: impl FnOnce(&str) -> Result<(T, String), E>,
    ) -> Result<T> {
        self.optional(setting, parse)?.ok_or_else(|| {
            let Setting {
                option, value_name, ..
            } = setting;
            let problem = format!("is required; set the variable or pass --{option} {value_name}");
            ConfigError::new(setting.variable, problem)
        })
    }

    pub(super) fn text(&mut self, setting: Setting) -> Option<String> {
        let text = self.given(setting);
        self.show(setting, text.clone());
        text
    }

    pub(super) fn secret(&mut self, setting: Setting) -> Option<Secret> {
        let secret = self.given(setting).map(Secret::new);
        self.show(setting, secret.as_ref().map(Secret::to_string));
        secret
    }

    /// Returns the given text of a setting, or its default.
    fn given(&self, setting: Setting) -> Option<String> {
        let given = self.given.get(setting.variable).cloned();
        given.or_else(|| setting.default())
    }

    fn show(&mut self, setting: Setting, shown: Option<String>) {
        let is_same = |(variable, _): &(&str, _)| *variable == setting.variable;
        if !self.shown.iter().any(is_same) {
            self.shown.push((setting.variable, shown));
        }
    }

    /// Reads a value in the format in which it is displayed. `expected` describes valid values in the error.
    pub(super) fn parse<T: FromStr + fmt::Display>(&mut self, setting: Setting, expected: &str) -> Result<T> {
        self.required(setting, |text| {
            let parsed = text.trim().parse::<T>();
            let value = parsed.map_err(|_| format!("{:?} is not {expected}", text.trim()));
            value.map(shown)
        })
    }

    /// Reads a number of at least 1.
    pub(super) fn count(&mut self, setting: Setting) -> Result<NonZeroUsize> {
        self.parse(setting, "a whole number above 0")
    }

    /// Reads an optional number of at least 1.
    pub(super) fn optional_count(&mut self, setting: Setting) -> Result<Option<NonZeroUsize>> {
        self.optional(setting, |text| {
            let number = text.trim().parse::<NonZeroUsize>();
            let number = number.map_err(|_| format!("{:?} is not a whole number above 0", text.trim()));
            number.map(shown)
        })
    }

    /// Reads an optional value, or returns the default of its type.
    pub(super) fn or_default<T>(&mut self, setting: Setting) -> Result<T>
    where
        T: FromStr<Err: fmt::Display> + fmt::Display + Default,
    {
        let value = self.optional(setting, |text| text.parse().map(shown))?;
        Ok(value.unwrap_or_default())
    }

    /// Reads the name of one of `choices`.
    pub(super) fn choice<T: Copy>(&mut self, setting: Setting, choices: &[(&str, T)]) -> Result<T> {
        self.required(setting, |text| {
            let found = choices.iter().find(|(name, _)| *name == text.trim());
            let (name, value) = found.ok_or_else(|| {
                let names: Vec<_> = choices.iter().map(|(name, _)| *name).collect();
                format!("{:?} is not one of {}", text.trim(), names.join(", "))
            })?;
            Ok::<_, String>((*value, (*name).to_owned()))
        })
    }

    pub(super) fn seconds(&mut self, setting: Setting) -> Result<Duration> {
        self.duration(
            setting,
            1.0,
            UP_TO_A_YEAR,
            "a number of seconds above 0 and up to a year",
        )
    }

    /// Reads the lease of a worker.
    pub(super) fn lease(&mut self, setting: Setting) -> Result<Duration> {
        let limits = Duration::from_secs(1)..=Duration::from_hours(1);
        self.duration(setting, 1.0, limits, "a number of seconds from 1 to 3600")
    }

    /// Reads a setting that is `on` or `off`.
    pub(super) fn switch(&mut self, setting: Setting) -> Result<bool> {
        self.choice(setting, &[("on", true), ("off", false)])
    }

    pub(super) fn hours(&mut self, setting: Setting) -> Result<Duration> {
        self.duration(
            setting,
            3600.0,
            UP_TO_A_YEAR,
            "a number of hours above 0 and up to a year",
        )
    }

    /// Reads a number of seconds, which may be zero.
    pub(super) fn delay(&mut self, setting: Setting) -> Result<Duration> {
        let limits = Duration::ZERO..=Duration::from_hours(1);
        self.duration(setting, 1.0, limits, "a number of seconds from 0 to 3600")
    }

    fn duration(
        &mut self,
        setting: Setting,
        unit: f64,
        limits: RangeInclusive<Duration>,
        expected: &str,
    ) -> Result<Duration> {
        self.required(setting, |text| {
            let number = text.trim().parse::<f64>().ok();
            let duration = number.and_then(|number| Duration::try_from_secs_f64(number * unit).ok());
            let duration = duration.filter(|duration| limits.contains(duration));
            let duration = duration.ok_or_else(|| format!("{:?} is not {expected}", text.trim()))?;
            Ok::<_, String>((duration, (duration.as_secs_f64() / unit).to_string()))
        })
    }

    /// Fails with `reason` when `setting` is given, because the command cannot use it.
    pub(super) fn reject(&self, setting: Setting, reason: &str) -> Result<()> {
        match self.given.get(setting.variable) {
            Some(_) => Err(ConfigError::new(setting.variable, reason)),
            None => Ok(()),
        }
    }

    #[cfg(test)]
    pub(super) fn names(&self) -> Vec<&'static str> {
        self.shown.iter().map(|(variable, _)| *variable).collect()
    }
}

/// Pairs a value with its text.
pub(super) fn shown<T: fmt::Display>(value: T) -> (T, String) {
    let text = value.to_string();
    (value, text)
}

impl fmt::Display for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (variable, shown) in &self.shown {
            match shown {
                Some(value) => writeln!(f, "{variable}={value}")?,
                None => writeln!(f, "# {variable} is not set")?,
            }
        }
        Ok(())
    }
}

//! Description of a setting.

use clap::{Arg, ArgAction};

/// Value of a setting that is not given.
#[derive(Debug, Clone, Copy)]
pub(super) enum Fallback {
    /// No default, or a default that depends on other settings; the help text describes it.
    None,
    Fixed(&'static str),
    Computed(fn() -> String),
    /// Description for the help text, and computed value.
    Described(&'static str, fn() -> String),
}

/// A setting: a command-line option, and the environment variable of the same name.
#[derive(Debug, Clone, Copy)]
pub struct Setting {
    pub(super) variable: &'static str,
    pub(super) option: &'static str,
    pub(super) value_name: &'static str,
    pub(super) fallback: Fallback,
    pub(super) help: &'static str,
    pub(super) hidden: bool,
}

impl Setting {
    /// Returns the setting with another default.
    pub(super) const fn or(self, default: &'static str) -> Self {
        Self {
            fallback: Fallback::Fixed(default),
            ..self
        }
    }

    /// Returns the setting, hidden in help texts.
    pub(super) const fn hidden(self) -> Self {
        Self { hidden: true, ..self }
    }

    pub(super) fn default(&self) -> Option<String> {
        match self.fallback {
            Fallback::None => None,
            Fallback::Fixed(text) => Some(text.to_owned()),
            Fallback::Computed(value) | Fallback::Described(_, value) => Some(value()),
        }
    }

    /// Returns clap's option for the setting, which also reads the variable.
    pub(super) fn arg(&self) -> Arg {
        let default = match self.fallback {
            Fallback::Described(description, _) => Some(description.to_owned()),
            _ => self.default(),
        };
        let default = default.map(|default| format!(" [default: {default}]"));
        Arg::new(self.variable)
            .long(self.option)
            .env(self.variable)
            .hide_env_values(true)
            .value_name(self.value_name)
            .action(ArgAction::Set)
            .hide(self.hidden)
            .help_heading("Settings (each also an environment variable)")
            .help(format!("{}{}", self.help, default.unwrap_or_default()))
    }
}

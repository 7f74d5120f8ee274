//! Settings as given on the command line and in the environment.

use std::{
    collections::{BTreeMap, BTreeSet},
    marker::PhantomData,
};

use clap::{ArgMatches, Args, Command, FromArgMatches, parser::ValueSource};

use super::{
    error::{ConfigError, Result},
    reader::Reader,
    setting::Setting,
};

/// The configuration of a command.
pub trait Configuration: Sized {
    /// Whether the options may also follow a subcommand of this command.
    const BELOW: bool = true;

    /// The settings that [`Self::read`] reads, and that the command's `--help` shows.
    fn settings() -> Vec<Setting>;

    /// Reads and checks the whole configuration.
    ///
    /// # Errors
    /// The first setting that is missing or invalid.
    fn read(reader: &mut Reader) -> Result<Self>;
}

/// Declares a [`Configuration`]: its fields, each with the function that reads it and the settings that this
/// function reads. A field without a function is a configuration itself; `if` makes a field depend on a feature.
/// The function after `after` checks settings that have no field.
macro_rules! configuration {
    (
        $(#[$meta:meta])*
        $name:ident $(after $check:ident[$($checked:expr),+])? {
            $(
                $(#[$about:meta])*
                $field:ident $(if $feature:literal)?: $type:ty $(= $read:path[$($setting:expr),+])?;
            )*
        }
    ) => {
        $(#[$meta])*
        #[derive(Debug, Clone)]
        pub struct $name {
            $($(#[$about])* $(#[cfg(feature = $feature)])? pub $field: $type,)*
        }

        impl $crate::config::given::Configuration for $name {
            fn settings() -> Vec<$crate::config::setting::Setting> {
                $crate::config::given::distinct([
                    $(vec![$($checked),+],)?
                    $(
                        $(#[cfg(feature = $feature)])?
                        configuration!(@settings $type $(, $($setting),+)?),
                    )*
                ]
                .concat())
            }

            fn read(
                reader: &mut $crate::config::reader::Reader,
            ) -> $crate::config::error::Result<Self> {
                $($check(reader, $($checked),+)?;)?
                Ok(Self {
                    $(
                        $(#[cfg(feature = $feature)])?
                        $field: configuration!(@read reader, $type $(, $read, $($setting),+)?),
                    )*
                })
            }
        }
    };
    (@settings $type:ty) => { <$type as $crate::config::given::Configuration>::settings() };
    (@settings $type:ty, $($setting:expr),+) => { vec![$($setting),+] };
    (@read $reader:ident, $type:ty) => { <$type as $crate::config::given::Configuration>::read($reader)? };
    (@read $reader:ident, $type:ty, $read:path, $($setting:expr),+) => { $read($reader, $($setting),+)? };
}

pub(super) use configuration;

/// Keeps one of each setting that several parts of a configuration read.
pub(super) fn distinct(mut settings: Vec<Setting>) -> Vec<Setting> {
    let mut variables = BTreeSet::new();
    settings.retain(|setting| variables.insert(setting.variable));
    settings
}

/// The settings given for a command. An option overrides its environment variable, which overrides `.env`. An
/// empty value counts as unset.
#[derive(Debug, Clone)]
pub struct Given<C> {
    values: BTreeMap<&'static str, Value>,
    command: PhantomData<C>,
}

#[derive(Debug, Clone)]
struct Value {
    text: String,
    /// Whether the value was given as an option.
    option: bool,
}

impl<C> Default for Given<C> {
    fn default() -> Self {
        Self {
            values: BTreeMap::new(),
            command: PhantomData,
        }
    }
}

impl<C: Configuration> Given<C> {
    /// Converts the settings given before a command into those of the command that runs without one.
    #[must_use]
    pub fn cast<D: Configuration>(self) -> Given<D> {
        Given {
            values: self.values,
            command: PhantomData,
        }
    }

    /// Reads the configuration. Options given before the command are in `before`; those given after it take
    /// precedence.
    ///
    /// # Errors
    /// The first setting that is missing or invalid.
    pub fn read<B>(self, before: &Given<B>) -> Result<C> {
        self.read_with(before, C::read).map(|(config, _)| config)
    }

    /// Reads with another function, and returns the reader, too. Settings are as in [`Self::read`].
    ///
    /// # Errors
    /// The first setting that is missing or invalid.
    pub fn read_with<B, T>(
        mut self,
        before: &Given<B>,
        read: impl FnOnce(&mut Reader) -> Result<T>,
    ) -> Result<(T, Reader)> {
        for (variable, value) in before.values.iter().filter(|(_, value)| value.option) {
            if !self.values.get(variable).is_some_and(|own| own.option) {
                self.values.insert(variable, value.clone());
            }
        }
        let values = self.values.iter();
        let mut reader = Reader::new(
            values
                .map(|(variable, value)| (*variable, value.text.clone()))
                .collect(),
        );
        let result = self.check_characters().and_then(|()| read(&mut reader));
        match result {
            Ok(config) => Ok((config, reader)),
            Err(error) => Err(ConfigError {
                is_option: self.values.get(error.variable).is_some_and(|value| value.option),
                ..error
            }),
        }
    }

    /// Rejects control characters, such as the line feed at the end of a file that a secret was read from.
    fn check_characters(&self) -> Result<()> {
        for (variable, value) in &self.values {
            if let Some(character) = value.text.chars().find(|character| character.is_control()) {
                let problem = format!(
                    "contains a control character, U+{:04X}; remove it",
                    u32::from(character)
                );
                return Err(ConfigError::new(variable, problem));
            }
        }
        Ok(())
    }
}

impl<C: Configuration> Args for Given<C> {
    fn augment_args(command: Command) -> Command {
        command.args(C::settings().iter().map(|setting| setting.arg().global(C::BELOW)))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl<C: Configuration> FromArgMatches for Given<C> {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let value = |setting: Setting| {
            let text = matches.get_one::<String>(setting.variable)?.clone();
            let option = matches.value_source(setting.variable) == Some(ValueSource::CommandLine);
            // Compose files and shells set a variable to nothing to unset it.
            (!text.trim().is_empty()).then_some((setting.variable, Value { text, option }))
        };
        Ok(Self {
            values: C::settings().into_iter().filter_map(value).collect(),
            command: PhantomData,
        })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

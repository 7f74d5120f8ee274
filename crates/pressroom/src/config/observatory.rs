//! Settings of the observatory, which its crate declares and reads.

use std::{net::SocketAddr, time::Duration};

use observatory::{
    Config,
    cli::{self, OBSERVATORY_HOST, OBSERVATORY_MEMORY, OBSERVATORY_PORT, SettingError, Values},
};

use super::{
    error::{ConfigError, Result},
    given::{Configuration, configuration},
    parts::LogConfig,
    reader::Reader,
    setting::{Fallback, Setting},
    settings::*,
};

configuration! {
    /// Configuration of `pressroom observatory`.
    ObservatoryConfig {
        observatory: Config;
        shutdown_grace: Duration = Reader::seconds[SHUTDOWN_GRACE];
        log: LogConfig;
    }
}

impl Configuration for Config {
    fn settings() -> Vec<Setting> {
        let others = cli::SETTINGS
            .iter()
            .filter(|setting| setting.variable != DATA_DIR.variable);
        [DATA_DIR]
            .into_iter()
            .chain(others.copied().map(Setting::from))
            .collect()
    }

    fn read(reader: &mut Reader) -> Result<Self> {
        Ok(cli::config(reader, OBSERVATORY_MEMORY)?)
    }
}

/// Configuration of the observatory in embedded mode: less memory, and `DATA_DIR` among the settings of
/// [`DevConfig`](super::DevConfig).
#[derive(Debug, Clone)]
pub struct EmbeddedObservatory(pub Config);

impl EmbeddedObservatory {
    const MEMORY: cli::Setting = OBSERVATORY_MEMORY.or("64MiB");
}

impl Configuration for EmbeddedObservatory {
    fn settings() -> Vec<Setting> {
        let mut settings = Config::settings();
        settings
            .retain(|setting| ![DATA_DIR.variable, OBSERVATORY_MEMORY.variable].contains(&setting.variable));
        settings.push(Self::MEMORY.into());
        settings
    }

    fn read(reader: &mut Reader) -> Result<Self> {
        Ok(Self(cli::config(reader, Self::MEMORY)?))
    }
}

/// Configuration of `pressroom traces` and `pressroom logs`.
#[derive(Debug, Clone)]
pub struct ExploreConfig {
    /// Address of the observatory's pages.
    pub pages: SocketAddr,
}

impl Configuration for ExploreConfig {
    fn settings() -> Vec<Setting> {
        [OBSERVATORY_HOST, OBSERVATORY_PORT].map(Setting::from).into()
    }

    fn read(reader: &mut Reader) -> Result<Self> {
        let pages = cli::pages(reader)?;
        Ok(Self { pages })
    }
}

impl Values for Reader {
    fn read<T>(
        &mut self,
        setting: cli::Setting,
        parse: impl FnOnce(&str) -> Result<(T, String), String>,
    ) -> Result<Option<T>, SettingError> {
        let value = self.optional(setting.into(), parse);
        value.map_err(
            |ConfigError {
                 variable, problem, ..
             }| SettingError { variable, problem },
        )
    }
}

impl From<SettingError> for ConfigError {
    fn from(SettingError { variable, problem }: SettingError) -> Self {
        Self::new(variable, problem)
    }
}

impl From<cli::Setting> for Setting {
    fn from(setting: cli::Setting) -> Self {
        Self {
            variable: setting.variable,
            option: setting.option,
            value_name: setting.value_name,
            fallback: setting.default.map_or(Fallback::None, Fallback::Fixed),
            help: setting.help,
            hidden: false,
        }
    }
}

#[cfg(test)]
mod tests;

//! Settings that say whom to believe and what to let through.

use std::num::NonZeroU32;

use super::{ConfigError, Options, parse::parse};
use crate::{
    accounts::Rates,
    api::{AllowedOrigins, TrustedProxies},
};

/// How often one may log in and register.
pub(super) fn rates(options: &Options) -> Result<Rates, ConfigError> {
    match options.rate_limit.as_deref().unwrap_or("on").trim() {
        "on" => {}
        "off" => return Ok(Rates::UNLIMITED),
        other => {
            let problem = format!("{other:?} is neither on nor off");
            return Err(ConfigError::new("RATE_LIMIT", problem));
        }
    }
    let usual = Rates::default();
    Ok(Rates {
        login_account: rate(
            "RATE_LIMIT_LOGIN_ACCOUNT",
            options.rate_limit_login_account.as_deref(),
            usual.login_account,
        )?,
        login_address: rate(
            "RATE_LIMIT_LOGIN_ADDRESS",
            options.rate_limit_login_address.as_deref(),
            usual.login_address,
        )?,
        register_address: rate(
            "RATE_LIMIT_REGISTER_ADDRESS",
            options.rate_limit_register_address.as_deref(),
            usual.register_address,
        )?,
    })
}

fn rate(
    variable: &'static str,
    given: Option<&str>,
    usual: Option<NonZeroU32>,
) -> Result<Option<NonZeroU32>, ConfigError> {
    match given.map(str::trim) {
        None => Ok(usual),
        Some("off") => Ok(None),
        given => parse(
            variable,
            given,
            "",
            "a number of attempts a minute, from 1, or off",
        )
        .map(Some),
    }
}

pub(super) fn trusted_proxies(options: &Options) -> Result<TrustedProxies, ConfigError> {
    TrustedProxies::parse(options.trusted_proxies.as_deref().unwrap_or_default())
        .map_err(|error| ConfigError::new("TRUSTED_PROXIES", error))
}

pub(super) fn cors_allowed_origins(options: &Options) -> Result<AllowedOrigins, ConfigError> {
    AllowedOrigins::parse(options.cors_allowed_origins.as_deref().unwrap_or_default())
        .map_err(|error| ConfigError::new("CORS_ALLOWED_ORIGINS", error))
}

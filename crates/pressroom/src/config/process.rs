//! The variables of the process: values that are not text, and names that are almost those of a setting.

use strsim::osa_distance;

use super::{
    commands::EverySetting,
    dotenv::Dotenv,
    error::{ConfigError, Result},
    given::Configuration as _,
    setting::Setting,
};

/// Checks that the values of all settings are text.
///
/// # Errors
/// Returns an error for the first setting whose value is not UTF-8.
pub fn check_encoding() -> Result<()> {
    let is_text =
        |setting: &Setting| std::env::var_os(setting.variable).is_none_or(|value| value.to_str().is_some());
    match EverySetting::settings()
        .into_iter()
        .find(|setting| !is_text(setting))
    {
        Some(setting) => Err(ConfigError::new(setting.variable, "is not valid UTF-8")),
        None => Ok(()),
    }
}

/// Returns a warning for each variable of the process whose name is almost that of a setting. `OTEL_*` variables are
/// left out, because the telemetry crate warns about those that it does not support.
pub fn misspelt_variables(dotenv: &Dotenv) -> Vec<String> {
    let settings = EverySetting::settings()
        .into_iter()
        .map(|setting| setting.variable.to_owned());
    let known: Vec<_> = settings.chain(telemetry::supported_variables()).collect();
    let mut names: Vec<_> = std::env::vars_os()
        .filter(|(_, value)| !value.to_string_lossy().trim().is_empty())
        .filter_map(|(name, _)| name.into_string().ok())
        .filter(|name| !name.starts_with("OTEL_"))
        .collect();
    names.sort();
    let warning = |name: &String| {
        let intended = intended(name, &known)?;
        let place = dotenv.place(name).map(|place| format!(" ({place})"));
        Some(format!(
            "{name}{} has no effect; did you mean {intended}?",
            place.unwrap_or_default()
        ))
    };
    names.iter().filter_map(warning).collect()
}

/// Returns the known name that a variable was probably meant to have; `None` for a known or an unrelated name.
fn intended<'a>(name: &str, known: &'a [String]) -> Option<&'a str> {
    if known.iter().any(|known| known == name) {
        return None;
    }
    let upper = name.to_uppercase().replace('-', "_");
    let near = known
        .iter()
        .map(|known| (osa_distance(&upper, known), known))
        .filter(|(distance, known)| *distance <= tolerance(&upper, known));
    near.min().map(|(_, known)| known.as_str())
}

/// Returns the number of wrong, missing, additional and exchanged characters up to which a name is near a known one.
fn tolerance(name: &str, known: &str) -> usize {
    let common = name
        .bytes()
        .zip(known.bytes())
        .take_while(|(a, b)| a == b)
        .count();
    match known.len() {
        // TRUSTED_PROXY for TRUSTED_PROXIES, but not DATABASE_TEST_URL for DATABASE_READ_URL.
        15.. if common * 4 >= known.len() * 3 => 3,
        10.. => 2,
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::{super::tests::every_setting, *};

    #[test]
    fn a_name_near_a_known_one_is_recognised_and_an_unrelated_one_is_not() {
        let mut known: Vec<_> = every_setting()
            .iter()
            .map(|setting| setting.variable.to_owned())
            .collect();
        known.extend(telemetry::supported_variables());
        for (name, expected) in [
            ("SMTP_URI", Some("SMTP_URL")),
            ("DATABASE_URI", Some("DATABASE_URL")),
            ("DATABSE_ULR", Some("DATABASE_URL")),
            ("database-url", Some("DATABASE_URL")),
            ("Port", Some("PORT")),
            ("SECRETKEY", Some("SECRET_KEY")),
            ("SECRET_KEY_PREVIUOS", Some("SECRET_KEY_PREVIOUS")),
            ("TRUSTED_PROXY", Some("TRUSTED_PROXIES")),
            ("CELERY_QUEUE", Some("CELERY_QUEUES")),
            ("OTLE_SERVICE_NAME", Some("OTEL_SERVICE_NAME")),
            ("RUST_LOGS", Some("RUST_LOG")),
            ("PII_MASK", None),
            ("SMTP_URL", None),
            // Variables of other programs.
            ("HOME", None),
            ("PATH", None),
            ("HOSTNAME", None),
            ("APP_NAME", None),
            ("REDIS_PORT", None),
            ("REDIS_SSL", None),
            ("DATABASE_USER", None),
            ("DATABASE_TEST_URL", None),
            ("K8S_POD_IP", None),
            ("POSTGRES_PASSWORD", None),
        ] {
            assert_eq!(intended(name, &known), expected, "{name}");
        }
    }
}

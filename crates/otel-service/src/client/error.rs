//! Errors of HTTP clients.

use std::fmt::Display;

/// Returns the `error.type` and the message of an error.
pub(super) fn describe_error<E: Display + 'static>(error: &E) -> (&'static str, String) {
    #[cfg(feature = "reqwest")]
    if let Some(error) = (error as &dyn std::any::Any).downcast_ref() {
        return describe_reqwest_error(error);
    }
    (std::any::type_name::<E>(), error.to_string())
}

/// Returns the description of a reqwest error, without the URL, which may contain secrets.
#[cfg(feature = "reqwest")]
fn describe_reqwest_error(error: &reqwest::Error) -> (&'static str, String) {
    use std::error::Error as _;

    let error_type = match error {
        error if error.is_timeout() => "timeout",
        error if error.is_connect() => "connect",
        error if error.is_redirect() => "redirect",
        error if error.is_builder() => "builder",
        error if error.is_body() => "body",
        error if error.is_decode() => "decode",
        _ => "request",
    };
    let sources = std::iter::successors(error.source(), |error| (**error).source());
    let sources: Vec<String> = sources.map(ToString::to_string).collect();
    (error_type, sources.join(": "))
}

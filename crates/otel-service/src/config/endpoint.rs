//! The URL of the collector for one signal: `OTEL_EXPORTER_OTLP_ENDPOINT` and its per-signal forms, with the
//! defaults of the protocol. User info is removed from the URL, to keep it out of errors and logs.

use http::Uri;
use http::uri::Authority;
use otlp_recorder::{Protocol, Signal};

use super::variables::{Variables, in_force, in_variables};

const COMMON: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";

/// Returns the endpoint and its user info.
///
/// A per-signal endpoint is used unchanged; OTLP/HTTP appends the path of the signal to the common
/// endpoint.
pub(super) fn endpoint(
    signal: Signal,
    protocol: Protocol,
    variables: &mut Variables<'_>,
) -> (String, Option<String>) {
    let bare_scheme = bare_scheme(signal, protocol, variables);
    let own = format!("OTEL_EXPORTER_OTLP_{}_ENDPOINT", in_variables(signal));
    if let Some(text) = variables.text(&own) {
        if let Some(url) = parse(&text, bare_scheme) {
            return target(&url, protocol, url.path());
        }
        variables.warn(format!("{own} is not an http or https URL and is ignored"));
    }
    let url = variables.text(COMMON).and_then(|text| {
        let url = parse(&text, bare_scheme);
        if url.is_none() {
            variables.warn(format!(
                "{COMMON} is not an http or https URL; the local collector is used"
            ));
        }
        url
    });
    let url = url.unwrap_or_else(|| {
        Uri::from_static(match protocol {
            Protocol::Grpc => "http://localhost:4317",
            _ => "http://localhost:4318",
        })
    });
    let path = format!("{}{}", url.path().trim_end_matches('/'), signal.http_path());
    target(&url, protocol, &path)
}

/// Returns the scheme to assume for an endpoint without a scheme, or `None` if a scheme is required. Only
/// gRPC accepts `host:port`.
fn bare_scheme(signal: Signal, protocol: Protocol, variables: &mut Variables<'_>) -> Option<&'static str> {
    let insecure = in_force(signal, "INSECURE", variables);
    let insecure = variables.is_true(&insecure);
    (protocol == Protocol::Grpc).then_some(if insecure { "http" } else { "https" })
}

/// Parses an http or https URL with a host.
pub(super) fn parse(text: &str, bare_scheme: Option<&str>) -> Option<Uri> {
    let text = text.trim();
    let text = match bare_scheme {
        Some(_) => grpc_address(text)?,
        None => text,
    };
    let url: Uri = match bare_scheme {
        Some(scheme) if !text.contains("://") => format!("{scheme}://{text}").parse().ok()?,
        _ => text.parse().ok()?,
    };
    let is_http = matches!(scheme(&url).as_str(), "http" | "https");
    (is_http && !url.host()?.is_empty() && has_valid_port(url.authority()?)).then_some(url)
}

/// Whether the port, if there is one, is a number up to 65535; [`Authority`] accepts larger ones and ignores them.
fn has_valid_port(authority: &Authority) -> bool {
    match authority.as_str().rsplit_once(':') {
        Some((_, port)) if authority.as_str().ends_with(|c: char| c.is_ascii_digit()) => {
            port.parse::<u16>().is_ok()
        }
        _ => true,
    }
}

/// Returns the host and port of a gRPC target, such as `dns:///collector:4317`, whose name the transport resolves (gRPC
/// Name Resolution); `None` for targets that are not looked up like this, such as Unix sockets. Other texts are returned
/// unchanged.
fn grpc_address(text: &str) -> Option<&str> {
    let Some((scheme, rest)) = text.split_once(':') else {
        return Some(text);
    };
    // `dns:4317` is a host with a port.
    let is_port = !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_digit());
    match scheme.to_ascii_lowercase().as_str() {
        _ if is_port => Some(text),
        "dns" | "ipv4" | "ipv6" | "passthrough" => {
            let address = rest.strip_prefix("///").unwrap_or(rest);
            // Between the slashes of `dns://server/host` is a DNS server.
            (!address.contains('/')).then_some(address)
        }
        "unix" | "unix-abstract" | "vsock" | "xds" => None,
        _ => Some(text),
    }
}

fn scheme(url: &Uri) -> String {
    url.scheme_str().unwrap_or_default().to_ascii_lowercase()
}

/// Returns the URL for the transport, and the user info. The path of the URL is `path`, except for gRPC, whose
/// transport adds its own.
pub(super) fn target(url: &Uri, protocol: Protocol, path: &str) -> (String, Option<String>) {
    let authority = url.authority().map_or("", Authority::as_str);
    let (user_info, host) = match authority.rsplit_once('@') {
        Some((user_info, host)) => (Some(user_info.to_owned()), host),
        None => (None, authority),
    };
    let origin = format!("{}://{host}", scheme(url));
    let text = match (protocol, url.query()) {
        (Protocol::Grpc, _) => origin,
        (_, Some(query)) => format!("{origin}{path}?{query}"),
        (_, None) => origin + path,
    };
    (text, user_info)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(protocol: Protocol, set: &[(&str, &str)]) -> (String, Option<String>, usize) {
        let lookup = |name: &str| {
            let found = set.iter().find(|(key, _)| *key == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        let mut variables = Variables::new(&lookup);
        let (endpoint, user_info) = endpoint(Signal::Traces, protocol, &mut variables);
        (endpoint, user_info, variables.warnings.len())
    }

    fn endpoint_of(protocol: Protocol, set: &[(&str, &str)]) -> String {
        let (endpoint, _, warnings) = read(protocol, set);
        assert_eq!(warnings, 0, "{set:?}");
        endpoint
    }

    const OWN: &str = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT";

    #[test]
    fn each_protocol_has_a_default_port() {
        for (protocol, expected) in [
            (Protocol::Grpc, "http://localhost:4317"),
            (Protocol::HttpProtobuf, "http://localhost:4318/v1/traces"),
            (Protocol::HttpJson, "http://localhost:4318/v1/traces"),
        ] {
            assert_eq!(endpoint_of(protocol, &[]), expected);
        }
    }

    #[test]
    fn the_path_of_the_signal_is_appended_to_the_common_endpoint_only() {
        for (variable, value, expected) in [
            (COMMON, "http://all:4318", "http://all:4318/v1/traces"),
            (COMMON, "http://all/base/", "http://all/base/v1/traces"),
            (COMMON, "http://all/base?key=1", "http://all/base/v1/traces?key=1"),
            (COMMON, "HTTP://all:4318", "http://all:4318/v1/traces"),
            (OWN, "https://traces", "https://traces/"),
            (OWN, "https://traces/in/", "https://traces/in/"),
            (OWN, "https://traces/in?key=1", "https://traces/in?key=1"),
        ] {
            assert_eq!(
                endpoint_of(Protocol::HttpProtobuf, &[(variable, value)]),
                expected
            );
        }
    }

    #[test]
    fn a_grpc_endpoint_has_only_a_scheme_and_an_authority() {
        let insecure = |value| ("OTEL_EXPORTER_OTLP_INSECURE", value);
        for (set, expected) in [
            (vec![(COMMON, "http://all:4317/base")], "http://all:4317"),
            (vec![(OWN, "https://[::1]:4317")], "https://[::1]:4317"),
            (vec![(COMMON, "all:4317")], "https://all:4317"),
            (vec![(COMMON, "all:4317"), insecure("false")], "https://all:4317"),
            (vec![(COMMON, "all:4317"), insecure("true")], "http://all:4317"),
            (
                vec![(COMMON, "dns:///all:4317"), insecure("true")],
                "http://all:4317",
            ),
            (vec![(OWN, "DNS:all.example")], "https://all.example"),
            (
                vec![(OWN, "ipv4:127.0.0.1:4317"), insecure("true")],
                "http://127.0.0.1:4317",
            ),
            (vec![(OWN, "ipv6:[::1]:4317")], "https://[::1]:4317"),
            (vec![(COMMON, "passthrough:///all:4317")], "https://all:4317"),
            (vec![(COMMON, "dns:4317"), insecure("true")], "http://dns:4317"),
            // An explicit scheme overrides the variable.
            (vec![(COMMON, "https://all"), insecure("TRUE")], "https://all"),
            (
                vec![
                    (COMMON, "all:4317"),
                    insecure("true"),
                    ("OTEL_EXPORTER_OTLP_TRACES_INSECURE", "false"),
                ],
                "https://all:4317",
            ),
        ] {
            assert_eq!(endpoint_of(Protocol::Grpc, &set), expected, "{set:?}");
        }
    }

    #[test]
    fn an_invalid_url_is_ignored() {
        for value in [
            "not a url",
            "collector:4318",
            "/v1/traces",
            "ftp://all",
            "http://",
        ] {
            let (endpoint, _, warnings) = read(Protocol::HttpProtobuf, &[(COMMON, value)]);
            assert_eq!(
                (endpoint.as_str(), warnings),
                ("http://localhost:4318/v1/traces", 1),
                "{value}"
            );
        }
        for value in [
            "dns://8.8.8.8/all:4317",
            "unix:/tmp/all",
            "unix:///tmp/all",
            "dns:///",
            "xds:///all",
        ] {
            let (endpoint, _, warnings) = read(Protocol::Grpc, &[(COMMON, value)]);
            assert_eq!(
                (endpoint.as_str(), warnings),
                ("http://localhost:4317", 1),
                "{value}"
            );
        }
        let own_is_wrong = [(OWN, "?"), (COMMON, "http://all")];
        let (endpoint, _, warnings) = read(Protocol::HttpProtobuf, &own_is_wrong);
        assert_eq!((endpoint.as_str(), warnings), ("http://all/v1/traces", 1));
    }

    #[test]
    fn user_info_is_removed_from_the_endpoint() {
        for (protocol, expected) in [
            (Protocol::Grpc, "https://all:4317"),
            (Protocol::HttpProtobuf, "https://all:4317/v1/traces"),
        ] {
            let (endpoint, user_info, _) = read(protocol, &[(COMMON, "https://me:s%40crt@all:4317")]);
            assert_eq!(endpoint, expected);
            assert_eq!(user_info.as_deref(), Some("me:s%40crt"));
        }
    }
}

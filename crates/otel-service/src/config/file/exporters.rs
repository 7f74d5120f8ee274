//! The exporters of a configuration file.

use std::fs::{File, OpenOptions};
use std::io;
use std::path::Path;
use std::time::Duration;

use http::header::HeaderMap;
use otlp_recorder::{
    ClientFiles, Collector, Compression, CustomExporter, Destination, PemFile, Protocol, Signal,
};

use super::super::endpoint;
use super::super::headers::{authorize, header, header_list};
use super::reader::{Section, Value};
use crate::console;
use crate::output::STDOUT;

/// Maximum size of requests and responses of [`otlp_recorder`], in bytes.
const MAX_SIZE: i64 = 4 << 20;

/// Reads an exporter. `rest` reads the properties that only exporters of metrics have.
///
/// Returns `None` after a problem, and for log records on the console, where log events are written in any case.
pub(super) fn exporter(
    value: Value<'_>,
    signal: Signal,
    rest: impl FnOnce(&mut Section<'_>),
) -> Option<Destination> {
    let (name, value) = value.section().component()?;
    let protocol = match name {
        "otlp_http" => Protocol::HttpProtobuf,
        "otlp_grpc" => Protocol::Grpc,
        "otlp_file/development" => {
            let mut section = value.section();
            rest(&mut section);
            let stream = section.get("output_stream");
            return Some(otlp_file(stream)?.into());
        }
        "console" => {
            rest(&mut value.section());
            let console = CustomExporter::new("console", console::write);
            return (signal != Signal::Logs).then(|| console.into());
        }
        _ => {
            value.refuse("is not a supported exporter");
            return None;
        }
    };
    let mut section = value.section();
    rest(&mut section);
    Some(collector(section, signal, protocol)?.into())
}

fn collector(mut section: Section<'_>, signal: Signal, protocol: Protocol) -> Option<Collector> {
    let mut tls = section.get("tls").map(Value::section);
    let insecure = match protocol {
        Protocol::Grpc => tls
            .as_mut()
            .and_then(|tls| tls.boolean("insecure"))
            .unwrap_or(false),
        _ => false,
    };
    let is_json = match protocol {
        Protocol::Grpc => None,
        _ => section.get("encoding"),
    };
    let is_json = is_json.and_then(|value| value.choice(&[("protobuf", false), ("json", true)]));
    let protocol = if is_json == Some(true) {
        Protocol::HttpJson
    } else {
        protocol
    };
    let default = match protocol {
        Protocol::Grpc => "http://localhost:4317".to_owned(),
        _ => format!("http://localhost:4318{}", signal.http_path()),
    };
    let bare_scheme = (protocol == Protocol::Grpc).then_some(if insecure { "http" } else { "https" });
    let configured = section.get("endpoint");
    let text = configured.as_ref().map_or(Some(default), Value::text);
    let url = text.and_then(|text| {
        let url = endpoint::parse(&text, bare_scheme);
        if let (None, Some(configured)) = (&url, &configured) {
            configured.refuse("must be an http or https URL");
        }
        url
    });
    let mut headers = headers(&mut section);
    let compression = section
        .get("compression")
        .map_or(Some(Compression::None), |value| {
            value.choice(&[("none", Compression::None), ("gzip", Compression::Gzip)])
        });
    // Requests and responses are never larger than this.
    for name in ["max_request_size", "max_response_size"] {
        if let Some(value) = section.get(name)
            && value
                .any_integer()
                .is_some_and(|size| size != 0 && size < MAX_SIZE)
        {
            value.refuse(&format!("only {MAX_SIZE} or more is supported"));
        }
    }
    let timeout = section.timeout("timeout").unwrap_or(Duration::from_secs(10));
    let certificate = tls.as_mut().and_then(|tls| file(tls, "ca_file"));
    let key = tls.as_mut().and_then(|tls| tls.get("key_file"));
    let client = tls.as_mut().and_then(|tls| tls.get("cert_file"));
    let client = match (&key, &client) {
        (Some(key), Some(certificate)) => pem(key).zip(pem(certificate)),
        (Some(alone), None) | (None, Some(alone)) => {
            alone.refuse("must be set together with the other one of key_file and cert_file");
            None
        }
        (None, None) => None,
    };
    let url = url?;
    let (endpoint, user_info) = endpoint::target(&url, protocol, url.path());
    if let Some(user_info) = user_info {
        authorize(&mut headers, &user_info);
    }
    let mut collector = Collector::new(protocol, endpoint).timeout(timeout);
    collector.headers = headers;
    collector.compression = compression?;
    collector.certificate = certificate;
    collector.client = client.map(|(key, certificate)| ClientFiles { key, certificate });
    Some(collector)
}

/// Reads `headers_list`, whose entries `headers` override.
fn headers(section: &mut Section<'_>) -> HeaderMap {
    let mut headers = HeaderMap::new();
    if let Some(value) = section.get("headers_list")
        && let Some(list) = value.text()
    {
        let invalid;
        (headers, invalid) = header_list(&list);
        if invalid > 0 {
            value.refuse(&format!(
                "has entries that are not valid name=value headers ({invalid})"
            ));
        }
    }
    for entry in section.get("headers").iter().flat_map(Value::items) {
        let mut pair = entry.clone().section();
        let name = pair.required("name").and_then(|name| name.text());
        let value = pair.take("value");
        if value.is_none() {
            pair.required("value");
        }
        let Some(value) = value.filter(|value| !value.is_null()) else {
            continue;
        };
        if let (Some(name), Some(value)) = (name, value.text()) {
            match header(&name, &value) {
                Some((name, value)) => drop(headers.insert(name, value)),
                None => entry.refuse("is not a valid header"),
            }
        }
    }
    headers
}

fn file(tls: &mut Section<'_>, name: &str) -> Option<PemFile> {
    pem(&tls.get(name)?)
}

fn pem(value: &Value<'_>) -> Option<PemFile> {
    let path = value.text()?;
    if !Path::new(&path).is_absolute() {
        value.refuse("must be an absolute path");
        return None;
    }
    if let Err(error) = File::open(&path) {
        value.refuse(&format!("the file cannot be read: {}", error.kind()));
        return None;
    }
    Some(PemFile {
        setting: value.path.clone(),
        path,
    })
}

/// Returns the exporter that appends a line of JSON for each request to a file or to standard output.
fn otlp_file(stream: Option<Value<'_>>) -> Option<CustomExporter> {
    let text = stream.as_ref().map_or(Some("stdout".to_owned()), Value::text)?;
    if text == "stdout" {
        return Some(CustomExporter::json_lines(StandardOutput));
    }
    let stream = stream?;
    let Some(path) = text.strip_prefix("file://").filter(|path| path.starts_with('/')) else {
        stream.refuse("must be stdout or start with file:///");
        return None;
    };
    match OpenOptions::new().append(true).create(true).open(path) {
        Ok(file) => Some(CustomExporter::json_lines(file)),
        Err(error) => {
            stream.refuse(&format!("the file cannot be opened: {}", error.kind()));
            None
        }
    }
}

/// Standard output, whose writes do not block.
struct StandardOutput;

impl io::Write for StandardOutput {
    fn write(&mut self, lines: &[u8]) -> io::Result<usize> {
        STDOUT.write(String::from_utf8_lossy(lines).into_owned());
        Ok(lines.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

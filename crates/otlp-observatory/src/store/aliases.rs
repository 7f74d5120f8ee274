//! Names of attributes in the current OpenTelemetry semantic conventions (1.44), with the names that older
//! versions used. SDKs send either, so every view, filter and count looks attributes up in this table.

use std::borrow::Cow;

use memchr::memmem;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value::Value};

use super::source::text_of;

/// Attribute with its names and with the attributes that contain its value.
#[derive(Debug)]
pub(crate) struct Attribute {
    /// The current name, followed by the older ones.
    names: &'static [&'static str],
    /// Attributes whose text contains the value, each with the function that extracts the value.
    parts: &'static [(&'static str, Extract)],
}

/// Returns the part of a text that is the value of another attribute.
type Extract = fn(&str) -> Option<&str>;

const fn renamed(names: &'static [&'static str]) -> Attribute {
    Attribute { names, parts: &[] }
}

pub(crate) static CELERY_STATE: Attribute = renamed(&["celery.state"]);
pub(crate) static CELERY_TASK: Attribute = renamed(&["celery.task_name"]);
pub(crate) static DB_NAMESPACE: Attribute = renamed(&[
    "db.namespace",
    "db.name",
    "db.redis.database_index",
    "db.elasticsearch.cluster.name",
    "db.cassandra.keyspace",
    "db.hbase.namespace",
]);
pub(crate) static DB_SYSTEM: Attribute = renamed(&["db.system.name", "db.system"]);
pub(crate) static HTTP_METHOD: Attribute = renamed(&["http.request.method", "http.method"]);
pub(crate) static HTTP_ROUTE: Attribute = renamed(&["http.route"]);
pub(crate) static MESSAGING_DESTINATION: Attribute =
    renamed(&["messaging.destination.name", "messaging.destination"]);
pub(crate) static MESSAGING_OPERATION: Attribute =
    renamed(&["messaging.operation.type", "messaging.operation"]);
pub(crate) static MESSAGING_SYSTEM: Attribute = renamed(&["messaging.system"]);
pub(crate) static PEER_ADDRESS: Attribute =
    renamed(&["network.peer.address", "net.sock.peer.addr", "net.peer.ip"]);
pub(crate) static PEER_SERVICE: Attribute = renamed(&["service.peer.name", "peer.service"]);
pub(crate) static SERVER_ADDRESS: Attribute = Attribute {
    names: &[
        "server.address",
        "net.peer.name",
        "net.host.name",
        "http.server_name",
        "net.sock.peer.name",
        "server.socket.domain",
        "tls.client.server_name",
    ],
    parts: &[("url.full", host), ("http.url", host), ("http.host", host)],
};

/// Every attribute with several names. A name that was split, such as `net.peer.name`, occurs in several rows.
static ATTRIBUTES: &[&Attribute] = &[
    &DB_NAMESPACE,
    &DB_SYSTEM,
    &HTTP_METHOD,
    &MESSAGING_DESTINATION,
    &MESSAGING_OPERATION,
    &PEER_ADDRESS,
    &PEER_SERVICE,
    &SERVER_ADDRESS,
    &renamed(&["android.app.state", "android.state"]),
    &renamed(&["azure.client.id", "db.cosmosdb.client_id"]),
    &renamed(&["azure.cosmosdb.connection.mode", "db.cosmosdb.connection_mode"]),
    &renamed(&[
        "azure.cosmosdb.consistency.level",
        "db.cosmosdb.consistency_level",
    ]),
    &renamed(&[
        "azure.cosmosdb.operation.contacted_regions",
        "db.cosmosdb.regions_contacted",
    ]),
    &renamed(&[
        "azure.cosmosdb.operation.request_charge",
        "db.cosmosdb.request_charge",
    ]),
    &renamed(&[
        "azure.cosmosdb.request.body.size",
        "db.cosmosdb.request_content_length",
    ]),
    &renamed(&[
        "azure.cosmosdb.response.sub_status_code",
        "db.cosmosdb.sub_status_code",
    ]),
    &renamed(&["azure.resource_provider.namespace", "az.namespace"]),
    &renamed(&["azure.service.request.id", "az.service_request_id"]),
    &renamed(&["cassandra.consistency.level", "db.cassandra.consistency_level"]),
    &renamed(&["cassandra.coordinator.dc", "db.cassandra.coordinator.dc"]),
    &renamed(&["cassandra.coordinator.id", "db.cassandra.coordinator.id"]),
    &renamed(&["cassandra.page.size", "db.cassandra.page_size"]),
    &renamed(&["cassandra.query.idempotent", "db.cassandra.idempotence"]),
    &renamed(&[
        "cassandra.speculative_execution.count",
        "db.cassandra.speculative_execution_count",
    ]),
    &renamed(&["client.address", "http.client_ip", "net.peer.name"]),
    &renamed(&["client.port", "net.peer.port"]),
    &renamed(&["cloud.resource_id", "faas.id"]),
    &renamed(&["code.column.number", "code.column"]),
    &renamed(&["code.file.path", "code.filepath"]),
    &renamed(&["code.function.name", "code.function"]),
    &renamed(&["code.line.number", "code.lineno"]),
    &renamed(&["container.runtime.name", "container.runtime"]),
    &renamed(&["cpu.logical_number", "system.cpu.logical_number"]),
    &renamed(&[
        "cpu.mode",
        "system.cpu.state",
        "process.cpu.state",
        "container.cpu.state",
    ]),
    &renamed(&[
        "db.client.connection.pool.name",
        "db.client.connections.pool.name",
        "pool.name",
    ]),
    &renamed(&["db.client.connection.state", "db.client.connections.state"]),
    &renamed(&[
        "db.collection.name",
        "db.sql.table",
        "db.mongodb.collection",
        "db.cosmosdb.container",
        "db.cassandra.table",
    ]),
    &renamed(&["db.operation.name", "db.operation"]),
    &renamed(&["db.query.text", "db.statement"]),
    &renamed(&["db.response.status_code", "db.cosmosdb.status_code"]),
    &renamed(&["deployment.environment.name", "deployment.environment"]),
    &renamed(&[
        "disk.io.direction",
        "system.disk.io.direction",
        "system.disk.direction",
    ]),
    &renamed(&["elasticsearch.node.name", "db.elasticsearch.node.name"]),
    &renamed(&["faas.invocation_id", "faas.execution"]),
    &renamed(&[
        "feature_flag.error.message",
        "feature_flag.evaluation.error.message",
    ]),
    &renamed(&["feature_flag.provider.name", "feature_flag.provider_name"]),
    &renamed(&["feature_flag.result.reason", "feature_flag.evaluation.reason"]),
    &renamed(&["feature_flag.result.variant", "feature_flag.variant"]),
    &renamed(&["gen_ai.output.type", "gen_ai.openai.request.response_format"]),
    &renamed(&["gen_ai.provider.name", "gen_ai.system"]),
    &renamed(&["gen_ai.request.seed", "gen_ai.openai.request.seed"]),
    &renamed(&["gen_ai.usage.input_tokens", "gen_ai.usage.prompt_tokens"]),
    &renamed(&["gen_ai.usage.output_tokens", "gen_ai.usage.completion_tokens"]),
    &renamed(&[
        "http.request.body.size",
        "http.request_content_length",
        "http.request_content_length_uncompressed",
    ]),
    &renamed(&[
        "http.request.resend_count",
        "http.resend_count",
        "http.retry_count",
    ]),
    &renamed(&[
        "http.response.body.size",
        "http.response_content_length",
        "http.response_content_length_uncompressed",
    ]),
    &renamed(&["http.response.status_code", "http.status_code"]),
    &renamed(&["ios.app.state", "ios.state", "io.state"]),
    &renamed(&["jsonrpc.protocol.version", "rpc.jsonrpc.version"]),
    &renamed(&["jsonrpc.request.id", "rpc.jsonrpc.request_id"]),
    &renamed(&["jvm.thread.daemon", "thread.daemon"]),
    &renamed(&[
        "messaging.client.id",
        "messaging.client_id",
        "messaging.kafka.client_id",
        "messaging.rocketmq.client_id",
    ]),
    &renamed(&[
        "messaging.consumer.group.name",
        "messaging.kafka.consumer.group",
        "messaging.kafka.consumer_group",
        "messaging.rocketmq.client_group",
        "messaging.eventhubs.consumer.group",
    ]),
    &renamed(&["messaging.consumer.id", "messaging.consumer_id"]),
    &renamed(&["messaging.destination.kind", "messaging.destination_kind"]),
    &renamed(&[
        "messaging.destination.partition.id",
        "messaging.kafka.destination.partition",
        "messaging.kafka.partition",
    ]),
    &renamed(&[
        "messaging.destination.subscription.name",
        "messaging.servicebus.destination.subscription_name",
    ]),
    &renamed(&["messaging.destination.temporary", "messaging.temp_destination"]),
    &renamed(&["messaging.kafka.message.key", "messaging.kafka.message_key"]),
    &renamed(&["messaging.kafka.message.tombstone", "messaging.kafka.tombstone"]),
    &renamed(&["messaging.kafka.offset", "messaging.kafka.message.offset"]),
    &renamed(&[
        "messaging.message.body.size",
        "messaging.message.payload_size_bytes",
        "messaging.message_payload_size_bytes",
    ]),
    &renamed(&["messaging.message.conversation_id", "messaging.conversation_id"]),
    &renamed(&[
        "messaging.message.envelope.size",
        "messaging.message.payload_compressed_size_bytes",
        "messaging.message_payload_compressed_size_bytes",
    ]),
    &renamed(&["messaging.message.id", "messaging.message_id"]),
    &renamed(&[
        "messaging.rabbitmq.destination.routing_key",
        "messaging.rabbitmq.routing_key",
    ]),
    &renamed(&[
        "messaging.rocketmq.message.keys",
        "messaging.rocketmq.message_keys",
    ]),
    &renamed(&["messaging.rocketmq.message.tag", "messaging.rocketmq.message_tag"]),
    &renamed(&[
        "messaging.rocketmq.message.type",
        "messaging.rocketmq.message_type",
    ]),
    &renamed(&["network.carrier.icc", "net.host.carrier.icc"]),
    &renamed(&["network.carrier.mcc", "net.host.carrier.mcc"]),
    &renamed(&["network.carrier.mnc", "net.host.carrier.mnc"]),
    &renamed(&["network.carrier.name", "net.host.carrier.name"]),
    &renamed(&["network.connection.state", "system.network.state"]),
    &renamed(&["network.connection.subtype", "net.host.connection.subtype"]),
    &renamed(&["network.connection.type", "net.host.connection.type"]),
    &renamed(&["network.interface.name", "system.device"]),
    &renamed(&[
        "network.io.direction",
        "system.network.io.direction",
        "system.network.direction",
    ]),
    &renamed(&[
        "network.local.address",
        "net.sock.host.addr",
        "net.host.ip",
        "server.socket.address",
    ]),
    &renamed(&["network.local.port", "net.sock.host.port", "server.socket.port"]),
    &renamed(&["network.peer.port", "net.sock.peer.port"]),
    &renamed(&[
        "network.protocol.name",
        "net.protocol.name",
        "net.app.protocol.name",
        "messaging.protocol",
    ]),
    &renamed(&[
        "network.protocol.version",
        "net.protocol.version",
        "net.app.protocol.version",
        "messaging.protocol_version",
        "http.flavor",
    ]),
    &Attribute {
        names: &["network.transport"],
        parts: &[("net.transport", transport)],
    },
    &renamed(&["network.type", "net.sock.family"]),
    &renamed(&[
        "openai.request.service_tier",
        "gen_ai.openai.request.service_tier",
    ]),
    &renamed(&[
        "openai.response.service_tier",
        "gen_ai.openai.response.service_tier",
    ]),
    &renamed(&[
        "openai.response.system_fingerprint",
        "gen_ai.openai.response.system_fingerprint",
    ]),
    &renamed(&["otel.scope.name", "otel.library.name"]),
    &renamed(&["otel.scope.version", "otel.library.version"]),
    &renamed(&["process.context_switch.type", "process.context_switch_type"]),
    &renamed(&[
        "process.executable.build_id.htlhash",
        "process.executable.build_id.profiling",
    ]),
    &renamed(&[
        "process.state",
        "system.process.status",
        "system.processes.status",
    ]),
    &renamed(&["rpc.message.compressed_size", "message.compressed_size"]),
    &renamed(&["rpc.message.id", "message.id"]),
    &renamed(&["rpc.message.type", "message.type"]),
    &renamed(&["rpc.message.uncompressed_size", "message.uncompressed_size"]),
    &renamed(&[
        "rpc.response.status_code",
        "rpc.status_code",
        "rpc.grpc.status_code",
        "rpc.connect_rpc.error_code",
        "rpc.jsonrpc.error_code",
    ]),
    &renamed(&["rpc.system.name", "rpc.system"]),
    &renamed(&["server.port", "net.peer.port", "net.host.port"]),
    &renamed(&["system.memory.linux.slab.state", "linux.memory.slab.state"]),
    &renamed(&[
        "system.paging.fault.type",
        "process.paging.fault_type",
        "system.paging.type",
    ]),
    &renamed(&["telemetry.distro.version", "telemetry.auto.version"]),
    &renamed(&["url.full", "http.url"]),
    &Attribute {
        names: &["url.path"],
        parts: &[("http.target", path)],
    },
    &Attribute {
        names: &["url.query"],
        parts: &[("http.target", query)],
    },
    &renamed(&["url.scheme", "http.scheme"]),
    &renamed(&["user.id", "enduser.id"]),
    &renamed(&["user.roles", "enduser.role"]),
    &renamed(&["user_agent.original", "http.user_agent", "browser.user_agent"]),
    &renamed(&["vcs.change.id", "vcs.repository.change.id"]),
    &renamed(&["vcs.change.title", "vcs.repository.change.title"]),
    &renamed(&["vcs.ref.head.name", "vcs.repository.ref.name"]),
    &renamed(&["vcs.ref.head.revision", "vcs.repository.ref.revision"]),
    &renamed(&["vcs.ref.head.type", "vcs.repository.ref.type"]),
];

/// Returns the names of each attribute that has several, the current name first.
pub(crate) fn names() -> impl Iterator<Item = &'static [&'static str]> {
    let attributes = ATTRIBUTES.iter().map(|attribute| attribute.names);
    attributes.filter(|names| names.len() > 1)
}

impl Attribute {
    /// Returns the current name.
    pub(crate) fn name(&self) -> &'static str {
        self.names[0]
    }

    /// Returns the text of the attribute: under its current name, or else under an older one, or else a part
    /// of another attribute.
    pub(crate) fn text<'a>(&self, attributes: &'a [KeyValue]) -> Option<&'a str> {
        let text = |name: &str| {
            let mut last_first = attributes.iter().rev();
            text_of(last_first.find(|attribute| attribute.key == name)?)
        };
        let named = self.names.iter().find_map(|name| text(name));
        named.or_else(|| {
            let mut parts = self.parts.iter();
            parts.find_map(|(name, extract)| extract(text(name)?))
        })
    }
}

/// Value of an attribute that was sent without one.
static EMPTY: AnyValue = AnyValue { value: None };

/// Key of an attribute filter, with every name of the attribute.
#[derive(Clone, Debug)]
pub(crate) struct Key {
    names: Vec<(memmem::Finder<'static>, Option<Extract>)>,
}

impl Key {
    pub(crate) fn new(key: &str) -> Self {
        let mut names = vec![(key, None)];
        for attribute in ATTRIBUTES.iter().filter(|one| one.names.contains(&key)) {
            names.extend(attribute.names.iter().map(|name| (*name, None)));
            names.extend(attribute.parts.iter().map(|(name, part)| (*name, Some(*part))));
        }
        // A part of the key itself, such as the host of `url.full`, is another attribute.
        let mut seen = std::collections::HashSet::new();
        names.retain(|(name, _)| seen.insert(*name));
        let finder = |name: &str| memmem::Finder::new(name).into_owned();
        Self {
            names: names
                .into_iter()
                .map(|(name, part)| (finder(name), part))
                .collect(),
        }
    }

    /// Whether an encoded entry contains one of the names and may therefore have the attribute.
    pub(crate) fn may_be_in(&self, encoded: &[u8]) -> bool {
        self.names.iter().any(|(name, _)| name.find(encoded).is_some())
    }

    /// Returns the name of an attribute that has only one.
    #[cfg(feature = "keep")]
    pub(crate) fn only_name(&self) -> Option<&[u8]> {
        match &self.names[..] {
            [(name, None)] => Some(name.needle()),
            _ => None,
        }
    }

    /// Whether values are parts of texts.
    #[cfg(feature = "keep")]
    pub(crate) fn has_parts(&self) -> bool {
        self.names.iter().any(|(_, part)| part.is_some())
    }

    /// Returns the values of the attribute in `attributes`, under any of its names.
    pub(crate) fn values<'a>(&self, attributes: &'a [KeyValue]) -> impl Iterator<Item = Cow<'a, AnyValue>> {
        attributes.iter().filter_map(|attribute| {
            let is_name = |(name, _): &&(memmem::Finder<'_>, _)| name.needle() == attribute.key.as_bytes();
            let (_, extract) = self.names.iter().find(is_name)?;
            let Some(extract) = extract else {
                return Some(Cow::Borrowed(attribute.value.as_ref().unwrap_or(&EMPTY)));
            };
            let part = extract(text_of(attribute)?)?.to_owned();
            let value = Some(Value::StringValue(part));
            Some(Cow::Owned(AnyValue { value }))
        })
    }
}

/// Returns the host of a URL, or of an authority like `example.org:443`.
fn host(url: &str) -> Option<&str> {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = rest.split(['/', '?', '#']).next()?;
    let host_and_port = authority.rsplit('@').next()?;
    let host = match host_and_port.strip_prefix('[') {
        Some(address) => address.split(']').next()?,
        None => host_and_port.split(':').next()?,
    };
    Some(host).filter(|host| !host.is_empty())
}

/// Returns the path of a request target.
fn path(target: &str) -> Option<&str> {
    target.split('?').next()
}

/// Returns the query of a request target.
fn query(target: &str) -> Option<&str> {
    target.split_once('?').map(|(_, query)| query)
}

/// Returns the current name of a transport such as `ip_tcp`.
fn transport(old: &str) -> Option<&str> {
    Some(old.strip_prefix("ip_").unwrap_or(old))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attribute(key: &str, value: &str) -> KeyValue {
        KeyValue {
            key: key.to_owned(),
            value: Some(AnyValue {
                value: Some(Value::StringValue(value.to_owned())),
            }),
            ..KeyValue::default()
        }
    }

    fn has(key: &str, attributes: &[KeyValue], wanted: &str) -> bool {
        let is_wanted = |value: &AnyValue| value.value == Some(Value::StringValue(wanted.to_owned()));
        Key::new(key).values(attributes).any(|value| is_wanted(&value))
    }

    #[test]
    fn every_name_of_an_attribute_finds_every_other() {
        for row in ATTRIBUTES {
            for sent in row.names {
                let attributes = [attribute(sent, "x")];
                let encoded = format!("..{sent}..");
                for wanted in row.names {
                    assert!(has(wanted, &attributes, "x"), "{wanted} in {sent}");
                    assert!(
                        Key::new(wanted).may_be_in(encoded.as_bytes()),
                        "{wanted} in {sent}"
                    );
                }
                assert_eq!(row.text(&attributes), Some("x"), "{sent}");
            }
        }
        assert!(!has("client.address", &[attribute("server.address", "x")], "x"));
        assert!(has("anything.else", &[attribute("anything.else", "x")], "x"));
        assert!(!has("anything", &[attribute("anything.else", "x")], "x"));
    }

    #[test]
    fn the_table_lists_each_current_name_once() {
        let mut names: Vec<_> = ATTRIBUTES.iter().map(|row| row.name()).collect();
        names.sort_unstable();
        let all = names.len();
        names.dedup();
        assert_eq!(names.len(), all);
    }

    #[test]
    fn the_current_name_has_precedence() {
        let attributes = [attribute("db.system.name", "new"), attribute("db.system", "old")];
        assert_eq!(DB_SYSTEM.text(&attributes), Some("new"));
        let attributes = [
            attribute("http.url", "http://a/"),
            attribute("net.peer.name", "b"),
        ];
        assert_eq!(SERVER_ADDRESS.text(&attributes), Some("b"));
    }

    #[test]
    fn parts_of_urls_and_targets_are_attributes() {
        for (sent, value, key, part) in [
            (
                "http.url",
                "https://u:p@a.example:8443/x?y",
                "server.address",
                "a.example",
            ),
            ("url.full", "http://[::1]:80/x@y", "net.peer.name", "::1"),
            ("http.host", "a.example:80", "server.address", "a.example"),
            ("http.target", "/x?y=1", "url.path", "/x"),
            ("http.target", "/x?y=1", "url.query", "y=1"),
            ("net.transport", "ip_tcp", "network.transport", "tcp"),
        ] {
            assert!(has(key, &[attribute(sent, value)], part), "{key} in {sent}");
            assert!(has(sent, &[attribute(sent, value)], value), "{sent}");
        }
        assert_eq!(host("http:///x"), None);
        assert!(!has("server.address", &[attribute("http.url", "/x")], ""));
    }
}

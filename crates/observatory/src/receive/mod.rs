//! The OTLP receivers: HTTP (protobuf and JSON) and gRPC, and the health endpoint beside them.
//!
//! They follow OTLP 1.9 (<https://opentelemetry.io/docs/specs/otlp/>).

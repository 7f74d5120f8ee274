//! Tests that telemetry from SDKs appears unchanged in the pages' JSON.

mod python;
mod rust;

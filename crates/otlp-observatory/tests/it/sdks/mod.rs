//! Tests that telemetry from SDKs appears unchanged in the pages' JSON.

mod defaults;
mod python;
mod rust;

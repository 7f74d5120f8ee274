//! Options of signatures: merges the options of a call with a signature's own, and extracts options with the
//! right type.

use serde_json::{Map, Value};

use super::node::list;

pub(super) type Options = Map<String, Value>;

/// Options that a call does not override, because clients that wait for the signature's own group or stamps
/// would never get a result.
const FIXED: [&str; 2] = ["group_id", "stamped_headers"];

/// Returns the signature's options, overridden by the options of the call.
pub(super) fn merged(mut own: Options, call: Options) -> Options {
    let stamps = list(own.get("stamped_headers").cloned());
    for (name, value) in call {
        let fixed =
            FIXED.contains(&name.as_str()) || stamps.iter().any(|stamp| stamp.as_str() == Some(&name));
        if !(value.is_null() || fixed && own.contains_key(&name)) {
            own.insert(name, value);
        }
    }
    own
}

pub(super) fn take(options: &mut Options, name: &str) -> Option<Value> {
    options.shift_remove(name).filter(|value| !value.is_null())
}

pub(super) fn take_text(options: &mut Options, name: &str) -> Option<String> {
    match take(options, name) {
        Some(Value::String(text)) => Some(text),
        _ => None,
    }
}

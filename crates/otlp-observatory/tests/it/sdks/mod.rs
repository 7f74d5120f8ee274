//! What SDKs send is what the JSON says.

mod python;
mod rust;

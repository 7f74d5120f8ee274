//! E-mail addresses that cannot be built invalid.

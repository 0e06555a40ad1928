//! The Internet Message Access Protocol: RFC 9051 and RFC 3501.

pub mod structure;

//! TLS, by rustls with ring: no other library of cryptography, and no C code of ours.

pub mod identity;
pub mod server;

//! TLS, by rustls with ring.

pub mod client;
pub mod identity;
pub mod server;

//! TLS (rustls, with ring).

pub mod client;

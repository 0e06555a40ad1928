//! The network: what a server is handed, how many clients it takes, name service, TLS.

pub mod activation;
pub mod dns;
pub mod limits;
pub mod proxy;
pub mod tls;

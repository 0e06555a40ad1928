//! The network: what a server is handed, and how many clients it takes.

pub mod activation;
pub mod limits;
pub mod tls;

//! The servers' processes (DESIGN.md): a listener forks a monitor for each session, a monitor forks
//! the jailed child that speaks to the client.

pub mod connection;
pub mod listener;
pub mod lmtp;
pub mod policy;
pub mod pop3;
pub mod record;
pub mod smtp;
pub mod spawner;

pub use connection::{Connection, Peer};

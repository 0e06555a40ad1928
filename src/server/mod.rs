//! The servers' processes (DESIGN.md): a listener, and for each session a jailed child that speaks to
//! the client and a monitor that answers it; one is forked by the other, or the child by a zygote.

pub mod access;
mod ask;
pub mod connection;
pub mod imap;
pub mod listener;
pub mod lmtp;
mod login;
pub mod parent;
pub mod policy;
pub mod pop3;
pub mod record;
pub mod smtp;
pub mod spawner;
pub mod zygote;

pub use connection::{Connection, Peer};

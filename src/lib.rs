//! Hikyaku: the classic Unix mail suite.
//!
//! The rooms below stand in one order, and a room uses only rooms above it in this list (its own
//! folder aside); `tests/layers.rs` holds that. DESIGN.md draws the processes and the flow of a
//! message through them.

pub mod sys;

pub mod text;

pub mod message;

pub mod sasl;

pub mod smtp;

pub mod lmtp;

pub mod pop3;

pub mod imap;

pub mod config;

pub mod mailbox;

pub mod queue;

pub mod auth;

pub mod route;

pub mod net;

pub mod delivery;

pub mod server;

pub mod program;

pub use program::{
    dotlock_main, imapd_main, local_deliver_main, mailctl_main, mta_queue_main, popd_main,
    sendmail_main, smtpd_main,
};

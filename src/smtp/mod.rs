//! SMTP (RFC 5321), pure: bytes and answers in, actions out; no socket, no file, no clock.
//!
//! The same session speaks LMTP (RFC 2033), which is SMTP with another greeting word and one reply
//! for each recipient after the text.

pub mod client;
pub mod command;
pub mod dsn;
pub mod reply;
pub mod session;

use crate::message::Address;
use dsn::{EnvelopeId, Notify, OriginalRecipient, Ret};

pub use reply::Reply;
pub use session::{Action, Dialect, Limits, Login, Session, Verdict};

/// What a message's envelope says, as the session collected it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transaction {
    /// The reverse-path; `None` is the null path.
    pub sender: Option<Address>,
    /// The forward-paths: by SMTP each once, by LMTP one for each RCPT that was accepted.
    pub recipients: Vec<Recipient>,
    /// `BODY=8BITMIME` (RFC 6152).
    pub eight_bit: bool,
    /// `SMTPUTF8` (RFC 6531): addresses may have UTF-8, and so may the header.
    pub utf8: bool,
    /// `RET` (RFC 3461).
    pub ret: Option<Ret>,
    /// `ENVID` (RFC 3461).
    pub envelope_id: Option<EnvelopeId>,
}

/// Somebody whom the message is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recipient {
    /// The forward-path.
    pub address: Address,
    /// `NOTIFY` (RFC 3461); without it the sender hears of failures, and perhaps of delays.
    pub notify: Option<Notify>,
    /// `ORCPT` (RFC 3461).
    pub original: Option<OriginalRecipient>,
}

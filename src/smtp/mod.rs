//! SMTP (RFC 5321), pure: bytes and answers in, actions out; no socket, no file, no clock.
//!
//! The same session speaks LMTP (RFC 2033), which is SMTP with another greeting word and one reply
//! for each recipient after the text.

pub mod client;
pub mod command;
pub mod dsn;
pub mod reply;
pub mod session;
pub mod xclient;

use std::fmt;

use crate::message::Address;
use dsn::{EnvelopeId, Notify, OriginalRecipient, Ret};

pub use reply::Reply;
pub use session::{Action, Dialect, Limits, Login, LookUp, Session, Verdict};

/// What a message's envelope says, as the session collected it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transaction {
    /// The reverse-path; `None` is the null path.
    pub sender: Option<Address>,
    /// The forward-paths: by SMTP each once, by LMTP one for each RCPT that was accepted.
    pub recipients: Vec<Recipient>,
    /// `BODY`.
    pub body: Body,
    /// `SMTPUTF8` (RFC 6531): addresses may have UTF-8, and so may the header.
    pub utf8: bool,
    /// `RET` (RFC 3461).
    pub ret: Option<Ret>,
    /// `ENVID` (RFC 3461).
    pub envelope_id: Option<EnvelopeId>,
}

/// What a message's text may be made of, as `BODY` says.
///
/// ```text
/// body-value = "7BIT" / "8BITMIME" / "BINARYMIME"     ; RFC 6152 section 3, RFC 3030 section 3
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Body {
    /// Lines of ASCII.
    #[default]
    SevenBit,
    /// Lines of bytes.
    EightBitMime,
    /// Bytes: a CR or LF among them need be no line end, so that the text must never be treated as
    /// lines, or be sent with DATA.
    BinaryMime,
}

impl Body {
    /// Parses the parameter's value.
    pub fn parse(value: &[u8]) -> Option<Self> {
        match value.to_ascii_uppercase().as_slice() {
            b"7BIT" => Some(Self::SevenBit),
            b"8BITMIME" => Some(Self::EightBitMime),
            b"BINARYMIME" => Some(Self::BinaryMime),
            _ => None,
        }
    }
}

impl fmt::Display for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::SevenBit => "7BIT",
            Self::EightBitMime => "8BITMIME",
            Self::BinaryMime => "BINARYMIME",
        })
    }
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

impl From<Address> for Recipient {
    /// Of whom nothing special was said.
    fn from(address: Address) -> Self {
        Self { address, notify: None, original: None }
    }
}

impl Recipient {
    /// Whether the sender wants to hear that the message was delivered.
    pub fn wants_success(&self) -> bool {
        self.notify.is_some_and(|notify| notify.success)
    }

    /// Whether the sender wants to hear that it can't be.
    pub fn wants_failure(&self) -> bool {
        self.notify.is_none_or(|notify| notify.failure)
    }

    /// Whether the sender wants to hear that it has to wait: who has said nothing may.
    pub fn wants_delay(&self) -> bool {
        self.notify.is_none_or(|notify| notify.delay)
    }
}

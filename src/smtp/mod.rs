//! SMTP (RFC 5321), pure: bytes and answers in, actions out; no socket, no file, no clock.
//!
//! The same session speaks LMTP (RFC 2033), which is SMTP with another greeting word and one reply
//! for each recipient after the text.

pub mod client;
pub mod command;
pub mod reply;
pub mod session;

pub use reply::Reply;
pub use session::{Action, Dialect, Limits, Session, Verdict};

/// What a message's envelope says, as the session collected it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transaction {
    /// The reverse-path; `None` is the null path.
    pub sender: Option<crate::message::Address>,
    /// The forward-paths, each once.
    pub recipients: Vec<crate::message::Address>,
    /// `BODY=8BITMIME` (RFC 6152).
    pub eight_bit: bool,
}

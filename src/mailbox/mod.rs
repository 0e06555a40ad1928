//! Mailboxes: what is stored, and how it is shared with other mail programs.
//!
//! [`mbox`] is the one place that opens, locks, reads and changes an mbox file. [`StoredMessage`]
//! is a message in the form in which it is stored, of known length before the first byte is
//! written. [`dotlock`] is used by the setgid helper, too.

pub mod dotlock;
mod helper;
mod lock;
pub mod mbox;
mod stored;

pub use mbox::{Error, Mbox, Place, Snapshot};
pub use stored::StoredMessage;

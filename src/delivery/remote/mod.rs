//! Delivery to other hosts by SMTP.
//!
//! The worker hands messages to a *courier*: a process without rights, in a cell of its own, that
//! asks DNS and speaks to strangers. It may read the one file of each message that it is given.
//!
//! ```text
//! worker ── job, and the file to read ──► courier ──► destination ──► connections to its hosts
//!        ◄── one report a recipient ────
//! ```

pub mod connection;
pub mod courier;
pub mod destination;
pub mod dispatch;
pub mod hosts;
pub mod record;

pub use dispatch::Courier;

//! A Maildir: a directory with a file for each message.
//!
//! A message is written whole in `tmp/` and made durable before it gets its name in `new/` or
//! `cur/`, so no lock is needed and no reader ever sees a part of one. Its name is unique by time,
//! process and chance; what it is marked with stands behind it, so to mark is to rename
//! (`name`). A subfolder (Maildir++) is a Maildir below, whose name begins with a dot.

mod append;
mod deliver;
mod folder;
mod inspect;
mod keywords;
mod name;
mod parts;
mod reconcile;
mod store;
mod text;

pub use deliver::Maildir;
pub(in crate::mailbox) use parts::PARTS;
pub use parts::is_at;
pub use store::MaildirStore;

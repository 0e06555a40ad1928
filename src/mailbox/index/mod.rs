//! The index of a mailbox: UIDs, flags, MODSEQs and places of its messages, for speed and for what
//! the mailbox itself has no room for.
//!
//! [`State`] is what it knows, as a value. [`Index`] keeps it in a file that all processes share;
//! [`Directory`] is where that and the other small files of a mailbox stand.

mod codec;
mod directory;
mod file;
mod journal;
mod locked;
mod messages;
mod names;
mod plan;
mod reconcile;
mod snapshot;
mod state;

use std::fmt;

pub use directory::{Directory, Entry, stem};
pub use file::{ENDING, Index, NEW, Opened};
pub use journal::Trouble;
pub use locked::Locked;
pub use messages::Messages;
pub use plan::MarkPlan;
pub use reconcile::{Claims, Found, list, reconcile};
pub use state::{Base, Change, MOST_MESSAGES, State};

/// An index says something that can't be: what is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Damaged(pub &'static str);

impl fmt::Display for Damaged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for Damaged {}

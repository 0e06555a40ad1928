//! The index of a mailbox: UIDs, flags, MODSEQs and places of its messages, for speed and for what
//! the mailbox itself has no room for.

mod state;

use std::fmt;

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

pub(in crate::mailbox) mod directory {
    pub(in crate::mailbox) use crate::mailbox::mbox::index::stem;
}

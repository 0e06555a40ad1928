//! Mailboxes: what is stored, and how it is shared with other mail programs.
//!
//! What arrives goes through a [`Stager`] and becomes a [`Staged`] message, from which each
//! mailbox makes its own form. [`mbox`] is the one place that opens, locks, reads and changes an
//! mbox file, [`maildir`] the one that writes a Maildir. [`dotlock`] is used by the setgid helper,
//! too.

pub mod cache;
mod crlf;
pub mod directory;
pub mod dotlock;
pub mod folders;
mod helper;
pub mod index;
pub mod inspect;
mod lock;
pub mod maildir;
pub mod mbox;
pub mod memory;
mod message;
mod moment;
mod stage;
pub mod store;
#[cfg(test)]
mod store_tests;
pub mod structures;
pub mod uids;
pub mod watch;

use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::unistd::Uid;

use crate::config::LockKind;

pub use maildir::{Maildir, MaildirStore};
pub use mbox::{Error, Mbox, MboxStore};
pub use memory::Memory;
pub use message::{NewMessage, Staged};
pub use stage::{StageError, Stager};
pub use store::Store;
pub use structures::Structures;
pub use uids::UidSet;

/// How long locks of other programs are waited for.
pub const LOCK_TIMEOUT: Duration = Duration::from_secs(30);

/// Where a mailbox is, and how it is shared.
#[derive(Clone, Debug)]
pub struct Place {
    /// The mbox file, or the Maildir.
    pub path: PathBuf,
    /// The directory of an mbox's journals.
    pub index: PathBuf,
    /// Whose it must be.
    pub owner: Uid,
    /// The locks that are taken on an mbox, all of them.
    pub locks: Vec<LockKind>,
    /// Where the dotlock helper is.
    pub libexec: PathBuf,
    /// How long is waited for locks.
    pub lock_timeout: Duration,
    /// How many bytes it may have; 0 where there is no limit.
    pub quota: u64,
}

impl Place {
    fn has_room(&self, size: u64) -> Result<(), Error> {
        if self.quota == 0 || size <= self.quota {
            return Ok(());
        }
        Err(Error::OverQuota { path: self.path.clone(), quota: self.quota })
    }
}

/// The size of a mailbox around an append, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Growth {
    /// Before it. 0 for a Maildir without a quota: nobody asked.
    pub before: u64,
    /// Behind it.
    pub after: u64,
}

/// A mailbox of either kind, for those who only put messages into it.
#[derive(Debug)]
pub enum Mailbox {
    /// One file.
    Mbox(Mbox),
    /// A directory with a file for each message.
    Maildir(Maildir),
}

impl Mailbox {
    /// The mailbox at this place, which need not exist yet: a Maildir where its path ends in a
    /// slash, or one is found there.
    pub fn new(place: Place) -> Self {
        if names_maildir(&place.path) || maildir::is_at(&place.path) {
            Self::Maildir(Maildir::new(place))
        } else {
            Self::Mbox(Mbox::new(place))
        }
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        match self {
            Self::Mbox(mbox) => mbox.path(),
            Self::Maildir(maildir) => maildir.path(),
        }
    }

    /// Puts messages into it together. On return they are on stable storage; on any failure the
    /// mailbox is as before.
    pub fn append(&mut self, messages: &[NewMessage]) -> Result<Growth, Error> {
        match self {
            Self::Mbox(mbox) => mbox.append(messages),
            Self::Maildir(maildir) => maildir.append(messages),
        }
    }

    /// What the operator should know of what was found, since the last call.
    pub fn take_warnings(&mut self) -> Vec<String> {
        match self {
            Self::Mbox(mbox) => mbox.take_warnings(),
            Self::Maildir(_) => Vec::new(),
        }
    }
}

/// Opens the mailbox at this place for a session.
pub fn open(place: Place) -> Result<Box<dyn Store>, Error> {
    if names_maildir(&place.path) || maildir::is_at(&place.path) {
        Ok(Box::new(MaildirStore::open(place)?))
    } else {
        Ok(Box::new(MboxStore::open(place)?))
    }
}

/// Whether a path is written as a Maildir's, with a slash at its end.
pub fn names_maildir(path: &Path) -> bool {
    path.as_os_str().as_encoded_bytes().ends_with(b"/")
}

//! An mbox file of its owner, shared with other mail programs.
//!
//! Each operation opens the file, takes all locks, finishes what a killed
//! process of ours left, works, and closes it again: nothing is held in
//! between.
//!
//! The journals stand in the index directory, 0700 of the owner, which is made when it is needed.
//! Where it can't be made (no home directory, a read-only one) what needs one fails, temporarily,
//! with a text that names the directory, and the mail stays where it was: without its journal a
//! killed process could lose a message, or glue a neighbour's next one to a torn one. Mailboxes are
//! still read without it, as long as there is no journal to look at.

mod ahead;
mod append;
mod believed;
mod catch_up;
mod compaction;
mod cursor;
mod delivered;
mod error;
mod exclusive;
mod expunge;
pub mod fields;
mod form;
pub mod from_line;
mod identity;
mod in_place;
mod inspect;
mod intent;
mod listing;
mod measure;
mod open;
mod own;
pub mod piped;
mod present;
pub mod quote;
mod reading;
mod record;
mod redo;
mod scan;
mod store;
mod window;
mod write_back;

use std::fs::File;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use super::index::{Base, Directory};
use super::lock::{self, Attempt, Held, Locker, Trouble};
use super::{Growth, NewMessage, Place};
use crate::sys::lock::{Kind, is_open_elsewhere};
use crate::sys::signal;

pub use believed::Believed;
pub use error::Error;
pub use own::{ImapBase, Own, Room};
pub use scan::{Found, Scanner};
pub use store::MboxStore;
pub use window::Source;
pub use write_back::{Edit, NoRoom, Wanted, write_back};

use delivered::Delivered;
use form::{Batch, Stored};
use identity::Identity;
use intent::Intent;
use open::Spool;

/// So often it is asked whether somebody else has a file open.
const ALONE_TRIES: u64 = 3;

/// An mbox file.
#[derive(Debug)]
pub struct Mbox {
    place: Place,
    locker: Locker,
    warnings: Vec<String>,
}

/// The file while it is locked.
#[derive(Debug)]
struct Opened {
    file: File,
    identity: Identity,
    spool: Spool,
    held: Held,
    /// What was appended is on stable storage with its UIDs and marks, and so is the UIDLAST: an
    /// index that a power cut throws back finds them again.
    tells_all: bool,
}

impl Opened {
    /// How the file looks to an index after what was done under the write locks.
    fn stamp(&mut self, verified: bool) -> Result<Base, Error> {
        let stamped = self.identity.stamp(&self.file);
        self.identity = stamped.map_err(|error| self.fail("be looked at", error))?;
        Ok(self.identity.base(verified))
    }

    fn fail(&self, doing: &'static str, error: io::Error) -> Error {
        Error::io(&self.spool.path, doing, error)
    }

    /// Whether nobody else has the file open, and so may number its messages. A live Dovecot gives
    /// UIDs in its index alone, and leaves out those of messages that it has removed since: it would
    /// take ours for the UIDs of others.
    fn is_alone(&self) -> bool {
        let mut tries = (0..ALONE_TRIES).map(|tries| {
            // One of ours that wants the locks has it open for a moment.
            std::thread::sleep(Duration::from_millis(tries));
            !is_open_elsewhere(&self.file)
        });
        tries.any(|is_alone| is_alone)
    }
}

impl Mbox {
    /// The mailbox at this place, which need not exist yet.
    pub fn new(place: Place) -> Self {
        Self {
            locker: Locker::new(place.locks.clone(), &place.libexec),
            place,
            warnings: Vec::new(),
        }
    }

    /// The mbox file's path.
    pub fn path(&self) -> &Path {
        &self.place.path
    }

    /// What the operator should know of what was found, since the last call.
    pub fn take_warnings(&mut self) -> Vec<String> {
        std::mem::take(&mut self.warnings)
    }

    /// Appends messages together, under one lock and one sync. On return they are on stable
    /// storage; on any failure the file is as before.
    pub fn append(&mut self, messages: &[NewMessage]) -> Result<Growth, Error> {
        if messages.is_empty() {
            return Ok(Growth::default());
        }
        let directory = self.directory();
        let Some(mut opened) = self.lock_for_writing(&directory, true)? else {
            return Err(self.missing());
        };
        let looked = opened.identity;
        let before = looked.size;
        let is_first = |number| number == 0 && before == 0;
        let stored = (0..).zip(messages).map(|(number, one)| Stored::of(one, is_first(number)));
        let stored: Vec<Stored> = stored.collect();
        let batch = Batch(&stored);
        let length = batch.length().unwrap_or(u64::MAX);
        self.place.has_room(before.saturating_add(length).saturating_add(1))?;
        let after = append::append(&mut opened, &directory, batch)?;
        Delivered::keep(&mut opened, &looked, &directory);
        Ok(Growth { before, after })
    }

    /// Where its small files stand.
    fn directory(&self) -> Directory {
        Directory::new(&self.place.index, &self.place.path, self.place.owner)
    }

    /// How the file looks, without a lock; `None` where there is none.
    fn look(&self) -> Result<Option<Identity>, Error> {
        let path = &self.place.path;
        match std::fs::symlink_metadata(path) {
            Ok(found) => Ok(Some(Identity::of_metadata(&found))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::io(path, "be looked at", error)),
        }
    }

    fn missing(&self) -> Error {
        let error = io::ErrorKind::NotFound.into();
        Error::io(&self.place.path, "be opened", error)
    }

    fn lock_for_writing(
        &mut self,
        directory: &Directory,
        create: bool,
    ) -> Result<Option<Opened>, Error> {
        let Some(mut opened) = self.lock(Kind::Exclusive, create)? else {
            return Ok(None);
        };
        // A removal may belong to the undoing of an append: it comes first.
        redo::recover(&mut opened, directory, &mut self.warnings)?;
        append::recover(&mut opened, directory, &mut self.warnings)?;
        opened.identity = Identity::of(&opened.file)
            .map_err(|error| Error::io(&self.place.path, "be looked at", error))?;
        Ok(Some(opened))
    }

    fn lock_for_reading(&mut self) -> Result<Option<Opened>, Error> {
        loop {
            let Some(opened) = self.lock(Kind::Shared, false)? else {
                return Ok(None);
            };
            // Looked at under the lock: outside of it, an append may be under way.
            let directory = self.directory();
            if !redo::is_pending(&directory)? && Intent::read(&opened, &directory)?.is_none() {
                return Ok(Some(opened));
            }
            drop(opened);
            drop(self.lock_for_writing(&directory, false)?);
        }
    }

    /// Opens the mailbox and takes all locks; `None` where there is no mailbox.
    fn lock(&mut self, kind: Kind, create: bool) -> Result<Option<Opened>, Error> {
        let started = Instant::now();
        let path = &self.place.path;
        let mut tries = 0_u32;
        loop {
            let Some(spool) = Spool::open(path, self.place.owner)? else {
                return Ok(None);
            };
            let file = match spool.mailbox(kind == Kind::Exclusive)? {
                Some(file) => file,
                None if create => {
                    spool.create()?;
                    match spool.mailbox(true)? {
                        Some(file) => file,
                        None => return Ok(None),
                    }
                }
                None => return Ok(None),
            };
            let busy = match self.locker.try_all(&spool.dir, path, &file, kind) {
                Ok(Attempt::Got(held)) if spool.still(&file)? => {
                    let identity = Identity::of(&file)
                        .map_err(|error| Error::io(path, "be looked at", error))?;
                    return Ok(Some(Opened { file, identity, spool, held, tells_all: false }));
                }
                Ok(Attempt::Got(_)) => "it was replaced again and again".into(),
                Ok(Attempt::Busy(who)) => who,
                Err(Trouble::Kernel(error)) => return Err(Error::io(path, "be locked", error)),
                Err(Trouble::Dotlock(why)) => {
                    return Err(Error::Dotlock { path: path.clone(), why });
                }
            };
            drop(file);
            let waited = started.elapsed();
            if waited >= self.place.lock_timeout || signal::is_end_asked_for() {
                return Err(Error::Locked { path: path.clone(), held: busy, waited });
            }
            tries = tries.saturating_add(1);
            std::thread::sleep(lock::pause(tries));
        }
    }
}

#[cfg(test)]
mod crash_tests;
#[cfg(test)]
mod neighbours_tests;
#[cfg(test)]
mod tests;

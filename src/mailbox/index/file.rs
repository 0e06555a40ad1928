//! The index file: a snapshot, and behind it a journal of what has happened since.
//!
//! Writers hold an flock(2) on the file for as long as they look and append; readers take none.
//! What a reader sees is behind a frame that was written whole, and where it does not follow on
//! what it knew (the file was replaced, or cut back after a failure) it reads all anew.

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::rc::Rc;
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::journal::{self, Known, Trouble};
use super::snapshot::{self, Loaded};
use super::{Damaged, Directory, Entry, Locked, State};
use crate::mailbox::moment::moment;
use crate::mailbox::{Error, LOCK_TIMEOUT};
use crate::sys::lock::{Kind, try_flock, unlock_flock};

/// The end of an index's name.
pub const ENDING: &str = ".index";

/// The same, before it is complete.
pub const NEW: &str = ".index.new";

const GONE: Damaged = Damaged("it is gone");

/// How an index was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opened {
    /// As it was left.
    Loaded,
    /// There is none.
    Missing,
    /// It can't be used.
    Damaged(Damaged),
}

/// The index of a mailbox: what this process knows of it, and the file.
#[derive(Debug)]
pub struct Index {
    pub(super) directory: Directory,
    pub(super) file: Option<Rc<File>>,
    pub(super) state: State,
    pub(super) opened: Opened,
    /// Whether there can be a file.
    pub(super) is_kept: bool,
    /// It is damaged, and the state is what stands before the damage.
    is_torn: bool,
    pub(super) generation: u64,
    pub(super) known: Known,
    /// Where the journal begins.
    pub(super) journal: u64,
    /// How far it may grow before the next snapshot.
    pub(super) room: u64,
}

impl Index {
    /// The index of a mailbox, as it is. Nothing is made on disk.
    ///
    /// Unless it was loaded, it is to be made anew from the mailbox, by [`Locked::replace`].
    pub fn open(directory: Directory) -> Result<(Self, Opened), Error> {
        let mut index = Self {
            directory,
            file: None,
            state: State::new(0, 0),
            opened: Opened::Missing,
            is_kept: true,
            is_torn: false,
            generation: 0,
            known: Known::default(),
            journal: 0,
            room: 0,
        };
        index.load_anew()?;
        let opened = index.opened;
        Ok((index, opened))
    }

    /// What is known of the mailbox. Where the index is damaged, or gone, this is what was known
    /// last, or could be read: marks of messages that are found again may be taken from it, but
    /// UIDs it does not know may have been given.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// How it was found last.
    pub fn opened(&self) -> Opened {
        self.opened
    }

    /// Whether it is kept. Else its directory can't be made, and it ends with this value.
    pub fn is_kept(&self) -> bool {
        self.is_kept
    }

    /// Whether it is damaged behind what the state is: a power cut took what was not synced yet.
    pub fn is_torn(&self) -> bool {
        self.is_torn && matches!(self.opened, Opened::Damaged(_))
    }

    /// Goes on with what is known, and without a file, which can't be written: as if there were no
    /// place for one.
    pub fn forsake(&mut self) {
        self.state.messages.remove_unreadable();
        self.is_kept = false;
        self.file = None;
        self.opened = Opened::Missing;
    }

    /// Its directory.
    pub fn directory(&self) -> &Directory {
        &self.directory
    }

    /// Where its file is, or would be.
    pub fn path(&self) -> PathBuf {
        self.directory.path_of(ENDING)
    }

    /// Writes it anew where its journal changes so much that opening it takes long. To be called when
    /// nobody waits.
    pub fn tidy(&mut self) -> Result<(), Error> {
        if self.is_kept && self.state.messages.pages_here() > MOST_PAGES {
            self.lock()?.tidy()?;
        }
        Ok(())
    }

    /// Looks at what others wrote; true if anything changed. [`Error::Damaged`] where the index is
    /// to be made anew: what is known stays as it was.
    pub fn refresh(&mut self) -> Result<bool, Error> {
        if !self.is_kept {
            return Ok(false);
        }
        let found = self.directory.look(ENDING)?;
        match (found, self.opened) {
            (None, Opened::Missing) => return Ok(false),
            (Some(found), _)
                if self.state.messages.damaged().is_some() && self.leads_here(found)? =>
            {
                return Err(self.found_damaged());
            }
            (Some(found), Opened::Loaded) if self.leads_here(found)? => {
                if found.size == self.known.end {
                    return Ok(false);
                }
                if let Ok(any) = self.follow(found.size) {
                    return Ok(any);
                }
            }
            _ => {}
        }
        let was = self.opened;
        self.load_anew()?;
        match self.opened {
            Opened::Loaded => Ok(true),
            Opened::Missing if was == Opened::Missing => Ok(false),
            Opened::Missing => Err(self.damaged(GONE)),
            Opened::Damaged(damaged) => Err(self.damaged(damaged)),
        }
    }

    /// Keeps others from writing, and looks at what they wrote before.
    pub fn lock(&mut self) -> Result<Locked<'_>, Error> {
        let was = self.file.as_ref().and_then(|file| inode(file).ok());
        if !self.take_lock(true)? {
            return Ok(Locked::new(self));
        }
        let size = self.size()?;
        let is_same = self.file.as_ref().and_then(|file| inode(file).ok()) == was;
        if is_same && self.state.messages.damaged().is_some() {
            self.found_damaged();
        } else if !is_same || self.opened != Opened::Loaded || self.follow(size).is_err() {
            let loaded = self.load();
            if loaded.is_err() {
                self.unlock();
            }
            loaded?;
        }
        if self.opened != Opened::Loaded {
            // What goes on with the rest is not to stumble again.
            self.state.messages.remove_unreadable();
        }
        Ok(Locked::new(self))
    }

    /// Messages were found to be damaged that were not looked at when it was opened.
    fn found_damaged(&mut self) -> Error {
        let damaged = self.state.messages.damaged().unwrap_or(GONE);
        self.opened = Opened::Damaged(damaged);
        self.is_torn = false;
        self.damaged(damaged)
    }

    /// What is wrong, for who asked.
    pub(super) fn damaged(&self, damaged: Damaged) -> Error {
        Error::Damaged { path: self.path(), why: damaged.0 }
    }

    /// The same of what can't be read, written or taken in.
    pub fn trouble(&self, trouble: Trouble) -> Error {
        match trouble {
            Trouble::Io(error) => self.error("can't be read", error),
            Trouble::Damaged(damaged) => self.damaged(damaged),
            Trouble::Messages(error) => error,
        }
    }

    pub(super) fn error(&self, why: &str, source: io::Error) -> Error {
        self.directory.error(ENDING, why, Some(source))
    }

    fn size(&self) -> Result<u64, Error> {
        let Some(file) = &self.file else {
            return Ok(0);
        };
        let found = file.metadata().map_err(|error| self.error("can't be looked at", error))?;
        Ok(found.len())
    }

    fn leads_here(&self, found: Entry) -> Result<bool, Error> {
        let Some(file) = &self.file else {
            return Ok(false);
        };
        let own = inode(file).map_err(|error| self.error("can't be looked at", error))?;
        Ok(own == (found.dev, found.ino))
    }

    /// Takes in what stands behind what is known.
    fn follow(&mut self, size: u64) -> Result<bool, Trouble> {
        let Some(file) = &self.file else {
            return Ok(false);
        };
        if size < self.known.end {
            return Err(Damaged("it was cut").into());
        }
        let state = &mut self.state;
        journal::follow(file, size, &mut self.known, |change| state.apply(change))
    }

    /// Reads what the name leads to.
    fn load_anew(&mut self) -> Result<(), Error> {
        self.file = self.directory.file(ENDING, false)?.map(Rc::new);
        self.load()?;
        // A writer may be at it, or have been.
        if matches!(self.opened, Opened::Damaged(_)) && self.take_lock(false)? {
            let loaded = self.load();
            self.unlock();
            return loaded;
        }
        Ok(())
    }

    /// Reads the file that is open, all of it. What was known stays where it can't be read.
    pub(super) fn load(&mut self) -> Result<(), Error> {
        let was = std::mem::replace(&mut self.opened, Opened::Missing);
        let size = self.size()?;
        let Some(file) = self.file.as_ref().filter(|_| size > 0) else {
            return Ok(());
        };
        let read = snapshot::read(file, self.path(), size);
        let Loaded { mut state, generation, known } = match read {
            Ok(loaded) => loaded,
            Err(Trouble::Damaged(damaged)) => {
                self.opened = Opened::Damaged(damaged);
                self.is_torn = false;
                return Ok(());
            }
            Err(trouble) => return Err(self.trouble(trouble)),
        };
        let mut end = known;
        self.opened = match journal::follow(file, size, &mut end, |change| state.apply(change)) {
            Ok(_) => Opened::Loaded,
            Err(Trouble::Damaged(damaged)) => Opened::Damaged(damaged),
            Err(trouble) => return Err(self.trouble(trouble)),
        };
        self.is_torn = false;
        if self.opened == Opened::Loaded || was != Opened::Loaded {
            self.state = state;
            self.is_torn = self.opened != Opened::Loaded;
        }
        self.generation = self.generation.max(generation);
        self.begin(known.end);
        self.known = end;
        Ok(())
    }

    /// Says where the journal begins.
    pub(super) fn begin(&mut self, journal: u64) {
        self.journal = journal;
        self.room = LEAST_ROOM.max(journal / 2);
    }

    /// Takes the lock of the file that the name leads to; false where there is none, and none is or
    /// can be made.
    fn take_lock(&mut self, create: bool) -> Result<bool, Error> {
        if !self.is_kept {
            return Ok(false);
        }
        let started = Instant::now();
        let mut pause = Duration::from_micros(20);
        loop {
            if self.file.is_none() {
                self.file = self.directory.file(ENDING, false)?.map(Rc::new);
            }
            if self.file.is_none() && create {
                self.file = self.create()?.map(Rc::new);
            }
            let Some(file) = &self.file else {
                return Ok(false);
            };
            match try_flock(file, Kind::Exclusive) {
                Ok(true) => {
                    let found = self.directory.look(ENDING)?;
                    if matches!(found, Some(found) if self.leads_here(found)?) {
                        return Ok(true);
                    }
                    // It was replaced, or removed; pages that are known may still be read there.
                    self.unlock();
                    self.file = None;
                    continue;
                }
                Ok(false) => {}
                Err(error) => return Err(self.error("can't be locked", error)),
            }
            let waited = started.elapsed();
            if waited >= LOCK_TIMEOUT {
                let held = "the index by one of ours".into();
                return Err(Error::Locked { path: self.path(), held, waited });
            }
            sleep(pause);
            pause = Duration::from_millis(5).min(pause.saturating_mul(2));
        }
    }

    /// Makes an empty file; none where there is no place for one.
    fn create(&mut self) -> Result<Option<File>, Error> {
        self.directory.forget();
        moment();
        if self.directory.make().is_err() {
            self.is_kept = false;
            return Ok(None);
        }
        moment();
        match self.directory.file(ENDING, true) {
            Err(Error::Index { source: Some(error), .. }) if is_no_place(&error) => {
                self.is_kept = false;
                Ok(None)
            }
            made => made,
        }
    }

    pub(super) fn unlock(&self) {
        if let Some(file) = &self.file {
            // It goes with the file at the latest.
            let _ = unlock_flock(file.as_ref());
        }
    }
}

/// A journal that changes more pages than this is made a snapshot of when nobody waits.
pub(super) const MOST_PAGES: usize = 32;

/// A journal that is shorter is not made a snapshot of.
const LEAST_ROOM: u64 = 256 * 1024;

pub(super) fn inode(file: &File) -> io::Result<(u64, u64)> {
    let found = file.metadata()?;
    Ok((found.dev(), found.ino()))
}

fn is_no_place(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound
            | io::ErrorKind::PermissionDenied
            | io::ErrorKind::ReadOnlyFilesystem
            | io::ErrorKind::StorageFull
            | io::ErrorKind::QuotaExceeded
    )
}

#[cfg(test)]
#[path = "file_tests.rs"]
pub(super) mod tests;

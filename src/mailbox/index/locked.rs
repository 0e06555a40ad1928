//! Writing an index, under its lock.
//!
//! A commit is one write behind the last whole frame. A process that is killed leaves a frame that
//! is whole, or none. Where the journal has become long the file is replaced: the new one is
//! complete and synced before it gets the name, and locked before anybody can open it.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::rc::Rc;

use super::file::{ENDING, MOST_PAGES, NEW};
use super::journal::{self, Known, Trouble};
use super::{Change, Damaged, Directory, Index, Messages, Opened, State, snapshot};
use crate::mailbox::Error;
use crate::mailbox::moment::moment;
use crate::sys::lock::flock;

/// After a snapshot failed the journal may grow so much before the next is tried.
const MORE_ROOM: u64 = 64 * 1024;

/// An index that nobody else can write, until this is dropped.
#[derive(Debug)]
pub struct Locked<'a>(&'a mut Index);

impl Drop for Locked<'_> {
    fn drop(&mut self) {
        self.0.unlock();
    }
}

impl<'a> Locked<'a> {
    pub(super) fn new(index: &'a mut Index) -> Self {
        Self(index)
    }

    /// What is known of the mailbox; as [`Index::state`].
    pub fn state(&self) -> &State {
        &self.0.state
    }

    /// How it was found. Unless it was loaded, it has to be replaced before anything is committed.
    pub fn opened(&self) -> Opened {
        self.0.opened
    }

    /// Whether it is kept; as [`Index::is_kept`].
    pub fn is_kept(&self) -> bool {
        self.0.is_kept
    }

    /// As [`Index::is_torn`].
    pub fn is_torn(&self) -> bool {
        self.0.is_torn()
    }

    /// Its directory.
    pub fn directory(&self) -> &Directory {
        &self.0.directory
    }

    /// As [`Index::trouble`].
    pub fn trouble(&self, trouble: Trouble) -> Error {
        self.0.trouble(trouble)
    }

    /// Makes changes, all or none. With `durable` they are on stable storage on return, and so is
    /// what was committed before. On failure the state is as before, and so is the file.
    pub fn commit(&mut self, changes: Vec<Change>, durable: bool) -> Result<(), Error> {
        let index = &mut *self.0;
        match index.opened {
            Opened::Loaded => {}
            Opened::Missing => return Err(index.damaged(Damaged("there is none"))),
            Opened::Damaged(damaged) => return Err(index.damaged(damaged)),
        }
        if !index.is_kept {
            let mut state = index.state.clone();
            apply(&mut state, changes).map_err(|trouble| index.trouble(trouble))?;
            index.state = state;
            return Ok(());
        }
        if changes.is_empty() {
            return if durable { self.sync() } else { Ok(()) };
        }
        let frame = journal::frame(&changes, index.known);
        if let Err(trouble) = apply(&mut index.state, changes) {
            let error = index.trouble(trouble);
            return Err(self.undo(error));
        }
        let written = self.write(frame, durable);
        written.map_err(|error| self.undo(error))
    }

    /// Puts a state in the place of what there was, or makes the first one. On failure all is as
    /// before.
    pub fn replace(&mut self, state: State) -> Result<(), Error> {
        state.check().map_err(|damaged| self.0.damaged(damaged))?;
        if !self.0.is_kept {
            self.0.state = state;
            self.0.opened = Opened::Loaded;
            return Ok(());
        }
        let new = self.write_new(&state)?;
        self.0.state = state;
        self.0.opened = Opened::Loaded;
        self.adopt(new)
    }

    /// As [`Index::tidy`].
    pub fn tidy(&mut self) -> Result<(), Error> {
        let index = &*self.0;
        if index.opened != Opened::Loaded || index.state.messages.pages_here() <= MOST_PAGES {
            // Somebody else has done so.
            return Ok(());
        }
        // Where it can't be written, as on a disk that is full, nothing is lost.
        self.write_new(&index.state).map_or(Ok(()), |new| self.adopt(new))
    }

    /// Writes what was applied: behind the journal, or, where that has become long, anew.
    fn write(&mut self, frame: Option<(Vec<u8>, Known)>, durable: bool) -> Result<(), Error> {
        let index = &*self.0;
        let frame_fits = frame
            .as_ref()
            .is_some_and(|(_, known)| known.end.saturating_sub(index.journal) <= index.room);
        if !frame_fits {
            match (self.write_new(&index.state), &frame) {
                (Ok(new), _) => return self.adopt(new),
                (Err(error), None) => return Err(error),
                // The disk may have room for the frame alone.
                (Err(_), Some(_)) => self.0.room = self.0.room.saturating_add(MORE_ROOM),
            }
        }
        match (frame, &self.0.file) {
            (Some((bytes, known)), Some(file)) => {
                let fail = |error| self.0.error("can't be written", error);
                if file.metadata().map_err(fail)?.len() > self.0.known.end {
                    // What a killed process wrote of a frame.
                    moment();
                    file.set_len(self.0.known.end).map_err(fail)?;
                }
                moment();
                file.write_all_at(&bytes, self.0.known.end).map_err(fail)?;
                if durable {
                    self.sync()?;
                }
                self.0.known = known;
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn sync(&self) -> Result<(), Error> {
        moment();
        let synced = self.0.file.as_ref().map_or(Ok(()), |file| file.sync_data());
        synced.map_err(|error| self.0.error("can't be made durable", error))
    }

    /// Makes the next file, and gives it the name.
    fn write_new(&self, state: &State) -> Result<New, Error> {
        let directory = &self.0.directory;
        // One that a killed process left.
        moment();
        directory.remove(NEW)?;
        let made = self.make_new(state);
        if made.is_err() {
            let _ = directory.remove(NEW);
        }
        made
    }

    fn make_new(&self, state: &State) -> Result<New, Error> {
        let directory = &self.0.directory;
        let generation = self.0.generation.saturating_add(1);
        let fail = |error| directory.error(NEW, "can't be written", Some(error));
        moment();
        let Some(file) = directory.file(NEW, true)? else {
            return Err(fail(io::ErrorKind::NotFound.into()));
        };
        flock(&file).map_err(fail)?;
        let file = Rc::new(file);
        let written = snapshot::write(&file, self.0.path(), state, generation);
        let (known, messages) = written.map_err(|trouble| match trouble {
            Trouble::Io(error) => fail(error),
            other => self.0.trouble(other),
        })?;
        moment();
        file.sync_all().map_err(fail)?;
        moment();
        directory.replace(NEW, ENDING)?;
        Ok(New { file, generation, known, messages })
    }

    /// Goes on with the file that has the name now. The lock of the old one ends here: others that
    /// wait for it look for the new one then.
    fn adopt(&mut self, new: New) -> Result<(), Error> {
        self.0.unlock();
        self.0.file = Some(new.file);
        self.0.state.messages = new.messages;
        self.0.generation = new.generation;
        self.0.known = new.known;
        self.0.begin(new.known.end);
        moment();
        self.0.directory.sync()
    }

    /// Takes back what was applied and could not be written.
    fn undo(&mut self, error: Error) -> Error {
        let index = &mut *self.0;
        if let Some(file) = &index.file
            && file.metadata().is_ok_and(|found| found.len() > index.known.end)
        {
            let _ = file.set_len(index.known.end);
        }
        if index.load().is_err() {
            index.opened = Opened::Damaged(Damaged("it can't be read any more"));
        }
        error
    }
}

/// The file that is next.
#[derive(Debug)]
struct New {
    file: Rc<File>,
    generation: u64,
    known: Known,
    messages: Messages,
}

fn apply(state: &mut State, changes: Vec<Change>) -> Result<(), Trouble> {
    changes.into_iter().try_for_each(|change| state.apply(change))
}

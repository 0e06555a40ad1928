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

mod append;
mod error;
mod exclusive;
pub mod fields;
mod form;
pub mod from_line;
mod identity;
mod intent;
mod open;
pub mod piped;
mod present;
pub mod quote;
mod record;
mod redo;
mod scan;
mod window;

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Instant;

use super::index::Directory;
use super::lock::{self, Attempt, Held, Locker, Trouble};
use super::{Growth, NewMessage, Place};
use crate::sys::lock::Kind;
use crate::sys::signal;

pub use error::Error;
pub use scan::{Message, Snapshot};

use form::{Batch, Stored};
use identity::Identity;
use intent::Intent;
use open::Spool;
use present::Presenter;
use window::Window;

/// How much of a message is read under one lock.
const CHUNK: u64 = 256 * 1024;

/// An mbox file.
#[derive(Debug)]
pub struct Mbox {
    place: Place,
    locker: Locker,
    /// The mailbox as it was listed last, for finding messages that have moved.
    listed: Option<Snapshot>,
    warnings: Vec<String>,
}

/// The file while it is locked.
#[derive(Debug)]
struct Opened {
    file: File,
    identity: Identity,
    spool: Spool,
    held: Held,
}

impl Mbox {
    /// The mailbox at this place, which need not exist yet.
    pub fn new(place: Place) -> Self {
        Self {
            locker: Locker::new(place.locks.clone(), &place.libexec),
            place,
            listed: None,
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
        let index = self.index();
        let Some(mut opened) = self.lock_for_writing(&index, true)? else {
            return Err(self.missing());
        };
        let before = opened.identity.size;
        let is_first = |number| number == 0 && before == 0;
        let stored = (0..).zip(messages).map(|(number, one)| Stored::of(one, is_first(number)));
        let stored: Vec<Stored> = stored.collect();
        let batch = Batch(&stored);
        let length = batch.length().unwrap_or(u64::MAX);
        self.place.has_room(before.saturating_add(length).saturating_add(1))?;
        let after = append::append(&mut opened, &index, batch)?;
        Ok(Growth { before, after })
    }

    /// Lists the messages; a missing file is an empty mailbox.
    pub fn scan(&mut self) -> Result<Snapshot, Error> {
        let Some(opened) = self.lock_for_reading()? else {
            return Ok(Snapshot::default());
        };
        let snapshot = scan::scan(&opened.file, opened.identity)
            .map_err(|error| error.at(&self.place.path))?;
        Ok(snapshot)
    }

    /// Streams message `n` (counted from 0) to `sink` as clients get it, with at most so many lines
    /// of its body. No lock is held while `sink` is called. [`Error::Changed`] if the message is
    /// gone or not the same any more.
    pub fn read(
        &mut self,
        snapshot: &Snapshot,
        n: usize,
        body_lines: Option<u64>,
        sink: &mut dyn FnMut(&[u8]) -> io::Result<()>,
    ) -> Result<(), Error> {
        let mut message = snapshot.messages.get(n).ok_or(Error::Changed)?.clone();
        let mut identity = snapshot.identity;
        let mut presenter = Presenter::new(message.quoted, body_lines);
        let mut done = 0_u64;
        let (mut stored, mut out) = (Vec::new(), Vec::new());
        while presenter.wants_more() {
            let opened = self.lock_for_reading()?.ok_or(Error::Changed)?;
            if !identity.is_some_and(|identity| identity.unchanged(&opened.identity)) {
                let found = self.find(&opened, &message)?;
                let found = found.ok_or(Error::Changed)?;
                if done > 0 {
                    done = moved(done, &message, &found).ok_or(Error::Changed)?;
                }
                identity = Some(opened.identity);
                message = found;
            }
            let from = message.header.saturating_add(done);
            let length = message.body_end.saturating_sub(from).min(CHUNK);
            stored.resize(usize::try_from(length).unwrap_or(0), 0);
            opened.file.read_exact_at(&mut stored, from).map_err(|error| match error.kind() {
                io::ErrorKind::UnexpectedEof => Error::Changed,
                _ => Error::io(&self.place.path, "be read", error),
            })?;
            drop(opened);
            if stored.is_empty() {
                presenter.finish(&mut out);
            } else {
                presenter.push(&stored, &mut out);
                done = done.saturating_add(length);
            }
            sink(&out).map_err(Error::Sink)?;
            out.clear();
        }
        Ok(())
    }

    /// Removes the messages (counted from 0) from the file, and returns how many were removed: one
    /// that another program has removed or changed meanwhile is left out.
    pub fn expunge(&mut self, snapshot: &Snapshot, messages: &[usize]) -> Result<usize, Error> {
        let mut wanted: Vec<&Message> =
            messages.iter().filter_map(|n| snapshot.messages.get(*n)).collect();
        if wanted.is_empty() {
            return Ok(0);
        }
        wanted.sort_unstable_by_key(|message| message.start);
        wanted.dedup_by_key(|message| message.start);
        let index = self.index();
        let Some(mut opened) = self.lock_for_writing(&index, false)? else {
            return Ok(0);
        };
        let mut ranges = self.places(&opened, &wanted)?;
        ranges.sort_unstable();
        ranges.dedup();
        let count = ranges.len();
        let ranges = scan::removable(&opened.file, opened.identity, ranges)
            .map_err(|error| Error::io(&self.place.path, "be read", error))?;
        redo::remove(&mut opened, &index, &ranges)?;
        Ok(count)
    }

    /// Where messages (in their order) stand now, as [`Self::find`] tells of one: in one pass over
    /// the file, or two.
    fn places(&self, opened: &Opened, wanted: &[&Message]) -> Result<Vec<(u64, u64)>, Error> {
        let mut window = Window::new(&opened.file, opened.identity.size);
        let mut all = None;
        let mut places = Vec::new();
        for message in wanted {
            let there = scan::message_at(&mut window, message.start)
                .map_err(|error| Error::io(&self.place.path, "be read", error))?;
            if let Some(there) = there.filter(|there| there.digest == message.digest) {
                places.push((there.start, there.end));
                continue;
            }
            if all.is_none() {
                let list = scan::scan(&opened.file, opened.identity)
                    .map_err(|error| error.at(&self.place.path))?;
                let list = list.messages.into_iter();
                let place = |m: Message| ((m.digest, m.occurrence), (m.start, m.end));
                all = Some(list.map(place).collect::<HashMap<_, _>>());
            }
            let key = (message.digest, message.occurrence);
            places.extend(all.as_ref().and_then(|all| all.get(&key)));
        }
        Ok(places)
    }

    /// Where a message stands now: where it stood, or else wherever its like is found, the same
    /// one in the order of its likes.
    fn find(&mut self, opened: &Opened, message: &Message) -> Result<Option<Message>, Error> {
        let mut window = Window::new(&opened.file, opened.identity.size);
        let there = scan::message_at(&mut window, message.start)
            .map_err(|error| Error::io(&self.place.path, "be read", error))?;
        let there = there.filter(|there| there.digest == message.digest);
        if there.is_some() {
            return Ok(there);
        }
        let known = self
            .listed
            .take()
            .filter(|list| list.identity.is_some_and(|i| i.unchanged(&opened.identity)));
        let list = match known {
            Some(list) => list,
            None => scan::scan(&opened.file, opened.identity)
                .map_err(|error| error.at(&self.place.path))?,
        };
        let found = list
            .messages
            .iter()
            .find(|m| (m.digest, m.occurrence) == (message.digest, message.occurrence))
            .cloned();
        self.listed = Some(list);
        Ok(found)
    }

    fn index(&self) -> Directory {
        Directory::new(&self.place.index, &self.place.path, self.place.owner)
    }

    fn missing(&self) -> Error {
        let error = io::ErrorKind::NotFound.into();
        Error::io(&self.place.path, "be opened", error)
    }

    fn lock_for_writing(
        &mut self,
        index: &Directory,
        create: bool,
    ) -> Result<Option<Opened>, Error> {
        let Some(mut opened) = self.lock(Kind::Exclusive, create)? else {
            return Ok(None);
        };
        // A removal may belong to the undoing of an append: it comes first.
        redo::recover(&mut opened, index, &mut self.warnings)?;
        append::recover(&mut opened, index, &mut self.warnings)?;
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
            let index = self.index();
            if !redo::is_pending(&index)? && Intent::read(&opened, &index)?.is_none() {
                return Ok(Some(opened));
            }
            drop(opened);
            drop(self.lock_for_writing(&index, false)?);
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
                    return Ok(Some(Opened { file, identity, spool, held }));
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

/// Where the next byte stands in a message that another program has rewritten: in the body it is
/// known even when the header's flags take more or less room now.
fn moved(done: u64, old: &Message, new: &Message) -> Option<u64> {
    let header = |m: &Message| m.body.saturating_sub(m.header);
    let body = |m: &Message| m.body_end.saturating_sub(m.body);
    if body(old) != body(new) {
        return None;
    }
    if header(old) == header(new) {
        return Some(done);
    }
    done.checked_sub(header(old))?.checked_add(header(new))
}

#[cfg(test)]
mod tests;

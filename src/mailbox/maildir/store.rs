//! A Maildir as a [`Store`].
//!
//! Names tell which messages there are and how they are marked; the index gives them UIDs and
//! MODSEQs, and remembers sizes. A change is made to the files first and then to the index, under
//! the index's lock: what a killed process leaves is what a neighbour could have done.
//!
//! Messages stay in `new/` until a session says that it has seen them, or they are marked.

use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd};

use nix::unistd::{UnlinkatFlags, fsync, unlinkat};

use super::append::Written;
use super::folder::{Entry, Folder, Looks};
use super::keywords::Letters;
use super::name;
use super::reconcile::{keep_keywords, reconcile};
use super::text::{self, Reading};
use crate::mailbox::index::{Change, Directory, Index, Locked, Opened, State};
use crate::mailbox::moment::moment;
use crate::mailbox::store::{
    Arrival, Changes, Flags, Marking, Marks, Message, Status, Store, Version,
};
use crate::mailbox::uids::{Uid, UidSet};
use crate::mailbox::watch::Watch;
use crate::mailbox::{Error, Place};
use crate::sys::clock;

/// A session's handle on a Maildir.
#[derive(Debug)]
pub struct MaildirStore {
    pub(super) folder: Folder,
    pub(super) index: Index,
    /// What the handle's UIDs count with; 0 until the first look.
    pub(super) uid_validity: u32,
    reading: Option<Reading>,
    watch: Option<Watch>,
    warnings: Vec<String>,
}

impl MaildirStore {
    /// Opens the Maildir at this place, which is made where it is missing, and looks at it.
    pub fn open(place: Place) -> Result<Self, Error> {
        let directory = Directory::new(&place.index, &place.path, place.owner);
        let (index, _) = Index::open(directory)?;
        let mut store = Self {
            folder: Folder::open(place)?,
            index,
            uid_validity: 0,
            reading: None,
            watch: None,
            warnings: Vec::new(),
        };
        store.sync()?;
        Ok(store)
    }

    /// Keeps others of ours from changing the Maildir. An index that is missing or damaged is made
    /// anew.
    fn lock(&mut self) -> Result<Session<'_>, Error> {
        self.lock_with(false)
    }

    /// The same; with `anew` also an index that is sound.
    pub(super) fn lock_with(&mut self, anew: bool) -> Result<Session<'_>, Error> {
        let mut locked = self.index.lock()?;
        self.folder.still()?;
        if anew || locked.opened() != Opened::Loaded {
            if let Opened::Damaged(damaged) = locked.opened() {
                self.warnings.push(format!(
                    "the index of {} is damaged ({damaged}) and is made anew",
                    self.folder.place.path.display()
                ));
            }
            // Larger than in any index before.
            let modseq = clock::microseconds();
            let old = (locked.opened() == Opened::Loaded).then(|| locked.state().clone());
            let mut state = State::new(locked.directory().new_uid_validity(), modseq);
            if let Some(old) = &old {
                state.keywords.clone_from(&old.keywords);
            }
            locked.replace(state)?;
            reconcile(&mut self.folder, &mut locked, &mut self.warnings)?;
            if let Some(old) = &old {
                keep_keywords(&self.folder, &mut locked, old)?;
            }
        }
        let uid_validity = locked.state().uid_validity;
        if self.uid_validity == 0 {
            self.uid_validity = uid_validity;
        }
        if self.uid_validity != uid_validity {
            let path = self.folder.place.path.clone();
            let why = "was given new UIDs meanwhile, because its index was lost".into();
            return Err(Error::Refused { path, why });
        }
        let (folder, warnings) = (&mut self.folder, &mut self.warnings);
        Ok(Session { locked, folder, warnings, looks: Looks::default() })
    }
}

/// An operation on a Maildir and its index, which nobody else of ours changes until it ends.
pub(super) struct Session<'a> {
    locked: Locked<'a>,
    folder: &'a mut Folder,
    warnings: &'a mut Vec<String>,
    looks: Looks,
}

impl Session<'_> {
    fn state(&self) -> &State {
        self.locked.state()
    }

    fn look(&mut self) -> Result<(), Error> {
        if self.folder.look()?.0 == self.state().base {
            return Ok(());
        }
        reconcile(self.folder, &mut self.locked, self.warnings)
    }

    /// Makes keywords known, and gives them letters as far as can be. Messages that have one of
    /// them already get its letter, if that is new.
    fn make_keywords(&mut self, keywords: Vec<Change>, bits: u64) -> Result<Letters, Error> {
        if !keywords.is_empty() {
            self.locked.commit(keywords, false)?;
        }
        let Folder { parts, keywords, .. } = &mut *self.folder;
        let refreshed = keywords.refresh(&parts.root);
        refreshed.map_err(|error| self.folder.fail("be read", error))?;
        let state = self.locked.state();
        let before = self.folder.keywords.letters(state).mask;
        if bits & !before == 0 {
            return Ok(self.folder.keywords.letters(state));
        }
        let wanted = state.keywords.iter().zip(0_u32..);
        let wanted = wanted.filter(|(_, at)| bits.checked_shr(*at).is_some_and(|bit| bit & 1 != 0));
        let Folder { parts, keywords, .. } = &mut *self.folder;
        let added = keywords.add(&parts.root, wanted.map(|(name, _)| name.as_str()));
        added.map_err(|error| self.folder.fail("be written", error))?;
        let letters = self.folder.keywords.letters(state);
        let new = letters.mask & !before;
        for message in state.messages.iter() {
            let message = message?;
            if message.marks.keywords & new == 0 {
                continue;
            }
            self.folder.rename(&message.digest, &mut self.looks, |entry| {
                let named = if entry.is_new { message.marks } else { letters.marks(&entry.name) };
                let keywords = named.keywords | (message.marks.keywords & new);
                letters.name(&entry.name, Marks { keywords, ..named })
            })?;
        }
        Ok(letters)
    }

    /// Takes messages in that were written.
    fn append(&mut self, arrivals: &[Arrival], written: &mut Written) -> Result<Vec<Uid>, Error> {
        let keywords = arrivals.iter().flat_map(|arrival| &arrival.keywords).map(String::as_str);
        let mut made = Vec::new();
        let bits = self.state().make_keywords(keywords, &mut made);
        let letters = self.make_keywords(made, bits)?;
        let state = self.state();
        let uids = state.new_uids(arrivals.len()).ok_or(Error::TooMany(arrivals.len()))?;
        let modseq = state.next_modseq();
        let (mut changes, mut names) = (Vec::new(), Vec::new());
        for ((uid, arrival), file) in uids.clone().zip(arrivals).zip(written.files()) {
            let keywords = arrival.keywords.iter().map(String::as_str);
            let keywords = state.make_keywords(keywords, &mut Vec::new());
            let marks = Marks { flags: arrival.flags, keywords };
            let base = file.name.as_bytes();
            names.push(letters.name(base, marks));
            let message = file.measured.message(uid, marks, modseq, name::digest(base));
            changes.push(Change::New(message));
        }
        written.place(&names).map_err(|error| self.folder.fail("be written", error))?;
        self.locked.commit(changes, true)?;
        for name in names {
            self.folder.add(Entry { name: name.into(), is_new: false });
        }
        Ok(uids.collect())
    }

    /// Renames the files of these messages; those that it could are put into `marked`.
    fn mark_files(
        &mut self,
        letters: &Letters,
        uids: impl Iterator<Item = Uid>,
        marking: Marking,
        by: Marks,
        marked: &mut UidSet,
    ) -> Result<(), Error> {
        for uid in uids {
            let state = self.locked.state();
            let Some(message) = state.messages.get(uid)? else {
                continue;
            };
            // What a neighbour did in the meantime stays.
            let renamed = self.folder.rename(&message.digest, &mut self.looks, |entry| {
                let named = if entry.is_new { message.marks } else { letters.marks(&entry.name) };
                letters.name(&entry.name, marking.of(named, by))
            })?;
            if renamed {
                marked.insert(uid);
            }
        }
        Ok(())
    }

    /// Removes the files of these messages; those that it could are put into `gone`.
    fn remove_files(&mut self, uids: &UidSet, gone: &mut UidSet) -> Result<(), Error> {
        let messages = self.state().messages.within(uids).collect::<Result<Vec<_>, _>>()?;
        for Message { uid, digest, .. } in messages {
            let removed = self.folder.with(&digest, &mut self.looks, |parts, entry| {
                moment();
                unlinkat(entry.part(parts), &*entry.name, UnlinkatFlags::NoRemoveDir)
            })?;
            if removed.is_some() {
                self.folder.forget(&digest);
                gone.insert(uid);
            }
        }
        Ok(())
    }

    /// Moves what is in `new/` to `cur/`.
    fn take_new(&mut self) -> Result<(), Error> {
        if !self.folder.any_new()? {
            return Ok(());
        }
        let messages = self.locked.state().messages.all()?;
        if !self.folder.is_listed() {
            self.folder.list(messages.iter().map(|message| &message.digest))?;
        }
        let letters = self.folder.keywords.letters(self.state());
        for message in &messages {
            let is_new = self.folder.files().get(&message.digest).is_some_and(|file| file.is_new);
            if is_new {
                self.folder.rename(&message.digest, &mut self.looks, |entry| {
                    let named = letters.marks(&entry.name);
                    let marks = if entry.is_new { message.marks } else { named };
                    letters.name(&entry.name, marks)
                })?;
            }
        }
        Ok(())
    }
}

impl Store for MaildirStore {
    fn sync(&mut self) -> Result<(), Error> {
        if let Some(watch) = &mut self.watch {
            watch.drain().map_err(|error| self.folder.fail("be watched", error))?;
        }
        match self.index.refresh() {
            Ok(_) | Err(Error::Damaged { .. }) => {}
            Err(error) => return Err(error),
        }
        let state = self.index.state();
        let is_ours = self.uid_validity == state.uid_validity && self.uid_validity != 0;
        if is_ours && self.index.opened() == Opened::Loaded && self.folder.look()?.0 == state.base {
            return Ok(());
        }
        self.lock()?.look()
    }

    fn status(&self) -> Status {
        self.index.state().status()
    }

    fn version(&self) -> Version {
        self.index.state().version()
    }

    fn uids(&self) -> &UidSet {
        self.index.state().messages.uids()
    }

    fn messages(&self) -> Result<Vec<Message>, Error> {
        self.index.state().messages.all()
    }

    fn message(&self, uid: Uid) -> Result<Option<Message>, Error> {
        self.index.state().messages.get(uid)
    }

    fn keywords(&self) -> &[String] {
        &self.index.state().keywords
    }

    fn read(
        &mut self,
        uid: Uid,
        range: Range<u64>,
        sink: &mut dyn FnMut(&[u8]) -> io::Result<()>,
    ) -> Result<(), Error> {
        self.index.state().counts_with(self.uid_validity)?;
        let Message { size, digest, .. } = self.message(uid)?.ok_or(Error::Changed)?;
        let reading = match &mut self.reading {
            Some(reading) if reading.uid == uid => reading,
            other => {
                let mut looks = Looks::default();
                let file = self.folder.with(&digest, &mut looks, |parts, entry| {
                    text::open(entry.part(parts), &entry.name)
                })?;
                let path = &self.folder.place.path;
                other.insert(Reading::new(uid, path, file.ok_or(Error::Changed)?))
            }
        };
        reading.read(range.start..range.end.min(size), sink)
    }

    fn append(&mut self, arrivals: &[Arrival]) -> Result<Vec<Uid>, Error> {
        if arrivals.is_empty() {
            return Ok(Vec::new());
        }
        let mut written = Written::new(&self.folder, arrivals)?;
        let appended = self.lock().and_then(|mut session| session.append(arrivals, &mut written));
        if appended.is_err() {
            written.undo();
        }
        appended
    }

    fn mark(
        &mut self,
        uids: &UidSet,
        marking: Marking,
        flags: Flags,
        keywords: &[String],
        unchanged_since: Option<u64>,
    ) -> Result<UidSet, Error> {
        let mut session = self.lock()?;
        let plan = session.state().plan_mark(uids, marking, flags, keywords, unchanged_since)?;
        if plan.marked.is_empty() {
            return Ok(plan.refused);
        }
        let added = if marking == Marking::Remove { 0 } else { plan.by.keywords };
        let letters = session.make_keywords(plan.keywords, added)?;
        let mut done = UidSet::new();
        let uids = plan.marked.iter().map(|(uid, _)| *uid);
        let renamed = session.mark_files(&letters, uids, marking, plan.by, &mut done);
        if !done.is_empty() {
            let modseq = session.state().next_modseq();
            let mark = Change::Mark { uids: done, marking, by: plan.by, modseq };
            session.locked.commit(vec![mark], false)?;
        }
        renamed.map(|()| plan.refused)
    }

    fn expunge(&mut self, uids: &UidSet) -> Result<UidSet, Error> {
        let mut session = self.lock()?;
        let mut gone = UidSet::new();
        let removed = session.remove_files(uids, &mut gone);
        if !gone.is_empty() {
            for part in [&session.folder.parts.cur, &session.folder.parts.new] {
                fsync(part).map_err(|error| session.folder.fail("be made durable", error))?;
            }
            let modseq = session.state().next_modseq();
            session.locked.commit(vec![Change::Expunge { uids: gone.clone(), modseq }], true)?;
        }
        removed.map(|()| gone)
    }

    fn changes_since(&self, modseq: u64) -> Result<Changes, Error> {
        self.index.state().changes_since(modseq)
    }

    fn claim_recent(&mut self) -> Result<Uid, Error> {
        let mut session = self.lock()?;
        session.look()?;
        session.take_new()?;
        let before = session.state().recent;
        let last = session.state().uid_next.saturating_sub(1);
        if last > before {
            session.locked.commit(vec![Change::Recent(last)], false)?;
        }
        Ok(before)
    }

    fn watch(&mut self) -> Result<Option<BorrowedFd<'_>>, Error> {
        if self.watch.is_none() {
            let path = &self.folder.place.path;
            let names = [path.join("new"), path.join("cur"), self.index.path()];
            // Where the user watches too much already, there is nothing to wait at.
            self.watch = Watch::new(names).ok();
        }
        Ok(self.watch.as_ref().map(AsFd::as_fd))
    }

    fn checkpoint(&mut self) -> Result<(), Error> {
        self.index.tidy()
    }

    fn take_warnings(&mut self) -> Vec<String> {
        std::mem::take(&mut self.warnings)
    }
}

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;

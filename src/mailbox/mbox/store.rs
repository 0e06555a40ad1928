//! An mbox as a store: the file is what counts, its index says what is where.
//!
//! What the index says holds for the file as it looked then ([`Identity`]); a file that looks
//! otherwise is read again before anything is done with it ([`super::catch_up`]). Who gives UIDs or
//! moves bytes has the write locks; who only marks messages needs no more than the index.

use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use super::ahead::Ahead;
use super::cursor::Cursor;
use super::form::{Batch, Stored};
use super::identity::Identity;
use super::scan::Scanner;
use super::{Mbox, Opened, append, in_place};
use crate::mailbox::index::{self, Change, Directory, Index, State};
use crate::mailbox::moment::moment;
use crate::mailbox::store::{Arrival, Changes, Flags, Marking, Message, Status, Store, Version};
use crate::mailbox::uids::{Uid, UidSet};
use crate::mailbox::watch::Watch;
use crate::mailbox::{Error, Place};

/// Others may change a mailbox so often between two looks before it is looked at under the lock.
pub(super) const TRIES: u32 = 4;

/// What was parsed only from where it had grown is looked at whole after so long.
const VERIFY: Duration = Duration::from_mins(1);

/// A session's handle on an mbox.
#[derive(Debug)]
pub struct MboxStore {
    pub(super) mbox: Mbox,
    pub(super) index: Index,
    /// What it shows instead of what the index has, while there is no file.
    pub(super) gone: Option<State>,
    /// What its UIDs count with; 0 until the first look.
    uid_validity: u32,
    pub(super) cursor: Option<Cursor>,
    pub(super) ahead: Ahead,
    watch: Option<Watch>,
    /// When all of the file was last looked at by this handle.
    pub(super) verified: Option<Instant>,
    pub(super) warnings: Vec<String>,
}

impl MboxStore {
    /// Opens the mailbox at this place, which need not exist yet.
    pub fn open(place: Place) -> Result<Self, Error> {
        let directory = Directory::new(&place.index, &place.path, place.owner);
        let (index, opened) = Index::open(directory)?;
        let mut warnings = Vec::new();
        if let index::Opened::Damaged(why) = opened {
            let path = index.path();
            warnings.push(format!("{}: {why}; the index is made anew", path.display()));
        }
        let mut store = Self {
            mbox: Mbox::new(place),
            index,
            gone: None,
            uid_validity: 0,
            cursor: None,
            ahead: Ahead::default(),
            watch: None,
            verified: None,
            warnings,
        };
        // What a killed process left is finished first, also where it had only begun.
        drop(store.mbox.lock_for_reading()?);
        store.sync()?;
        store.uid_validity = store.state().uid_validity;
        Ok(store)
    }

    /// Fails where the mailbox was numbered anew since it was opened.
    pub(super) fn same(&self) -> Result<(), Error> {
        self.state().counts_with(self.uid_validity)
    }

    /// The message that the caller knows by this UID.
    pub(super) fn known(&self, uid: Uid) -> Result<Message, Error> {
        self.same()?;
        self.message(uid)?.ok_or(Error::Changed)
    }

    pub(super) fn state(&self) -> &State {
        self.gone.as_ref().unwrap_or_else(|| self.index.state())
    }

    pub(super) fn fail(&self, doing: &'static str, error: io::Error) -> Error {
        Error::io(&self.mbox.place.path, doing, error)
    }

    /// Looks at what others of ours wrote into the index.
    pub(super) fn refresh(&mut self) -> Result<(), Error> {
        match self.index.refresh() {
            // With the file it has got another name, or was removed.
            Err(Error::Damaged { .. })
                if self.index.opened() == index::Opened::Missing
                    && matches!(self.mbox.look(), Ok(None)) => {}
            // It is made anew, since it describes nothing now.
            Err(error @ Error::Damaged { .. }) => self.warnings.push(error.to_string()),
            refreshed => drop(refreshed?),
        }
        Ok(())
    }

    /// Whether the index describes the file as it is now.
    pub(super) fn describes(&self, now: Option<&Identity>) -> bool {
        if self.index.opened() != index::Opened::Loaded {
            return false;
        }
        match now {
            Some(now) => now.is_of(&self.state().base),
            None => self.state().messages.is_empty(),
        }
    }

    /// Whether so much of the file may go on unseen.
    fn is_verified(&self) -> bool {
        Identity::is_verified(&self.state().base)
            || self.verified.is_some_and(|when| when.elapsed() < VERIFY)
    }

    /// The file under its write locks, with an index that describes it; `None` where there is none.
    pub(super) fn lock_current(&mut self, create: bool) -> Result<Option<Opened>, Error> {
        let directory = self.mbox.directory();
        for tries in 0.. {
            self.sync()?;
            let Some(mut opened) = self.mbox.lock_for_writing(&directory, create)? else {
                return Ok(None);
            };
            self.gone = None;
            self.refresh()?;
            if self.describes(Some(&opened.identity)) {
                return Ok(Some(opened));
            }
            if tries >= TRIES || opened.identity.size == 0 {
                self.catch_up_under(&mut opened, true)?;
                return Ok(Some(opened));
            }
        }
        Ok(None)
    }

    /// Whether these messages stand where the index says. Of what has only grown that is not certain:
    /// mutt moves a field from one message to another, and the last one stands where it stood.
    pub(super) fn stand(&self, opened: &Opened, mut meant: Vec<Message>) -> Result<bool, Error> {
        if Identity::is_verified(&self.state().base) {
            return Ok(true);
        }
        let mut scanner = Scanner::new(&opened.file, opened.identity.size);
        meant.sort_by_key(|message| message.extent.start);
        for message in meant {
            let there = scanner
                .message_at(message.extent.start)
                .map_err(|error| self.fail("be read", error))?;
            if there.is_none_or(|there| !there.is(&message)) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Looks at all of the file where one of these messages does not stand where the index says, and
    /// says whether all did.
    pub(super) fn verify(
        &mut self,
        opened: &mut Opened,
        meant: Vec<Message>,
    ) -> Result<bool, Error> {
        if self.stand(opened, meant)? {
            return Ok(true);
        }
        self.catch_up_under(opened, true).map(|()| false)
    }
}

impl Store for MboxStore {
    fn sync(&mut self) -> Result<(), Error> {
        if let Some(watch) = &mut self.watch {
            watch.drain().map_err(|error| Error::io(&self.mbox.place.path, "be watched", error))?;
        }
        match self.look_again() {
            // Mail can be read, and where there is room again be deleted, on a disk that is full.
            Err(error @ Error::Index { source: Some(_), .. }) if self.index.is_kept() => {
                self.index.forsake();
                self.look_again()?;
                self.warnings.push(format!("{error}; this session goes on without an index"));
                Ok(())
            }
            looked => looked,
        }
    }

    fn status(&self) -> Status {
        self.state().status()
    }

    fn version(&self) -> Version {
        self.state().version()
    }

    fn uids(&self) -> &UidSet {
        self.state().messages.uids()
    }

    fn messages(&self) -> Result<Vec<Message>, Error> {
        self.state().messages.all()
    }

    fn message(&self, uid: Uid) -> Result<Option<Message>, Error> {
        self.state().messages.get(uid)
    }

    fn keywords(&self) -> &[String] {
        &self.state().keywords
    }

    fn read(
        &mut self,
        uid: Uid,
        range: Range<u64>,
        sink: &mut dyn FnMut(&[u8]) -> io::Result<()>,
    ) -> Result<(), Error> {
        self.give(uid, range, sink)
    }

    fn append(&mut self, arrivals: &[Arrival]) -> Result<Vec<Uid>, Error> {
        if arrivals.is_empty() {
            return Ok(Vec::new());
        }
        let mut opened = self.lock_current(true)?.ok_or_else(|| self.mbox.missing())?;
        let before = opened.identity.size;
        let (uid_validity, uid_next) = (self.state().uid_validity, self.state().uid_next);
        let stored = |named: bool| -> Vec<Stored> {
            let each = (0_u32..).zip(arrivals).map(|(number, one)| {
                let first = number == 0 && before == 0;
                let uid = named.then(|| uid_next.saturating_add(number));
                Stored::marked(&one.message, first, uid, one.flags, &one.keywords)
            });
            each.collect()
        };
        let mut all = stored(false);
        let batch = Batch(&all);
        let length = batch.length().unwrap_or(u64::MAX);
        self.mbox.place.has_room(before.saturating_add(length).saturating_add(1))?;
        let directory = self.mbox.directory();
        // With their UIDs in it, the file alone has to be on stable storage.
        let count = u32::try_from(arrivals.len()).unwrap_or(u32::MAX);
        let uid_last = uid_next.checked_add(count).and_then(|next| next.checked_sub(1));
        let first = self.state().messages.iter().next().transpose()?;
        if let Some((uid_last, first)) = uid_last.zip(first)
            && in_place::announce(&opened, self.state(), &first, uid_last)
                .map_err(|error| self.fail("be written", error))?
        {
            all = stored(true);
            opened.tells_all = true;
        }
        append::append(&mut opened, &directory, Batch(&all))?;
        opened.identity =
            Identity::of(&opened.file).map_err(|error| self.fail("be looked at", error))?;
        if let Err(error) = self.catch_up_under(&mut opened, false) {
            // Nobody has seen them: the locks are still held.
            let _ = opened.file.set_len(before).and_then(|()| opened.file.sync_all());
            return Err(error);
        }
        // By their places: all UIDs are other ones where the mailbox has another UIDVALIDITY now.
        let from = if self.state().uid_validity == uid_validity { uid_next } else { 1 };
        let new = UidSet::from(from..=Uid::MAX);
        let mut uids = Vec::with_capacity(arrivals.len());
        for message in self.state().messages.within(&new) {
            let message = message?;
            if message.extent.start >= before {
                uids.push(message.uid);
            }
        }
        Ok(uids)
    }

    fn mark(
        &mut self,
        uids: &UidSet,
        marking: Marking,
        flags: Flags,
        keywords: &[String],
        unchanged_since: Option<u64>,
    ) -> Result<UidSet, Error> {
        self.sync()?;
        let mut locked = self.index.lock()?;
        locked.state().counts_with(self.uid_validity)?;
        let plan = locked.state().plan_mark(uids, marking, flags, keywords, unchanged_since)?;
        // In the kernel's hands: a killed process loses no mark. The disk has it with the next
        // checkpoint, as a sync costs more than all the rest.
        let (refused, modseq) = (plan.refused.clone(), locked.state().next_modseq());
        locked.commit(plan.changes(marking, modseq), false)?;
        drop(locked);
        if !self.index.is_kept() {
            // The mailbox itself is all that keeps them.
            self.checkpoint()?;
        }
        Ok(refused)
    }

    fn expunge(&mut self, uids: &UidSet) -> Result<UidSet, Error> {
        self.remove(uids)
    }

    fn changes_since(&self, modseq: u64) -> Result<Changes, Error> {
        self.state().changes_since(modseq)
    }

    fn claim_recent(&mut self) -> Result<Uid, Error> {
        let mut locked = self.index.lock()?;
        let before = locked.state().recent;
        if let Some(last) = locked.state().messages.uids().last()
            && last > before
        {
            locked.commit(vec![Change::Recent(last)], false)?;
        }
        Ok(before)
    }

    fn watch(&mut self) -> Result<Option<BorrowedFd<'_>>, Error> {
        if self.watch.is_none() {
            let paths = [self.mbox.place.path.clone(), self.index.path()];
            let watch = Watch::new(paths).map_err(|error| self.fail("be watched", error))?;
            self.watch = Some(watch);
        }
        Ok(self.watch.as_ref().map(AsFd::as_fd))
    }

    fn checkpoint(&mut self) -> Result<(), Error> {
        if self.state().messages.summary().to_write > 0 {
            self.write_marks()?;
        }
        self.index.tidy()
    }

    fn take_warnings(&mut self) -> Vec<String> {
        let mut warnings = self.mbox.take_warnings();
        warnings.append(&mut self.warnings);
        warnings
    }
}

impl MboxStore {
    /// Writes marks that only the index has into the file, where there is room.
    fn write_marks(&mut self) -> Result<(), Error> {
        let Some(mut opened) = self.lock_current(false)? else {
            return Ok(());
        };
        let meant = to_write(self.state())?;
        self.verify(&mut opened, meant)?;
        // Marked by others meanwhile, a message would be taken for written.
        let mut locked = self.index.lock()?;
        let messages = to_write(locked.state())?;
        let mut changes = in_place::write_marks(&opened, locked.state(), &messages)
            .map_err(|error| opened.fail("be written", error))?;
        // In the file for good before the index forgets that they are not.
        moment();
        opened.file.sync_data().map_err(|error| opened.fail("be written", error))?;
        let verified = Identity::is_verified(&locked.state().base);
        changes.push(Change::Base(opened.stamp(verified)?));
        locked.commit(changes, true)
    }
}

/// The messages with marks that can be written into the file, and are not.
fn to_write(state: &State) -> Result<Vec<Message>, Error> {
    let mut all = Vec::new();
    for message in state.messages.on_pages(|page| page.to_write > 0) {
        let message = message?;
        if message.extent.unwritten && !message.extent.no_room {
            all.push(message);
        }
    }
    Ok(all)
}

impl MboxStore {
    /// Looks at what others did, here and in the index.
    fn look_again(&mut self) -> Result<(), Error> {
        self.gone = None;
        self.refresh()?;
        for _ in 0..TRIES {
            let now = self.mbox.look()?;
            let whole = !self.is_verified();
            if self.describes(now.as_ref()) && !whole {
                return Ok(());
            }
            if self.catch_up(whole)? {
                return Ok(());
            }
        }
        let directory = self.mbox.directory();
        match self.mbox.lock_for_writing(&directory, false)? {
            Some(mut opened) => self.catch_up_under(&mut opened, true),
            None => self.show_nothing(),
        }
    }
}

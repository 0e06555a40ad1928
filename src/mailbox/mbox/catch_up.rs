//! What others did to an mbox comes into its index.
//!
//! Where the file has only grown, and the last message that is known is still where it was, no more
//! than what is new is read. Else all of it is, and messages are known again by their digests. What
//! is more than one read is read without the write locks, one read after the other under the read
//! locks; only then the write locks are taken, and what has come meanwhile is read.

use std::collections::{HashMap, HashSet};
use std::time::Instant;

use super::Opened;
use super::delivered::Delivered;
use super::identity::Identity;
use super::in_place::{self, Standing};
use super::listing::Listing;
use super::scan::{self, Scanner};
use super::store::MboxStore;
use crate::mailbox::Error;
use crate::mailbox::index::{self, Base, Change, Locked, Messages, State, list, reconcile};
use crate::mailbox::store::{Extent, Message};
use crate::sys::clock;

/// So much is read while the write locks are held, in bytes.
const ONE_READ: u64 = 1024 * 1024;

/// With more changes than this the index is written anew.
const MOST_CHANGES: usize = 10_000;

impl MboxStore {
    /// Tries once to bring the index in line with the file; false where others changed it so that
    /// what was read is worth nothing. `whole`: also where it has only grown.
    pub(super) fn catch_up(&mut self, whole: bool) -> Result<bool, Error> {
        self.catch_up_telling(whole, &mut |_| ())
    }

    /// The same, and tells how far the reading without the write locks is.
    pub(super) fn catch_up_telling(
        &mut self,
        whole: bool,
        tell: &mut dyn FnMut(u64),
    ) -> Result<bool, Error> {
        let directory = self.mbox.directory();
        let Some(mut opened) = self.mbox.lock_for_writing(&directory, false)? else {
            return self.show_nothing().map(|()| true);
        };
        self.gone = None;
        self.refresh()?;
        if self.describes(Some(&opened.identity)) && !whole {
            return Ok(true);
        }
        let last = if whole { None } else { self.last_known(&opened)? };
        let known = last.as_ref().map_or(0, scan::Found::end);
        if opened.identity.size.saturating_sub(known) <= ONE_READ {
            let listing = Listing::under(&opened, last).map_err(|error| self.at_path(error))?;
            return self.take_in(&mut opened, listing, false).map(|()| true);
        }
        drop(opened);
        let base = self.state().base;
        let Some(mut listing) = Listing::by_reads(&mut self.mbox, last, tell)? else {
            return Ok(false);
        };
        let Some(mut opened) = self.mbox.lock_for_writing(&directory, false)? else {
            return Ok(false);
        };
        self.refresh()?;
        if self.state().base != base {
            // Somebody else of ours has taken in some of it, or has written into headers.
            return Ok(false);
        }
        if !listing.go_on_under(&opened).map_err(|error| self.at_path(error))? {
            return Ok(false);
        }
        self.take_in(&mut opened, listing, false).map(|()| true)
    }

    /// The same while the write locks are held, which keep others from changing it.
    pub(super) fn catch_up_under(&mut self, opened: &mut Opened, whole: bool) -> Result<(), Error> {
        let last = if whole { None } else { self.last_known(opened)? };
        let listing = Listing::under(opened, last).map_err(|error| self.at_path(error))?;
        // Nobody else has changed it since it was current.
        let verified = Identity::is_verified(&self.state().base);
        self.take_in(opened, listing, verified)
    }

    pub(super) fn at_path(&self, error: Error) -> Error {
        error.at(&self.mbox.place.path)
    }

    /// The last message that is known, if it stands where it did and the file has only grown.
    fn last_known(&self, opened: &Opened) -> Result<Option<scan::Found>, Error> {
        let state = self.state();
        if self.index.opened() != index::Opened::Loaded {
            // What the index says of the rest is not to be believed.
            return Ok(None);
        }
        if !opened.identity.has_grown_from(&state.base) {
            return Ok(None);
        }
        // Nearly always it is the newest.
        let newest = state.messages.last()?;
        let mut last = newest.filter(|m| m.extent.end() == Identity::size_of(&state.base));
        if last.is_none() {
            let start = state.messages.summary().start;
            let there = state.messages.on_pages(|page| page.start == start);
            for message in there {
                last = Some(message?).filter(|m| m.extent.start == start).or(last);
            }
        }
        let Some(last) = last else {
            return Ok(None);
        };
        let there = Scanner::new(&opened.file, opened.identity.size)
            .message_at(last.extent.start)
            .map_err(|error| self.fail("be read", error))?;
        Ok(there.filter(|there| there.digest == last.digest))
    }

    /// Brings the index in line with what was found under the write locks. `verified`: what was not
    /// looked at is as the index says.
    ///
    /// The index is locked from the first look at what it knows: sessions mark messages without the
    /// locks of the file.
    fn take_in(
        &mut self,
        opened: &mut Opened,
        listing: Listing,
        verified: bool,
    ) -> Result<(), Error> {
        let is_whole = listing.from.is_none();
        let all_seen = is_whole && !listing.grew;
        let verified = verified || all_seen || self.only_delivered(opened)?;
        let mut locked = self.index.lock()?;
        let is_loaded = locked.opened() == index::Opened::Loaded;
        // The mailbox's own word counts: others go by it as well, and a live session of Dovecot ends
        // when it changes. Where it has none, others may have given UIDs that stood in an index that
        // is gone.
        let anew = match listing.claims {
            Some(claims) => claims.uid_validity != locked.state().uid_validity,
            None => !is_loaded && !locked.is_torn(),
        };
        if anew && !is_whole {
            // Nothing is known of the rest: nobody is to see a part as the whole.
            drop(locked);
            let whole = Listing::under(opened, None).map_err(|error| self.at_path(error))?;
            return self.take_in(opened, whole, verified);
        }
        if all_seen {
            self.verified = Some(Instant::now());
        }
        if is_loaded
            && !anew
            && let Some(mut changes) = changes(locked.state(), &listing)?
        {
            let durable = !opened.tells_all || !changes.iter().all(is_in_file);
            name(opened, locked.state(), &listing, &mut changes)?;
            changes.push(Change::Base(opened.stamp(verified)?));
            return locked.commit(changes, durable);
        }
        let state = if anew {
            anew_state(&locked, &listing)
        } else {
            let mut state = locked.state().clone();
            if !is_loaded {
                // Clients may have been told of later ones.
                state.modseq = state.modseq.max(clock::microseconds());
            }
            state
        };
        rewrite(&mut locked, opened, listing, state, anew, verified)
    }

    /// Makes the index anew, of what was found in all of the file under the write locks.
    pub(super) fn take_in_anew(
        &mut self,
        opened: &mut Opened,
        listing: Listing,
    ) -> Result<(), Error> {
        let mut locked = self.index.lock()?;
        let state = anew_state(&locked, &listing);
        rewrite(&mut locked, opened, listing, state, true, true)
    }

    /// Whether nobody but our own deliveries has changed what the index describes.
    fn only_delivered(&self, opened: &Opened) -> Result<bool, Error> {
        let base = &self.state().base;
        if self.index.opened() != index::Opened::Loaded || !Identity::is_verified(base) {
            return Ok(false);
        }
        let delivered = Delivered::read(self.index.directory())?;
        Ok(delivered.is_some_and(|delivered| delivered.explains(base, &opened.identity)))
    }

    /// There is no file: no message is there. The index keeps what it knows, for the file may have
    /// another name, or get one, and the index with it: what comes under this name is compared with
    /// it when it is there.
    pub(super) fn show_nothing(&mut self) -> Result<(), Error> {
        match self.index.opened() {
            index::Opened::Loaded => {}
            // Both are gone: it has another name now, or was deleted.
            index::Opened::Missing if self.index.state().uid_validity != 0 => {
                return Err(self.mbox.missing());
            }
            _ => return self.forget_all(),
        }
        if self.index.state().messages.is_empty() {
            return Ok(());
        }
        let mut state = self.index.state().clone();
        state.messages = Messages::default();
        state.base = Base::default();
        // None that was or will be: what comes next is another one, whatever it is.
        state.modseq = 0;
        self.gone = Some(state);
        Ok(())
    }

    /// There is no file: no message is left.
    pub(super) fn forget_all(&mut self) -> Result<(), Error> {
        let mut locked = self.index.lock()?;
        if locked.opened() != index::Opened::Loaded {
            // Whoever makes the file, it is the mailbox that was seen to be empty.
            let validity = locked.directory().new_uid_validity();
            return locked.replace(State::new(validity, clock::microseconds()));
        }
        if locked.state().messages.is_empty() {
            return Ok(());
        }
        let mut changes = Vec::new();
        reconcile(locked.state(), None, &[], None, &mut |change| changes.push(change))?;
        changes.push(Change::Base(Base::default()));
        locked.commit(changes, true)
    }
}

/// What brings the index in line with what was found; none where that is so much that it is better
/// written anew.
fn changes(state: &State, listing: &Listing) -> Result<Option<Vec<Change>>, Error> {
    let (mut changes, mut left) = (Vec::new(), MOST_CHANGES);
    reconcile(state, listing.from, &listing.found, listing.claims, &mut |change| {
        left = left.saturating_sub(1);
        if left > 0 {
            changes.push(change);
        }
    })?;
    Ok((left > 0).then_some(changes))
}

/// Gives messages their UIDs in the file: the new ones among these changes, and where all were found
/// also those that could not have them before.
fn name(
    opened: &Opened,
    state: &State,
    listing: &Listing,
    changes: &mut Vec<Change>,
) -> Result<(), Error> {
    let before = state.uid_next.saturating_sub(1);
    let uid_last = new_ones(changes).last().map_or(before, |last| last.uid);
    let names = (state.uid_validity, uid_last);
    let known = if listing.from.is_none() { unnamed(state, changes)? } else { Vec::new() };
    let mut blocked = None;
    if let Some(from) = listing.from {
        // The last one that is known is the first of these.
        let last = listing.found.first().filter(|last| last.uid.is_none());
        blocked = unnamed_before(state, from)?.or(last.map(|last| last.extent.start));
    }
    let standing = Standing::of(&listing.found);
    let new = new_ones(changes).map(|message| *message).filter(|message| !message.extent.named);
    let mut messages: Vec<Message> = known.iter().copied().chain(new).collect();
    messages.sort_by_key(|message| message.extent.start);
    let first = listing.first.as_ref();
    let named = in_place::name(opened, first, names, &standing, blocked, messages.into_iter())
        .map_err(|error| opened.fail("be written", error))?;
    for message in new_ones(changes) {
        message.extent.named |= named.contains(message.uid);
    }
    let known = known.into_iter().filter(|message| named.contains(message.uid));
    changes.extend(known.map(|message| Change::Placed {
        uid: message.uid,
        extent: Extent { named: true, ..message.extent },
    }));
    Ok(())
}

/// The known messages that have no UID in the file after these changes, as they are then.
fn unnamed(state: &State, changes: &[Change]) -> Result<Vec<Message>, Error> {
    let (mut gone, mut placed) = (HashSet::new(), HashMap::new());
    for change in changes {
        match change {
            Change::Expunge { uids, .. } => gone.extend(uids.iter()),
            Change::Placed { uid, extent } => drop(placed.insert(*uid, *extent)),
            _ => {}
        }
    }
    let mut unnamed = Vec::new();
    for message in state.messages.iter() {
        let message = message?;
        let extent = placed.get(&message.uid).copied().unwrap_or(message.extent);
        if !extent.named && !gone.contains(&message.uid) {
            unnamed.push(Message { extent, ..message });
        }
    }
    Ok(unnamed)
}

/// Where a message stands, of those before `from`, that has no UID in the file.
fn unnamed_before(state: &State, from: u64) -> Result<Option<u64>, Error> {
    for message in state.messages.on_pages(|page| page.unnamed > 0) {
        let extent = message?.extent;
        if !extent.named && extent.start < from {
            return Ok(Some(extent.start));
        }
    }
    Ok(None)
}

/// What an index begins with that is made anew.
fn anew_state(locked: &Locked<'_>, listing: &Listing) -> State {
    let known = locked.state();
    // Not the one that is known, though the directory went with all that it knew.
    let new = || locked.directory().new_uid_validity().max(known.uid_validity.saturating_add(1));
    let validity = listing.claims.map_or_else(new, |claims| claims.uid_validity);
    State::new(validity, known.modseq.max(clock::microseconds()))
}

/// Writes the index anew: this state, and what was found.
fn rewrite(
    locked: &mut Locked<'_>,
    opened: &mut Opened,
    listing: Listing,
    mut state: State,
    anew: bool,
    verified: bool,
) -> Result<(), Error> {
    let Listing { from, found, mut claims, first, .. } = listing;
    let old = locked.state();
    if let Some(claims) = claims.as_mut().filter(|_| state.uid_validity == old.uid_validity) {
        // What was given stays given, also where the file could not say so.
        claims.uid_last = claims.uid_last.max(old.uid_next.saturating_sub(1));
    }
    let standing = Standing::of(&found);
    if anew {
        let listed = list(&mut state, found, claims).and_then(|()| state.take_marks_of(old));
        listed.map_err(|trouble| locked.trouble(trouble))?;
    } else {
        // It is not in memory three times, unless it begins with a later MODSEQ.
        let later = (state.modseq != old.modseq).then(|| state.clone());
        let known = later.as_ref().unwrap_or(old);
        let mut applied = Ok(());
        reconcile(known, from, &found, claims, &mut |change| {
            if applied.is_ok() {
                applied = state.apply(change);
            }
        })?;
        applied.map_err(|trouble| locked.trouble(trouble))?;
    }
    let names = (state.uid_validity, state.uid_next.saturating_sub(1));
    // Where the others stand is not certain.
    let from = from.unwrap_or(0);
    let unnamed = unnamed_before(old, from)?;
    let mut here = Vec::new();
    for message in state.messages.on_pages(|page| page.unnamed > 0 && page.start >= from) {
        let message = message?;
        if message.extent.start >= from && !message.extent.named {
            here.push((message.extent.start, message.uid));
        }
    }
    here.sort_unstable();
    let here = here.into_iter().filter_map(|(_, uid)| state.messages.get(uid).ok().flatten());
    let named = in_place::name(opened, first.as_ref(), names, &standing, unnamed, here)
        .map_err(|error| opened.fail("be written", error))?;
    state.messages.change(&named, |message| message.extent.named = true)?;
    state.base = opened.stamp(verified)?;
    locked.replace(state)
}

/// Whether the file itself says so.
fn is_in_file(change: &Change) -> bool {
    match change {
        Change::New(message) => message.extent.named,
        Change::Keyword(_) | Change::UidNext(_) => true,
        _ => false,
    }
}

fn new_ones(changes: &mut [Change]) -> impl Iterator<Item = &mut Message> {
    changes.iter_mut().filter_map(|change| match change {
        Change::New(message) => Some(message),
        _ => None,
    })
}

//! What a mailbox's index knows, as a value: every process that applies the same changes in the
//! same order comes to the same state.

use std::collections::{HashMap, VecDeque};

use super::Damaged;
use super::journal::Trouble;
use super::messages::Messages;
use crate::mailbox::Error;
use crate::mailbox::store::{
    self, Changes, Extent, MOST_KEYWORD_BYTES, MOST_KEYWORDS, Marking, Marks, Message, Status,
    Version,
};
use crate::mailbox::uids::{Uid, UidSet};

/// So many expunged ranges are remembered for clients that come again.
const MOST_GONE: usize = 10_000;

/// More messages than this are not listed: a hostile file must not cost all memory.
pub const MOST_MESSAGES: usize = 1_000_000;

/// How the mailbox itself looked when the index described it; the numbers are the mailbox's own.
pub type Base = [u64; 8];

/// What happened to a mailbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A message came. Its UID is not less than UIDNEXT.
    New(Message),
    /// Messages were marked.
    Mark {
        /// Which; those that are gone are passed over.
        uids: UidSet,
        /// How.
        marking: Marking,
        /// With what.
        by: Marks,
        /// The MODSEQ of those that have other marks by it.
        modseq: u64,
    },
    /// Messages are gone.
    Expunge {
        /// Which.
        uids: UidSet,
        /// When.
        modseq: u64,
    },
    /// Bytes of the file are gone, or replaced (ascending, apart): what stood behind them stands
    /// elsewhere now. From where, up to where, and how many bytes stand there now.
    Edited(Vec<(u64, u64, u64)>),
    /// A message stands elsewhere, or its mailbox has room for its marks now.
    Placed {
        /// Which.
        uid: Uid,
        /// Where.
        extent: Extent,
    },
    /// The marks of these messages stand in the mailbox itself.
    Written(UidSet),
    /// There is one more keyword.
    Keyword(String),
    /// Sessions have been told of the messages up to this one.
    Recent(Uid),
    /// UIDNEXT is this, at least.
    UidNext(Uid),
    /// The mailbox itself looks like this, and the index describes it.
    Base(Base),
}

/// What an index knows of its mailbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    /// UIDs count only together with it.
    pub uid_validity: u32,
    /// The next message gets this UID or a larger one.
    pub uid_next: Uid,
    /// The largest MODSEQ.
    pub modseq: u64,
    /// The largest UID that a session has been told of.
    pub recent: Uid,
    /// The names of the keywords: bit n of a message's is the nth.
    pub keywords: Vec<String>,
    /// The messages.
    pub messages: Messages,
    /// What was expunged, with its MODSEQ, ascending by it.
    pub gone: Vec<(u64, UidSet)>,
    /// What was expunged up to this MODSEQ is not remembered.
    pub forgotten: u64,
    /// How the mailbox itself looked when all this was so.
    pub base: Base,
}

impl State {
    /// Of an empty mailbox. What happens to it has MODSEQs above `modseq`.
    pub fn new(uid_validity: u32, modseq: u64) -> Self {
        Self {
            uid_validity,
            uid_next: 1,
            modseq,
            recent: 0,
            keywords: Vec::new(),
            messages: Messages::default(),
            gone: Vec::new(),
            forgotten: modseq,
            base: Base::default(),
        }
    }

    /// Takes a change in; one that can't follow on what is known says that the index is damaged.
    pub fn apply(&mut self, change: Change) -> Result<(), Trouble> {
        match change {
            Change::New(message) => self.add(message)?,
            Change::Mark { uids, marking, by, modseq } => {
                self.check_keywords(by)?;
                self.advance(modseq)?;
                self.mark(&uids, marking, by, modseq)?;
            }
            Change::Expunge { uids, modseq } => {
                self.advance(modseq)?;
                self.expunge(&uids, modseq)?;
            }
            Change::Edited(edits) => self.move_up(&edits)?,
            Change::Placed { uid, extent } => {
                if !self.messages.uids().contains(uid) {
                    return Err(Damaged("a message that is not there was moved").into());
                }
                self.messages.change(&(uid..=uid).into(), |message| message.extent = extent)?;
            }
            Change::Written(uids) => {
                self.messages.change(&uids, |message| {
                    message.extent.unwritten = false;
                    message.extent.stored = message.marks;
                })?;
            }
            Change::Keyword(name) => {
                let fits = (1..=MOST_KEYWORD_BYTES).contains(&name.len());
                if !fits || self.keywords.len() >= MOST_KEYWORDS || self.keywords.contains(&name) {
                    let why = "a keyword is too long or there already, or too many are";
                    return Err(Damaged(why).into());
                }
                self.keywords.push(name);
            }
            Change::Recent(uid) => self.recent = self.recent.max(uid),
            Change::UidNext(uid) => self.uid_next = self.uid_next.max(uid),
            Change::Base(base) => self.base = base,
        }
        Ok(())
    }

    fn add(&mut self, message: Message) -> Result<(), Damaged> {
        // The last number is never given, so that UIDNEXT is always one more.
        if message.uid < self.uid_next || message.uid == Uid::MAX {
            return Err(Damaged("a new message has an old UID"));
        }
        if self.messages.len() >= MOST_MESSAGES {
            return Err(Damaged("there are too many messages"));
        }
        self.check_keywords(message.marks)?;
        self.advance(message.modseq)?;
        self.uid_next = message.uid.saturating_add(1);
        self.messages.push(message);
        Ok(())
    }

    /// The bits of the keywords that there are.
    pub(super) fn keyword_bits(&self) -> u64 {
        (0..self.keywords.len()).fold(0, |bits, at| bits | store::keyword_bit(at))
    }

    fn check_keywords(&self, marks: Marks) -> Result<(), Damaged> {
        if marks.keywords & !self.keyword_bits() != 0 {
            return Err(Damaged("a message has a keyword without a name"));
        }
        Ok(())
    }

    /// Whether it is what changes can lead to.
    pub fn check(&self) -> Result<(), Damaged> {
        let named = |name: &String| (1..=MOST_KEYWORD_BYTES).contains(&name.len());
        if self.keywords.len() > MOST_KEYWORDS || !self.keywords.iter().all(named) {
            return Err(Damaged("there are too many keywords, or one is too long"));
        }
        if self.messages.len() > MOST_MESSAGES || self.uid_next == 0 {
            return Err(Damaged("there are too many messages, or UIDNEXT is 0"));
        }
        let uids = self.messages.uids();
        if uids.last().is_some_and(|last| last >= self.uid_next) || uids.contains(0) {
            return Err(Damaged("a message has a UID that was not given yet"));
        }
        let all = self.messages.summary();
        if all.modseq > self.modseq {
            return Err(Damaged("a message has a MODSEQ above the mailbox's"));
        }
        let mut last = 0;
        for page in self.messages.pages() {
            let summary = &page.summary;
            if summary.first <= last || summary.last < summary.first {
                return Err(Damaged("the messages' UIDs don't ascend"));
            }
            last = summary.last;
        }
        if uids.len() != u64::from(all.count) || uids.last().unwrap_or(0) != last {
            return Err(Damaged("the UIDs are not those of the messages"));
        }
        if self.gone_ranges() > MOST_GONE {
            return Err(Damaged("too much is remembered of what was expunged"));
        }
        let gone = self.gone.iter().map(|(modseq, _)| *modseq);
        if !gone.is_sorted() || self.gone.last().is_some_and(|(modseq, _)| *modseq > self.modseq) {
            return Err(Damaged("the expunged messages' MODSEQs don't ascend"));
        }
        for range in self.gone.iter().flat_map(|(_, uids)| uids.ranges()) {
            if uids.meets(range) || *range.end() >= self.uid_next {
                return Err(Damaged("a message is expunged and there, or yet to come"));
            }
        }
        Ok(())
    }

    /// Several changes may have one MODSEQ, but none an earlier one.
    fn advance(&mut self, modseq: u64) -> Result<(), Damaged> {
        if modseq < self.modseq {
            return Err(Damaged("MODSEQs go backwards"));
        }
        self.modseq = modseq;
        Ok(())
    }

    fn mark(
        &mut self,
        uids: &UidSet,
        marking: Marking,
        by: Marks,
        modseq: u64,
    ) -> Result<(), Error> {
        self.messages.change(uids, |message| {
            let marks = marking.of(message.marks, by);
            if marks != message.marks {
                message.marks = marks;
                message.modseq = modseq;
                message.extent.unwritten = true;
            }
        })
    }

    fn gone_ranges(&self) -> usize {
        self.gone.iter().map(|(_, uids)| uids.ranges().len()).sum()
    }

    fn expunge(&mut self, uids: &UidSet, modseq: u64) -> Result<(), Error> {
        // Those that were there: a set such as 1:* has messages in it that are yet to come.
        let gone = self.messages.remove(uids)?;
        if gone.is_empty() {
            return Ok(());
        }
        self.gone.push((modseq, gone));
        let mut ranges = self.gone_ranges();
        if ranges <= MOST_GONE {
            return Ok(());
        }
        // Some more than has to be, so that this is not done each time.
        let mut count = 0_usize;
        for (modseq, uids) in &self.gone {
            if ranges <= MOST_GONE / 10 * 9 {
                break;
            }
            ranges = ranges.saturating_sub(uids.ranges().len());
            count = count.saturating_add(1);
            self.forgotten = *modseq;
        }
        self.gone.drain(..count);
        Ok(())
    }

    fn move_up(&mut self, edits: &[(u64, u64, u64)]) -> Result<(), Trouble> {
        let ends = edits.iter().flat_map(|(from, to, _)| [from, to]);
        if !ends.is_sorted() {
            return Err(Damaged("edited ranges don't ascend").into());
        }
        // Up to each edit, itself included, so many bytes are gone, and so many are there instead.
        let mut so_far = Vec::with_capacity(edits.len());
        let (mut removed, mut inserted) = (0_u64, 0_u64);
        for (from, to, now) in edits {
            removed = removed.saturating_add(to.saturating_sub(*from));
            inserted = inserted.saturating_add(*now);
            so_far.push((*from, removed, inserted));
        }
        let Some((first, ..)) = so_far.first().copied() else {
            return Ok(());
        };
        let mut is_possible = true;
        self.messages.change_pages(
            |page| page.start >= first,
            |message| {
                let start = message.extent.start;
                let before = so_far.partition_point(|(from, ..)| *from <= start);
                let last = before.checked_sub(1).and_then(|last| so_far.get(last));
                let (_, removed, inserted) = last.copied().unwrap_or_default();
                match start.checked_add(inserted).and_then(|start| start.checked_sub(removed)) {
                    Some(start) => message.extent.start = start,
                    None => is_possible = false,
                }
            },
        )?;
        if is_possible { Ok(()) } else { Err(Damaged("more was removed than there was").into()) }
    }

    /// The names of keywords.
    pub fn names(&self, keywords: u64) -> Vec<&str> {
        store::keywords(&self.keywords, keywords).collect()
    }

    /// Takes over marks that nothing but another index of the same mailbox had: its messages are
    /// known again by their digests, and equal ones by their order.
    pub fn take_marks_of(&mut self, other: &Self) -> Result<(), Trouble> {
        let readable = || other.messages.iter().filter_map(Result::ok);
        if !readable().any(|message| message.extent.unwritten) {
            return Ok(());
        }
        let mut in_order: Vec<Message> = readable().collect();
        in_order.sort_by_key(|message| message.extent.start);
        let mut theirs: HashMap<[u8; 16], VecDeque<Message>> = HashMap::new();
        for message in in_order {
            theirs.entry(message.digest).or_default().push_back(message);
        }
        let modseq = self.next_modseq();
        for message in self.messages.in_file_order()? {
            let same = theirs.get_mut(&message.digest).and_then(VecDeque::pop_front);
            let Some(same) = same.filter(|same| same.extent.unwritten) else {
                continue;
            };
            // What somebody else changed in the mailbox since then counts.
            let newer = message.marks.flags ^ same.extent.stored.flags;
            let flags = (same.marks.flags & !newer) | (message.marks.flags & newer);
            let now = self.names(message.marks.keywords);
            let stored = other.names(same.extent.stored.keywords);
            let ours = other.names(same.marks.keywords);
            let ours = ours.into_iter().filter(|name| now.contains(name) || !stored.contains(name));
            let theirs = now.iter().copied().filter(|name| !stored.contains(name));
            let mut changes = Vec::new();
            let keywords = self.make_keywords(ours.chain(theirs), &mut changes);
            changes.push(Change::Mark {
                uids: UidSet::from(message.uid..=message.uid),
                marking: Marking::Replace,
                by: Marks { flags, keywords },
                modseq,
            });
            changes.into_iter().try_for_each(|change| self.apply(change))?;
        }
        Ok(())
    }

    /// The MODSEQ for what happens next.
    pub fn next_modseq(&self) -> u64 {
        self.modseq.saturating_add(1)
    }

    /// What has happened since `modseq`.
    pub fn changes_since(&self, modseq: u64) -> Result<Changes, Error> {
        let mut changed = Vec::new();
        for message in self.messages.on_pages(|page| page.modseq > modseq) {
            let message = message?;
            if message.modseq > modseq {
                changed.push(message.uid);
            }
        }
        let mut vanished = UidSet::new();
        let from = self.gone.partition_point(|(when, _)| *when <= modseq);
        for range in self.gone.iter().skip(from).flat_map(|(_, uids)| uids.ranges()) {
            vanished.insert_range(range.clone());
        }
        Ok(Changes { changed, vanished, forgotten: modseq < self.forgotten })
    }

    /// Fails where UIDs do not count with this UIDVALIDITY any more: those that somebody knows are
    /// now those of other messages.
    pub fn counts_with(&self, uid_validity: u32) -> Result<(), Error> {
        if self.uid_validity == uid_validity { Ok(()) } else { Err(Error::Changed) }
    }

    /// What changes with every change.
    pub fn version(&self) -> Version {
        Version { uid_validity: self.uid_validity, modseq: self.modseq }
    }

    /// The mailbox as a whole.
    pub fn status(&self) -> Status {
        let all = self.messages.summary();
        let recent = self.messages.uids().above(self.recent).len();
        Status {
            uid_validity: self.uid_validity,
            uid_next: self.uid_next,
            highest_modseq: self.modseq,
            messages: all.count as usize,
            unseen: all.unseen as usize,
            first_unseen: all.first_unseen,
            deleted: all.deleted as usize,
            recent: usize::try_from(recent).unwrap_or(usize::MAX),
            size: all.size,
        }
    }
}

#[cfg(test)]
#[path = "state_tests.rs"]
mod tests;

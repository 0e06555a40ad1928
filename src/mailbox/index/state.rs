//! What a mailbox's index knows, as a value: every process that applies the same changes in the
//! same order comes to the same state.

use std::collections::{HashMap, VecDeque};

use super::Damaged;
use crate::mailbox::store::{
    self, Changes, Extent, Flags, MOST_KEYWORD_BYTES, MOST_KEYWORDS, Marking, Marks, Message,
    Status, Version,
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
    /// Ascending by UID.
    pub messages: Vec<Message>,
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
            messages: Vec::new(),
            gone: Vec::new(),
            forgotten: modseq,
            base: Base::default(),
        }
    }

    /// Takes a change in; one that can't follow on what is known says that the index is damaged.
    pub fn apply(&mut self, change: Change) -> Result<(), Damaged> {
        match change {
            Change::New(message) => self.add(message)?,
            Change::Mark { uids, marking, by, modseq } => {
                self.check_keywords(by)?;
                self.advance(modseq)?;
                self.mark(&uids, marking, by, modseq);
            }
            Change::Expunge { uids, modseq } => {
                self.advance(modseq)?;
                self.expunge(&uids, modseq);
            }
            Change::Edited(edits) => self.move_up(&edits)?,
            Change::Placed { uid, extent } => {
                self.at_mut(uid).ok_or(Damaged("a message that is not there was moved"))?.extent =
                    extent;
            }
            Change::Written(uids) => {
                self.each_of(&uids, |message| {
                    message.extent.unwritten = false;
                    message.extent.stored = message.marks;
                });
            }
            Change::Keyword(name) => {
                let fits = (1..=MOST_KEYWORD_BYTES).contains(&name.len());
                if !fits || self.keywords.len() >= MOST_KEYWORDS || self.keywords.contains(&name) {
                    return Err(Damaged("a keyword is too long or there already, or too many are"));
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

    fn check_keywords(&self, marks: Marks) -> Result<(), Damaged> {
        let used = u64::BITS.saturating_sub(marks.keywords.leading_zeros());
        if u64::from(used) > self.keywords.len() as u64 {
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
        let mut last = 0;
        for message in &self.messages {
            if message.uid <= last || message.uid >= self.uid_next {
                return Err(Damaged("the messages' UIDs don't ascend up to UIDNEXT"));
            }
            if message.modseq > self.modseq {
                return Err(Damaged("a message has a MODSEQ above the mailbox's"));
            }
            self.check_keywords(message.marks)?;
            last = message.uid;
        }
        if self.gone_ranges() > MOST_GONE {
            return Err(Damaged("too much is remembered of what was expunged"));
        }
        let gone = self.gone.iter().map(|(modseq, _)| *modseq);
        if !gone.is_sorted() || self.gone.last().is_some_and(|(modseq, _)| *modseq > self.modseq) {
            return Err(Damaged("the expunged messages' MODSEQs don't ascend"));
        }
        for range in self.gone.iter().flat_map(|(_, uids)| uids.ranges()) {
            let from = self.messages.partition_point(|message| message.uid < *range.start());
            let there = self.messages.get(from).is_some_and(|m| m.uid <= *range.end());
            if there || *range.end() >= self.uid_next {
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

    fn mark(&mut self, uids: &UidSet, marking: Marking, by: Marks, modseq: u64) {
        self.each_of(uids, |message| {
            let marks = marking.of(message.marks, by);
            if marks != message.marks {
                message.marks = marks;
                message.modseq = modseq;
                message.extent.unwritten = true;
            }
        });
    }

    fn each_of(&mut self, uids: &UidSet, mut action: impl FnMut(&mut Message)) {
        for range in uids.ranges() {
            let from = self.messages.partition_point(|message| message.uid < *range.start());
            let to = self.messages.partition_point(|message| message.uid <= *range.end());
            self.messages.get_mut(from..to).unwrap_or_default().iter_mut().for_each(&mut action);
        }
    }

    fn gone_ranges(&self) -> usize {
        self.gone.iter().map(|(_, uids)| uids.ranges().len()).sum()
    }

    fn expunge(&mut self, uids: &UidSet, modseq: u64) {
        // Those that were there: a set such as 1:* has messages in it that are yet to come.
        let mut gone = UidSet::new();
        self.messages.retain(|message| {
            let goes = uids.contains(message.uid);
            if goes {
                gone.insert(message.uid);
            }
            !goes
        });
        if gone.is_empty() {
            return;
        }
        self.gone.push((modseq, gone));
        let mut ranges = self.gone_ranges();
        if ranges <= MOST_GONE {
            return;
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
    }

    fn move_up(&mut self, edits: &[(u64, u64, u64)]) -> Result<(), Damaged> {
        let ends = edits.iter().flat_map(|(from, to, _)| [from, to]);
        if !ends.is_sorted() {
            return Err(Damaged("edited ranges don't ascend"));
        }
        let mut places: Vec<(u64, usize)> =
            self.messages.iter().zip(0..).map(|(message, at)| (message.extent.start, at)).collect();
        places.sort_unstable();
        let mut edits = edits.iter().peekable();
        let (mut removed, mut inserted) = (0_u64, 0_u64);
        for (start, at) in places {
            while let Some((from, to, now)) = edits.next_if(|(from, ..)| *from <= start) {
                removed = removed.saturating_add(to.saturating_sub(*from));
                inserted = inserted.saturating_add(*now);
            }
            if let Some(message) = self.messages.get_mut(at) {
                message.extent.start = start
                    .checked_add(inserted)
                    .and_then(|start| start.checked_sub(removed))
                    .ok_or(Damaged("more was removed than there was"))?;
            }
        }
        Ok(())
    }

    /// The names of keywords.
    pub fn names(&self, keywords: u64) -> Vec<&str> {
        store::keywords(&self.keywords, keywords).collect()
    }

    fn at_mut(&mut self, uid: Uid) -> Option<&mut Message> {
        let at = self.messages.binary_search_by_key(&uid, |message| message.uid).ok()?;
        self.messages.get_mut(at)
    }

    /// Takes over marks that nothing but another index of the same mailbox had: its messages are
    /// known again by their digests, and equal ones by their order.
    pub fn take_marks_of(&mut self, other: &Self) -> Result<(), Damaged> {
        if !other.messages.iter().any(|message| message.extent.unwritten) {
            return Ok(());
        }
        let in_order = |state: &Self| {
            let mut messages = state.messages.clone();
            messages.sort_by_key(|message| message.extent.start);
            messages
        };
        let mut theirs: HashMap<[u8; 16], VecDeque<Message>> = HashMap::new();
        for message in in_order(other) {
            theirs.entry(message.digest).or_default().push_back(message);
        }
        let modseq = self.next_modseq();
        for message in in_order(self) {
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

    /// Where a message with this UID is among the messages.
    pub fn position(&self, uid: Uid) -> Option<usize> {
        self.messages.binary_search_by_key(&uid, |message| message.uid).ok()
    }

    /// The MODSEQ for what happens next.
    pub fn next_modseq(&self) -> u64 {
        self.modseq.saturating_add(1)
    }

    /// What has happened since `modseq`.
    pub fn changes_since(&self, modseq: u64) -> Changes {
        let newer = self.messages.iter().filter(|message| message.modseq > modseq);
        let changed =
            if modseq < self.modseq { newer.map(|m| m.uid).collect() } else { Vec::new() };
        let mut vanished = UidSet::new();
        let from = self.gone.partition_point(|(when, _)| *when <= modseq);
        for range in self.gone.iter().skip(from).flat_map(|(_, uids)| uids.ranges()) {
            vanished.insert_range(range.clone());
        }
        Changes { changed, vanished, forgotten: modseq < self.forgotten }
    }

    /// What changes with every change.
    pub fn version(&self) -> Version {
        Version { uid_validity: self.uid_validity, modseq: self.modseq }
    }

    /// The mailbox as a whole.
    pub fn status(&self) -> Status {
        let mut status = Status {
            uid_validity: self.uid_validity,
            uid_next: self.uid_next,
            highest_modseq: self.modseq,
            messages: self.messages.len(),
            ..Status::default()
        };
        for message in &self.messages {
            status.unseen += usize::from(!message.marks.flags.has(Flags::SEEN));
            status.deleted += usize::from(message.marks.flags.has(Flags::DELETED));
            status.recent += usize::from(message.uid > self.recent);
            status.size = status.size.saturating_add(message.size);
        }
        status
    }
}

#[cfg(test)]
#[path = "state_tests.rs"]
mod tests;

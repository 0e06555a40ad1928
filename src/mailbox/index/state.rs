//! What a mailbox's index knows, as a value: every process that applies the same changes in the
//! same order comes to the same state.

use super::Damaged;
use crate::mailbox::store::{
    Changes, Extent, Flags, MOST_KEYWORDS, Marking, Marks, Message, Status,
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
    /// Bytes of the file are gone (ascending, apart): what stood behind them stands before now.
    Removed(Vec<(u64, u64)>),
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
                self.advance(modseq)?;
                self.mark(&uids, marking, by, modseq);
            }
            Change::Expunge { uids, modseq } => {
                self.advance(modseq)?;
                self.messages.retain(|message| !uids.contains(message.uid));
                self.gone.push((modseq, uids));
                if self.gone.len() > MOST_GONE {
                    for (modseq, _) in self.gone.drain(..MOST_GONE / 10) {
                        self.forgotten = modseq;
                    }
                }
            }
            Change::Removed(ranges) => self.close_up(&ranges)?,
            Change::Placed { uid, extent } => {
                self.at_mut(uid).ok_or(Damaged("a message that is not there was moved"))?.extent =
                    extent;
            }
            Change::Written(uids) => {
                for message in &mut self.messages {
                    if uids.contains(message.uid) {
                        message.extent.unwritten = false;
                        message.extent.stored = message.marks.flags;
                    }
                }
            }
            Change::Keyword(name) => {
                if self.keywords.len() >= MOST_KEYWORDS {
                    return Err(Damaged("there are too many keywords"));
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
        if message.uid < self.uid_next || self.messages.len() >= MOST_MESSAGES {
            return Err(Damaged("a new message has an old UID, or there are too many"));
        }
        self.advance(message.modseq)?;
        self.uid_next = message.uid.saturating_add(1);
        self.messages.push(message);
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
        for range in uids.ranges() {
            let from = self.messages.partition_point(|message| message.uid < *range.start());
            let to = self.messages.partition_point(|message| message.uid <= *range.end());
            for message in self.messages.get_mut(from..to).unwrap_or_default() {
                let marks = marking.of(message.marks, by);
                if marks != message.marks {
                    message.marks = marks;
                    message.modseq = modseq;
                    message.extent.unwritten = true;
                }
            }
        }
    }

    fn close_up(&mut self, ranges: &[(u64, u64)]) -> Result<(), Damaged> {
        let mut places: Vec<(u64, usize)> =
            self.messages.iter().zip(0..).map(|(message, at)| (message.extent.start, at)).collect();
        places.sort_unstable();
        let mut ranges = ranges.iter().peekable();
        let mut removed = 0_u64;
        for (start, at) in places {
            while let Some((from, to)) = ranges.next_if(|(from, _)| *from <= start) {
                let length =
                    to.checked_sub(*from).ok_or(Damaged("a range ends before it begins"))?;
                removed = removed.saturating_add(length);
            }
            if let Some(message) = self.messages.get_mut(at) {
                message.extent.start =
                    start.checked_sub(removed).ok_or(Damaged("more was removed than there was"))?;
            }
        }
        Ok(())
    }

    fn at_mut(&mut self, uid: Uid) -> Option<&mut Message> {
        let at = self.messages.binary_search_by_key(&uid, |message| message.uid).ok()?;
        self.messages.get_mut(at)
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

//! The selected mailbox, as its client knows it: a number for each message that it was told of.
//!
//! The store shows what there is; a client hears of it only when it may (RFC 9051 section 7.5.1): a
//! message that is gone keeps its number until then.

use std::ops::RangeInclusive;

use crate::imap::command::{FetchItem, Flag, SequenceSet};
use crate::imap::reply::{self, Code, Condition, FetchLine};
use crate::mailbox::folders::Name;
use crate::mailbox::store::{self, Flags, Marks, Store, Version};
use crate::mailbox::uids::{Uid, UidSet, place_of};
use crate::mailbox::{Error, Structures};

/// The system flags, as they are written.
pub const SYSTEM: [(Flags, &str); 5] = [
    (Flags::ANSWERED, "\\Answered"),
    (Flags::FLAGGED, "\\Flagged"),
    (Flags::DELETED, "\\Deleted"),
    (Flags::SEEN, "\\Seen"),
    (Flags::DRAFT, "\\Draft"),
];

/// The system flag that a client means; `None`: it is a keyword.
pub fn system_flag(flag: &Flag) -> Option<Flags> {
    SYSTEM.iter().find(|(_, word)| *word == flag.as_str()).map(|(flag, _)| *flag)
}

/// A message that the client was told of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Told {
    /// Its name.
    pub uid: Uid,
    /// What the client knows of its marks.
    pub marks: Marks,
}

/// What a client is told besides what it has asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Telling {
    /// Numbers may change.
    pub expunges: bool,
    /// What is told of a message has its UID: the command was of UIDs.
    pub uids: bool,
    /// It speaks IMAP4rev2, which has no `\Recent`.
    pub rev2: bool,
}

/// A selected mailbox.
pub struct View {
    /// Its name.
    pub name: Name,
    /// The session's handle on it.
    pub store: Box<dyn Store>,
    /// The structures of its messages.
    pub structures: Structures,
    /// Nothing is changed.
    pub read_only: bool,
    /// What the last search has saved.
    pub saved: UidSet,
    told: Vec<Told>,
    recent: UidSet,
    /// What was told is what there was then.
    version: Version,
    keywords: usize,
    /// Messages are gone, and it was not told.
    behind: bool,
    warnings: Vec<String>,
}

impl View {
    /// A mailbox that is being selected, and nobody was told of.
    pub fn new(
        name: Name,
        mut store: Box<dyn Store>,
        structures: Structures,
        read_only: bool,
    ) -> Self {
        let mut warnings = Vec::new();
        let before = if read_only { None } else { claim(store.as_mut(), &mut warnings) };
        let version = store.version();
        let told: Vec<Told> =
            store.messages().iter().map(|m| Told { uid: m.uid, marks: m.marks }).collect();
        let mut recent = UidSet::new();
        // Counted only where nothing is claimed: all messages are looked at for it.
        let unclaimed = if before.is_none() { store.status().recent } else { 0 };
        let old = told.len().saturating_sub(unclaimed);
        for (number, told) in told.iter().enumerate() {
            let is_recent = match before {
                Some(before) => told.uid > before,
                None => number >= old,
            };
            if is_recent {
                recent.insert(told.uid);
            }
        }
        Self {
            name,
            keywords: store.keywords().len(),
            store,
            structures,
            read_only,
            saved: UidSet::new(),
            told,
            recent,
            version,
            behind: false,
            warnings,
        }
    }

    /// Looks at what others did; false where it is another mailbox now, in which the UIDs that the
    /// client has said are those of other messages.
    pub fn look(&mut self) -> Result<bool, Error> {
        self.store.sync()?;
        Ok(!self.is_other())
    }

    /// Whether it is another mailbox now.
    pub fn is_other(&self) -> bool {
        self.store.version().uid_validity != self.version.uid_validity
    }

    /// Something that the operator should know.
    pub fn warn(&mut self, error: &Error) {
        self.warnings.push(error.to_string());
    }

    /// What the operator should know, since the last call.
    pub fn take_warnings(&mut self) -> Vec<String> {
        let mut warnings = self.store.take_warnings();
        warnings.append(&mut self.warnings);
        warnings
    }

    /// The messages by their numbers, from 1 on.
    pub fn told(&self) -> &[Told] {
        &self.told
    }

    /// How many are `\Recent` here.
    pub fn recent(&self) -> usize {
        self.told.iter().filter(|told| self.recent.contains(told.uid)).count()
    }

    /// Whether a message is `\Recent` here.
    pub fn is_recent(&self, uid: Uid) -> bool {
        self.recent.contains(uid)
    }

    /// The number of the first that is not `\Seen`.
    pub fn first_unseen(&self) -> Option<u32> {
        let at = self.told.iter().position(|told| !told.marks.flags.has(Flags::SEEN))?;
        u32::try_from(at.saturating_add(1)).ok()
    }

    /// The flags of a message as they are told: who speaks IMAP4rev2 hears of no `\Recent`.
    pub fn flags(&self, uid: Uid, marks: Marks, rev2: bool) -> Vec<&str> {
        let mut all: Vec<&str> = SYSTEM
            .iter()
            .filter(|(flag, _)| marks.flags.has(*flag))
            .map(|(_, word)| *word)
            .collect();
        all.extend(store::keywords(self.store.keywords(), marks.keywords));
        if !rev2 && self.is_recent(uid) {
            all.push("\\Recent");
        }
        all
    }

    /// The flags that there are: FLAGS, and which of them are kept.
    pub fn tell_flags(&mut self, out: &mut Vec<u8>) {
        self.keywords = self.store.keywords().len();
        let mut all: Vec<&str> = SYSTEM.iter().map(|(_, word)| *word).collect();
        all.extend(self.store.keywords().iter().map(String::as_str));
        reply::flags_line(all.iter().copied(), out);
        if self.read_only {
            all.clear();
        } else {
            all.push("\\*");
        }
        let all = all.into_iter().map(str::to_owned).collect();
        let text = if self.read_only { "nothing is kept" } else { "these are kept" };
        reply::status(None, Condition::Ok, Some(&Code::PermanentFlags(all)), text, out);
    }

    /// The same where there are others than the client knows.
    pub fn tell_new_keywords(&mut self, out: &mut Vec<u8>) {
        if self.store.keywords().len() != self.keywords {
            self.tell_flags(out);
        }
    }

    /// The messages of a set that were told, with their numbers, ascending; `None` where a number is
    /// that of none.
    pub fn messages(&self, set: &SequenceSet, by_uid: bool) -> Option<Vec<(u32, Uid)>> {
        let last = u32::try_from(self.told.len()).unwrap_or(u32::MAX);
        let numbered = (1..=u32::MAX).zip(self.told.iter().map(|told| told.uid));
        if *set == SequenceSet::Saved {
            return Some(numbered.filter(|(_, uid)| self.saved.contains(*uid)).collect());
        }
        let largest = if by_uid { self.told.last().map_or(0, |told| told.uid) } else { last };
        let mut wanted = UidSet::new();
        for range in set.ranges(largest) {
            if !by_uid && (*range.start() == 0 || *range.end() > last) {
                return None;
            }
            wanted.insert_range(range);
        }
        let mut found = Vec::new();
        for range in wanted.ranges() {
            let number = |uid: &RangeInclusive<u32>| {
                if by_uid {
                    self.told.partition_point(|told| told.uid < *uid.start())
                } else {
                    usize::try_from(uid.start().saturating_sub(1)).unwrap_or(usize::MAX)
                }
            };
            let from = number(range);
            let rest = self.told.get(from..).unwrap_or_default();
            let first = u32::try_from(from.saturating_add(1)).unwrap_or(u32::MAX);
            let inside = |(number, told): &(u32, &Told)| {
                if by_uid { told.uid <= *range.end() } else { number <= range.end() }
            };
            let here = (first..).zip(rest).take_while(inside);
            found.extend(here.map(|(number, told)| (number, told.uid)));
        }
        Some(found)
    }

    /// The client knows these marks of a message.
    pub fn has_told(&mut self, uid: Uid, marks: Marks) {
        if let Some(at) = place_of(&self.told, uid, |told| told.uid)
            && let Some(told) = self.told.get_mut(at)
        {
            told.marks = marks;
        }
    }

    /// What the client knows of a message's marks.
    pub fn known(&self, uid: Uid) -> Option<Marks> {
        let at = place_of(&self.told, uid, |told| told.uid)?;
        self.told.get(at).map(|told| told.marks)
    }

    /// Tells what the store shows now, as far as it may be told; false where it is another mailbox
    /// now, and the numbers mean nothing.
    pub fn tell(&mut self, telling: Telling, out: &mut Vec<u8>) -> bool {
        let version = self.store.version();
        if self.is_other() {
            return false;
        }
        if version == self.version && !(self.behind && telling.expunges) {
            return true;
        }
        self.tell_new_keywords(out);
        let mut kept: Vec<Told> = Vec::with_capacity(self.store.messages().len());
        let mut changed: Vec<usize> = Vec::new();
        let mut fewer_recent = false;
        self.behind = false;
        // Both ascend.
        let mut here = self.store.messages().iter().peekable();
        for told in &self.told {
            while here.next_if(|message| message.uid < told.uid).is_some() {}
            match here.next_if(|message| message.uid == told.uid).map(|message| message.marks) {
                None if telling.expunges => {
                    reply::numbered(kept.len().saturating_add(1), "EXPUNGE", out);
                    fewer_recent |= self.recent.contains(told.uid);
                }
                None => {
                    self.behind = true;
                    kept.push(*told);
                }
                Some(marks) => {
                    if marks != told.marks {
                        changed.push(kept.len());
                    }
                    kept.push(Told { uid: told.uid, marks });
                }
            }
        }
        let before = self.told.last().map_or(0, |told| told.uid);
        let new = self.store.messages().iter().filter(|message| message.uid > before);
        let count = kept.len();
        kept.extend(new.map(|message| Told { uid: message.uid, marks: message.marks }));
        self.told = kept;
        let more = self.told.len() > count;
        if more {
            self.claim(count);
            reply::numbered(self.told.len(), "EXISTS", out);
        }
        if !telling.rev2 && (more || fewer_recent) {
            reply::numbered(self.recent(), "RECENT", out);
        }
        for at in changed {
            self.tell_marks(at, telling, out);
        }
        // What has come to light since then is told the next time.
        self.version = version;
        true
    }

    /// The messages from this place on are `\Recent` to the first who is told.
    fn claim(&mut self, from: usize) {
        if self.read_only {
            return;
        }
        let Some(before) = claim(self.store.as_mut(), &mut self.warnings) else {
            return;
        };
        for told in self.told.get(from..).unwrap_or_default() {
            if told.uid > before {
                self.recent.insert(told.uid);
            }
        }
    }

    fn tell_marks(&self, at: usize, telling: Telling, out: &mut Vec<u8>) {
        if let Some(told) = self.told.get(at) {
            let number = u32::try_from(at.saturating_add(1)).unwrap_or(u32::MAX);
            let mut line = FetchLine::begin(number, out);
            if telling.uids {
                line.number(&FetchItem::Uid, told.uid.into(), out);
            }
            line.flags(self.flags(told.uid, told.marks, telling.rev2), out);
            line.end(out);
        }
    }
}

/// The largest UID that was not `\Recent` any more. Where that can't be kept, as on a disk that is
/// full, the mailbox can be used all the same.
fn claim(store: &mut dyn Store, warnings: &mut Vec<String>) -> Option<Uid> {
    match store.claim_recent() {
        Ok(before) => Some(before),
        Err(error) => {
            warnings.push(error.to_string());
            None
        }
    }
}

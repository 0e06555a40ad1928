//! The selected mailbox, as its client knows it: a number for each message that it was told of.
//!
//! The store shows what there is; a client hears of it only when it may (RFC 9051 section 7.5.1): a
//! message that is gone keeps its number until then.

use super::numbers::Numbers;
use crate::imap::command::{FetchItem, Flag, SequenceSet};
use crate::imap::reply::{self, Code, Condition, FetchLine};
use crate::mailbox::folders::Name;
use crate::mailbox::store::{self, Flags, Marks, Message, Store, Version};
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
    told: Numbers,
    recent: UidSet,
    /// What was told is what there was then.
    version: Version,
    /// What the client knows of marks that may have changed since, ascending.
    known: Vec<(Uid, Marks)>,
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
        let told = Numbers::new(store.uids().clone());
        let recent = if let Some(before) = before {
            told.uids().above(before)
        } else {
            let recent = u32::try_from(store.status().recent).unwrap_or(u32::MAX);
            let from = told.count().saturating_sub(recent).saturating_add(1);
            told.numbered(from..=told.count()).map(|(_, uid)| uid).collect()
        };
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
            known: Vec::new(),
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

    /// Something that the operator should know; that somebody has renamed or deleted the mailbox is
    /// not.
    pub fn warn(&mut self, error: &Error) {
        if !error.is_missing() {
            self.warnings.push(error.to_string());
        }
    }

    /// What the operator should know, since the last call.
    pub fn take_warnings(&mut self) -> Vec<String> {
        let mut warnings = self.store.take_warnings();
        warnings.append(&mut self.warnings);
        warnings
    }

    /// The messages by their numbers, from 1 on.
    pub fn told(&self) -> &Numbers {
        &self.told
    }

    /// How many are `\Recent` here.
    pub fn recent(&self) -> usize {
        let recent = self.told.uids().and(&self.recent).len();
        usize::try_from(recent).unwrap_or(usize::MAX)
    }

    /// Whether a message is `\Recent` here.
    pub fn is_recent(&self, uid: Uid) -> bool {
        self.recent.contains(uid)
    }

    /// The number of the first that is not `\Seen`.
    pub fn first_unseen(&self) -> Option<u32> {
        self.told.number(self.store.status().first_unseen)
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
        if *set == SequenceSet::Saved {
            let saved = self.saved.ranges().iter();
            return Some(saved.flat_map(|range| self.told.with_uids(range.clone())).collect());
        }
        let last = self.told.count();
        let largest = if by_uid { self.told.uids().last().unwrap_or(0) } else { last };
        let mut wanted = UidSet::new();
        for range in set.ranges(largest) {
            if !by_uid && (*range.start() == 0 || *range.end() > last) {
                return None;
            }
            wanted.insert_range(range);
        }
        let mut found = Vec::new();
        for range in wanted.ranges() {
            if by_uid {
                found.extend(self.told.with_uids(range.clone()));
            } else {
                found.extend(self.told.numbered(range.clone()));
            }
        }
        Some(found)
    }

    /// The client knows these marks of a message.
    pub fn has_told(&mut self, uid: Uid, marks: Marks) {
        // It knows what there was then.
        if self.store.version() == self.version {
            return;
        }
        if self.known.last().is_none_or(|(last, _)| *last < uid) {
            self.known.push((uid, marks));
            return;
        }
        match self.known.binary_search_by_key(&uid, |(uid, _)| *uid) {
            Ok(at) => {
                if let Some((_, known)) = self.known.get_mut(at) {
                    *known = marks;
                }
            }
            Err(at) => self.known.insert(at, (uid, marks)),
        }
    }

    /// Whether the client knows the marks of a message as they are.
    fn knows(&self, message: &Message) -> bool {
        let at = place_of(&self.known, message.uid, |(uid, _)| *uid);
        match at.and_then(|at| self.known.get(at)) {
            Some((_, marks)) => *marks == message.marks,
            None => message.modseq <= self.version.modseq,
        }
    }

    /// Those of these messages whose marks the client knows as they are, with them.
    pub fn known(&self, uids: &UidSet) -> Result<Vec<(Uid, Marks)>, Error> {
        let mut known = Vec::new();
        for uid in self.told.uids().and(uids).iter() {
            if let Some(message) = self.store.message(uid)?
                && self.knows(&message)
            {
                known.push((uid, message.marks));
            }
        }
        Ok(known)
    }

    /// Tells what the store shows now, as far as it may be told; false where it is another mailbox
    /// now, and the numbers mean nothing.
    pub fn tell(&mut self, telling: Telling, out: &mut Vec<u8>) -> Result<bool, Error> {
        let version = self.store.version();
        if self.is_other() {
            return Ok(false);
        }
        if version == self.version && !(self.behind && telling.expunges) {
            return Ok(true);
        }
        let changed = self.changed()?;
        self.tell_new_keywords(out);
        let there = self.store.uids();
        let gone = self.told.uids().minus(there);
        let before = self.told.uids().last().unwrap_or(0);
        let new = there.above(before);
        self.behind = !(gone.is_empty() || telling.expunges);
        let fewer_recent = !self.behind && !gone.and(&self.recent).is_empty();
        let mut told = self.told.uids().clone();
        if telling.expunges && !gone.is_empty() {
            // Each that goes makes the numbers of those behind it smaller.
            for (number, earlier) in gone.iter().filter_map(|uid| self.told.number(uid)).zip(0..) {
                reply::numbered(number.saturating_sub(earlier), "EXPUNGE", out);
            }
            told = told.minus(&gone);
        }
        new.ranges().iter().for_each(|range| told.insert_range(range.clone()));
        self.told = Numbers::new(told);
        if !new.is_empty() {
            self.claim(&new);
            reply::numbered(self.told.count(), "EXISTS", out);
        }
        if !telling.rev2 && (fewer_recent || !new.is_empty()) {
            reply::numbered(self.recent(), "RECENT", out);
        }
        for message in changed {
            self.tell_marks(&message, telling, out);
        }
        // What has come to light since then is told the next time.
        self.version = version;
        self.known = Vec::new();
        Ok(true)
    }

    /// The messages that the client was told of, and whose marks are not what it knows.
    fn changed(&self) -> Result<Vec<Message>, Error> {
        let mut changed = Vec::new();
        for uid in self.store.changes_since(self.version.modseq)?.changed {
            if self.told.uids().contains(uid)
                && let Some(message) = self.store.message(uid)?
                && !self.knows(&message)
            {
                changed.push(message);
            }
        }
        Ok(changed)
    }

    /// These messages are `\Recent` to the first who is told of them.
    fn claim(&mut self, new: &UidSet) {
        if self.read_only {
            return;
        }
        let Some(before) = claim(self.store.as_mut(), &mut self.warnings) else {
            return;
        };
        new.above(before).ranges().iter().for_each(|range| self.recent.insert_range(range.clone()));
    }

    fn tell_marks(&self, message: &Message, telling: Telling, out: &mut Vec<u8>) {
        if let Some(number) = self.told.number(message.uid) {
            let mut line = FetchLine::begin(number, out);
            if telling.uids {
                line.number(&FetchItem::Uid, message.uid.into(), out);
            }
            line.flags(self.flags(message.uid, message.marks, telling.rev2), out);
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

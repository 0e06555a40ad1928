//! What a compaction writes besides: UIDs and marks of messages whose headers have no room.
//!
//! They move anyway, and what is inserted takes the place of what was removed before it. A message
//! gets its fields as [`super::form`] writes them, with room for what is marked later, or without.
//! Where that is more than was removed so far it stays as it is, and the index alone has them until
//! the next time.
//! Marks go before UIDs: somebody made them.

use std::collections::{HashMap, HashSet};
use std::io;

use super::fields::{self, Hidden};
use super::identity::Identity;
use super::in_place::header;
use super::own::{self, ImapBase, LOOK, without_line_end};
use super::redo::Edit;
use super::scan::Scanner;
use super::write_back::{NoRoom, Wanted, changed, is_written, shared, text_of};
use super::{Opened, form};
use crate::mailbox::Error;
use crate::mailbox::index::{Change, State};
use crate::mailbox::store::{Marks, Message};
use crate::mailbox::uids::{Uid, UidSet};

/// So much is written at most besides, as it is held in memory.
const MOST_WRITTEN: usize = 16 * 1024 * 1024;

/// So many bytes are put by for each message behind whose marks are to be written.
const FOR_MARKS: u64 = 200;

/// A line for a UID, and what stands around the value of an X-IMAPbase.
const UID_LINE: usize = "X-UID: 4294967295\r\n".len();
const BASE_LINE: usize = "X-IMAPbase: \r\n".len();

/// What is done to the file, and what it means for the index.
#[derive(Debug, Default)]
pub struct Compaction {
    /// Ascending and apart.
    pub edits: Vec<Edit>,
    rewritten: HashMap<Uid, Rewritten>,
}

/// A message with another header.
#[derive(Clone, Copy, Debug)]
struct Rewritten {
    header: u32,
    /// What it says now, where it is not what it said.
    marks: Option<Marks>,
    named: bool,
}

impl Compaction {
    /// Removes these ranges, which hold the messages `removed`, and writes what there is room for
    /// then: at least what the first message says of the mailbox, where another one comes to be the
    /// first. `order`: the messages as they stand; those that go, and the first one that stays, stand
    /// there for certain.
    pub fn new(
        opened: &Opened,
        state: &State,
        order: &[Message],
        removed: &UidSet,
        ranges: &[(u64, u64)],
    ) -> io::Result<Self> {
        let mut compaction = Self::default();
        // Where others than the first stand is not certain in a file that was not looked at whole.
        let certain = if Identity::is_verified(&state.base) { usize::MAX } else { 1 };
        let left = order.iter().filter(|message| !removed.contains(message.uid));
        let left: Vec<&Message> = left.take(certain).collect();
        let left = left.iter().copied();
        let numbering = Numbering::new(opened, state, left.clone())?;
        compaction.fill(opened, state, left, numbering, ranges)?;
        Ok(compaction)
    }

    fn fill<'a>(
        &mut self,
        opened: &Opened,
        state: &State,
        left: impl Iterator<Item = &'a Message> + Clone,
        mut numbering: Numbering,
        ranges: &[(u64, u64)],
    ) -> io::Result<()> {
        let mut waiting = left.clone().filter(|message| is_waiting(message)).count() as u64;
        let mut ranges = ranges.iter().peekable();
        let (mut room, mut written) = (0_u64, 0_usize);
        for message in left {
            while let Some(range) = ranges.next_if(|(start, _)| *start <= message.extent.start) {
                room = room.saturating_add(range.1.saturating_sub(range.0));
                self.edits.push(removal(range));
            }
            let is_waiting = is_waiting(message);
            waiting = waiting.saturating_sub(is_waiting.into());
            let uid = (!message.extent.named).then_some(message.uid);
            let is_numbered = numbering.takes(message);
            let mut is_done = !is_numbered;
            if room > 0
                && written < MOST_WRITTEN
                && (is_waiting || is_numbered)
                && let Some(old) = header(opened, &message.extent)?
            {
                // Without what the first one says of the mailbox all UIDs are lost with the index.
                let put_by = match numbering.base {
                    Some(_) => 0,
                    None => waiting.saturating_mul(FOR_MARKS),
                };
                let names = state.names(message.marks.keywords);
                let marks = message.extent.unwritten.then_some((message.marks.flags, &names[..]));
                let base = numbering.base.as_ref();
                // What another program has given stays.
                let is_free = numbering.highest.is_some() && own::read(&old).uid.is_none();
                let uid = uid.filter(|_| is_free);
                let is_numbered = is_numbered && (uid.is_some() || base.is_some());
                let all = is_numbered.then_some((Wanted { marks, uid, base }, put_by));
                let only_marks = is_waiting.then_some((Wanted { marks, ..Wanted::default() }, 0));
                let start = message.extent.header_start();
                let fitting = all.into_iter().chain(only_marks).find_map(|(wanted, put_by)| {
                    let (edit, new) = longer(&old, &wanted, start, room.checked_sub(put_by)?)?;
                    Some((wanted, edit, new))
                });
                if let Some((wanted, edit, header)) = fitting {
                    room = room.saturating_add(old.len() as u64).saturating_sub(header.into());
                    written = written.saturating_add(edit.with.len());
                    self.edits.push(edit);
                    is_done |= wanted.uid.is_some() || wanted.base.is_some();
                    let named = message.extent.named || wanted.uid.is_some();
                    let marks = marks.map(|_| message.marks);
                    self.rewritten.insert(message.uid, Rewritten { header, marks, named });
                }
            }
            numbering.done(is_done);
        }
        self.edits.extend(ranges.map(removal));
        Ok(())
    }

    /// What the index is to know; the messages of `longer` have a byte more behind their bodies.
    /// They may have been marked anew meanwhile.
    pub fn changes(&self, state: &State, longer: &UidSet) -> Result<Vec<Change>, Error> {
        let mut changes = Vec::new();
        for message in state.messages.iter() {
            let message = message?;
            let rewritten = self.rewritten.get(&message.uid);
            let is_longer = longer.contains(message.uid);
            if rewritten.is_none() && !is_longer {
                continue;
            }
            let mut extent = message.extent;
            extent.gap = extent.gap.saturating_add(is_longer.into());
            if let Some(rewritten) = rewritten {
                let body = extent.length.saturating_sub(extent.header.into());
                extent.length = body.saturating_add(rewritten.header.into());
                extent.header = rewritten.header;
                extent.named = rewritten.named;
                extent.no_room = false;
                if let Some(marks) = rewritten.marks {
                    extent.stored = marks;
                    extent.unwritten = marks != message.marks;
                }
            }
            changes.push(Change::Placed { uid: message.uid, extent });
        }
        let edits = self.edits.iter();
        let edits = edits.map(|edit| (edit.start, edit.end, edit.with.len() as u64));
        changes.push(Change::Edited(edits.collect()));
        Ok(changes)
    }
}

fn removal((start, end): &(u64, u64)) -> Edit {
    Edit { start: *start, end: *end, with: Vec::new() }
}

/// Whether it has marks that only the index can have.
fn is_waiting(message: &Message) -> bool {
    message.extent.unwritten && message.extent.no_room
}

/// Which messages may get their UIDs: none behind one without, and none that would not be believed.
struct Numbering {
    /// What the first message has to say, where it does not say so.
    base: Option<ImapBase>,
    /// The largest UID so far; `None` where no more may be given.
    highest: Option<Uid>,
    /// Those before a message that has a smaller one in the file.
    misplaced: HashSet<Uid>,
}

impl Numbering {
    fn new<'a>(
        opened: &Opened,
        state: &State,
        mut left: impl DoubleEndedIterator<Item = &'a Message> + Clone,
    ) -> io::Result<Self> {
        let mut smallest = Uid::MAX;
        let misplaced = left.clone().rev().filter(|message| {
            let is_misplaced = message.uid > smallest;
            if message.extent.named {
                smallest = smallest.min(message.uid);
            }
            is_misplaced
        });
        let misplaced = misplaced.map(|message| message.uid).collect();
        let front = Scanner::with_window(&opened.file, opened.identity.size, 0).first_header()?;
        // Not behind c-client's message, in which we don't write.
        let Some((first, front)) = left.next().zip(front.filter(|front| !front.internal)) else {
            return Ok(Self { base: None, highest: None, misplaced });
        };
        let is_current = |base: &ImapBase| {
            base.uid_validity == state.uid_validity
                && base.uid_last >= state.uid_next.saturating_sub(1)
        };
        let header = header(opened, &first.extent)?;
        let said = header.and_then(|header| own::read(&header).base);
        // What the mailbox says of itself stays, whoever has it open.
        let is_alone = opened.is_alone();
        let is_due = !said.is_some_and(|base| is_current(&base));
        let base = (is_due && (is_alone || front.own.base.is_some())).then(|| ImapBase {
            uid_validity: state.uid_validity,
            uid_last: state.uid_next.saturating_sub(1),
            keywords: front.own.base.map(|base| base.keywords).unwrap_or_default(),
        });
        Ok(Self { base, highest: is_alone.then_some(0), misplaced })
    }

    /// Whether the next message lacks its UID, or what the first one has to say, and may get it.
    fn takes(&mut self, message: &Message) -> bool {
        let ascends =
            |highest: &Uid| message.uid > *highest && !self.misplaced.contains(&message.uid);
        self.highest = self.highest.filter(ascends).map(|_| message.uid);
        self.base.is_some() || (self.highest.is_some() && !message.extent.named)
    }

    /// Whether the message has all that was asked for.
    fn done(&mut self, is_done: bool) {
        self.base = None;
        if !is_done {
            self.highest = None;
        }
    }
}

/// What makes a header at `start` say what is wanted, longer by so many bytes at most; with room for
/// what is marked later, where that fits. And the length of the new header.
fn longer(old: &[u8], wanted: &Wanted<'_>, start: u64, most: u64) -> Option<(Edit, u32)> {
    let most = (old.len() as u64).saturating_add(most);
    [form::KEYWORDS, 0].into_iter().find_map(|more| {
        let new = rewritten(old, wanted, more).ok()?;
        let length = u32::try_from(new.len()).ok()?;
        (u64::from(length) <= most).then(|| (replacement(old, &new, start), length))
    })
}

/// The header that says what is wanted, longer where it has to be, and then with so many blanks more.
fn rewritten(header: &[u8], wanted: &Wanted<'_>, more: usize) -> Result<Vec<u8>, NoRoom> {
    changed(header, wanted, false).or_else(|NoRoom| {
        let keywords = wanted.marks.map_or(&[][..], |(_, keywords)| keywords);
        let words: usize = keywords.iter().map(|word| word.len().saturating_add(1)).sum();
        let base = wanted.base.map_or(0, |base| text_of(base).len().saturating_add(BASE_LINE));
        let uid = wanted.uid.map_or(0, |_| UID_LINE);
        let roomy = with_room(header, words + base + uid + more).ok_or(NoRoom)?;
        changed(&roomy, wanted, false)
    })
}

/// The header with its own fields at its beginning, as our deliveries have them, and so much room in
/// X-Keywords; `None` where one is folded, or the blank line is missing. (A message that stands
/// behind no blank line is one only for the field that its header begins with.)
fn with_room(header: &[u8], room: usize) -> Option<Vec<u8>> {
    let end = [&b"\r\n"[..], b"\n"].into_iter().find(|end| header.ends_with(end))?;
    let lines =
        header.strip_suffix(end).filter(|lines| lines.is_empty() || lines.ends_with(end))?;
    let mut fields: Vec<(Hidden, &[u8])> = Vec::new();
    let mut others = Vec::with_capacity(header.len());
    // What is folded at the beginning would belong to them, too.
    let mut follows = true;
    for line in lines.split_inclusive(|b| *b == b'\n') {
        if let Some(b' ' | b'\t') = line.first() {
            if follows {
                return None;
            }
        } else {
            let field = fields::hidden(line.get(..LOOK).unwrap_or(line));
            let field = field.filter(|field| is_written(*field));
            follows = field.is_some();
            if let Some(field) = field {
                fields.push((field, without_line_end(line).trim_ascii_end()));
                continue;
            }
        }
        others.extend_from_slice(line);
    }
    for (field, name) in [
        (Hidden::Status, "Status:"),
        (Hidden::XStatus, "X-Status:"),
        (Hidden::Keywords, "X-Keywords:"),
    ] {
        if fields.iter().all(|(other, _)| *other != field) {
            fields.push((field, name.as_bytes()));
        }
    }
    let mut new = Vec::with_capacity(header.len().saturating_add(room));
    for (field, line) in fields {
        new.extend_from_slice(line);
        let blanks = match field {
            Hidden::Status | Hidden::XStatus => form::STATUS,
            Hidden::Keywords => room,
            _ => 0,
        };
        new.resize(new.len().saturating_add(blanks), b' ');
        new.extend_from_slice(end);
    }
    new.extend_from_slice(&others);
    new.extend_from_slice(end);
    Some(new)
}

/// The smallest edit that makes the new header of the old one, which stands at `at`.
fn replacement(old: &[u8], new: &[u8], at: u64) -> Edit {
    let (front, back) = shared(old, new);
    let start = at.saturating_add(front as u64);
    let end = at.saturating_add(old.len().saturating_sub(back) as u64);
    let with = new.get(front..new.len().saturating_sub(back)).unwrap_or_default().to_vec();
    Edit { start, end, with }
}

#[cfg(test)]
#[path = "compaction_tests.rs"]
mod tests;

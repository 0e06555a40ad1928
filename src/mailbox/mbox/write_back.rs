//! Flags, keywords and UIDs, written into a header in place: not a byte behind it moves.
//!
//! Room is what [`super::form`] or Dovecot left blank in the fields, and what stands in a field that
//! gets shorter. A field that is missing, or is too narrow, takes what it needs from X-Keywords, as
//! Dovecot does it: the lines of the mailbox's own that stand together with X-Keywords are laid out
//! anew. No other line moves, so that a torn write can tear nothing else. Where it would tear these
//! lines, since a block of the disk ends within them, new ones go behind the others instead of
//! before; else nothing is written.

use std::ops::Range;

use super::fields::{self, Hidden};
use super::own::{self, ImapBase, LOOK, Own, STATUS, X_STATUS, is_unknown, without_line_end};
use super::present::Presenter;
use crate::mailbox::store::{Flags, is_keyword};
use crate::mailbox::uids::Uid;

/// What shall stand in a message's own fields.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wanted<'a> {
    /// Flags and keywords; `None` where they stay as they are.
    pub marks: Option<(Flags, &'a [&'a str])>,
    /// The UID; `None` where it stays as it is.
    pub uid: Option<Uid>,
    /// Of the first message: what it says of the mailbox; `None` where that stays as it is.
    pub base: Option<&'a ImapBase>,
}

/// Bytes to write over those that stand there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edit {
    /// Where, from the beginning of the header.
    pub at: usize,
    /// What.
    pub bytes: Vec<u8>,
}

/// The header has no room for what shall stand there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoRoom;

/// What to write into a header as stored (with its blank line or without) so that it says what is
/// wanted: all of it, or there is no room. `None` where it says so already.
///
/// What we don't know in these fields stays.
pub fn write_back(header: &[u8], wanted: &Wanted<'_>) -> Result<Option<Edit>, NoRoom> {
    Ok(difference(header, &changed(header, wanted, false)?))
}

/// The same for a header that stands at `start` in its file: whatever part of the edit a power cut
/// keeps from the disk, no client sees it.
pub(super) fn write_back_at(
    header: &[u8],
    start: u64,
    wanted: &Wanted<'_>,
) -> Result<Option<Edit>, NoRoom> {
    for behind in [false, true] {
        let new = changed(header, wanted, behind)?;
        let Some(edit) = difference(header, &new) else {
            return Ok(None);
        };
        let end = edit.at.saturating_add(edit.bytes.len());
        let inside = usize::try_from(start % BLOCK).unwrap_or(0);
        let block = usize::try_from(BLOCK).unwrap_or(usize::MAX);
        let blocks = (1..).map(|n: usize| n.saturating_mul(block).saturating_sub(inside));
        let mut cuts = blocks.skip_while(|cut| *cut <= edit.at).take_while(|cut| *cut < end);
        if cuts.all(|cut| bears_a_cut(header, &new, cut)) {
            return Ok(Some(edit));
        }
    }
    Err(NoRoom)
}

/// A disk writes so many bytes as a whole.
const BLOCK: u64 = 4096;

/// Whether all is well where only what is before `cut`, or behind it, is new.
fn bears_a_cut(old: &[u8], new: &[u8], cut: usize) -> bool {
    let (Some((old_front, old_back)), Some((new_front, new_back))) =
        (old.split_at_checked(cut), new.split_at_checked(cut))
    else {
        return false;
    };
    let (was, is) = (own::read(old), own::read(new));
    [[new_front, old_back], [old_front, new_back]].into_iter().all(|halves| {
        let torn = halves.concat();
        let own = own::read(&torn);
        let known = |word: &String| was.keywords.contains(word) || is.keywords.contains(word);
        let changed = was.flags ^ is.flags;
        shown(&torn) == shown(old)
            && [None, was.uid, is.uid].contains(&own.uid)
            && [None, was.base.as_ref(), is.base.as_ref()].contains(&own.base.as_ref())
            && own.keywords.iter().all(known)
            && changed.has(own.flags ^ was.flags)
    })
}

/// A header as clients get it.
fn shown(header: &[u8]) -> Vec<u8> {
    let (mut presenter, mut out) = (Presenter::new(false, Some(0)), Vec::new());
    presenter.push(header, &mut out);
    presenter.finish(&mut out);
    out
}

/// The header that says what is wanted; new lines before X-Keywords, or behind.
pub(super) fn changed(header: &[u8], wanted: &Wanted<'_>, behind: bool) -> Result<Vec<u8>, NoRoom> {
    let mut layout = Layout { behind, ..Layout::of(header) };
    let place = layout.place();
    let own = own::read(layout.bytes(&place));
    if let Some(base) = wanted.base.filter(|base| own.base.as_ref() != Some(base)) {
        layout.number(Hidden::ImapBase, &text_of(base))?;
    }
    if let Some(uid) = wanted.uid.filter(|uid| own.uid != Some(*uid)) {
        layout.number(Hidden::Uid, uid.to_string().as_bytes())?;
    }
    if let Some((flags, keywords)) = wanted.marks {
        layout.letters(Hidden::Status, &STATUS, b"O", own.flags, flags)?;
        layout.letters(Hidden::XStatus, &X_STATUS, b"", own.flags, flags)?;
        if !same_words(&own.keywords, keywords) {
            layout.keywords(&own.keywords, keywords)?;
        }
    }
    let new = layout.apply()?;
    // It is as long as before, and says what is wanted: names with blanks in them would not.
    let written = new.get(place).unwrap_or_default();
    if new.len() != header.len() || !says(&own::read(written), wanted) {
        return Err(NoRoom);
    }
    Ok(new)
}

fn says(own: &Own, wanted: &Wanted<'_>) -> bool {
    wanted.base.is_none_or(|base| own.base.as_ref() == Some(base))
        && wanted.uid.is_none_or(|uid| own.uid == Some(uid))
        && wanted.marks.is_none_or(|(flags, keywords)| {
            own.flags == flags && same_words(&own.keywords, keywords)
        })
}

fn same_words(some: &[String], others: &[&str]) -> bool {
    some.iter().all(|word| others.contains(&word.as_str()))
        && others.iter().all(|word| some.iter().any(|other| other == word))
}

pub(super) fn text_of(base: &ImapBase) -> Vec<u8> {
    let mut text = format!("{} {:010}", base.uid_validity, base.uid_last);
    for keyword in &base.keywords {
        text.push(' ');
        text.push_str(keyword);
    }
    text.into_bytes()
}

/// The smallest part that holds all that differs.
fn difference(old: &[u8], new: &[u8]) -> Option<Edit> {
    let (at, back) = shared(old, new);
    let bytes = new.get(at..new.len() - back)?;
    (at < old.len()).then(|| Edit { at, bytes: bytes.to_vec() })
}

/// How many bytes are the same at the beginning, and of the rest at the end.
pub(super) fn shared(old: &[u8], new: &[u8]) -> (usize, usize) {
    // In pieces, which are compared at once.
    const PIECE: usize = 64;
    let same = |(old, new): &(&[u8], &[u8])| old == new;
    let bytes = |(old, new): &(&u8, &u8)| old == new;
    let front = old.chunks(PIECE).zip(new.chunks(PIECE)).take_while(same).count() * PIECE;
    let front = front.min(old.len()).min(new.len());
    let (old, new) = (old.split_at(front).1, new.split_at(front).1);
    let more = old.iter().zip(new).take_while(bytes).count();
    let (old, new) = (old.split_at(more).1, new.split_at(more).1);
    let back = old.rchunks_exact(PIECE).zip(new.rchunks_exact(PIECE)).take_while(same).count();
    let back = back * PIECE;
    let (old, new) = (old.split_at(old.len() - back).0, new.split_at(new.len() - back).0);
    let rest = old.iter().rev().zip(new.iter().rev()).take_while(bytes).count();
    (front + more, back + rest)
}

const BASE: &str = "X-IMAPbase";

/// A line of a header that is the mailbox's own.
#[derive(Debug)]
struct Line {
    field: Hidden,
    place: Range<usize>,
    /// Where its value stands, without the line end.
    value: Range<usize>,
    /// One whole line, which can be written.
    plain: bool,
    /// What shall stand there, without blanks around it.
    new: Option<Vec<u8>>,
}

impl Line {
    fn width(&self) -> usize {
        self.value.len()
    }
}

/// The own lines of a header, and what becomes of them.
struct Layout<'a> {
    header: &'a [u8],
    lines: Vec<Line>,
    /// The lines that stand together with the first X-Keywords; none where it is missing.
    home: Range<usize>,
    /// Lines that shall be made.
    made: Vec<(&'static str, Vec<u8>)>,
    /// They go behind all others, not before X-Keywords.
    behind: bool,
}

impl<'a> Layout<'a> {
    fn of(header: &'a [u8]) -> Self {
        let mut lines: Vec<Line> = Vec::new();
        let mut at = 0;
        // The line before is the last of `lines`.
        let mut follows = false;
        for line in header.split_inclusive(|b| *b == b'\n') {
            let place = at..at + line.len();
            at = place.end;
            if matches!(line, b"\n" | b"\r\n" | b"\r") {
                break;
            }
            if let Some(b' ' | b'\t') = line.first() {
                if let Some(last) = lines.last_mut().filter(|_| follows) {
                    last.plain = false;
                }
                continue;
            }
            let field = fields::hidden(line.get(..LOOK).unwrap_or(line));
            let field = field.filter(|field| is_written(*field));
            follows = field.is_some();
            if let Some(field) = field {
                let colon = memchr::memchr(b':', line).map_or(line.len(), |colon| colon + 1);
                let value = place.start + colon..place.start + without_line_end(line).len();
                let plain = line.ends_with(b"\n") && line.len() <= LOOK && value.start <= value.end;
                lines.push(Line { field, place, value, plain, new: None });
            }
        }
        let home = home(&lines);
        Self { header, lines, home, made: Vec::new(), behind: false }
    }

    /// Where all the own lines stand: nothing else tells what is known of a message.
    fn place(&self) -> Range<usize> {
        let Some((first, last)) = self.lines.first().zip(self.lines.last()) else {
            return 0..0;
        };
        // What is folded goes on behind it.
        let end = if last.plain { last.place.end } else { self.header.len() };
        first.place.start..end
    }

    fn bytes(&self, place: &Range<usize>) -> &'a [u8] {
        self.header.get(place.clone()).unwrap_or_default()
    }

    /// The lines of a field; no room where one of them can't be written.
    fn lines_of(&self, field: Hidden) -> Result<Vec<usize>, NoRoom> {
        let lines = self.lines.iter().enumerate().filter(|(_, line)| line.field == field);
        lines.map(|(at, line)| if line.plain { Ok(at) } else { Err(NoRoom) }).collect()
    }

    /// Sets what stands in a line, where there is room in it, or can be made.
    fn set(&mut self, at: usize, text: Vec<u8>) -> Result<(), NoRoom> {
        let within = self.home.contains(&at);
        let line = self.lines.get_mut(at).filter(|line| within || text.len() <= line.width());
        line.ok_or(NoRoom)?.new = Some(text);
        Ok(())
    }

    /// A field of which only the first line counts.
    fn number(&mut self, field: Hidden, text: &[u8]) -> Result<(), NoRoom> {
        if let Some(at) = self.lines_of(field)?.first() {
            return self.set(*at, text.to_vec());
        }
        let name = if field == Hidden::Uid { "X-UID" } else { BASE };
        self.made.push((name, text.to_vec()));
        Ok(())
    }

    /// `Status` or `X-Status`.
    fn letters(
        &mut self,
        field: Hidden,
        letters: &[(u8, Flags)],
        others: &[u8],
        now: Flags,
        wanted: Flags,
    ) -> Result<(), NoRoom> {
        let ours = letters.iter().fold(Flags::default(), |all, (_, flag)| all | *flag);
        if now & ours == wanted & ours {
            return Ok(());
        }
        let set = letters.iter().filter(|(_, flag)| wanted.has(*flag));
        let mut missing: Vec<u8> = set.map(|(letter, _)| *letter).collect();
        // Who writes has shown the message to somebody.
        missing.extend_from_slice(others);
        for at in self.lines_of(field)? {
            let Some(line) = self.lines.get(at) else {
                continue;
            };
            let text = self.bytes(&line.value);
            let unknown = text.iter().copied().filter(|b| is_unknown(*b, letters, others));
            let mut text = missing.clone();
            text.extend(unknown.clone());
            if self.set(at, text).is_ok() {
                missing.clear();
            } else {
                self.set(at, unknown.collect())?;
            }
        }
        if !missing.is_empty() {
            let name = if field == Hidden::Status { "Status" } else { "X-Status" };
            self.made.push((name, missing));
        }
        Ok(())
    }

    fn keywords(&mut self, now: &[String], wanted: &[&str]) -> Result<(), NoRoom> {
        if !wanted.iter().all(|word| is_keyword(word)) {
            return Err(NoRoom);
        }
        let mut missing: Vec<&[u8]> = wanted.iter().map(|word| word.as_bytes()).collect();
        for at in self.lines_of(Hidden::Keywords)? {
            let Some(line) = self.lines.get(at) else {
                continue;
            };
            let known = |word: &[u8]| now.iter().any(|known| known.as_bytes() == word);
            let others = own::words(self.bytes(&line.value)).filter(|word| !known(word));
            let mut words = std::mem::take(&mut missing);
            words.extend(others);
            self.set(at, words.join(&b' '))?;
        }
        if missing.is_empty() { Ok(()) } else { Err(NoRoom) }
    }

    /// The header with all that was set.
    fn apply(&self) -> Result<Vec<u8>, NoRoom> {
        let mut new = Vec::with_capacity(self.header.len());
        let within = |line: &Line| line.new.as_ref().is_none_or(|text| text.len() <= line.width());
        let in_place = self.made.is_empty() && self.lines.iter().all(within);
        let mut at = 0;
        for (number, line) in self.lines.iter().enumerate() {
            if !in_place && self.home.contains(&number) {
                if number == self.home.start {
                    new.extend_from_slice(self.bytes(&(at..line.place.start)));
                    new.extend(self.laid_out()?);
                }
            } else {
                new.extend_from_slice(self.bytes(&(at..line.value.start)));
                self.fill(&mut new, line, line.width());
                new.extend_from_slice(self.bytes(&(line.value.end..line.place.end)));
            }
            at = line.place.end;
        }
        if !in_place && (self.home.is_empty() || !self.base_stands_first()) {
            return Err(NoRoom);
        }
        new.extend_from_slice(self.header.get(at..).unwrap_or_default());
        Ok(new)
    }

    /// Whether a new X-IMAPbase would stand before the X-UID: to Dovecot and c-client one behind says
    /// nothing, and they number all messages anew.
    fn base_stands_first(&self) -> bool {
        let is_made = self.made.iter().any(|(name, _)| *name == BASE);
        let uid = self.lines.iter().position(|line| line.field == Hidden::Uid);
        !is_made
            || uid
                .is_none_or(|at| at >= self.home.start && !(self.behind && self.home.contains(&at)))
    }

    /// The home's lines with other widths, as long as before together. Where that is not enough,
    /// the blanks of the other fields go, too.
    fn laid_out(&self) -> Result<Vec<u8>, NoRoom> {
        let lines = self.lines.get(self.home.clone()).ok_or(NoRoom)?;
        let total: usize = lines.iter().map(|line| line.place.len()).sum();
        for squeezed in [false, true] {
            let width = |line: &Line| match (&line.new, squeezed) {
                (None, false) => line.width(),
                (None, true) => needed(self.bytes(&line.value).trim_ascii()),
                (Some(text), false) => line.width().max(needed(text)),
                (Some(text), true) => needed(text),
            };
            let keywords = lines.iter().find(|line| line.field == Hidden::Keywords);
            let keywords = keywords.ok_or(NoRoom)?;
            let end = self.bytes(&(keywords.value.end..keywords.place.end));
            let made = |is_meant: fn(&str) -> bool| -> Vec<u8> {
                let made = self.made.iter().filter(|(name, _)| is_meant(name));
                made.flat_map(|(name, text)| [name.as_bytes(), b": ", text, end].concat()).collect()
            };
            let (base, made) = (made(|name| name == BASE), made(|name| name != BASE));
            let others = lines.iter().filter(|line| line.place != keywords.place);
            let others: usize =
                others.map(|line| line.place.len() - line.width() + width(line)).sum();
            let frame = keywords.place.len() - keywords.width();
            let least = match &keywords.new {
                Some(text) => needed(text),
                None => needed(self.bytes(&keywords.value).trim_ascii()),
            };
            let Some(rest) = total.checked_sub(others + base.len() + made.len() + frame) else {
                continue;
            };
            if rest < least {
                continue;
            }
            let mut new = Vec::with_capacity(total);
            let mut base = Some(base);
            for line in lines {
                let is_keywords = line.place == keywords.place;
                if (is_keywords || line.field == Hidden::Uid) && !self.behind {
                    new.extend(base.take().unwrap_or_default());
                }
                if is_keywords && !self.behind {
                    new.extend_from_slice(&made);
                }
                new.extend_from_slice(self.bytes(&(line.place.start..line.value.start)));
                self.fill(&mut new, line, if is_keywords { rest } else { width(line) });
                new.extend_from_slice(self.bytes(&(line.value.end..line.place.end)));
            }
            if self.behind {
                new.extend(base.take().unwrap_or_default());
                new.extend_from_slice(&made);
            }
            return Ok(new);
        }
        Err(NoRoom)
    }

    /// A line's value, old or new, with blanks up to a width: in front of a UID, behind all else, as
    /// other programs have them.
    fn fill(&self, new: &mut Vec<u8>, line: &Line, width: usize) {
        let old = self.bytes(&line.value);
        let text = match &line.new {
            None if width == line.width() => return new.extend_from_slice(old),
            None => old.trim_ascii(),
            Some(text) => text,
        };
        let blanks = width.saturating_sub(text.len());
        let front = if line.field == Hidden::Uid { blanks } else { blanks.min(1) };
        let end = new.len() + front + text.len() + (blanks - front);
        new.resize(new.len() + front, b' ');
        new.extend_from_slice(text);
        new.resize(end, b' ');
    }
}

/// The width of a value with the blank before it.
fn needed(text: &[u8]) -> usize {
    if text.is_empty() { 0 } else { text.len() + 1 }
}

/// Whether it is a field that is written here.
pub(super) fn is_written(field: Hidden) -> bool {
    match field {
        Hidden::Status | Hidden::XStatus | Hidden::Keywords | Hidden::Uid | Hidden::ImapBase => {
            true
        }
        Hidden::Imap | Hidden::ContentLength | Hidden::Lines | Hidden::Quoted => false,
    }
}

/// The whole lines around the first X-Keywords with nothing between them.
fn home(lines: &[Line]) -> Range<usize> {
    let Some(keywords) = lines
        .iter()
        .position(|line| line.field == Hidden::Keywords)
        .filter(|at| lines.get(*at).is_some_and(|line| line.plain))
    else {
        return 0..0;
    };
    let together = |pair: &[Line]| match pair {
        [first, second] => first.plain && second.plain && first.place.end == second.place.start,
        _ => false,
    };
    let (before, behind) = (lines.get(..=keywords), lines.get(keywords..));
    let before = before.unwrap_or_default().windows(2).rev().take_while(|p| together(p)).count();
    let behind = behind.unwrap_or_default().windows(2).take_while(|p| together(p)).count();
    keywords - before..keywords + behind + 1
}

#[cfg(test)]
#[path = "write_back_tests.rs"]
mod tests;

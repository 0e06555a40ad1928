//! Where the messages of an mbox begin and end, and what they are: all in one pass over the file.
//!
//! A message begins at the start of the file or behind a blank line with a [`from_line`]; without
//! the blank line where a header field follows. (procmail writes none behind a message that came
//! without its last line end. To take what follows for its text would delete it with it.)
//! Content-Length is believed only where a `From_` line or the end of the file follows the bytes
//! that it counts (Dovecot does not quote and relies on it); else its end is looked for.
//!
//! What is found does not depend on how the window cuts the file.

use std::io;

use memchr::memmem::Finder;

use super::error::Error;
use super::fields::{self, Hidden};
use super::from_line;
use super::measure::Measure;
use super::own::{LOOK, Own, Reader};
use super::window::{CAPACITY, Source, Window};
use crate::mailbox::index::MOST_MESSAGES;
use crate::mailbox::store::{Extent, Message};

/// A message of an mbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Where it stands.
    pub extent: Extent,
    /// Its octets, as a client gets them.
    pub size: u64,
    /// Those of its header with the blank line.
    pub header: u64,
    /// When it arrived by its `From_` line, in seconds since 1970; 0 where that names no day.
    pub date: i64,
    /// xxh3-128 of its header as a client gets it and its body as stored: fields that other programs
    /// change in place don't count.
    pub digest: [u8; 16],
    /// What the mailbox's own fields say.
    pub own: Own,
    /// It is c-client's pseudo message, which is nobody's mail.
    pub internal: bool,
}

impl Found {
    /// Where the next message begins, or the file ends.
    pub fn end(&self) -> u64 {
        self.extent.end()
    }

    /// Whether it is this message, stored as an index has it.
    pub(super) fn is(&self, message: &Message) -> bool {
        self.digest == message.digest && self.extent.is_at(&message.extent)
    }
}

impl Extent {
    /// Whether both are the same bytes of the file.
    pub(super) fn is_at(&self, other: &Self) -> bool {
        let places = [self, other]
            .map(|at| (at.start, at.length, at.from_line, at.header, at.gap, at.quoted));
        places[0] == places[1]
    }

    /// Where its header begins.
    pub fn header_start(&self) -> u64 {
        self.start.saturating_add(self.from_line.into())
    }

    /// Where its body begins.
    pub fn body_start(&self) -> u64 {
        self.header_start().saturating_add(self.header.into())
    }

    /// Where its body ends, before the blank line that ends the message.
    pub fn body_end(&self) -> u64 {
        self.header_start().saturating_add(self.length)
    }

    /// Where the next message begins, or the file ends.
    pub fn end(&self) -> u64 {
        self.body_end().saturating_add(self.gap.into())
    }
}

/// Finds one message after the other.
pub struct Scanner<S> {
    window: Window<S>,
    finder: Finder<'static>,
    measure: Measure,
    /// Where the next one begins; `None` before the first.
    next: Option<u64>,
    found: usize,
}

impl<S: Source> Scanner<S> {
    /// Of all messages in the first `end` bytes of a file.
    pub fn new(source: S, end: u64) -> Self {
        Self::with_window(source, end, CAPACITY)
    }

    /// The same, reading so many bytes at once (at least what has to be looked at together).
    pub fn with_window(source: S, end: u64, capacity: usize) -> Self {
        Self {
            window: Window::new(source, end, capacity.max(2 * LOOK)),
            finder: Finder::new(b"\nFrom "),
            measure: Measure::new(),
            next: None,
            found: 0,
        }
    }

    /// Goes on at a place where a message begins, or the file ends: what was found before it is
    /// known.
    pub fn go_to(&mut self, at: u64) {
        self.next = Some(at);
    }

    /// The message that begins exactly at `at`, if one does.
    pub fn message_at(&mut self, at: u64) -> io::Result<Option<Found>> {
        let before = at.min(3);
        let from = at.saturating_sub(before);
        let behind = self.window.peek(from, usize::try_from(before).unwrap_or(0))?;
        let behind = behind.to_vec();
        if !is_boundary(&behind, from == 0, self.window.view(at, LOOK)?) {
            return Ok(None);
        }
        self.message(at, false)
    }

    /// What the header of the first message says; how long its body is, is not looked at.
    pub fn first_header(&mut self) -> io::Result<Option<Found>> {
        let start = self.first()?;
        let head = self.head(start)?;
        Ok(head.map(|head| {
            let body = head.facts.body;
            head.found(start, true, (body, body), (0, [0; 16]))
        }))
    }

    fn advance(&mut self) -> Result<Option<Found>, Error> {
        let (at, is_first) = match self.next {
            Some(at) => (at, false),
            None => (self.first().map_err(Error::reading)?, true),
        };
        let found = self.message(at, is_first).map_err(Error::reading)?;
        self.next = Some(found.as_ref().map_or(at, Found::end));
        if let Some(found) = &found
            && !found.internal
        {
            if self.found >= MOST_MESSAGES {
                return Err(Error::TooMany(MOST_MESSAGES));
            }
            self.found += 1;
        }
        Ok(found)
    }

    /// Where the first message begins: blank lines and garbage before it are nobody's.
    fn first(&mut self) -> io::Result<u64> {
        if from_line::begins(self.window.view(0, LOOK)?) {
            return Ok(0);
        }
        Ok(to_boundary(&mut self.window, &self.finder, 0, &mut |_| {})?.1)
    }

    /// c-client's pseudo message is the first or none.
    fn message(&mut self, start: u64, is_first: bool) -> io::Result<Option<Found>> {
        let Some(head) = self.head(start)? else {
            return Ok(None);
        };
        let body = head.facts.body;
        let believed = match head.facts.content_length {
            Some(length) => counted(&mut self.window, body, length)?,
            None => None,
        };
        let ends = if let Some((body_end, end)) = believed {
            self.copy(body, body_end)?;
            (body_end, end)
        } else {
            let measure = &mut self.measure;
            let mut sink = |bytes: &[u8]| measure.body(bytes);
            to_boundary(&mut self.window, &self.finder, body, &mut sink)?
        };
        Ok(Some(head.found(start, is_first, ends, self.measure.finish())))
    }

    /// The message that begins here, up to its body.
    fn head(&mut self, start: u64) -> io::Result<Option<Head>> {
        let view = self.window.view(start, LOOK)?;
        let Some(date) = from_line::date(view) else {
            return Ok(None);
        };
        let line = memchr::memchr(b'\n', view).map_or(view.len(), |at| at + 1);
        let header = start.saturating_add(count(line));
        let facts = self.header(header)?;
        let shown = self.measure.end_header(facts.quoted);
        Ok(Some(Head { header, shown, date, facts }))
    }

    fn header(&mut self, header: u64) -> io::Result<Facts> {
        let mut facts = Facts { body: header, ..Facts::default() };
        let (mut within_line, mut hidden) = (false, false);
        self.measure.start();
        loop {
            let view = self.window.view(facts.body, LOOK)?;
            if view.is_empty() {
                return Ok(facts);
            }
            // What a field says does not depend on how much more the window holds.
            let view = view.get(..LOOK).unwrap_or(view);
            let end = memchr::memchr(b'\n', view).map(|end| end + 1);
            let line = view.get(..end.unwrap_or(view.len())).unwrap_or_default();
            facts.body = facts.body.saturating_add(count(line.len()));
            if !within_line {
                // A CR alone is the last byte of the file: half of the blank line.
                if matches!(line, b"\n" | b"\r\n" | b"\r") {
                    return Ok(facts);
                }
                hidden = facts.line(line, hidden);
            }
            if !hidden {
                self.measure.header(line);
            }
            within_line = end.is_none();
        }
    }

    /// Measures what stands from here to there.
    fn copy(&mut self, mut from: u64, to: u64) -> io::Result<()> {
        while from < to {
            let view = self.window.view(from, 1)?;
            if view.is_empty() {
                break;
            }
            let left = usize::try_from(to.saturating_sub(from)).unwrap_or(usize::MAX);
            let bytes = view.get(..left).unwrap_or(view);
            from = from.saturating_add(count(bytes.len()));
            self.measure.body(bytes);
        }
        Ok(())
    }
}

impl<S: Source> Iterator for Scanner<S> {
    type Item = Result<Found, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        self.advance().transpose()
    }
}

/// A message, without its body.
struct Head {
    /// Where its header begins.
    header: u64,
    /// The header's octets, as a client gets them.
    shown: u64,
    date: i64,
    facts: Facts,
}

impl Head {
    /// The whole message, by where its body and it end, and by its size and digest.
    fn found(
        self,
        start: u64,
        is_first: bool,
        (body_end, end): (u64, u64),
        (size, digest): (u64, [u8; 16]),
    ) -> Found {
        let Self { header, shown, date, facts } = self;
        let internal = is_first && facts.imap && facts.dont_delete;
        let extent = Extent {
            start,
            length: body_end.saturating_sub(header),
            from_line: short(header.saturating_sub(start)),
            header: short(facts.body.saturating_sub(header)),
            gap: short(end.saturating_sub(body_end)),
            quoted: facts.quoted,
            ..Extent::default()
        };
        let own = facts.own.finish(internal);
        Found { extent, size, header: shown, date, digest, own, internal }
    }
}

/// What a header tells the scanner.
#[derive(Default)]
struct Facts {
    /// Where the body begins.
    body: u64,
    content_length: Option<u64>,
    quoted: bool,
    imap: bool,
    dont_delete: bool,
    own: Reader,
}

impl Facts {
    /// Takes a line, or its beginning; whether the field before was hidden counts for a folded
    /// one. Whether this one is.
    fn line(&mut self, line: &[u8], hidden: bool) -> bool {
        if let Some(b' ' | b'\t') = line.first() {
            self.own.folded_line(line);
            return hidden;
        }
        let field = fields::hidden(line);
        self.own.line(field, line);
        match field {
            Some(Hidden::ContentLength) if self.content_length.is_none() => {
                self.content_length = decimal(fields::value(line));
            }
            Some(Hidden::Quoted) => self.quoted = true,
            Some(Hidden::Imap) => self.imap = true,
            None if is_subject(line) => {
                self.dont_delete = fields::value(line).starts_with(b"DON'T DELETE THIS MESSAGE");
            }
            _ => {}
        }
        field.is_some()
    }
}

fn is_subject(line: &[u8]) -> bool {
    let is = |name: &[u8]| name.eq_ignore_ascii_case(b"Subject");
    matches!(line.first(), Some(b'S' | b's')) && fields::name(line).is_some_and(is)
}

fn decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0_u64, |n, b| {
        let digit = b.is_ascii_digit().then(|| u64::from(b.wrapping_sub(b'0')))?;
        n.checked_mul(10)?.checked_add(digit)
    })
}

/// The end of the body and of the message by Content-Length, if what follows bears it out.
fn counted<S: Source>(
    window: &mut Window<S>,
    body: u64,
    length: u64,
) -> io::Result<Option<(u64, u64)>> {
    let Some(body_end) = body.checked_add(length).filter(|end| *end <= window.end()) else {
        return Ok(None);
    };
    // A body may lack its last line end: then one must follow. Blank lines may follow in any case.
    let last = match length {
        0 => None,
        _ => window.peek(body_end.saturating_sub(1), 1)?.first().copied(),
    };
    let view = window.peek(body_end, LOOK)?;
    let gap = view.iter().take_while(|b| matches!(b, b'\n' | b'\r')).count();
    let ended = matches!(last, None | Some(b'\n')) || gap > 0 || view.is_empty();
    let cr = view.get(..gap).is_some_and(|line_ends| line_ends.ends_with(b"\r"));
    let at_end = gap == view.len() && gap < LOOK;
    let end = body_end.saturating_add(count(gap));
    // The whole line is looked at, as by whoever reads on from there: were it none for them, all
    // that stands behind would not be listed.
    let followed = !cr && from_line::begins(window.peek(end, LOOK)?);
    Ok((ended && (at_end || followed)).then_some((body_end, end)))
}

/// From a line's start on, finds where the next message begins; gives `sink` what is before the
/// blank line in front of it. Returns the end of that, and where the next message begins.
fn to_boundary<S: Source>(
    window: &mut Window<S>,
    finder: &Finder<'_>,
    start: u64,
    sink: &mut dyn FnMut(&[u8]),
) -> io::Result<(u64, u64)> {
    let mut at = start;
    loop {
        let last_read = window.end();
        let view = window.view(at, LOOK.saturating_mul(2))?;
        let seen = at.saturating_add(count(view.len()));
        let at_end = seen >= last_read || view.len() < LOOK;
        let fresh = at == start;
        let limit = if at_end { view.len() } else { view.len().saturating_sub(LOOK) };
        let own_line = (fresh && view.starts_with(b"From ")).then_some(0);
        let found = own_line
            .into_iter()
            .chain(finder.find_iter(view).map(|newline| newline + 1))
            .take_while(|candidate| *candidate < limit)
            .find(|candidate| {
                let (before, line) = view.split_at_checked(*candidate).unwrap_or_default();
                is_boundary(before, fresh, line)
            });
        let place = |offset: usize| at.saturating_add(count(offset));
        if let Some(next) = found {
            let before = view.get(..next).unwrap_or_default();
            let content = without_blank_line(before, fresh);
            sink(content);
            return Ok((place(content.len()), place(next)));
        }
        if at_end {
            let content = without_blank_line(view, fresh);
            sink(content);
            return Ok((place(content.len()), seen));
        }
        // Enough is left for the blank line before the next candidate to be seen again.
        let done = limit.saturating_sub(4);
        sink(view.get(..done).unwrap_or_default());
        at = place(done);
    }
}

/// Whether a message begins where `before` ends and `line` begins.
fn is_boundary(before: &[u8], from_line_start: bool, line: &[u8]) -> bool {
    let header_follows = || {
        // No more than whoever looks at this message alone can see.
        let line = line.get(..LOOK).unwrap_or(line);
        let next = memchr::memchr(b'\n', line).and_then(|end| line.get(end + 1..));
        next.and_then(|next| next.split(|b| *b == b'\n').next())
            .is_some_and(|next| fields::name(next).is_some())
    };
    from_line::begins(line)
        && (after_blank_line(before, from_line_start)
            || (before.ends_with(b"\n") && header_follows()))
}

/// Whether a line that begins behind these bytes stands behind a blank line (or at the start).
pub(super) fn after_blank_line(before: &[u8], from_line_start: bool) -> bool {
    before.ends_with(b"\n\n")
        || before.ends_with(b"\n\r\n")
        || (from_line_start && matches!(before, b"" | b"\n" | b"\r\n"))
}

fn without_blank_line(content: &[u8], from_line_start: bool) -> &[u8] {
    let blank = if content.ends_with(b"\n\n") || (from_line_start && content == b"\n") {
        1
    } else if content.ends_with(b"\n\r\n") || (from_line_start && content == b"\r\n") {
        2
    } else {
        0
    };
    content.get(..content.len().saturating_sub(blank)).unwrap_or_default()
}

fn count(bytes: usize) -> u64 {
    u64::try_from(bytes).unwrap_or(u64::MAX)
}

/// Such a part of a message is always shorter; and if it is not, it is no message that is kept.
fn short(bytes: u64) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;

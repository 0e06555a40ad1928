//! FETCH: what is told of one message (RFC 9051 section 6.4.5).
//!
//! Texts go from the store to the client in pieces. Their lengths are known before: those of the
//! message and its header from the store, those of parts from its structure. What is told otherwise
//! than it stands there goes through a `filter`, twice where it is too long to be kept. A
//! structure is asked for only by those items that need it.

mod filter;

use std::io::{self, Write};
use std::ops::Range;

use super::out::Out;
use crate::imap::command::{FetchItem, Partial, Section, SectionText};
use crate::imap::reply::{self, FetchLine};
use crate::imap::structure::{Revision, body_text, envelope_text};
use crate::mailbox::store::{Message, Store};
use crate::mailbox::uids::Uid;
use crate::mailbox::{Error, Structures};
use crate::message::structure::{Content, Part, Structure};
use crate::message::transfer::Decoder;
use crate::sys::clock;
use filter::{Fields, Filter};

/// What NUL becomes where a literal may not have it, as with Dovecot.
const NUL: u8 = 0x80;
/// What is longer goes through a filter twice.
const KEPT: u64 = 64 * 1024;
/// So much is read before it is looked whether more is wanted.
const STEP: u64 = 1024 * 1024;

/// Why a message was not told of.
#[derive(Debug)]
pub enum Failure {
    /// It is gone.
    Gone,
    /// It can't be read. What could be told was told.
    Unreadable(Error),
    /// A part's encoding is unknown. What comes before that part was told.
    UnknownEncoding,
    /// The client is gone, or was promised more than there is: the connection has to end.
    Broken(io::Error),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Broken(error)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match error {
            Error::Changed => Self::Gone,
            Error::Sink(error) => Self::Broken(error),
            error => Self::Unreadable(error),
        }
    }
}

/// Whether a message becomes `\Seen` by these.
pub fn sets_seen(items: &[FetchItem]) -> bool {
    items.iter().any(|item| match item {
        FetchItem::Rfc822 | FetchItem::Rfc822Text => true,
        FetchItem::Section { peek, .. } | FetchItem::Binary { peek, .. } => !peek,
        _ => false,
    })
}

/// Messages of one mailbox, for one client.
pub struct Fetch<'a> {
    /// The mailbox.
    pub store: &'a mut dyn Store,
    /// The structures of its messages.
    pub structures: &'a mut Structures,
    /// What the client speaks.
    pub revision: Revision,
}

/// Which octets are told.
enum Text {
    /// These of the message.
    Octets(Range<u64>),
    /// These, as they come through a filter.
    Filtered(Range<u64>, Filter),
    /// There is no such part.
    Missing,
}

/// What comes through a filter, of what is asked for.
#[derive(Default)]
struct Measured {
    length: u64,
    has_nul: bool,
    /// All of it, unless that is much.
    kept: Option<Vec<u8>>,
}

impl Fetch<'_> {
    /// Tells of a message; `flags` are as they are shown. Where it fails, what was told before is a
    /// whole line, or nothing.
    pub fn message(
        &mut self,
        number: u32,
        uid: Uid,
        flags: &[&str],
        items: &[FetchItem],
        out: &mut Out<'_>,
    ) -> Result<(), Failure> {
        let message = self.store.message(uid)?.ok_or(Failure::Gone)?;
        let mut structure: Option<Structure> = None;
        let start = out.mark();
        let mut line = FetchLine::begin(number, &mut out.buffer);
        for item in items {
            let mark = out.mark();
            let Err(failure) = self.item(&message, flags, item, &mut structure, &mut line, out)
            else {
                continue;
            };
            if out.take_back(start) {
                return Err(failure);
            }
            if !out.take_back(mark) {
                return Err(broken(failure));
            }
            line.end(&mut out.buffer);
            return Err(failure);
        }
        line.end(&mut out.buffer);
        out.settle()?;
        Ok(())
    }

    /// Tells an item. Of what fails nothing is told, unless it fails within a literal.
    fn item(
        &mut self,
        message: &Message,
        flags: &[&str],
        item: &FetchItem,
        structure: &mut Option<Structure>,
        line: &mut FetchLine,
        out: &mut Out<'_>,
    ) -> Result<(), Failure> {
        let (uid, header) = (message.uid, u64::from(message.header));
        match item {
            FetchItem::Uid => line.number(item, uid.into(), &mut out.buffer),
            FetchItem::Flags => line.flags(flags.iter().copied(), &mut out.buffer),
            FetchItem::InternalDate => {
                line.internal_date(message.date, offset(message.date), &mut out.buffer);
            }
            FetchItem::Size => line.number(item, message.size, &mut out.buffer),
            FetchItem::ModSeq => line.modseq(message.modseq, &mut out.buffer),
            FetchItem::Envelope => {
                let known = self.structure(structure, uid)?;
                line.item(item, &mut out.buffer);
                envelope_text(&known.envelope, &mut out.buffer);
            }
            FetchItem::Body | FetchItem::BodyStructure => {
                let extensible = *item == FetchItem::BodyStructure;
                let revision = self.revision;
                let known = self.structure(structure, uid)?;
                line.item(item, &mut out.buffer);
                body_text(known, extensible, revision, &mut out.buffer);
            }
            FetchItem::Rfc822 | FetchItem::Rfc822Header | FetchItem::Rfc822Text => {
                let range = match item {
                    FetchItem::Rfc822 => 0..message.size,
                    FetchItem::Rfc822Header => 0..header,
                    _ => header..message.size,
                };
                line.item(item, &mut out.buffer);
                self.octets(uid, range, false, out)?;
            }
            FetchItem::Section { section, partial, .. } => {
                let text = self.section(message, section, structure)?;
                line.item(item, &mut out.buffer);
                self.text(uid, text, partial.as_ref(), false, out)?;
            }
            FetchItem::Binary { part, partial, .. } => {
                let text = self.encoded(message, part, structure)?;
                line.item(item, &mut out.buffer);
                self.text(uid, text, partial.as_ref(), true, out)?;
            }
            FetchItem::BinarySize(part) => {
                let size = match self.encoded(message, part, structure)? {
                    Text::Octets(range) => range.end.saturating_sub(range.start),
                    Text::Filtered(range, filter) => {
                        self.measure(uid, range, filter, &(0..u64::MAX), 0)?.length
                    }
                    Text::Missing => 0,
                };
                line.number(item, size, &mut out.buffer);
            }
        }
        Ok(())
    }

    fn structure<'b>(
        &mut self,
        known: &'b mut Option<Structure>,
        uid: Uid,
    ) -> Result<&'b Structure, Failure> {
        if known.is_none() {
            *known = Some(self.structures.of(self.store, uid)?);
        }
        known.as_ref().ok_or(Failure::Gone)
    }

    /// `section-spec`
    fn section(
        &mut self,
        message: &Message,
        section: &Section,
        structure: &mut Option<Structure>,
    ) -> Result<Text, Failure> {
        let uid = message.uid;
        let (header, text) =
            (0..u64::from(message.header), u64::from(message.header)..message.size);
        let (header, text) = if section.part.is_empty() {
            match &section.text {
                None => return Ok(Text::Octets(0..message.size)),
                Some(_) => (header, text),
            }
        } else {
            let Some(part) = self.structure(structure, uid)?.part(&section.part) else {
                return Ok(Text::Missing);
            };
            match &section.text {
                None => return Ok(Text::Octets(part.text())),
                Some(SectionText::Mime) => return Ok(Text::Octets(part.header())),
                Some(_) => match part.message() {
                    Some(message) => (message.root.header(), message.root.text()),
                    None => return Ok(Text::Missing),
                },
            }
        };
        Ok(match &section.text {
            Some(SectionText::Text) => Text::Octets(text),
            Some(SectionText::Fields { not, names }) => {
                Text::Filtered(header, Filter::Fields(Fields::new(names, *not)))
            }
            _ => Text::Octets(header),
        })
    }

    /// What takes a part's encoding off its body.
    fn encoded(
        &mut self,
        message: &Message,
        numbers: &[u32],
        structure: &mut Option<Structure>,
    ) -> Result<Text, Failure> {
        if numbers.is_empty() {
            return Ok(Text::Octets(0..message.size));
        }
        let Some(part) = self.structure(structure, message.uid)?.part(numbers) else {
            return Ok(Text::Missing);
        };
        Ok(match decoder_of(part).ok_or(Failure::UnknownEncoding)? {
            Decoder::Identity => Text::Octets(part.text()),
            decoder => Text::Filtered(part.text(), Filter::Decoded(decoder)),
        })
    }

    /// A text, or those octets of it that are asked for. One that is `binary` may have NUL.
    fn text(
        &mut self,
        uid: Uid,
        text: Text,
        partial: Option<&Partial>,
        binary: bool,
        out: &mut Out<'_>,
    ) -> Result<(), Failure> {
        match text {
            Text::Missing => out.buffer.extend_from_slice(b"NIL"),
            Text::Octets(range) => {
                let range = within(range, partial);
                // Only in what is short it is looked for NUL before: a literal8 need not have one.
                if binary && range.end.saturating_sub(range.start) <= KEPT {
                    let text = Text::Filtered(range, Filter::Decoded(Decoder::Identity));
                    return self.text(uid, text, None, true, out);
                }
                self.octets(uid, range, binary, out)?;
            }
            Text::Filtered(range, filter) => {
                let wanted = within(0..u64::MAX, partial);
                let measured = self.measure(uid, range.clone(), filter.clone(), &wanted, KEPT)?;
                announce(measured.length, binary && measured.has_nul, out);
                if let Some(kept) = measured.kept {
                    return Ok(put(&kept, binary, out)?);
                }
                let wanted = wanted.start..wanted.start.saturating_add(measured.length);
                self.filtered(uid, range, filter, wanted, binary, out)?;
            }
        }
        Ok(())
    }

    /// A literal of octets as they stand there.
    fn octets(
        &mut self,
        uid: Uid,
        range: Range<u64>,
        binary: bool,
        out: &mut Out<'_>,
    ) -> Result<(), Failure> {
        let length = range.end.saturating_sub(range.start);
        announce(length, binary, out);
        if length == 0 {
            return Ok(());
        }
        let mut left = length;
        self.store.read(uid, range, &mut |octets| {
            left = left.checked_sub(octets.len() as u64).ok_or_else(too_long)?;
            put(octets, binary, out)
        })?;
        if left == 0 { Ok(()) } else { Err(Failure::Gone) }
    }

    /// What comes through a filter: how much it is, and up to `most` octets of it.
    fn measure(
        &mut self,
        uid: Uid,
        range: Range<u64>,
        filter: Filter,
        wanted: &Range<u64>,
        most: u64,
    ) -> Result<Measured, Failure> {
        let mut measured = Measured { kept: Some(Vec::new()), ..Measured::default() };
        self.each(uid, range, filter, wanted, &mut |octets| {
            measured.length = measured.length.saturating_add(octets.len() as u64);
            measured.has_nul |= memchr::memchr(0, octets).is_some();
            match &mut measured.kept {
                Some(kept) if measured.length <= most => kept.extend_from_slice(octets),
                kept => *kept = None,
            }
            Ok(())
        })?;
        Ok(measured)
    }

    /// Sends what comes through a filter, as much as was announced.
    fn filtered(
        &mut self,
        uid: Uid,
        range: Range<u64>,
        filter: Filter,
        wanted: Range<u64>,
        binary: bool,
        out: &mut Out<'_>,
    ) -> Result<(), Failure> {
        let mut left = wanted.end.saturating_sub(wanted.start);
        self.each(uid, range, filter, &wanted, &mut |octets| {
            left = left.saturating_sub(octets.len() as u64);
            put(octets, binary, out)
        })?;
        if left == 0 { Ok(()) } else { Err(Failure::Gone) }
    }

    /// Gives `sink` those of the octets that come through a filter which are wanted, and reads no
    /// more of the message than that takes.
    fn each(
        &mut self,
        uid: Uid,
        range: Range<u64>,
        mut filter: Filter,
        wanted: &Range<u64>,
        sink: &mut dyn FnMut(&[u8]) -> io::Result<()>,
    ) -> Result<(), Failure> {
        let mut window = Window { wanted, at: 0, failed: Ok(()) };
        let mut next = range.start;
        while next < range.end && window.at < wanted.end {
            let end = next.saturating_add(STEP).min(range.end);
            self.store.read(uid, next..end, &mut |octets| {
                filter.push(octets, &mut |octets| window.give(octets, sink));
                window.failure()
            })?;
            next = end;
        }
        if window.at < wanted.end {
            filter.finish(&mut |octets| window.give(octets, sink));
        }
        Ok(window.failure()?)
    }
}

/// Lets those octets of a text through that are wanted.
struct Window<'a> {
    wanted: &'a Range<u64>,
    at: u64,
    failed: io::Result<()>,
}

impl Window<'_> {
    fn give(&mut self, octets: &[u8], sink: &mut dyn FnMut(&[u8]) -> io::Result<()>) {
        let place = |octet: u64| {
            let place = usize::try_from(octet.saturating_sub(self.at)).unwrap_or(usize::MAX);
            place.min(octets.len())
        };
        let wanted = octets.get(place(self.wanted.start)..place(self.wanted.end));
        let wanted = wanted.unwrap_or_default();
        self.at = self.at.saturating_add(octets.len() as u64);
        if self.failed.is_ok() && !wanted.is_empty() {
            self.failed = sink(wanted);
        }
    }

    fn failure(&mut self) -> io::Result<()> {
        std::mem::replace(&mut self.failed, Ok(()))
    }
}

fn decoder_of(part: &Part) -> Option<Decoder> {
    match part.content {
        // What consists of parts is not encoded itself.
        Content::Multipart(_) | Content::Message(_) => Some(Decoder::Identity),
        _ => Decoder::of(part.encoding.as_deref()),
    }
}

fn too_long() -> io::Error {
    io::Error::other("a message is longer than it was")
}

/// The part of a text that is asked for.
fn within(range: Range<u64>, partial: Option<&Partial>) -> Range<u64> {
    let Some(Partial { start, length }) = partial else {
        return range;
    };
    let start = range.start.saturating_add(*start).min(range.end);
    start..start.saturating_add(*length).min(range.end)
}

/// What breaks off has been promised.
fn broken(failure: Failure) -> Failure {
    match failure {
        Failure::Broken(error) => Failure::Broken(error),
        Failure::Unreadable(error) => Failure::Broken(io::Error::other(error.to_string())),
        _ => Failure::Broken(io::Error::other("a message changed while it was sent")),
    }
}

/// So many octets are to follow; NUL may be among them where it is a literal8.
fn announce(length: u64, literal8: bool, out: &mut Out<'_>) {
    match length {
        0 => out.buffer.extend_from_slice(b"\"\""),
        _ if literal8 => reply::literal8(length, &mut out.buffer),
        _ => reply::literal(length, &mut out.buffer),
    }
}

/// Octets of a literal; one that is not `binary` has no NUL.
fn put(octets: &[u8], binary: bool, out: &mut Out<'_>) -> io::Result<()> {
    if binary || memchr::memchr(0, octets).is_none() {
        return out.write_all(octets);
    }
    let octets: Vec<u8> = octets.iter().map(|o| if *o == 0 { NUL } else { *o }).collect();
    out.write_all(&octets)
}

/// The local zone at that moment, in seconds east.
fn offset(at: i64) -> i32 {
    let time = jiff::Timestamp::from_second(at).unwrap_or_default();
    clock::zone().to_offset(time).seconds()
}

#[cfg(test)]
#[path = "fetch_tests.rs"]
mod tests;

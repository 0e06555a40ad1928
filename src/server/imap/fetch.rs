//! FETCH: what is told of one message (RFC 9051 section 6.4.5).
//!
//! Texts go from the store to the client in pieces. Their lengths are known before: those of the
//! message and its header from the store, those of parts from its structure; what is decoded is
//! decoded twice. A structure is asked for only by those items that need it.

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

/// What NUL becomes where a literal may not have it, as with Dovecot.
const NUL: u8 = 0x80;

/// Why a message was not told of.
#[derive(Debug)]
pub enum Failure {
    /// It is gone.
    Gone,
    /// It can't be read; nothing was sent of it.
    Unreadable(Error),
    /// A part's encoding is unknown; nothing was sent of it.
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
    /// These, which are not as they stand.
    Picked(Vec<u8>),
    /// There is no such part.
    Missing,
}

impl Fetch<'_> {
    /// Tells of a message; `flags` are as they are shown.
    pub fn message(
        &mut self,
        number: u32,
        uid: Uid,
        flags: &[&str],
        items: &[FetchItem],
        out: &mut Out<'_>,
    ) -> Result<(), Failure> {
        let mark = out.mark();
        self.tell(number, uid, flags, items, out).map_err(|failure| {
            if out.take_back(mark) {
                return failure;
            }
            match failure {
                Failure::Broken(error) => Failure::Broken(error),
                Failure::Unreadable(error) => Failure::Broken(io::Error::other(error.to_string())),
                _ => Failure::Broken(io::Error::other("a message changed while it was sent")),
            }
        })
    }

    fn tell(
        &mut self,
        number: u32,
        uid: Uid,
        flags: &[&str],
        items: &[FetchItem],
        out: &mut Out<'_>,
    ) -> Result<(), Failure> {
        let message = *self.store.message(uid).ok_or(Failure::Gone)?;
        let mut structure: Option<Structure> = None;
        let mut line = FetchLine::begin(number, &mut out.buffer);
        for item in items {
            match item {
                FetchItem::Uid => line.number(item, uid.into(), &mut out.buffer),
                FetchItem::Flags => line.flags(flags.iter().copied(), &mut out.buffer),
                FetchItem::InternalDate => {
                    let zone = offset(message.date);
                    line.internal_date(message.date, zone, &mut out.buffer);
                }
                FetchItem::Size => line.number(item, message.size, &mut out.buffer),
                FetchItem::ModSeq => line.modseq(message.modseq, &mut out.buffer),
                FetchItem::Envelope => {
                    line.item(item, &mut out.buffer);
                    let known = self.structure(&mut structure, uid)?;
                    envelope_text(&known.envelope, &mut out.buffer);
                }
                FetchItem::Body | FetchItem::BodyStructure => {
                    line.item(item, &mut out.buffer);
                    let extensible = *item == FetchItem::BodyStructure;
                    let revision = self.revision;
                    let known = self.structure(&mut structure, uid)?;
                    body_text(known, extensible, revision, &mut out.buffer);
                }
                FetchItem::Rfc822 | FetchItem::Rfc822Header | FetchItem::Rfc822Text => {
                    line.item(item, &mut out.buffer);
                    let header = u64::from(message.header);
                    let range = match item {
                        FetchItem::Rfc822 => 0..message.size,
                        FetchItem::Rfc822Header => 0..header,
                        _ => header..message.size,
                    };
                    self.octets(uid, range, None, out)?;
                }
                FetchItem::Section { section, partial, .. } => {
                    line.item(item, &mut out.buffer);
                    match self.section(&message, section, &mut structure)? {
                        Text::Octets(range) => self.octets(uid, range, partial.as_ref(), out)?,
                        Text::Picked(text) => picked(&text, partial.as_ref(), out)?,
                        Text::Missing => out.buffer.extend_from_slice(b"NIL"),
                    }
                }
                FetchItem::Binary { part, partial, .. } => {
                    line.item(item, &mut out.buffer);
                    let found = self.encoded(&message, part, &mut structure)?;
                    match found {
                        Some((range, decoder)) => {
                            self.decoded(uid, range, &decoder, partial.as_ref(), out)?;
                        }
                        None => out.buffer.extend_from_slice(b"NIL"),
                    }
                }
                FetchItem::BinarySize(part) => {
                    let found = self.encoded(&message, part, &mut structure)?;
                    let size = match found {
                        Some((range, decoder)) => self.count(uid, range, &decoder)?.0,
                        None => 0,
                    };
                    line.number(item, size, &mut out.buffer);
                }
            }
        }
        line.end(&mut out.buffer);
        out.settle()?;
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
                Text::Picked(self.fields(uid, header, *not, names)?)
            }
            _ => Text::Octets(header),
        })
    }

    /// The fields of a header that are named, or all others, with the blank line.
    fn fields(
        &mut self,
        uid: Uid,
        header: Range<u64>,
        not: bool,
        names: &[Vec<u8>],
    ) -> Result<Vec<u8>, Failure> {
        let mut picked = Vec::new();
        let mut line: Vec<u8> = Vec::new();
        let mut wanted = false;
        let mut take = |line: &[u8]| {
            if !matches!(line.first(), Some(b' ' | b'\t')) {
                let colon = memchr::memchr(b':', line).unwrap_or(0);
                let name = line.get(..colon).unwrap_or_default().trim_ascii_end();
                let is_named = names.iter().any(|other| other.eq_ignore_ascii_case(name));
                wanted = colon > 0 && is_named != not;
            }
            if wanted {
                picked.extend_from_slice(line);
            }
        };
        self.store.read(uid, header, &mut |octets| {
            for piece in octets.split_inclusive(|octet| *octet == b'\n') {
                line.extend_from_slice(piece);
                if piece.ends_with(b"\n") {
                    take(&line);
                    line.clear();
                }
            }
            Ok(())
        })?;
        take(&line);
        picked.extend_from_slice(b"\r\n");
        Ok(picked)
    }

    /// A literal of octets as they are.
    fn octets(
        &mut self,
        uid: Uid,
        range: Range<u64>,
        partial: Option<&Partial>,
        out: &mut Out<'_>,
    ) -> Result<(), Failure> {
        let range = within(range, partial);
        let length = range.end.saturating_sub(range.start);
        if length == 0 {
            out.buffer.extend_from_slice(b"\"\"");
            return Ok(());
        }
        reply::literal(length, &mut out.buffer);
        let mut left = length;
        self.store.read(uid, range, &mut |octets| {
            left = left.checked_sub(octets.len() as u64).ok_or_else(too_long)?;
            literal_text(octets, out)
        })?;
        if left == 0 { Ok(()) } else { Err(Failure::Gone) }
    }

    /// Where a part's body stands, and what takes its encoding off.
    fn encoded(
        &mut self,
        message: &Message,
        numbers: &[u32],
        structure: &mut Option<Structure>,
    ) -> Result<Option<(Range<u64>, Decoder)>, Failure> {
        if numbers.is_empty() {
            return Ok(Some((0..message.size, Decoder::Identity)));
        }
        let Some(part) = self.structure(structure, message.uid)?.part(numbers) else {
            return Ok(None);
        };
        let decoder = decoder_of(part).ok_or(Failure::UnknownEncoding)?;
        Ok(Some((part.text(), decoder)))
    }

    /// How many octets a body has when it is decoded, and whether NUL is among them.
    fn count(
        &mut self,
        uid: Uid,
        range: Range<u64>,
        decoder: &Decoder,
    ) -> Result<(u64, bool), Failure> {
        let (mut count, mut has_nul) = (0_u64, false);
        let mut add = |octets: &[u8]| {
            count = count.saturating_add(octets.len() as u64);
            has_nul |= memchr::memchr(0, octets).is_some();
        };
        let mut decoder = decoder.clone();
        self.store.read(uid, range, &mut |octets| {
            decoder.push(octets, &mut add);
            Ok(())
        })?;
        decoder.finish(&mut add);
        Ok((count, has_nul))
    }

    /// A literal of octets that are decoded.
    fn decoded(
        &mut self,
        uid: Uid,
        range: Range<u64>,
        decoder: &Decoder,
        partial: Option<&Partial>,
        out: &mut Out<'_>,
    ) -> Result<(), Failure> {
        let (count, has_nul) = self.count(uid, range.clone(), decoder)?;
        let wanted = within(0..count, partial);
        let length = wanted.end.saturating_sub(wanted.start);
        if has_nul {
            reply::literal8(length, &mut out.buffer);
        } else {
            reply::literal(length, &mut out.buffer);
        }
        let (mut at, mut sent, mut failed) = (0_u64, 0_u64, None);
        let mut give = |octets: &[u8], out: &mut Out<'_>| {
            let (from, to) = (at, at.saturating_add(octets.len() as u64));
            at = to;
            let place = |n: u64| {
                let n = n.clamp(from, to).saturating_sub(from);
                usize::try_from(n).unwrap_or(usize::MAX)
            };
            let part = octets.get(place(wanted.start)..place(wanted.end)).unwrap_or_default();
            sent = sent.saturating_add(part.len() as u64);
            if let Err(error) = out.write_all(part) {
                failed.get_or_insert(error);
            }
        };
        let mut decoder = decoder.clone();
        self.store.read(uid, range, &mut |octets| {
            decoder.push(octets, &mut |octets| give(octets, out));
            Ok(())
        })?;
        decoder.finish(&mut |octets| give(octets, out));
        match failed {
            Some(error) => Err(error.into()),
            None if sent == length => Ok(()),
            None => Err(Failure::Gone),
        }
    }
}

fn decoder_of(part: &Part) -> Option<Decoder> {
    match part.content {
        // What consists of parts is not encoded itself.
        Content::Multipart(_) => Some(Decoder::Identity),
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

fn picked(text: &[u8], partial: Option<&Partial>, out: &mut Out<'_>) -> Result<(), Failure> {
    let range = within(0..text.len() as u64, partial);
    let place = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
    let part = text.get(place(range.start)..place(range.end)).unwrap_or_default();
    reply::literal(part.len(), &mut out.buffer);
    Ok(literal_text(part, out)?)
}

/// Octets of a literal, which has no NUL.
fn literal_text(octets: &[u8], out: &mut Out<'_>) -> io::Result<()> {
    if memchr::memchr(0, octets).is_none() {
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

//! A message that is looked at: what a search asks of it is read when it is asked for, and once.

use std::io;
use std::ops::Range;

use jiff::civil::Date;

use super::super::view::system_flag;
use super::needles::{Hunt, Needles};
use crate::imap::command::Flag;
use crate::mailbox::store::{Message, Store, keyword};
use crate::mailbox::{Error, Structures};
use crate::message::structure::{Content, Part};
use crate::message::transfer::Decoder;
use crate::message::{date, encoded_word};
use crate::sys::clock;
use crate::text::charset;
use crate::text::fold::fold;

/// So much of a header is looked at.
const MOST_HEADER: u64 = 1024 * 1024;

/// A message that may be one that is searched for.
pub struct Candidate<'a> {
    /// What is known of it without reading.
    pub known: Message,
    needles: &'a Needles,
    store: &'a mut dyn Store,
    structures: &'a mut Structures,
    header: Option<Vec<Field>>,
    /// Which needles are in it.
    found: Option<Vec<bool>>,
}

impl<'a> Candidate<'a> {
    /// Nothing of it is read yet.
    pub fn new(
        needles: &'a Needles,
        store: &'a mut dyn Store,
        structures: &'a mut Structures,
        known: Message,
    ) -> Self {
        Self { known, needles, store, structures, header: None, found: None }
    }

    /// Whether it has a flag.
    pub fn has(&self, flag: &Flag) -> bool {
        let marks = self.known.marks;
        match system_flag(flag) {
            Some(flag) => marks.flags.has(flag),
            None => keyword(self.store.keywords(), flag.as_str())
                .is_some_and(|bit| marks.keywords & bit != 0),
        }
    }

    /// The day it arrived, here.
    pub fn arrived(&self) -> Date {
        let time = jiff::Timestamp::from_second(self.known.date).unwrap_or_default();
        clock::zone().to_datetime(time).date()
    }

    /// The day it was sent, where that was.
    pub fn sent(&mut self) -> Result<Option<Date>, Error> {
        let field = self.header()?.iter().find(|field| field.name.eq_ignore_ascii_case(b"Date"));
        Ok(field.and_then(|field| date::parse(&field.value)).map(|sent| sent.day))
    }

    /// Whether a field of this name has the text, which is folded.
    pub fn has_field(&mut self, name: &[u8], text: &str) -> Result<bool, Error> {
        let mut fields = self.header()?.iter_mut();
        Ok(fields.any(|field| field.name.eq_ignore_ascii_case(name) && field.has(text)))
    }

    /// Whether the needle at this place is in it.
    pub fn has_text(&mut self, at: usize) -> Result<bool, Error> {
        if self.found.is_none() {
            self.found = Some(self.look()?);
        }
        Ok(self.found.as_ref().and_then(|found| found.get(at)).copied().unwrap_or(false))
    }

    fn header(&mut self) -> Result<&mut [Field], Error> {
        let fields = match self.header.take() {
            Some(fields) => fields,
            None => self.fields(0..u64::from(self.known.header))?,
        };
        Ok(self.header.insert(fields))
    }

    /// The fields of a header that stands there.
    fn fields(&mut self, range: Range<u64>) -> Result<Vec<Field>, Error> {
        let end = range.end.min(range.start.saturating_add(MOST_HEADER));
        let mut text = Vec::new();
        self.store.read(self.known.uid, range.start..end, &mut |octets| {
            text.extend_from_slice(octets);
            Ok(())
        })?;
        Ok(unfolded(&text))
    }

    /// Looks for all needles.
    fn look(&mut self) -> Result<Vec<bool>, Error> {
        let mut hunt = Hunt::new(self.needles);
        if hunt.wants(true) {
            search_fields(self.header()?, &mut hunt);
        }
        if hunt.wants(false) {
            let structure = self.structures.of(self.store, self.known.uid)?;
            self.part(&structure.root, &mut hunt)?;
        }
        Ok(hunt.found())
    }

    /// What a part consists of; its own header was looked at.
    fn part(&mut self, part: &Part, hunt: &mut Hunt<'_>) -> Result<(), Error> {
        match &part.content {
            Content::Multipart(parts) => {
                for part in parts {
                    self.whole(part, hunt)?;
                }
            }
            Content::Message(message) => self.whole(&message.root, hunt)?,
            Content::Text => self.text(part, hunt)?,
            // What reports of deliveries say is for people to read, too.
            Content::Other if part.kind.eq_ignore_ascii_case(b"message") => {
                self.text(part, hunt)?;
            }
            Content::Other => {}
        }
        Ok(())
    }

    /// A part with its header.
    fn whole(&mut self, part: &Part, hunt: &mut Hunt<'_>) -> Result<(), Error> {
        if hunt.wants(true) {
            search_fields(&self.fields(part.header())?, hunt);
        }
        if hunt.wants(false) { self.part(part, hunt) } else { Ok(()) }
    }

    fn text(&mut self, part: &Part, hunt: &mut Hunt<'_>) -> Result<(), Error> {
        let Some(mut decoder) = Decoder::of(part.encoding.as_deref()) else {
            return Ok(());
        };
        let charset = part.parameters.iter().find(|p| p.name.eq_ignore_ascii_case(b"charset"));
        let mut text = charset::Decoder::new(charset.map(|charset| charset.value.as_slice()));
        hunt.begin(false);
        let read = self.store.read(self.known.uid, part.text(), &mut |octets| {
            decoder.push(octets, &mut |octets| text.push(octets, &mut |text| hunt.push(text)));
            // All that is searched for is found: no more has to be read.
            if hunt.wants(false) { Ok(()) } else { Err(io::ErrorKind::Interrupted.into()) }
        });
        match read {
            Ok(()) | Err(Error::Sink(_)) => {}
            Err(error) => return Err(error),
        }
        decoder.finish(&mut |octets| text.push(octets, &mut |text| hunt.push(text)));
        text.finish(&mut |text| hunt.push(text));
        hunt.end();
        Ok(())
    }
}

fn search_fields(fields: &[Field], hunt: &mut Hunt<'_>) {
    hunt.begin(true);
    for field in fields {
        if !field.name.is_empty() {
            hunt.push(&String::from_utf8_lossy(&field.name));
            hunt.push(": ");
        }
        hunt.push(&encoded_word::decode(&field.value));
        hunt.push("\n");
    }
    hunt.end();
}

/// A field of a header; what is none has no name.
struct Field {
    name: Vec<u8>,
    /// Unfolded.
    value: Vec<u8>,
    /// What it says, folded, once that was asked for.
    folded: Option<String>,
}

impl Field {
    fn has(&mut self, text: &str) -> bool {
        if text.is_empty() {
            return true;
        }
        let value = &self.value;
        self.folded.get_or_insert_with(|| fold(&encoded_word::decode(value))).contains(text)
    }
}

/// The fields of a header. Where one was folded there is one blank.
fn unfolded(header: &[u8]) -> Vec<Field> {
    let mut fields: Vec<Field> = Vec::new();
    for line in header.split(|octet| *octet == b'\n') {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let is_more = matches!(line.first(), Some(b' ' | b'\t'));
        let (name, value) = match (fields.last_mut(), memchr::memchr(b':', line)) {
            (Some(field), _) if is_more => {
                let more = line.trim_ascii();
                if !field.value.is_empty() && !more.is_empty() {
                    field.value.push(b' ');
                }
                field.value.extend_from_slice(more);
                continue;
            }
            (_, Some(colon)) if !is_more => line.split_at(colon),
            _ => (&b""[..], line),
        };
        let value = value.strip_prefix(b":").unwrap_or(value).trim_ascii();
        if !name.is_empty() || !value.is_empty() {
            let name = name.trim_ascii_end().to_vec();
            fields.push(Field { name, value: value.to_vec(), folded: None });
        }
    }
    fields
}

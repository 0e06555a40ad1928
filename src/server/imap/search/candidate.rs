//! A message that is looked at: what a search asks of it is read when it is asked for, and once.

use std::io;
use std::ops::Range;

use jiff::civil::Date;

use super::super::view::system_flag;
use super::header::Header;
use super::needles::{Hunt, Needles};
use crate::imap::command::Flag;
use crate::mailbox::store::{Message, Store, keyword};
use crate::mailbox::{Error, Structures};
use crate::message::date;
use crate::message::structure::{Content, Part};
use crate::message::transfer::Decoder;
use crate::sys::clock;
use crate::text::charset;

/// So much of a header is looked at.
const MOST_HEADER: u64 = 1024 * 1024;

/// A message up to this size is read as a whole where its text is searched: its structure may not be
/// known yet.
const MOST_WHOLE: u64 = 256 * 1024;

/// A message that may be one that is searched for.
pub struct Candidate<'a> {
    /// What is known of it without reading.
    pub known: Message,
    needles: &'a Needles,
    store: &'a mut dyn Store,
    structures: &'a mut Structures,
    header: Option<Header>,
    /// All of it, if that was read.
    whole: Option<Vec<u8>>,
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
        Self { known, needles, store, structures, header: None, whole: None, found: None }
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
        let value = self.header()?.first(b"Date");
        Ok(value.and_then(|value| date::parse(&value)).map(|sent| sent.day))
    }

    /// Whether a field of this name has the text, which is folded.
    pub fn has_field(&mut self, name: &[u8], text: &str) -> Result<bool, Error> {
        Ok(self.header()?.has(name, text))
    }

    /// Whether the needle at this place is in it.
    pub fn has_text(&mut self, at: usize) -> Result<bool, Error> {
        if self.found.is_none() {
            self.found = Some(self.look()?);
        }
        Ok(self.found.as_ref().and_then(|found| found.get(at)).copied().unwrap_or(false))
    }

    fn header(&mut self) -> Result<&mut Header, Error> {
        let header = match self.header.take() {
            Some(header) => header,
            None => self.header_at(0..u64::from(self.known.header))?,
        };
        Ok(self.header.insert(header))
    }

    /// The header that stands there.
    fn header_at(&mut self, range: Range<u64>) -> Result<Header, Error> {
        let end = range.end.min(range.start.saturating_add(MOST_HEADER));
        let length = end.saturating_sub(range.start);
        let mut text = Vec::with_capacity(usize::try_from(length).unwrap_or_default());
        self.read(range.start..end, &mut |octets| {
            text.extend_from_slice(octets);
            Ok(())
        })?;
        Ok(Header::new(text))
    }

    fn read(
        &mut self,
        range: Range<u64>,
        sink: &mut dyn FnMut(&[u8]) -> io::Result<()>,
    ) -> Result<(), Error> {
        let Some(whole) = &self.whole else {
            return self.store.read(self.known.uid, range, sink);
        };
        let place = |at: u64| usize::try_from(at).unwrap_or(usize::MAX).min(whole.len());
        let octets = whole.get(place(range.start)..place(range.end)).unwrap_or_default();
        sink(octets).map_err(Error::Sink)
    }

    /// Reads all of it, where it is small.
    fn read_whole(&mut self) -> Result<(), Error> {
        if self.known.size <= MOST_WHOLE {
            let length = usize::try_from(self.known.size).unwrap_or_default();
            let mut text = Vec::with_capacity(length);
            self.read(0..u64::MAX, &mut |octets| {
                text.extend_from_slice(octets);
                Ok(())
            })?;
            self.whole = Some(text);
        }
        Ok(())
    }

    /// Looks for all needles.
    fn look(&mut self) -> Result<Vec<bool>, Error> {
        let mut hunt = Hunt::new(self.needles);
        self.read_whole()?;
        if hunt.wants(true) {
            self.header()?.search(&mut hunt);
        }
        if hunt.wants(false) {
            let structure = match &self.whole {
                Some(text) => self.structures.of_text(&self.known, text),
                None => self.structures.of(self.store, self.known.uid)?,
            };
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
            self.header_at(part.header())?.search(hunt);
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
        let read = self.read(part.text(), &mut |octets| {
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

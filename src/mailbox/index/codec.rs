//! Changes and messages as bytes, both ways.
//!
//! Numbers are little-endian. What is read is not trusted: nothing is allocated for bytes that are
//! not there, and what could not have been written is damage.

use super::journal::ALIGNMENT;
use super::messages::Summary;
use super::{Base, Change, Damaged};
use crate::mailbox::store::{Extent, Flags, Marking, Marks, Message};
use crate::mailbox::uids::UidSet;

/// Bytes of a message.
pub const MESSAGE: usize = 96;

/// Bytes of what is known of a page.
pub const SUMMARY: usize = 56;

const CUT_OFF: Damaged = Damaged("a record is cut off");

const NEW: u8 = 1;
const MARK: u8 = 2;
const EXPUNGE: u8 = 3;
const EDITED: u8 = 4;
const PLACED: u8 = 5;
const WRITTEN: u8 = 6;
const KEYWORD: u8 = 7;
const RECENT: u8 = 8;
const UID_NEXT: u8 = 9;
const BASE: u8 = 10;

const QUOTED: u8 = 1;
const UNWRITTEN: u8 = 2;
const NO_ROOM: u8 = 4;
const NAMED: u8 = 8;
const DOOMED: u8 = 16;

/// Bytes that grow.
#[derive(Debug, Default)]
pub struct Writer(pub Vec<u8>);

impl Writer {
    /// Puts zeros behind, so that what comes next has its place: see [`ALIGNMENT`].
    pub fn align(&mut self) {
        let length = self.0.len().next_multiple_of(ALIGNMENT);
        self.0.resize(length, 0);
    }

    /// Puts a byte behind.
    pub fn u8(&mut self, byte: u8) {
        self.0.push(byte);
    }

    /// Puts a number behind.
    pub fn u32(&mut self, number: u32) {
        self.0.extend_from_slice(&number.to_le_bytes());
    }

    /// Puts a number behind.
    pub fn u64(&mut self, number: u64) {
        self.0.extend_from_slice(&number.to_le_bytes());
    }

    /// Puts a count behind.
    pub fn count(&mut self, count: usize) {
        self.u32(u32::try_from(count).unwrap_or(u32::MAX));
    }

    /// Puts a text behind, with its length.
    pub fn text(&mut self, text: &str) {
        self.count(text.len());
        self.0.extend_from_slice(text.as_bytes());
    }

    /// Puts a set behind.
    pub fn uids(&mut self, uids: &UidSet) {
        self.count(uids.ranges().len());
        for range in uids.ranges() {
            self.u32(*range.start());
            self.u32(*range.end());
        }
    }

    /// Puts what describes the mailbox itself behind.
    pub fn base(&mut self, base: &Base) {
        for number in base {
            self.u64(*number);
        }
    }

    fn marks(&mut self, marks: Marks) {
        self.u8(marks.flags.bits());
        self.u64(marks.keywords);
    }

    fn extent(&mut self, extent: &Extent) {
        self.u64(extent.start);
        self.u64(extent.length);
        self.u32(extent.from_line);
        self.u32(extent.header);
        self.u32(extent.gap);
        self.marks(extent.stored);
        let bits = [
            (extent.quoted, QUOTED),
            (extent.unwritten, UNWRITTEN),
            (extent.no_room, NO_ROOM),
            (extent.named, NAMED),
            (extent.doomed, DOOMED),
        ];
        self.u8(bits.iter().filter(|(is_set, _)| *is_set).fold(0, |all, (_, bit)| all | bit));
    }

    /// Puts a message behind, [`MESSAGE`] bytes.
    pub fn message(&mut self, message: &Message) {
        self.u32(message.uid);
        self.u32(message.header);
        self.u64(message.modseq);
        self.u64(message.size);
        self.u64(message.date.cast_unsigned());
        self.0.extend_from_slice(&message.digest);
        self.extent(&message.extent);
        self.u8(message.marks.flags.bits());
        self.u8(0);
        self.u64(message.marks.keywords);
    }

    /// Puts what is known of a page behind, [`SUMMARY`] bytes.
    pub fn summary(&mut self, summary: &Summary) {
        self.u32(summary.first);
        self.u32(summary.last);
        self.u32(summary.count);
        self.u32(summary.unseen);
        self.u32(summary.first_unseen);
        self.u32(summary.deleted);
        self.u32(summary.to_write);
        self.u32(summary.unnamed);
        self.u64(summary.modseq);
        self.u64(summary.start);
        self.u64(summary.size);
    }

    /// Puts a change behind.
    pub fn change(&mut self, change: &Change) {
        match change {
            Change::New(message) => {
                self.u8(NEW);
                self.message(message);
            }
            Change::Mark { uids, marking, by, modseq } => {
                self.u8(MARK);
                self.u8(match marking {
                    Marking::Add => 0,
                    Marking::Remove => 1,
                    Marking::Replace => 2,
                });
                self.marks(*by);
                self.u64(*modseq);
                self.uids(uids);
            }
            Change::Expunge { uids, modseq } => {
                self.u8(EXPUNGE);
                self.u64(*modseq);
                self.uids(uids);
            }
            Change::Edited(edits) => {
                self.u8(EDITED);
                self.count(edits.len());
                for (from, to, now) in edits {
                    self.u64(*from);
                    self.u64(*to);
                    self.u64(*now);
                }
            }
            Change::Placed { uid, extent } => {
                self.u8(PLACED);
                self.u32(*uid);
                self.extent(extent);
            }
            Change::Written(uids) => {
                self.u8(WRITTEN);
                self.uids(uids);
            }
            Change::Keyword(name) => {
                self.u8(KEYWORD);
                self.text(name);
            }
            Change::Recent(uid) => {
                self.u8(RECENT);
                self.u32(*uid);
            }
            Change::UidNext(uid) => {
                self.u8(UID_NEXT);
                self.u32(*uid);
            }
            Change::Base(base) => {
                self.u8(BASE);
                self.base(base);
            }
        }
    }
}

/// Bytes of a file, from the front.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a>(pub &'a [u8]);

impl<'a> Reader<'a> {
    /// Whether nothing is left but what [`Writer::align`] puts behind.
    pub fn is_padding(&self) -> bool {
        self.0.len() < ALIGNMENT && self.0.iter().all(|byte| *byte == 0)
    }

    /// Takes so many bytes.
    #[inline]
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], Damaged> {
        let (bytes, rest) = self.0.split_first_chunk().ok_or(CUT_OFF)?;
        self.0 = rest;
        Ok(*bytes)
    }

    /// Takes a byte.
    #[inline]
    pub fn u8(&mut self) -> Result<u8, Damaged> {
        Ok(u8::from_le_bytes(self.array()?))
    }

    /// Takes a number.
    #[inline]
    pub fn u32(&mut self) -> Result<u32, Damaged> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    /// Takes a number.
    #[inline]
    pub fn u64(&mut self) -> Result<u64, Damaged> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    /// Takes a count of things of which each has so many bytes at least: they are there.
    pub fn count(&mut self, each: usize) -> Result<usize, Damaged> {
        let count = usize::try_from(self.u32()?).map_err(|_| CUT_OFF)?;
        if count > self.0.len() / each.max(1) {
            return Err(CUT_OFF);
        }
        Ok(count)
    }

    /// Takes a text.
    pub fn text(&mut self) -> Result<&'a str, Damaged> {
        let length = self.count(1)?;
        let (text, rest) = self.0.split_at_checked(length).ok_or(CUT_OFF)?;
        self.0 = rest;
        str::from_utf8(text).map_err(|_| Damaged("a keyword is no text"))
    }

    /// Takes a set.
    pub fn uids(&mut self) -> Result<UidSet, Damaged> {
        let mut uids = UidSet::new();
        let mut before = None;
        for _ in 0..self.count(8)? {
            let (start, end) = (self.u32()?, self.u32()?);
            if start > end || before.is_some_and(|before: u32| before.saturating_add(1) >= start) {
                return Err(Damaged("the ranges of a set don't ascend"));
            }
            uids.insert_range(start..=end);
            before = Some(end);
        }
        Ok(uids)
    }

    #[inline]
    fn marks(&mut self) -> Result<Marks, Damaged> {
        Ok(Marks { flags: self.flags()?, keywords: self.u64()? })
    }

    #[inline]
    fn flags(&mut self) -> Result<Flags, Damaged> {
        let bits = self.u8()?;
        let flags = Flags::of_bits(bits);
        if flags.bits() != bits {
            return Err(Damaged("there is a flag that is none"));
        }
        Ok(flags)
    }

    #[inline]
    fn extent(&mut self) -> Result<Extent, Damaged> {
        let (start, length) = (self.u64()?, self.u64()?);
        let (from_line, header, gap) = (self.u32()?, self.u32()?, self.u32()?);
        let stored = self.marks()?;
        let bits = self.u8()?;
        if bits > QUOTED | UNWRITTEN | NO_ROOM | NAMED | DOOMED {
            return Err(Damaged("a message is marked in an unknown way"));
        }
        let has = |bit| bits & bit != 0;
        Ok(Extent {
            start,
            length,
            from_line,
            header,
            gap,
            stored,
            quoted: has(QUOTED),
            unwritten: has(UNWRITTEN),
            named: has(NAMED),
            no_room: has(NO_ROOM),
            doomed: has(DOOMED),
        })
    }

    /// Takes a message.
    #[inline]
    pub fn message(&mut self) -> Result<Message, Damaged> {
        // Taken whole: the compiler sees that each part is there.
        let record: [u8; MESSAGE] = self.array()?;
        let mut record = Reader(&record);
        let (uid, header, modseq, size) =
            (record.u32()?, record.u32()?, record.u64()?, record.u64()?);
        let date = record.u64()?.cast_signed();
        let digest = record.array()?;
        let extent = record.extent()?;
        let flags = record.flags()?;
        if record.u8()? != 0 {
            return Err(Damaged("a message has more than is known"));
        }
        let marks = Marks { flags, keywords: record.u64()? };
        Ok(Message { uid, header, marks, modseq, size, date, digest, extent })
    }

    /// Takes what is known of a page.
    pub fn summary(&mut self) -> Result<Summary, Damaged> {
        Ok(Summary {
            first: self.u32()?,
            last: self.u32()?,
            count: self.u32()?,
            unseen: self.u32()?,
            first_unseen: self.u32()?,
            deleted: self.u32()?,
            to_write: self.u32()?,
            unnamed: self.u32()?,
            modseq: self.u64()?,
            start: self.u64()?,
            size: self.u64()?,
        })
    }

    /// Takes a change.
    pub fn change(&mut self) -> Result<Change, Damaged> {
        Ok(match self.u8()? {
            NEW => Change::New(self.message()?),
            MARK => {
                let marking = match self.u8()? {
                    0 => Marking::Add,
                    1 => Marking::Remove,
                    2 => Marking::Replace,
                    _ => return Err(Damaged("messages are marked in an unknown way")),
                };
                let (by, modseq) = (self.marks()?, self.u64()?);
                Change::Mark { uids: self.uids()?, marking, by, modseq }
            }
            EXPUNGE => {
                let modseq = self.u64()?;
                Change::Expunge { uids: self.uids()?, modseq }
            }
            EDITED => {
                let mut edits = Vec::new();
                for _ in 0..self.count(24)? {
                    edits.push((self.u64()?, self.u64()?, self.u64()?));
                }
                Change::Edited(edits)
            }
            PLACED => Change::Placed { uid: self.u32()?, extent: self.extent()? },
            WRITTEN => Change::Written(self.uids()?),
            KEYWORD => Change::Keyword(self.text()?.to_owned()),
            RECENT => Change::Recent(self.u32()?),
            UID_NEXT => Change::UidNext(self.u32()?),
            BASE => Change::Base(self.base()?),
            _ => return Err(Damaged("there is a change of an unknown kind")),
        })
    }

    /// Takes what describes the mailbox itself.
    pub fn base(&mut self) -> Result<Base, Damaged> {
        let mut base = Base::default();
        for number in &mut base {
            *number = self.u64()?;
        }
        Ok(base)
    }
}

//! The front of an index file: a state as a whole.
//!
//! The header, then keywords, what was expunged and the UIDs that are there, then what is known of
//! each page of messages, then the pages. It is written in pieces, and the header last; the file has
//! no name before it is complete. What is behind the table is read when somebody asks for it.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::rc::Rc;

use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::codec::{MESSAGE, Reader, SUMMARY, Writer};
use super::journal::{ALIGNMENT, Known, Trouble, read_full};
use super::messages::{Held, Messages, PAGE, Page, Source, Summary};
use super::{Base, Damaged, MOST_MESSAGES, State};
use crate::mailbox::moment::moment;
use crate::mailbox::store::Message;
use crate::mailbox::uids::UidSet;

const MAGIC: [u8; 8] = *b"hkindex3";
const HEADER: usize = 144;

/// Keywords, what was expunged and UIDs have not more bytes.
const MOST_NAMES: u64 = 16 * 1024 * 1024;

#[derive(Debug)]
struct Header {
    generation: u64,
    uid_validity: u32,
    uid_next: u32,
    modseq: u64,
    forgotten: u64,
    recent: u32,
    messages: u32,
    base: Base,
    /// Bytes of keywords, what was expunged and UIDs, and their checksum.
    names: u64,
    names_sum: u64,
    table_sum: u64,
}

impl Header {
    /// The bytes, and their checksum.
    fn write(&self) -> (Vec<u8>, u64) {
        let mut writer = Writer(MAGIC.to_vec());
        writer.u64(self.generation);
        writer.u32(self.uid_validity);
        writer.u32(self.uid_next);
        writer.u64(self.modseq);
        writer.u64(self.forgotten);
        writer.u32(self.recent);
        writer.u32(self.messages);
        writer.base(&self.base);
        writer.u64(self.names);
        writer.u64(self.names_sum);
        writer.u64(self.table_sum);
        let sum = xxh3_64_with_seed(&writer.0, self.generation);
        writer.u64(sum);
        (writer.0, sum)
    }

    fn read(bytes: &[u8; HEADER]) -> Result<(Self, u64), Damaged> {
        let mut reader = Reader(bytes);
        if reader.array()? != MAGIC {
            return Err(Damaged("it is of another version, or no index"));
        }
        let header = Self {
            generation: reader.u64()?,
            uid_validity: reader.u32()?,
            uid_next: reader.u32()?,
            modseq: reader.u64()?,
            forgotten: reader.u64()?,
            recent: reader.u32()?,
            messages: reader.u32()?,
            base: reader.base()?,
            names: reader.u64()?,
            names_sum: reader.u64()?,
            table_sum: reader.u64()?,
        };
        let sum = reader.u64()?;
        if header.write().1 != sum || !reader.0.is_empty() {
            return Err(Damaged("the checksum of its header is wrong"));
        }
        Ok((header, sum))
    }
}

/// What a file begins with.
#[derive(Debug)]
pub struct Loaded {
    /// The state.
    pub state: State,
    /// How often the file was replaced.
    pub generation: u64,
    /// Where the journal begins.
    pub known: Known,
}

/// Writes a state into an empty file, and returns how it stands there.
pub fn write(
    file: &Rc<File>,
    path: PathBuf,
    state: &State,
    generation: u64,
) -> Result<(Known, Messages), Trouble> {
    let names = names(state);
    moment();
    file.write_all_at(&names, HEADER as u64)?;
    let count = state.messages.len();
    let table_at = (HEADER as u64).saturating_add(names.len() as u64);
    let mut end = table_at.saturating_add(table_bytes(count));

    let mut pages = Vec::with_capacity(count.div_ceil(PAGE));
    let mut table = Writer::default();
    let mut put = |messages: &[Message]| -> io::Result<()> {
        let mut bytes = Writer(Vec::with_capacity(messages.len().saturating_mul(MESSAGE)));
        for message in messages {
            bytes.message(message);
        }
        let sum = xxh3_64_with_seed(&bytes.0, generation);
        moment();
        file.write_all_at(&bytes.0, end)?;
        let summary = Summary::of(messages);
        table.summary(&summary);
        table.u64(sum);
        pages.push(Page { summary, held: Held::Stored { at: end, sum } });
        end = end.saturating_add(bytes.0.len() as u64);
        Ok(())
    };
    let mut page = Vec::with_capacity(PAGE.min(count));
    for message in state.messages.iter() {
        page.push(message?);
        if page.len() == PAGE {
            put(&page)?;
            page.clear();
        }
    }
    if !page.is_empty() {
        put(&page)?;
    }
    table.align();
    moment();
    file.write_all_at(&table.0, table_at)?;
    let header = Header {
        generation,
        uid_validity: state.uid_validity,
        uid_next: state.uid_next,
        modseq: state.modseq,
        forgotten: state.forgotten,
        recent: state.recent,
        messages: u32::try_from(count).unwrap_or(u32::MAX),
        base: state.base,
        names: names.len() as u64,
        names_sum: xxh3_64_with_seed(&names, generation),
        table_sum: xxh3_64_with_seed(&table.0, generation),
    };
    let (header, seed) = header.write();
    moment();
    file.write_all_at(&header, 0)?;
    let keywords = state.keyword_bits();
    let source = Source { file: Rc::clone(file), path, seed: generation, keywords };
    let messages = Messages::stored(state.messages.uids().clone(), pages, source);
    Ok((Known { end, seed }, messages))
}

/// Bytes of the table of so many messages' pages.
fn table_bytes(messages: usize) -> u64 {
    let bytes = messages.div_ceil(PAGE).saturating_mul(SUMMARY.saturating_add(8));
    bytes.next_multiple_of(ALIGNMENT) as u64
}

fn names(state: &State) -> Vec<u8> {
    let mut writer = Writer::default();
    writer.count(state.keywords.len());
    for keyword in &state.keywords {
        writer.text(keyword);
    }
    writer.count(state.gone.len());
    for (modseq, uids) in &state.gone {
        writer.u64(*modseq);
        writer.uids(uids);
    }
    writer.uids(state.messages.uids());
    // Behind the messages a frame may begin: each of them is a multiple of its place.
    writer.align();
    writer.0
}

/// Reads the state that a file of this size begins with, but for the messages themselves.
pub fn read(file: &Rc<File>, path: PathBuf, size: u64) -> Result<Loaded, Trouble> {
    let mut bytes = [0; HEADER];
    if read_full(file, &mut bytes, 0)? < HEADER {
        return Err(Damaged("it is too short").into());
    }
    let (header, seed) = Header::read(&bytes)?;
    let generation = header.generation;
    let count = header.messages as usize;
    let table_at = (HEADER as u64).saturating_add(header.names);
    let pages_at = table_at.saturating_add(table_bytes(count));
    let length = u64::from(header.messages).saturating_mul(MESSAGE as u64);
    let end = pages_at.saturating_add(length);
    let is_odd = !end.is_multiple_of(ALIGNMENT as u64);
    if end > size || is_odd || header.names > MOST_NAMES || count > MOST_MESSAGES {
        return Err(Damaged("its size is not what its header says, or it is too large").into());
    }
    let mut state = State::new(header.uid_validity, header.modseq);
    state.uid_next = header.uid_next;
    state.forgotten = header.forgotten;
    state.recent = header.recent;
    state.base = header.base;

    let front = pages_at.saturating_sub(HEADER as u64);
    let mut bytes = vec![0; usize::try_from(front).unwrap_or(0)];
    let is_whole = read_full(file, &mut bytes, HEADER as u64)? == bytes.len();
    let names = usize::try_from(header.names).unwrap_or(0);
    let (names, table) = bytes.split_at_checked(names).unwrap_or_default();
    if !is_whole || xxh3_64_with_seed(names, generation) != header.names_sum {
        return Err(Damaged("the checksum of its keywords is wrong").into());
    }
    if xxh3_64_with_seed(table, generation) != header.table_sum {
        return Err(Damaged("the checksum of what it says of its messages is wrong").into());
    }
    let uids = read_names(names, &mut state)?;
    let keywords = state.keyword_bits();
    let source = Source { file: Rc::clone(file), path, seed: generation, keywords };
    state.messages = Messages::stored(uids, read_table(table, count, pages_at)?, source);
    state.check()?;
    Ok(Loaded { state, generation, known: Known { end, seed } })
}

fn read_table(bytes: &[u8], count: usize, mut at: u64) -> Result<Vec<Page>, Damaged> {
    let (mut reader, mut left) = (Reader(bytes), count);
    let mut pages = Vec::with_capacity(count.div_ceil(PAGE));
    while left > 0 {
        let summary = reader.summary()?;
        if summary.count as usize != left.min(PAGE) {
            return Err(Damaged("a page has another number of messages than it must have"));
        }
        pages.push(Page { summary, held: Held::Stored { at, sum: reader.u64()? } });
        left = left.saturating_sub(PAGE);
        at = at.saturating_add(u64::from(summary.count).saturating_mul(MESSAGE as u64));
    }
    Ok(pages)
}

/// The UIDs of the messages come last.
fn read_names(bytes: &[u8], state: &mut State) -> Result<UidSet, Damaged> {
    let mut reader = Reader(bytes);
    for _ in 0..reader.count(4)? {
        state.keywords.push(reader.text()?.to_owned());
    }
    for _ in 0..reader.count(12)? {
        let modseq = reader.u64()?;
        state.gone.push((modseq, reader.uids()?));
    }
    let uids = reader.uids()?;
    if !reader.is_padding() {
        return Err(Damaged("there is more than keywords, what was expunged and UIDs"));
    }
    Ok(uids)
}

//! The front of an index file: a state as a whole.
//!
//! The header, then keywords and what was expunged, then the messages. It is written in pieces, and
//! the header last; the file has no name before it is complete.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use xxhash_rust::xxh3::{Xxh3, xxh3_64_with_seed};

use super::codec::{MESSAGE, Reader, Writer};
use super::journal::{ALIGNMENT, Known, Trouble, read_full};
use super::{Base, Damaged, MOST_MESSAGES, State};
use crate::mailbox::moment::moment;

const MAGIC: [u8; 8] = *b"hkindex2";
const HEADER: usize = 144;

/// Keywords and what was expunged have not more bytes.
const MOST_NAMES: u64 = 16 * 1024 * 1024;

/// Messages that are read or written at once.
const PIECE: usize = 1024;

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
    /// Bytes of keywords and what was expunged, and their checksum.
    names: u64,
    names_sum: u64,
    messages_sum: u64,
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
        writer.u64(self.messages_sum);
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
            messages_sum: reader.u64()?,
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

/// Writes a state into an empty file.
pub fn write(file: &File, state: &State, generation: u64) -> io::Result<Known> {
    let names = names(state);
    moment();
    file.write_all_at(&names, HEADER as u64)?;
    let mut end = (HEADER as u64).saturating_add(names.len() as u64);
    let mut sum = Xxh3::with_seed(generation);
    let mut piece = Writer::default();
    for messages in state.messages.chunks(PIECE) {
        piece.0.clear();
        for message in messages {
            piece.message(message);
        }
        sum.update(&piece.0);
        moment();
        file.write_all_at(&piece.0, end)?;
        end = end.saturating_add(piece.0.len() as u64);
    }
    let header = Header {
        generation,
        uid_validity: state.uid_validity,
        uid_next: state.uid_next,
        modseq: state.modseq,
        forgotten: state.forgotten,
        recent: state.recent,
        messages: u32::try_from(state.messages.len()).unwrap_or(u32::MAX),
        base: state.base,
        names: names.len() as u64,
        names_sum: xxh3_64_with_seed(&names, generation),
        messages_sum: sum.digest(),
    };
    let (header, seed) = header.write();
    moment();
    file.write_all_at(&header, 0)?;
    Ok(Known { end, seed })
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
    // Behind the messages a frame may begin: each of them is a multiple of its place.
    writer.align();
    writer.0
}

/// Reads the state that a file of this size begins with.
pub fn read(file: &File, size: u64) -> Result<Loaded, Trouble> {
    let mut bytes = [0; HEADER];
    if read_full(file, &mut bytes, 0)? < HEADER {
        return Err(Damaged("it is too short").into());
    }
    let (header, seed) = Header::read(&bytes)?;
    let generation = header.generation;
    let count = header.messages as usize;
    let names_end = (HEADER as u64).saturating_add(header.names);
    let length = u64::from(header.messages).saturating_mul(MESSAGE as u64);
    let end = names_end.saturating_add(length);
    let is_odd = !end.is_multiple_of(ALIGNMENT as u64);
    if end > size || is_odd || header.names > MOST_NAMES || count > MOST_MESSAGES {
        return Err(Damaged("its size is not what its header says, or it is too large").into());
    }
    let mut state = State::new(header.uid_validity, header.modseq);
    state.uid_next = header.uid_next;
    state.forgotten = header.forgotten;
    state.recent = header.recent;
    state.base = header.base;

    let mut bytes = vec![0; usize::try_from(header.names).unwrap_or(0)];
    let is_whole = read_full(file, &mut bytes, HEADER as u64)? == bytes.len();
    if !is_whole || xxh3_64_with_seed(&bytes, generation) != header.names_sum {
        return Err(Damaged("the checksum of its keywords is wrong").into());
    }
    read_names(&bytes, &mut state)?;

    state.messages.reserve_exact(count);
    let mut sum = Xxh3::with_seed(generation);
    let mut at = names_end;
    let mut left = count;
    while left > 0 {
        let here = left.min(PIECE);
        bytes.resize(here.saturating_mul(MESSAGE), 0);
        if read_full(file, &mut bytes, at)? < bytes.len() {
            return Err(Damaged("it was cut while it was read").into());
        }
        sum.update(&bytes);
        let mut reader = Reader(&bytes);
        for _ in 0..here {
            state.messages.push(reader.message()?);
        }
        at = at.saturating_add(bytes.len() as u64);
        left = left.saturating_sub(here);
    }
    if sum.digest() != header.messages_sum {
        return Err(Damaged("the checksum of its messages is wrong").into());
    }
    state.check()?;
    Ok(Loaded { state, generation, known: Known { end, seed } })
}

fn read_names(bytes: &[u8], state: &mut State) -> Result<(), Damaged> {
    let mut reader = Reader(bytes);
    for _ in 0..reader.count(4)? {
        state.keywords.push(reader.text()?.to_owned());
    }
    for _ in 0..reader.count(12)? {
        let modseq = reader.u64()?;
        state.gone.push((modseq, reader.uids()?));
    }
    if !reader.is_padding() {
        return Err(Damaged("there is more than keywords and what was expunged"));
    }
    Ok(())
}

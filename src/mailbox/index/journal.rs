//! Frames: what was appended to an index at once, and counts whole or not at all.
//!
//! A frame is its length, a checksum of that, a checksum of the payload, and the payload. Each
//! checksum is seeded with the one before, the first with the header's: so a frame counts only
//! behind those that it was written behind. The length's own checksum tells a frame that was not
//! written to its end, which is none, from one that was damaged.
//!
//! After a power cut there may be zeros where a frame was written: the file's size reached the disk
//! before the bytes did. So a frame that begins with zeros is none, either. Frames begin at
//! multiples of 16, so that those first bytes are in one sector, and are there or not.

use std::fmt;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::codec::{Reader, Writer};
use super::{Change, Damaged};
use crate::mailbox::Error;

/// Bytes of a frame before its payload.
pub const HEAD: usize = 16;

/// Frames begin at multiples of it.
pub const ALIGNMENT: usize = HEAD;

/// A payload is not longer: more is written as a snapshot.
pub const MOST_PAYLOAD: usize = 64 * 1024 * 1024;

/// Read at once where it is not known how much there is.
const PIECE: u64 = 64 * 1024;

/// How far an index is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Known {
    /// Where the next frame begins.
    pub end: u64,
    /// The seed of its checksums.
    pub seed: u64,
}

/// Why an index can't be read.
#[derive(Debug)]
pub enum Trouble {
    /// The system failed.
    Io(io::Error),
    /// It says what can't be.
    Damaged(Damaged),
    /// Messages that stand in it can't be read.
    Messages(Error),
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Self {
        match error {
            Error::Damaged { why, .. } => Self::Damaged(Damaged(why)),
            other => Self::Messages(other),
        }
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => error.fmt(f),
            Self::Damaged(damaged) => damaged.fmt(f),
            Self::Messages(error) => error.fmt(f),
        }
    }
}

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<Damaged> for Trouble {
    fn from(damaged: Damaged) -> Self {
        Self::Damaged(damaged)
    }
}

/// The frame of these changes, and how far the index is known behind it; `None` where they are too
/// many for one.
pub fn frame(changes: &[Change], known: Known) -> Option<(Vec<u8>, Known)> {
    let mut writer = Writer(vec![0; HEAD]);
    for change in changes {
        writer.change(change);
    }
    writer.align();
    let mut frame = writer.0;
    let (head, payload) = frame.split_first_chunk_mut::<HEAD>()?;
    if payload.len() > MOST_PAYLOAD {
        return None;
    }
    let length = u32::try_from(payload.len()).ok()?.to_le_bytes();
    let sum = xxh3_64_with_seed(payload, known.seed);
    let mut written = Writer::default();
    written.0.extend_from_slice(&length);
    written.0.extend_from_slice(&sum_of_length(length, known.seed));
    written.u64(sum);
    *head = *written.0.first_chunk()?;
    let end = known.end.saturating_add(frame.len() as u64);
    Some((frame, Known { end, seed: sum }))
}

fn sum_of_length(length: [u8; 4], seed: u64) -> [u8; 4] {
    let [a, b, c, d, ..] = xxh3_64_with_seed(&length, seed).to_le_bytes();
    [a, b, c, d]
}

/// What stands at the front of bytes.
enum Front<'a> {
    Whole(&'a [u8], u64),
    /// A frame that would have so many bytes; all there are where there is none.
    Cut(u64),
}

fn front(bytes: &[u8], seed: u64) -> Result<Front<'_>, Damaged> {
    let Some((head, rest)) = bytes.split_first_chunk::<HEAD>() else {
        return Ok(Front::Cut(HEAD as u64));
    };
    if *head == [0; HEAD] {
        return Ok(Front::Cut(u64::MAX));
    }
    let mut head = Reader(head);
    let (length, length_sum, sum): ([u8; 4], _, _) = (head.array()?, head.array()?, head.u64()?);
    let payload = u32::from_le_bytes(length) as usize;
    if sum_of_length(length, seed) != length_sum
        || payload > MOST_PAYLOAD
        || !payload.is_multiple_of(ALIGNMENT)
    {
        return Err(Damaged("the length of a frame is wrong"));
    }
    let Some((payload, _)) = rest.split_at_checked(payload) else {
        return Ok(Front::Cut(HEAD.saturating_add(payload) as u64));
    };
    if xxh3_64_with_seed(payload, seed) != sum {
        return Err(Damaged("the checksum of a frame is wrong"));
    }
    Ok(Front::Whole(payload, sum))
}

/// Gives the changes behind what is known to `apply`, up to `size`. `known` is behind the last
/// frame that was taken whole, even on failure. True if there was one.
pub fn follow(
    file: &File,
    size: u64,
    known: &mut Known,
    mut apply: impl FnMut(Change) -> Result<(), Trouble>,
) -> Result<bool, Trouble> {
    let mut any = false;
    let mut bytes = Vec::new();
    let mut wanted = PIECE;
    loop {
        let length = size.saturating_sub(known.end).min(wanted);
        bytes.resize(usize::try_from(length).unwrap_or(0), 0);
        let read = read_full(file, &mut bytes, known.end)?;
        let mut rest = bytes.get(..read).unwrap_or_default();
        let before = rest.len();
        let cut = loop {
            match front(rest, known.seed)? {
                Front::Whole(payload, seed) => {
                    let mut changes = Reader(payload);
                    while !changes.is_padding() {
                        apply(changes.change()?)?;
                    }
                    let length = HEAD.saturating_add(payload.len());
                    *known = Known { end: known.end.saturating_add(length as u64), seed };
                    rest = rest.get(length..).unwrap_or_default();
                    any = true;
                }
                Front::Cut(length) => break length,
            }
        };
        // Not written to its end, or there is none.
        if size.saturating_sub(known.end) < cut || (read as u64) < length {
            return Ok(any);
        }
        wanted = if rest.len() < before { PIECE } else { PIECE.max(cut) };
    }
}

/// Fills the buffer as far as the file reaches.
pub fn read_full(file: &File, buffer: &mut [u8], at: u64) -> io::Result<usize> {
    let mut done = 0;
    while let Some(rest) = buffer.get_mut(done..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, at.saturating_add(done as u64)) {
            Ok(0) => break,
            Ok(read) => done = done.saturating_add(read),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}

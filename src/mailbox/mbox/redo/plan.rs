//! What is to be changed, and where each byte of the new file comes from.
//!
//! The new file is written from its beginning, and everything is worked out from the place that is
//! written next: which kept byte or which part of a replacement belongs there, and from where on
//! the old file is still needed.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use super::super::record;
use super::super::window::read_full;
use super::{BLOCK, LARGEST_CHUNK, RECORD, disk, hash};

const MAGIC: [u8; 8] = *b"hkredop2";

/// An edit in the journal's list: three numbers.
const ENTRY: u64 = 24;
const MOST_EDITS: u64 = 1_000_000;
const MOST_INSERTED: u64 = 64 * 1024 * 1024;

/// So many bytes at a place where nothing changes prove that the file is as we left it.
pub const ANCHOR: u64 = 4096;

/// The bytes from `start` to `end` are replaced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edit {
    /// Where the first removed byte stands.
    pub start: u64,
    /// The place behind the last one.
    pub end: u64,
    /// What stands there instead.
    pub with: Vec<u8>,
}

/// What is changed in which file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    pub ino: u64,
    /// The file's size before.
    pub size: u64,
    /// How many bytes a slot of the journal takes.
    pub chunk: u64,
    /// Hash of the bytes before the first edit.
    pub head: u64,
    /// Hash of the file's last bytes, those that stay as they are until it is cut.
    pub tail: u64,
    /// [`Plan::ahead_of`] the first edit.
    pub ahead: u64,
    edits: Vec<Placed>,
    /// All replacements, one behind the other.
    inserted: Vec<u8>,
}

/// An edit, and where its replacement begins in the new file.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Placed {
    start: u64,
    end: u64,
    dest: u64,
    with: Range<usize>,
}

impl Placed {
    /// Where its replacement ends.
    fn dest_end(&self) -> u64 {
        self.dest.saturating_add(self.with.len() as u64)
    }

    /// How much nearer to the beginning stands what is behind it.
    fn shift(&self) -> u64 {
        self.end.saturating_sub(self.dest_end())
    }
}

/// A place of the new file.
struct Spot<'a> {
    /// What is left of a replacement here.
    with: &'a [u8],
    /// From here on the old file is needed: where the kept bytes stand, now or behind `with`.
    source: u64,
    /// Where the kept bytes around here begin in the new file.
    from: u64,
    /// Where the next edit begins in the new file.
    stop: u64,
}

impl Plan {
    /// Proves that the edits can be done in one pass; `None` where there is nothing to do.
    pub fn new(ino: u64, size: u64, edits: &[Edit]) -> Result<Option<Self>, &'static str> {
        let mut list: Vec<(u64, u64, u64)> = Vec::new();
        let mut inserted = Vec::new();
        for Edit { start, end, with } in edits {
            if start == end && with.is_empty() {
                continue;
            }
            let length = with.len() as u64;
            inserted.extend_from_slice(with);
            match list.last_mut() {
                Some((_, last, sum)) if last == start => {
                    *last = *end;
                    *sum = sum.saturating_add(length);
                }
                _ => list.push((*start, *end, length)),
            }
        }
        if list.is_empty() {
            return Ok(None);
        }
        let mut plan = Self::of(ino, size, BLOCK, &list, inserted)?;
        let moved = plan.new_size(size).saturating_sub(plan.first());
        plan.chunk = moved.clamp(1, LARGEST_CHUNK).div_ceil(BLOCK).saturating_mul(BLOCK);
        Ok(Some(plan))
    }

    fn of(
        ino: u64,
        size: u64,
        chunk: u64,
        list: &[(u64, u64, u64)],
        inserted: Vec<u8>,
    ) -> Result<Self, &'static str> {
        if list.len() as u64 > MOST_EDITS || inserted.len() as u64 > MOST_INSERTED {
            return Err("there are too many edits");
        }
        let sound_chunk = (BLOCK..=LARGEST_CHUNK).contains(&chunk) && chunk.is_multiple_of(BLOCK);
        if !sound_chunk || i64::try_from(size).is_err() {
            return Err("the sizes can't be right");
        }
        let mut edits: Vec<Placed> = Vec::with_capacity(list.len());
        let mut used = 0_usize;
        for (start, end, length) in list.iter().copied() {
            let (behind, shift) = edits.last().map_or((0, 0), |last| (last.end, last.shift()));
            if start < behind || end < start || end > size {
                return Err("the edits are not in their order, or not within the file");
            }
            let next = usize::try_from(length).ok().and_then(|length| used.checked_add(length));
            let with = used..next.unwrap_or(usize::MAX);
            used = with.end;
            let edit = Placed { start, end, dest: start.saturating_sub(shift), with };
            if edit.dest_end() > edit.end {
                return Err("more would be inserted than was removed before it");
            }
            edits.push(edit);
        }
        if edits.is_empty() || used != inserted.len() {
            return Err("the replacements are not all there");
        }
        Ok(Self { ino, size, chunk, head: 0, tail: 0, ahead: 0, edits, inserted })
    }

    /// Where the first edit begins: before it nothing changes.
    pub fn first(&self) -> u64 {
        self.edits.first().map_or(0, |edit| edit.start)
    }

    /// Whether all it does is to cut the file off at its first edit.
    pub fn only_cuts(&self) -> bool {
        let cuts = |edit: &Placed| edit.end == self.size && edit.with.is_empty();
        matches!(self.edits.as_slice(), [edit] if cuts(edit))
    }

    /// How much smaller the file becomes.
    pub fn total(&self) -> u64 {
        self.edits.last().map_or(0, Placed::shift)
    }

    /// How large the new file is where the old one is so large now.
    pub fn new_size(&self, size: u64) -> u64 {
        size.saturating_sub(self.total())
    }

    fn at(&self, dest: u64) -> Spot<'_> {
        let next = self.edits.partition_point(|edit| edit.dest <= dest);
        let stop = self.edits.get(next).map_or(u64::MAX, |edit| edit.dest);
        let Some(edit) = next.checked_sub(1).and_then(|here| self.edits.get(here)) else {
            return Spot { with: &[], source: dest, from: 0, stop };
        };
        let with = self.inserted.get(edit.with.clone()).unwrap_or_default();
        let done = dest.saturating_sub(edit.dest);
        let with = usize::try_from(done).ok().and_then(|done| with.get(done..)).unwrap_or_default();
        let from = edit.dest_end();
        let source = edit.end.saturating_add(dest.saturating_sub(from));
        Spot { with, source, from, stop }
    }

    /// From here on the old file is needed when all before `dest` is written.
    pub fn source(&self, dest: u64) -> u64 {
        self.at(dest).source
    }

    /// The first place from `dest` on that has to be written; what stays where it is, need not.
    pub fn next(&self, dest: u64) -> u64 {
        let spot = self.at(dest);
        if spot.with.is_empty() && spot.source == dest { spot.stop } else { dest }
    }

    /// Where to end a step that may go up to `stop`: not within what stays where it is.
    pub fn trim(&self, stop: u64) -> u64 {
        let spot = self.at(stop);
        if spot.with.is_empty() && spot.source == stop { spot.from } else { stop }
    }

    /// Fills `space` with what the new file has from `dest` on.
    pub fn fill(&self, file: &File, mut dest: u64, mut space: &mut [u8]) -> io::Result<()> {
        while !space.is_empty() {
            let spot = self.at(dest);
            let length = if spot.with.is_empty() {
                let kept = usize::try_from(spot.stop.saturating_sub(dest)).unwrap_or(usize::MAX);
                kept.min(space.len())
            } else {
                spot.with.len().min(space.len())
            };
            let (here, rest) = space.split_at_mut(length);
            if spot.with.is_empty() {
                file.read_exact_at(here, spot.source)?;
            } else {
                here.copy_from_slice(spot.with.get(..length).unwrap_or_default());
            }
            dest = dest.saturating_add(length as u64);
            space = rest;
        }
        Ok(())
    }

    /// Hash of the bytes before the first edit, which nobody moves.
    pub fn head_of(&self, file: &File) -> io::Result<u64> {
        let length = self.first().min(ANCHOR);
        hash_at(file, self.first().saturating_sub(length), length)
    }

    /// Hash of the last bytes that the file had at the beginning. (Of those that are cut off, the
    /// first gets a NUL.)
    pub fn tail_of(&self, file: &File) -> io::Result<u64> {
        let stays = match self.total() {
            0 => self.size.saturating_sub(self.edits.last().map_or(0, |edit| edit.end)),
            total => total.saturating_sub(1),
        };
        let length = stays.min(ANCHOR);
        hash_at(file, self.size.saturating_sub(length), length)
    }

    /// Hash of what is needed next when all before `dest` is written. It proves that nothing has been
    /// written since: with a later step than the one that is believed, it would be gone.
    pub fn ahead_of(&self, file: &File, dest: u64) -> io::Result<u64> {
        let source = self.source(self.next(dest));
        hash_at(file, source, self.size.saturating_sub(source).min(ANCHOR))
    }

    /// The size of the list and the replacements, in whole blocks.
    fn list_blocks(&self) -> u64 {
        let entries = (self.edits.len() as u64).saturating_mul(ENTRY);
        let bytes = entries.saturating_add(self.inserted.len() as u64);
        bytes.div_ceil(BLOCK).saturating_mul(BLOCK)
    }

    /// Where the truncation stands in the journal.
    pub fn cut_at(&self) -> u64 {
        BLOCK.saturating_add(self.list_blocks())
    }

    /// Where a slot stands in the journal: a block of its own, and the chunk behind it.
    pub fn slot_at(&self, slot: u64) -> u64 {
        let each = BLOCK.saturating_add(self.chunk);
        let first = self.cut_at().saturating_add(BLOCK);
        first.saturating_add(each.saturating_mul(slot))
    }

    /// How large the journal is.
    pub fn journal_size(&self) -> u64 {
        self.slot_at(2)
    }

    pub fn read(journal: &File) -> io::Result<Option<Self>> {
        let mut head = [0; RECORD];
        if read_full(journal, &mut head, 0)? < head.len() {
            return Ok(None);
        }
        let Some([ino, size, chunk, head, tail, ahead, count, inserted, sum]) =
            record::read(MAGIC, &head)
        else {
            return Ok(None);
        };
        let length = count.saturating_mul(ENTRY).saturating_add(inserted);
        if count > MOST_EDITS
            || inserted > MOST_INSERTED
            || length > journal.metadata()?.len().saturating_sub(BLOCK)
        {
            return Ok(None);
        }
        let mut bytes = vec![0; usize::try_from(length).unwrap_or(0)];
        if read_full(journal, &mut bytes, BLOCK)? < bytes.len() || hash(&bytes) != sum {
            return Ok(None);
        }
        let entries = usize::try_from(count.saturating_mul(ENTRY)).unwrap_or(0);
        let inserted = bytes.split_off(entries.min(bytes.len()));
        let list: Vec<_> = bytes.chunks_exact(24).filter_map(entry).collect();
        let plan = Self::of(ino, size, chunk, &list, inserted);
        Ok(plan.ok().map(|plan| Self { head, tail, ahead, ..plan }))
    }

    pub fn write(&self, journal: &File) -> io::Result<()> {
        let mut list = Vec::new();
        for edit in &self.edits {
            for number in [edit.start, edit.end, edit.with.len() as u64] {
                list.extend_from_slice(&number.to_le_bytes());
            }
        }
        list.extend_from_slice(&self.inserted);
        let fields = [
            self.ino,
            self.size,
            self.chunk,
            self.head,
            self.tail,
            self.ahead,
            self.edits.len() as u64,
            self.inserted.len() as u64,
            hash(&list),
        ];
        disk::write(journal, &record::write::<RECORD>(MAGIC, &fields), 0)?;
        disk::write(journal, &list, BLOCK)
    }
}

fn entry(bytes: &[u8]) -> Option<(u64, u64, u64)> {
    let mut numbers = bytes.chunks_exact(8).map(|n| n.try_into().map_or(0, u64::from_le_bytes));
    Some((numbers.next()?, numbers.next()?, numbers.next()?))
}

/// Hash of so many bytes, or of as many of them as there are.
pub fn hash_at(file: &File, at: u64, length: u64) -> io::Result<u64> {
    let mut bytes = vec![0; usize::try_from(length).unwrap_or(0)];
    let read = read_full(file, &mut bytes, at)?;
    Ok(hash(bytes.get(..read).unwrap_or_default()))
}

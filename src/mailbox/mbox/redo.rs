//! Removing byte ranges from a mailbox so that nothing is lost at whatever moment we die.
//!
//! The kept bytes behind the first removed range move down, a chunk at a time, in their order. The
//! journal `NAME.redo` says what is under way:
//!
//! | offset | what |
//! | --- | --- |
//! | 0 | plan: inode, size, ranges, CRC of the file's last bytes |
//! | `cut` | the truncation: new size, size before, CRC of what is to be cut off |
//! | `slots[0]`, `slots[1]` | the chunks in turn: place, CRC, the bytes themselves |
//!
//! The plan is complete and synced before the journal gets its name. Each chunk is synced in its
//! slot before it is written to the mailbox, and synced there before its slot's turn comes again:
//! the newest whole slot can always be written again, and moving goes on behind it. Records have
//! serial numbers; the highest one that proves itself tells where we are.
//!
//! A NUL is put where the file will be cut, and the truncation's CRC covers it: nothing that a
//! neighbour appends begins with NUL, so that an opener can tell whether the cut has happened even
//! when something has been appended since. What a neighbour appended behind the old end after our
//! death moves down as well.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use nix::fcntl::{FallocateFlags, fallocate};

use super::error::Error;
use super::identity::Identity;
use super::window::read_full;
use super::{Opened, record};
use crate::mailbox::index::Directory as Index;
use crate::mailbox::moment::moment;
use crate::sys::lock::free_space;

const ENDING: &str = ".redo";
const NEW: &str = ".redo.new";
const BAD: &str = ".redo.bad";

const PLAN: [u8; 8] = *b"hkredop1";
const CUT: [u8; 8] = *b"hkredoc1";
const SLOT: [u8; 8] = *b"hkredos1";

/// Records stand in blocks of their own, so that a torn write hits one of them only.
const BLOCK: u64 = 4096;
const RECORD: usize = 128;
const LARGEST_CHUNK: u64 = if cfg!(test) { BLOCK } else { 4 * 1024 * 1024 };
const MOST_RANGES: u64 = 1_000_000;

/// So many of the file's last bytes prove that it is as we left it.
const ANCHOR: u64 = 4096;

/// What is removed from which file.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Plan {
    ino: u64,
    size: u64,
    chunk: u64,
    anchor: u64,
    /// Sorted, not empty, apart from each other, within the size.
    ranges: Vec<(u64, u64)>,
}

/// A chunk, or the truncation, that the journal holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Step {
    serial: u64,
    /// All kept bytes before this are at their new places.
    source: u64,
    /// The new place of what stands at `source`.
    dest: u64,
    kind: StepKind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum StepKind {
    /// Nothing has moved.
    Start,
    /// The chunk in this slot, so long, ends at `dest`.
    Chunk { slot: u64, length: u64 },
    /// The file is to be cut at `dest`; `source` was its size, so many bytes have this CRC.
    Cut { length: u64, crc: u64 },
}

impl Plan {
    fn removed_before(&self, place: u64) -> u64 {
        self.ranges.iter().fold(0, |sum: u64, (start, end)| {
            sum.saturating_add((*end).min(place).saturating_sub(*start))
        })
    }

    fn total(&self) -> u64 {
        self.removed_before(u64::MAX)
    }

    /// The size of the ranges' list, in whole blocks.
    fn list_blocks(&self) -> u64 {
        let bytes = (self.ranges.len() as u64).saturating_mul(16);
        bytes.div_ceil(BLOCK).saturating_mul(BLOCK)
    }

    fn cut_at(&self) -> u64 {
        BLOCK.saturating_add(self.list_blocks())
    }

    fn slot_at(&self, slot: u64) -> u64 {
        let each = BLOCK.saturating_add(self.chunk);
        let first = self.cut_at().saturating_add(BLOCK);
        first.saturating_add(each.saturating_mul(slot))
    }

    fn list(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (start, end) in &self.ranges {
            bytes.extend_from_slice(&start.to_le_bytes());
            bytes.extend_from_slice(&end.to_le_bytes());
        }
        bytes
    }

    fn is_sound(&self) -> bool {
        let apart = self
            .ranges
            .windows(2)
            .all(|pair| matches!(pair, [(_, end), (start, _)] if end <= start));
        let filled = self.ranges.iter().all(|(start, end)| start < end);
        let within = self.ranges.last().is_some_and(|(_, end)| *end <= self.size);
        let chunk =
            (BLOCK..=LARGEST_CHUNK).contains(&self.chunk) && self.chunk.is_multiple_of(BLOCK);
        apart && filled && within && chunk && i64::try_from(self.size).is_ok()
    }

    fn read(journal: &File) -> io::Result<Option<Self>> {
        let mut head = [0; RECORD];
        if read_full(journal, &mut head, 0)? < head.len() {
            return Ok(None);
        }
        let Some([ino, size, chunk, anchor, count, list_crc]) = record::read(PLAN, &head) else {
            return Ok(None);
        };
        if count > MOST_RANGES {
            return Ok(None);
        }
        let mut list = vec![0; usize::try_from(count.saturating_mul(16)).unwrap_or(0)];
        let whole = read_full(journal, &mut list, BLOCK)? == list.len();
        if !whole || u64::from(crc32fast::hash(&list)) != list_crc {
            return Ok(None);
        }
        let number = |bytes: &[u8]| bytes.try_into().map_or(0, u64::from_le_bytes);
        let ranges = list
            .chunks_exact(16)
            .filter_map(|pair| pair.split_at_checked(8))
            .map(|(start, end)| (number(start), number(end)))
            .collect();
        let plan = Self { ino, size, chunk, anchor, ranges };
        Ok(plan.is_sound().then_some(plan))
    }

    fn write(&self, journal: &File) -> io::Result<()> {
        let list = self.list();
        let fields = [
            self.ino,
            self.size,
            self.chunk,
            self.anchor,
            self.ranges.len() as u64,
            crc32fast::hash(&list).into(),
        ];
        journal.write_all_at(&record::write::<RECORD>(PLAN, &fields), 0)?;
        journal.write_all_at(&list, BLOCK)
    }

    /// CRC of the file's last bytes, those that stay where they are until the cut. (One byte less
    /// than is removed: the first one behind the new end gets a NUL.)
    fn anchor_of(&self, file: &File) -> io::Result<u64> {
        let length = self.total().saturating_sub(1).min(ANCHOR);
        let mut bytes = vec![0; usize::try_from(length).unwrap_or(0)];
        file.read_exact_at(&mut bytes, self.size.saturating_sub(length))?;
        Ok(crc32fast::hash(&bytes).into())
    }
}

/// Whether a journal is left over.
pub(super) fn is_pending(index: &Index) -> Result<bool, Error> {
    index.has(ENDING)
}

/// Removes the ranges (sorted, apart) from the file. The write locks are held.
pub(super) fn remove(
    opened: &mut Opened,
    index: &Index,
    ranges: &[(u64, u64)],
) -> Result<(), Error> {
    let path = opened.spool.path.clone();
    let fail = |error| Error::io(&path, "be compacted", error);
    let identity = Identity::of(&opened.file).map_err(fail)?;
    let mut joined: Vec<(u64, u64)> = Vec::new();
    for (start, end) in ranges.iter().copied().filter(|(start, end)| start < end) {
        match joined.last_mut() {
            Some((_, last)) if *last == start => *last = end,
            _ => joined.push((start, end)),
        }
    }
    let Some((first, _)) = joined.first().copied() else {
        return Ok(());
    };
    if joined.as_slice() == [(first, identity.size)] {
        // Nothing stands behind: cutting it off is one step.
        moment();
        opened.file.set_len(first).map_err(fail)?;
        return opened.file.sync_all().map_err(fail);
    }
    let mut plan =
        Plan { ino: identity.ino, size: identity.size, chunk: BLOCK, anchor: 0, ranges: joined };
    let moved = (identity.size.saturating_sub(first)).saturating_sub(plan.total());
    plan.chunk = moved.clamp(1, LARGEST_CHUNK).div_ceil(BLOCK).saturating_mul(BLOCK);
    if !plan.is_sound() || plan.ranges.len() as u64 > MOST_RANGES {
        return Err(fail(io::ErrorKind::InvalidInput.into()));
    }
    plan.anchor = plan.anchor_of(&opened.file).map_err(fail)?;
    let journal = create(index, &plan)?;
    run(opened, index, &journal, &plan)
}

/// Makes the journal with all the space that it will need, then gives it its name.
fn create(index: &Index, plan: &Plan) -> Result<File, Error> {
    let fail = |error| index.error(ENDING, "can't be written", Some(error));
    let size = plan.slot_at(2);
    index.make()?;
    if free_space(&index.path).map_err(fail)? < size.saturating_add(16 * BLOCK) {
        return Err(fail(nix::Error::ENOSPC.into()));
    }
    moment();
    index.remove(NEW)?;
    let Some(journal) = index.file(NEW, true)? else {
        return Err(fail(io::ErrorKind::NotFound.into()));
    };
    moment();
    let filled = reserve(&journal, size)
        .and_then(|()| plan.write(&journal))
        .and_then(|()| journal.sync_all());
    if let Err(error) = filled {
        let _ = index.remove(NEW);
        return Err(fail(error));
    }
    moment();
    index.rename(NEW, ENDING)?;
    Ok(journal)
}

fn reserve(journal: &File, size: u64) -> io::Result<()> {
    journal.set_len(size)?;
    let length = i64::try_from(size).unwrap_or(i64::MAX);
    match fallocate(journal, FallocateFlags::empty(), 0, length) {
        Ok(()) | Err(nix::Error::EOPNOTSUPP | nix::Error::ENOSYS) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Finishes a removal that was interrupted. The write locks are held.
pub(super) fn recover(
    opened: &mut Opened,
    index: &Index,
    warnings: &mut Vec<String>,
) -> Result<(), Error> {
    let Some(journal) = index.file(ENDING, false)? else {
        return Ok(());
    };
    let fail = |error| index.error(ENDING, "can't be read", Some(error));
    let plan = match Plan::read(&journal).map_err(fail)? {
        Some(plan) if proves_itself(&journal, &plan, &opened.file).map_err(fail)? => plan,
        _ => {
            index.rename(ENDING, BAD)?;
            warnings.push(format!(
                "{}: this journal of an interrupted removal does not belong to the mailbox as it \
                 is now; it was set aside and not applied: messages may appear twice",
                index.path.display()
            ));
            return Ok(());
        }
    };
    run(opened, index, &journal, &plan)
}

/// Whether the mailbox is the one of the plan, and in a state that the journal can have left.
fn proves_itself(journal: &File, plan: &Plan, file: &File) -> io::Result<bool> {
    let now = Identity::of(file)?;
    // Not the device: its number may be another one after a power cut.
    if now.ino != plan.ino {
        return Ok(false);
    }
    let step = newest(journal, plan)?;
    if matches!(step.kind, StepKind::Cut { .. }) {
        return Ok(true);
    }
    if now.size < plan.size || step.source > now.size {
        return Ok(false);
    }
    // What a neighbour had appended may have been moved over the last bytes already.
    Ok(step.source > plan.size || plan.anchor_of(file)? == plan.anchor)
}

/// The newest step that the journal holds whole.
fn newest(journal: &File, plan: &Plan) -> io::Result<Step> {
    let start = plan.ranges.first().map_or(0, |(start, _)| *start);
    let mut newest = Step { serial: 0, source: start, dest: start, kind: StepKind::Start };
    let mut head = [0; RECORD];
    read_full(journal, &mut head, plan.cut_at())?;
    if let Some([serial, dest, source, length, crc]) = record::read(CUT, &head) {
        let matches = source >= plan.size
            && source.checked_sub(plan.total()) == Some(dest)
            && length <= ANCHOR;
        if matches && serial > newest.serial {
            newest = Step { serial, source, dest, kind: StepKind::Cut { length, crc } };
        }
    }
    for slot in [0, 1] {
        let mut head = [0; RECORD];
        read_full(journal, &mut head, plan.slot_at(slot))?;
        let Some([serial, source, dest, length, crc]) = record::read(SLOT, &head) else {
            continue;
        };
        let matches =
            source.checked_sub(plan.removed_before(source)) == Some(dest) && length <= plan.chunk;
        if !matches || serial <= newest.serial || length > dest {
            continue;
        }
        let bytes = slot_bytes(journal, plan, slot, length)?;
        if bytes.len() as u64 == length && u64::from(crc32fast::hash(&bytes)) == crc {
            newest = Step { serial, source, dest, kind: StepKind::Chunk { slot, length } };
        }
    }
    Ok(newest)
}

fn slot_bytes(journal: &File, plan: &Plan, slot: u64, length: u64) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; usize::try_from(length.min(plan.chunk)).unwrap_or(0)];
    let at = plan.slot_at(slot).saturating_add(BLOCK);
    let read = read_full(journal, &mut bytes, at)?;
    bytes.truncate(read);
    Ok(bytes)
}

/// Goes on from the newest step to the end.
fn run(opened: &mut Opened, index: &Index, journal: &File, plan: &Plan) -> Result<(), Error> {
    let path = opened.spool.path.clone();
    let fail = |error| Error::io(&path, "be compacted", error);
    let journal_fail = |error| index.error(ENDING, "can't be used", Some(error));
    let mut step = newest(journal, plan).map_err(journal_fail)?;
    match step.kind {
        StepKind::Start => {}
        StepKind::Chunk { slot, length } => {
            let bytes = slot_bytes(journal, plan, slot, length).map_err(journal_fail)?;
            put(&opened.file, &bytes, step.dest).map_err(fail)?;
        }
        StepKind::Cut { length, crc } => {
            if !cut_is_due(&opened.file, &step, length, crc).map_err(fail)? {
                return finish(opened, index).map_err(fail);
            }
        }
    }
    loop {
        let size = Identity::of(&opened.file).map_err(fail)?.size;
        let (bytes, source) = next_chunk(&opened.file, plan, step.source, size).map_err(fail)?;
        if bytes.is_empty() {
            step.source = size;
            break;
        }
        if !opened.held.touch() {
            return Err(fail(io::Error::other("the lock was taken away")));
        }
        step.serial = step.serial.saturating_add(1);
        step.source = source;
        step.dest = step.dest.saturating_add(bytes.len() as u64);
        record_chunk(journal, plan, &step, &bytes).map_err(journal_fail)?;
        put(&opened.file, &bytes, step.dest).map_err(fail)?;
    }
    step.serial = step.serial.saturating_add(1);
    record_cut(journal, plan, &opened.file, &step).map_err(fail)?;
    moment();
    opened.file.set_len(step.dest).map_err(fail)?;
    finish(opened, index).map_err(fail)
}

/// Writes a chunk that ends at `end`, durably.
fn put(file: &File, bytes: &[u8], end: u64) -> io::Result<()> {
    moment();
    file.write_all_at(bytes, end.saturating_sub(bytes.len() as u64))?;
    file.sync_data()
}

/// The kept bytes from `source` on, a chunk at most, and where the next ones stand.
fn next_chunk(file: &File, plan: &Plan, mut source: u64, size: u64) -> io::Result<(Vec<u8>, u64)> {
    let mut bytes = Vec::new();
    let most = usize::try_from(plan.chunk).unwrap_or(0);
    // The ranges that matter begin with the first that ends behind the source.
    let first = plan.ranges.partition_point(|(_, end)| *end <= source);
    let mut ranges = plan.ranges.iter().skip(first).peekable();
    while source < size && bytes.len() < most {
        if let Some((start, end)) = ranges.peek()
            && *start <= source
        {
            source = source.max(*end);
            ranges.next();
            continue;
        }
        let stop = ranges.peek().map_or(size, |(start, _)| *start).min(size);
        let room = most.saturating_sub(bytes.len());
        let length = usize::try_from(stop.saturating_sub(source)).map_or(room, |n| n.min(room));
        let old = bytes.len();
        bytes.resize(old.saturating_add(length), 0);
        file.read_exact_at(bytes.get_mut(old..).unwrap_or_default(), source)?;
        source = source.saturating_add(length as u64);
    }
    Ok((bytes, source))
}

fn record_chunk(journal: &File, plan: &Plan, step: &Step, bytes: &[u8]) -> io::Result<()> {
    let slot = plan.slot_at(step.serial % 2);
    let fields =
        [step.serial, step.source, step.dest, bytes.len() as u64, crc32fast::hash(bytes).into()];
    moment();
    journal.write_all_at(bytes, slot.saturating_add(BLOCK))?;
    moment();
    journal.write_all_at(&record::write::<RECORD>(SLOT, &fields), slot)?;
    moment();
    journal.sync_data()
}

fn record_cut(journal: &File, plan: &Plan, file: &File, step: &Step) -> io::Result<()> {
    moment();
    file.write_all_at(&[0], step.dest)?;
    file.sync_data()?;
    let length = step.source.saturating_sub(step.dest).min(ANCHOR);
    let fields = [step.serial, step.dest, step.source, length, crc_at(file, step.dest, length)?];
    moment();
    journal.write_all_at(&record::write::<RECORD>(CUT, &fields), plan.cut_at())?;
    journal.sync_data()
}

fn crc_at(file: &File, at: u64, length: u64) -> io::Result<u64> {
    let mut bytes = vec![0; usize::try_from(length).unwrap_or(0)];
    let read = read_full(file, &mut bytes, at)?;
    Ok(crc32fast::hash(bytes.get(..read).unwrap_or_default()).into())
}

/// Whether the file has not been cut yet.
fn cut_is_due(file: &File, step: &Step, length: u64, crc: u64) -> io::Result<bool> {
    let size = Identity::of(file)?.size;
    Ok(size >= step.source && crc_at(file, step.dest, length)? == crc)
}

fn finish(opened: &mut Opened, index: &Index) -> io::Result<()> {
    moment();
    opened.file.sync_all()?;
    moment();
    index.remove(ENDING).map_err(io::Error::other)?;
    opened.identity = Identity::of(&opened.file)?;
    Ok(())
}

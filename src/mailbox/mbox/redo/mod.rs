//! Changing a mailbox in its middle so that nothing is lost at whatever moment we die.
//!
//! Byte ranges are removed, or replaced by what is no longer than all that was removed so far. The
//! new file is written from the first change on, over the old one, in one pass: what is written at
//! `dest` never passes `source`, from where on the old file is still needed ([`Plan::source`]). The
//! journal `NAME.redo` says what is under way:
//!
//! | offset | what |
//! | --- | --- |
//! | 0 | plan: inode, size, hashes of bytes that stay, number of edits, hash of what follows |
//! | 4096 | the edits: start, end, length of the replacement; then the replacements |
//! | `cut_at` | the truncation: size before, new size, hash of what is to be cut off |
//! | `slot_at(0)`, `slot_at(1)` | the steps in turn: source, dest, hash of what is at the source; the chunk, hashed |
//!
//! The plan is complete and synced before the journal gets its name. Records have serial numbers;
//! the highest one that proves itself tells where we are: everything before its `dest` is durable,
//! but for the chunk that its slot may hold, and everything from its `source` on is as it was. It
//! stays so because of what is on the disk before what:
//!
//! - **A step with its chunk** is for places where `source` is near. The chunk goes into the slot
//!   whose step is not the newest. The mailbox is synced: now the chunk before stands, and its slot
//!   is not needed. The record is written, and the journal synced. Only then the chunk is written
//!   to the mailbox, over old bytes that it holds itself. The disk is busy with it while the next
//!   one is read.
//! - **A step without a chunk** is for places where `source` is far ahead. Nothing that is written
//!   before it is needed any more: all that goes there, from `dest` up to `source` at most, is
//!   copied at once, and can be copied again. The mailbox is synced, then the record with the new
//!   place is written, and the journal synced; what stood in front of the new `source` is given up
//!   only then.
//! - **The cut** comes when all is in its place, and the newest step says so. A NUL is put where
//!   the file will be cut, and the mailbox synced; then the truncation is kept, the journal synced,
//!   the file cut and synced, the journal removed.
//!
//! What does not move, as nothing is removed or all that was removed is used up, is not written.
//! Where the file keeps its size, the truncation's record says that nothing is left to do.
//!
//! The truncation's hash covers the NUL: nothing that a neighbour appends begins with NUL, so that
//! an opener can tell whether the cut has happened even when something has been appended since. What
//! a neighbour appended behind the old end after our death moves down as well.

mod disk;
mod journal;
mod plan;

use std::fs::File;
use std::io;

use nix::fcntl::{FallocateFlags, fallocate};
use xxhash_rust::xxh3::xxh3_64 as hash;

use super::Opened;
use super::error::Error;
use super::identity::Identity;
use crate::mailbox::index::Directory;
use crate::mailbox::moment::moment;
use crate::sys::lock::free_space;

pub(super) use plan::Edit;

use journal::{Journal, Step, StepKind};
use plan::{Plan, hash_at};

const ENDING: &str = ".redo";
const NEW: &str = ".redo.new";
const BAD: &str = ".redo.bad";

/// Records stand in blocks of their own, so that a torn write hits one of them only.
const BLOCK: u64 = 4096;
const RECORD: usize = 128;

/// So much is read and written at once: it stays in the processor's cache in between.
const PIECE: usize = if cfg!(test) { 1500 } else { 256 * 1024 };
const LARGEST_CHUNK: u64 = if cfg!(test) { BLOCK } else { 4 * 1024 * 1024 };
/// Where the old file is needed only so far ahead, steps have no chunk: two more syncs cost less than
/// to write it twice.
const FAR: u64 = LARGEST_CHUNK / 4;
/// The longest step without a chunk: the lock is shown to be alive between steps.
const LARGEST_STEP: u64 = 16 * LARGEST_CHUNK;

/// Whether a journal is left over.
pub(super) fn is_pending(directory: &Directory) -> Result<bool, Error> {
    directory.has(ENDING)
}

/// Whether there is one that did not fit its mailbox.
pub(super) fn is_set_aside(directory: &Directory) -> Result<bool, Error> {
    directory.has(BAD)
}

/// Removes the ranges (sorted, apart) from the file. The write locks are held.
pub(super) fn remove(
    opened: &mut Opened,
    directory: &Directory,
    ranges: &[(u64, u64)],
) -> Result<(), Error> {
    let remove = |(start, end): &(u64, u64)| Edit { start: *start, end: *end, with: Vec::new() };
    let edits: Vec<Edit> = ranges.iter().map(remove).collect();
    edit(opened, directory, &edits)
}

/// Changes the file. The edits are sorted and apart, and none inserts more than is removed up to
/// its end and not used before; else nothing is changed. The write locks are held.
pub(super) fn edit(
    opened: &mut Opened,
    directory: &Directory,
    edits: &[Edit],
) -> Result<(), Error> {
    let path = opened.spool.path.clone();
    let fail = |error| Error::io(&path, "be compacted", error);
    let identity = Identity::of(&opened.file).map_err(fail)?;
    let plan = Plan::new(identity.ino, identity.size, edits)
        .map_err(|why| fail(io::Error::new(io::ErrorKind::InvalidInput, why)))?;
    let Some(mut plan) = plan else {
        return Ok(());
    };
    if plan.only_cuts() {
        // Nothing stands behind: cutting it off is one step.
        disk::cut(&opened.file, plan.first()).map_err(fail)?;
        opened.identity = Identity::of(&opened.file).map_err(fail)?;
        return Ok(());
    }
    plan.head = plan.head_of(&opened.file).map_err(fail)?;
    plan.tail = plan.tail_of(&opened.file).map_err(fail)?;
    plan.ahead = plan.ahead_of(&opened.file, plan.first()).map_err(fail)?;
    let journal = create(directory, plan)?;
    run(opened, directory, &journal)
}

/// Makes the journal with all the space that it will need, then gives it its name.
fn create(directory: &Directory, plan: Plan) -> Result<Journal, Error> {
    let fail = |error| directory.error(ENDING, "can't be written", Some(error));
    let size = plan.journal_size();
    directory.make()?;
    if free_space(&directory.path).map_err(fail)? < size.saturating_add(16 * BLOCK) {
        return Err(fail(nix::Error::ENOSPC.into()));
    }
    moment();
    directory.remove(NEW)?;
    let Some(file) = directory.file(NEW, true)? else {
        return Err(fail(io::ErrorKind::NotFound.into()));
    };
    moment();
    let filled =
        reserve(&file, size).and_then(|()| plan.write(&file)).and_then(|()| file.sync_all());
    if let Err(error) = filled {
        let _ = directory.remove(NEW);
        return Err(fail(error));
    }
    moment();
    directory.rename(NEW, ENDING)?;
    Ok(Journal { file, plan })
}

fn reserve(journal: &File, size: u64) -> io::Result<()> {
    journal.set_len(size)?;
    let length = i64::try_from(size).unwrap_or(i64::MAX);
    match fallocate(journal, FallocateFlags::empty(), 0, length) {
        Ok(()) | Err(nix::Error::EOPNOTSUPP | nix::Error::ENOSYS) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Finishes a change that was interrupted. The write locks are held.
pub(super) fn recover(
    opened: &mut Opened,
    directory: &Directory,
    warnings: &mut Vec<String>,
) -> Result<(), Error> {
    let Some(file) = directory.file(ENDING, false)? else {
        return Ok(());
    };
    let fail = |error| directory.error(ENDING, "can't be read", Some(error));
    if let Some(plan) = Plan::read(&file).map_err(fail)? {
        let journal = Journal { file, plan };
        if proves_itself(&journal, &opened.file).map_err(fail)? {
            return run(opened, directory, &journal);
        }
    }
    directory.rename(ENDING, BAD)?;
    warnings.push(format!(
        "{}: this journal of an interrupted removal does not belong to the mailbox as it is now; \
         it was set aside and not applied: messages may appear twice",
        directory.path.display()
    ));
    Ok(())
}

/// Whether the mailbox is the one of the plan, and in a state that the journal can have left.
fn proves_itself(journal: &Journal, file: &File) -> io::Result<bool> {
    let (plan, now) = (&journal.plan, Identity::of(file)?);
    // Not the device: its number may be another one after a power cut.
    if now.ino != plan.ino {
        return Ok(false);
    }
    let step = journal.newest()?;
    if matches!(step.kind, StepKind::Cut { .. }) {
        return Ok(true);
    }
    if now.size < plan.size || step.source > now.size || plan.head_of(file)? != plan.head {
        return Ok(false);
    }
    if plan.ahead_of(file, step.dest)? != step.ahead {
        return Ok(false);
    }
    // What a neighbour had appended may have been moved over the last bytes already.
    Ok(step.source >= plan.size || plan.tail_of(file)? == plan.tail)
}

/// Goes on from the newest step to the end.
fn run(opened: &mut Opened, directory: &Directory, journal: &Journal) -> Result<(), Error> {
    let path = opened.spool.path.clone();
    let fail = |error| Error::io(&path, "be compacted", error);
    let journal_fail = |error| directory.error(ENDING, "can't be used", Some(error));
    let plan = &journal.plan;
    let mut step = journal.newest().map_err(journal_fail)?;
    match step.kind {
        StepKind::Start => {}
        StepKind::Chunk { slot, length } => {
            let bytes = journal.chunk(slot, length).map_err(journal_fail)?;
            put(&opened.file, &bytes, step.dest).map_err(fail)?;
            // A record in the other slot may lack nothing but the bytes that come there now, and
            // would say that this chunk stands.
            disk::sync(&opened.file).map_err(fail)?;
        }
        StepKind::Cut { length, sum } => {
            if !cut_is_due(&opened.file, &step, length, sum).map_err(fail)? {
                return finish(opened, directory).map_err(fail);
            }
            // If something has been appended, it goes where the NUL stands now: from here on the
            // truncation must not be the newest step.
            step.serial = step.serial.saturating_add(1);
            journal.keep(&step, 0, hash(&[])).map_err(journal_fail)?;
        }
    }
    let mut chunk = Vec::new();
    loop {
        let size = Identity::of(&opened.file).map_err(fail)?.size;
        let end = plan.new_size(size);
        let dest = plan.next(step.dest);
        if dest >= end {
            (step.source, step.dest) = (size, end);
            break;
        }
        if !opened.held.touch() {
            return Err(fail(io::Error::other("the lock was taken away")));
        }
        let room = plan.source(dest).saturating_sub(dest);
        let serial = step.serial.saturating_add(1);
        if room >= FAR {
            let stop = far_stop(plan, dest, room, end);
            copy(&opened.file, plan, dest, stop).map_err(fail)?;
            step = Step::at(plan, &opened.file, serial, stop).map_err(fail)?;
            journal.keep(&step, 0, hash(&[])).map_err(journal_fail)?;
        } else {
            let stop = plan.trim(dest.saturating_add(plan.chunk).min(end));
            let length = stop.saturating_sub(dest);
            chunk.resize(usize::try_from(length).unwrap_or(0), 0);
            let sum = journal.take(&opened.file, dest, serial, &mut chunk).map_err(journal_fail)?;
            disk::sync(&opened.file).map_err(fail)?;
            step = Step::at(plan, &opened.file, serial, stop).map_err(fail)?;
            journal.keep(&step, length, sum).map_err(journal_fail)?;
            put(&opened.file, &chunk, stop).map_err(fail)?;
        }
    }
    step.serial = step.serial.saturating_add(1);
    if step.dest < step.source {
        disk::write(&opened.file, &[0], step.dest).map_err(fail)?;
    }
    disk::sync(&opened.file).map_err(fail)?;
    journal.keep_cut(&opened.file, &step).map_err(fail)?;
    if step.dest < step.source {
        disk::cut(&opened.file, step.dest).map_err(fail)?;
    }
    finish(opened, directory).map_err(fail)
}

/// Where a step without a chunk ends. Until its record stands, the old file's last bytes must prove
/// that it is the one: it does not go on from the old end to what a neighbour appended.
fn far_stop(plan: &Plan, dest: u64, room: u64, end: u64) -> u64 {
    let old_end = plan.new_size(plan.size);
    let end = if dest < old_end { end.min(old_end) } else { end };
    plan.trim(dest.saturating_add(room.min(LARGEST_STEP)).min(end))
}

/// Writes what belongs from `dest` to `stop`, durably.
fn copy(file: &File, plan: &Plan, mut dest: u64, stop: u64) -> io::Result<()> {
    let mut piece = vec![0; PIECE];
    while dest < stop {
        let left = usize::try_from(stop.saturating_sub(dest)).unwrap_or(usize::MAX);
        let length = left.min(piece.len());
        let here = piece.get_mut(..length).unwrap_or_default();
        plan.fill(file, dest, here)?;
        disk::send(file, here, dest)?;
        dest = dest.saturating_add(length as u64);
    }
    disk::sync(file)
}

/// Writes a chunk that ends at `end`.
fn put(file: &File, bytes: &[u8], end: u64) -> io::Result<()> {
    disk::send(file, bytes, end.saturating_sub(bytes.len() as u64))
}

/// Whether the file has not been cut yet.
fn cut_is_due(file: &File, step: &Step, length: u64, sum: u64) -> io::Result<bool> {
    let size = Identity::of(file)?.size;
    let larger = step.dest < step.source && size >= step.source;
    Ok(larger && hash_at(file, step.dest, length)? == sum)
}

fn finish(opened: &mut Opened, directory: &Directory) -> io::Result<()> {
    opened.file.sync_all()?;
    moment();
    directory.remove(ENDING).map_err(io::Error::other)?;
    opened.identity = Identity::of(&opened.file)?;
    Ok(())
}

#[cfg(test)]
mod tests;

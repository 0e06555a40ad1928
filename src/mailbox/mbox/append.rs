//! Appending so that a killed process, or a power cut, leaves nothing torn for longer than until our
//! next open.
//!
//! Under the locks, with the length n known:
//!
//! | step | killed behind it, the next opener |
//! | --- | --- |
//! | 1. intent kept ([`super::intent`]): inode, old size, n, how many NULs are among the n bytes | clears the intent |
//! | 2. file extended by n (NULs) | cuts it back |
//! | 3. blank line at its new end: whatever a neighbour appends stands behind it | cuts it back, or moves down what stands behind |
//! | 4. the messages | likewise, or keeps them if all is there |
//! | 5. fsync | keeps the messages |
//! | 6. intent cleared | has nothing to do |
//!
//! What was not written yet, and what a power cut kept from the disk, reads as NULs: with more of
//! them than the intent counts, something is missing. Other programs write into the fields of a
//! message that is whole, so that a sum of its bytes would prove nothing.
//!
//! An append is undone only where it is certain that nobody else's bytes go: same file, the bytes
//! before the old size as they were, the `From_` line ours or torn itself (no neighbour has a NUL in
//! his), and an end, or another `From_` line, where it was to end. Else a neighbour has rewritten the
//! file, and it is left alone.

use std::fs::{File, FileTimes};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::time::{Duration, SystemTime};

use super::error::Error;
use super::form::Batch;
use super::identity::Identity;
use super::intent::Intent;
use super::window::{CAPACITY, read_full};
use super::{Opened, record, redo};
use crate::mailbox::index::Directory;
use crate::mailbox::moment::moment;

/// So many bytes before the old size prove that the file is as we left it.
const ANCHOR: u64 = 64;

/// No `From_` line of ours is longer.
const LINE: usize = 512;

/// Appends the messages, durably: all of them, or on any failure none, and the file is as before.
/// Returns the file's new size.
pub(super) fn append(
    opened: &mut Opened,
    index: &Directory,
    messages: Batch<'_>,
) -> Result<u64, Error> {
    let path = opened.spool.path.clone();
    let fail = |error| Error::io(&path, "be written", error);
    let old = opened.identity.size;
    let accessed = opened.file.metadata().and_then(|m| m.accessed());
    let separator = separator(&opened.file, old).map_err(fail)?;
    let too_large = || fail(io::ErrorKind::FileTooLarge.into());
    let from = old.checked_add(separator.len() as u64).ok_or_else(too_large)?;
    let end = messages
        .length()
        .and_then(|length| from.checked_add(length)?.checked_add(1))
        .filter(|end| i64::try_from(*end).is_ok())
        .ok_or_else(too_large)?;
    let intent = Intent {
        ino: opened.identity.ino,
        old,
        from,
        end,
        nuls: messages.nuls(),
        anchor: anchor(&opened.file, old).map_err(fail)?,
        line: record::sum(messages.first_line()),
    };
    let kept = intent.keep(opened, index)?;
    let written = write(&opened.file, &intent, separator, messages)
        .and_then(|()| leave_unread(&opened.file, accessed))
        .and_then(|()| {
            moment();
            opened.file.sync_all()
        });
    if let Err(error) = written {
        // With a NUL there the append proves itself unfinished, and is undone like anybody's.
        let size = opened.file.metadata().map_or(0, |m| m.size());
        if size > intent.from {
            let _ = opened.file.write_all_at(&[0], intent.from);
        }
        let _ = recover(opened, index, &mut Vec::new());
        return Err(fail(error));
    }
    moment();
    if old == 0 {
        opened.spool.sync_directory();
    }
    // The message stands; an intent that can't be cleared will be found to be done.
    let _ = kept.clear(opened, index);
    Ok(end)
}

fn write(file: &File, intent: &Intent, separator: &[u8], messages: Batch<'_>) -> io::Result<()> {
    moment();
    file.set_len(intent.end)?;
    moment();
    file.write_all_at(b"\n\n", intent.end.saturating_sub(2))?;
    moment();
    file.write_all_at(separator, intent.old)?;
    let mut at = intent.from;
    messages.each(&mut |bytes| {
        moment();
        file.write_all_at(bytes, at)?;
        at = at.saturating_add(bytes.len() as u64);
        Ok(())
    })?;
    if at.saturating_add(1) != intent.end {
        return Err(io::Error::other("a message changed its length"));
    }
    Ok(())
}

/// The line ends that make the old file end in a blank line.
fn separator(file: &File, size: u64) -> io::Result<&'static [u8]> {
    let mut last = [0; 3];
    let length = size.min(3);
    let space = last.get_mut(..usize::try_from(length).unwrap_or(0));
    let space = space.unwrap_or_default();
    file.read_exact_at(space, size.saturating_sub(length))?;
    Ok(match &*space {
        b"" | b"\n" | b"\r\n" | [.., b'\n', b'\n'] | [b'\n', b'\r', b'\n'] => b"",
        [.., b'\n'] => b"\n",
        _ => b"\n\n",
    })
}

fn anchor(file: &File, old: u64) -> io::Result<u32> {
    let length = old.min(ANCHOR);
    let mut bytes = vec![0; usize::try_from(length).unwrap_or(0)];
    file.read_exact_at(&mut bytes, old.saturating_sub(length))?;
    Ok(record::sum(&bytes))
}

/// biff, shells and mutt see new mail where the access is older than the change. Our own look at
/// the end of the file does not count.
fn leave_unread(file: &File, accessed: io::Result<SystemTime>) -> io::Result<()> {
    let metadata = file.metadata()?;
    let (Ok(now), Ok(modified), Ok(before)) = (metadata.accessed(), metadata.modified(), accessed)
    else {
        return Ok(());
    };
    if now < modified {
        return Ok(());
    }
    let second = Duration::from_secs(1);
    let unread = before.min(modified.checked_sub(second).unwrap_or(modified));
    file.set_times(FileTimes::new().set_accessed(unread))
}

/// Finishes or undoes an append that was interrupted. The write locks are held.
pub(super) fn recover(
    opened: &mut Opened,
    index: &Directory,
    warnings: &mut Vec<String>,
) -> Result<(), Error> {
    let path = opened.spool.path.clone();
    let fail = |error| Error::io(&path, "be mended", error);
    let Some((intent, kept)) = Intent::read(opened, index)? else {
        return Ok(());
    };
    let now = Identity::of(&opened.file).map_err(fail)?;
    let verdict = judge(&opened.file, &now, &intent).map_err(fail)?;
    match verdict {
        Verdict::Nothing => {}
        Verdict::Foreign => warnings.push(format!(
            "{}: an append was interrupted, and the file has been changed since: left as it is",
            path.display()
        )),
        Verdict::Complete => {
            if intent.old == 0 {
                // Whoever was killed may not have come so far, and nobody does it later.
                opened.spool.sync_directory();
            }
        }
        Verdict::Cut => {
            moment();
            opened.file.set_len(intent.old).map_err(fail)?;
            opened.file.sync_all().map_err(fail)?;
        }
        Verdict::Remove => {
            // The line ends stay: what a neighbour appended must stand behind a blank line.
            let separator = separator(&opened.file, intent.old).map_err(fail)?;
            moment();
            opened.file.write_all_at(separator, intent.old).map_err(fail)?;
            redo::remove(opened, index, &[(intent.from, intent.end)])?;
        }
    }
    kept.clear(opened, index)?;
    opened.identity = Identity::of(&opened.file).map_err(fail)?;
    Ok(())
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// The file was not changed, or has been cut back; or a neighbour's mail stands there.
    Nothing,
    /// Somebody has rewritten the file: nothing is proved.
    Foreign,
    /// The messages stand.
    Complete,
    /// Unfinished, with nothing behind it.
    Cut,
    /// Unfinished, with something behind it.
    Remove,
}

fn judge(file: &File, now: &Identity, intent: &Intent) -> io::Result<Verdict> {
    // Not the device: its number may be another one after the power cut.
    if now.ino != intent.ino || now.size < intent.old {
        return Ok(Verdict::Foreign);
    }
    if anchor(file, intent.old)? != intent.anchor {
        return Ok(Verdict::Foreign);
    }
    if now.size == intent.old {
        return Ok(Verdict::Nothing);
    }
    // Between the old size and the From_ line there are at most two line ends of ours.
    let length = now.size.min(intent.from).saturating_sub(intent.old);
    let mut between = vec![0; usize::try_from(length).unwrap_or(0)];
    file.read_exact_at(&mut between, intent.old)?;
    if between.iter().any(|b| !matches!(b, 0 | b'\n')) {
        return Ok(Verdict::Foreign);
    }
    if now.size <= intent.from {
        return Ok(Verdict::Cut);
    }
    let mut line = [0; LINE];
    let read = read_full(file, &mut line, intent.from)?;
    let line = line.get(..read).unwrap_or_default();
    let line = line.split_inclusive(|b| matches!(b, 0 | b'\n')).next().unwrap_or_default();
    if !line.ends_with(&[0]) && record::sum(line) != intent.line {
        let is_mail = line.starts_with(b"From ") || line == b"\n";
        return Ok(if is_mail { Verdict::Nothing } else { Verdict::Foreign });
    }
    if nuls(file, intent.old, intent.end.min(now.size))? <= intent.nuls {
        return Ok(Verdict::Complete);
    }
    // Two line ends were to stand at its end, and a neighbour may begin with some.
    let mut end = [0; 16];
    let read = read_full(file, &mut end, intent.end.saturating_sub(2))?;
    let end = end.get(..read).unwrap_or_default();
    let blank = end.iter().take_while(|b| matches!(b, 0 | b'\n')).count();
    let rest = end.get(blank..).unwrap_or_default();
    let is_end = blank >= 2 && (rest.is_empty() || rest.starts_with(b"From "));
    Ok(match is_end {
        false => Verdict::Foreign,
        true if now.size == intent.end => Verdict::Cut,
        true => Verdict::Remove,
    })
}

/// How many NULs stand there.
fn nuls(file: &File, mut at: u64, end: u64) -> io::Result<u64> {
    let mut buffer = vec![0; CAPACITY];
    let mut count = 0_u64;
    while at < end {
        let left = usize::try_from(end.saturating_sub(at)).unwrap_or(usize::MAX);
        let length = left.min(buffer.len());
        let piece = buffer.get_mut(..length).unwrap_or_default();
        file.read_exact_at(piece, at)?;
        count = count.saturating_add(memchr::memchr_iter(0, piece).count() as u64);
        at = at.saturating_add(length as u64);
    }
    Ok(count)
}

#[cfg(test)]
#[path = "append_tests.rs"]
mod tests;

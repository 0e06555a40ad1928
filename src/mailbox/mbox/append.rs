//! Appending so that a killed process leaves nothing torn for longer than until our next open.
//!
//! Under the locks, with the length n known:
//!
//! | step | killed behind it, the next opener |
//! | --- | --- |
//! | 1. intent kept ([`super::intent`]): inode, old size, n, place of the `F` | clears the intent |
//! | 2. file extended by n (NULs) | cuts it back |
//! | 3. blank line at its new end: whatever a neighbour appends stands behind it | cuts it back, or moves down what stands behind |
//! | 4. everything but the first byte, the `F` of `From ` | likewise |
//! | 5. the `F`, then fsync | keeps the message |
//! | 6. intent cleared | has nothing to do |
//!
//! An append is undone only where the intent proves it: same file, the bytes before the old size
//! as they were, a NUL where the `F` would stand. Where anything else is found a neighbour has
//! rewritten the file, and it is left alone.

use std::fs::{File, FileTimes};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::time::{Duration, SystemTime};

use super::error::Error;
use super::form::Batch;
use super::identity::Identity;
use super::intent::Intent;
use super::{Opened, redo};
use crate::mailbox::index::Directory;
use crate::mailbox::moment::moment;

/// So many bytes before the old size prove that the file is as we left it.
const ANCHOR: u64 = 64;

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
        anchor: anchor(&opened.file, old).map_err(fail)?,
    };
    let kept = intent.keep(opened, index)?;
    let written = write(&opened.file, &intent, separator, messages)
        .and_then(|()| leave_unread(&opened.file, accessed))
        .and_then(|()| {
            moment();
            opened.file.sync_all()
        });
    if let Err(error) = written {
        // Without its F the append proves itself unfinished, and is undone like anybody's.
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
        let (skipped, bytes) =
            if at == intent.from { (1, bytes.get(1..).unwrap_or_default()) } else { (0, bytes) };
        if bytes.is_empty() {
            return Ok(());
        }
        let next = at.saturating_add(skipped);
        moment();
        file.write_all_at(bytes, next)?;
        at = next.saturating_add(bytes.len() as u64);
        Ok(())
    })?;
    if at.saturating_add(1) != intent.end {
        return Err(io::Error::other("a message changed its length"));
    }
    moment();
    file.write_all_at(b"F", intent.from)
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

fn anchor(file: &File, old: u64) -> io::Result<u64> {
    let length = old.min(ANCHOR);
    let mut bytes = vec![0; usize::try_from(length).unwrap_or(0)];
    file.read_exact_at(&mut bytes, old.saturating_sub(length))?;
    Ok(xxhash_rust::xxh3::xxh3_64(&bytes))
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
            close(&opened.file, &now, &intent).map_err(fail)?;
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
    /// The file was not changed, or has been cut back.
    Nothing,
    /// Somebody has rewritten the file: nothing is proved.
    Foreign,
    /// The message stands.
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
    // Between the old size and the F there are at most two line ends of ours.
    let length = now.size.min(intent.from).saturating_sub(intent.old);
    let mut between = vec![0; usize::try_from(length).unwrap_or(0)];
    file.read_exact_at(&mut between, intent.old)?;
    if between.iter().any(|b| !matches!(b, 0 | b'\n')) {
        return Ok(Verdict::Foreign);
    }
    if now.size <= intent.from {
        return Ok(Verdict::Cut);
    }
    let mut first = [0];
    file.read_exact_at(&mut first, intent.from)?;
    match first {
        [b'F'] => return Ok(Verdict::Complete),
        [0] => {}
        _ => return Ok(Verdict::Foreign),
    }
    if now.size <= intent.end {
        return Ok(Verdict::Cut);
    }
    let mut last = [0];
    file.read_exact_at(&mut last, intent.end.saturating_sub(1))?;
    Ok(match last {
        [0 | b'\n'] => Verdict::Remove,
        _ => Verdict::Foreign,
    })
}

/// After a power cut the blank line behind a message may be missing though its `F` is there: what
/// a neighbour appends then must not end up on the same line.
fn close(file: &File, now: &Identity, intent: &Intent) -> io::Result<()> {
    let mut mended = false;
    for at in [intent.end.saturating_sub(2), intent.end.saturating_sub(1)] {
        let mut byte = [b'\n'];
        if at < now.size && at > intent.from {
            file.read_exact_at(&mut byte, at)?;
        }
        if byte == [0] {
            moment();
            file.write_all_at(b"\n", at)?;
            mended = true;
        }
    }
    if mended { file.sync_all() } else { Ok(()) }
}

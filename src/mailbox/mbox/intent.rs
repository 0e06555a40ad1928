//! What an append that is under way will do, kept where whoever opens the mailbox next finds it.
//!
//! It is an extended attribute of the mailbox. It needs no sync of its own: the attribute is set
//! before the size grows, both are of one inode, and file systems bring the changes to one inode
//! to the disk in their order (ext4, XFS, Btrfs, F2FS and ZFS by their journals or trees). So
//! there is no moment in which a power cut could leave the longer file without the intent.
//!
//! Where a file system has no such attributes the intent is a journal, `NAME.append`, which is
//! synced before the mailbox is touched.

use std::ffi::CStr;
use std::os::unix::fs::FileExt;

use rustix::fs::{XattrFlags, fgetxattr, fremovexattr, fsetxattr};
use rustix::io::Errno;

use super::error::Error;
use super::window::read_full;
use super::{Opened, record};
use crate::mailbox::index::Directory;
use crate::mailbox::moment::{has_attributes, moment};

pub(super) const ATTRIBUTE: &CStr = c"user.hikyaku";
const ENDING: &str = ".append";
const MAGIC: [u8; 8] = *b"hkappnd2";

/// Magic, six numbers, sum: as small as can be, so that it fits into the inode itself.
const RECORD: usize = 60;

/// An append that is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Intent {
    pub ino: u64,
    /// The size before.
    pub old: u64,
    /// Where the `From_` line stands: behind line ends that the old file lacked.
    pub from: u64,
    /// The size behind.
    pub end: u64,
    /// How many NULs are among what is appended.
    pub nuls: u64,
    /// Sum of the bytes before `old`.
    pub anchor: u32,
    /// Sum of the `From_` line.
    pub line: u32,
}

/// Where an intent was kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kept {
    Attribute,
    Journal,
}

impl Intent {
    /// What is left of an append; `None` where nothing is under way.
    pub fn read(opened: &Opened, index: &Directory) -> Result<Option<(Self, Kept)>, Error> {
        if let Some(intent) = Self::of_attribute(opened)? {
            return Ok(Some((intent, Kept::Attribute)));
        }
        let Some(journal) = index.file(ENDING, false)? else {
            return Ok(None);
        };
        let mut bytes = [0; RECORD];
        let read = read_full(&journal, &mut bytes, 0)
            .map_err(|error| index.error(ENDING, "can't be read", Some(error)))?;
        let intent = bytes.get(..read).and_then(Self::of);
        Ok(intent.map(|intent| (intent, Kept::Journal)))
    }

    fn of_attribute(opened: &Opened) -> Result<Option<Self>, Error> {
        let mut bytes = [0; RECORD];
        match fgetxattr(&opened.file, ATTRIBUTE, &mut bytes) {
            Ok(read) => Ok(bytes.get(..read).and_then(Self::of)),
            Err(Errno::IO) => Err(Error::io(&opened.spool.path, "be read", Errno::IO.into())),
            // There is none, it is not ours, or we could not have set it either.
            Err(_) => Ok(None),
        }
    }

    /// A torn record was never followed by a change of the mailbox, and is none.
    fn of(bytes: &[u8]) -> Option<Self> {
        let [ino, old, from, end, nuls, sums] = record::read(MAGIC, bytes)?;
        let sound = old <= from && from.saturating_sub(old) <= 2 && from < end;
        let half = |sums: u64| u32::try_from(sums & u64::from(u32::MAX)).unwrap_or(0);
        let (line, anchor) = (half(sums >> 32), half(sums));
        sound.then_some(Self { ino, old, from, end, nuls, anchor, line })
    }

    /// Keeps the intent so that no later change of the mailbox reaches the disk without it. Where
    /// this fails nothing is kept.
    pub fn keep(&self, opened: &Opened, index: &Directory) -> Result<Kept, Error> {
        let sums = u64::from(self.line) << 32 | u64::from(self.anchor);
        let fields = [self.ino, self.old, self.from, self.end, self.nuls, sums];
        let record = record::write::<RECORD>(MAGIC, &fields);
        moment();
        if has_attributes()
            && fsetxattr(&opened.file, ATTRIBUTE, &record, XattrFlags::empty()).is_ok()
        {
            return Ok(Kept::Attribute);
        }
        let journaled = Self::journal(&record, index);
        if journaled.is_err() {
            let _ = Kept::Journal.clear(opened, index);
        }
        journaled.map(|()| Kept::Journal)
    }

    fn journal(record: &[u8], index: &Directory) -> Result<(), Error> {
        let fail = |error| index.error(ENDING, "can't be written", Some(error));
        let Some(journal) = index.file(ENDING, true)? else {
            return Err(fail(std::io::ErrorKind::NotFound.into()));
        };
        let known = journal.metadata().map_err(fail)?.len() >= record.len() as u64;
        moment();
        journal.write_all_at(record, 0).map_err(fail)?;
        if known {
            // The same blocks again: nothing but the data has to reach the disk.
            return journal.sync_data().map_err(fail);
        }
        journal.sync_all().map_err(fail)?;
        index.sync()
    }
}

impl Kept {
    /// Not synced: an intent that comes back after a power cut finds its messages whole.
    pub fn clear(self, opened: &Opened, index: &Directory) -> Result<(), Error> {
        moment();
        match self {
            Self::Attribute => fremovexattr(&opened.file, ATTRIBUTE)
                .map_err(|error| Error::io(&opened.spool.path, "be mended", error.into())),
            Self::Journal => match index.file(ENDING, false)? {
                Some(journal) => journal
                    .write_all_at(&[0; RECORD], 0)
                    .map_err(|error| index.error(ENDING, "can't be cleared", Some(error))),
                None => Ok(()),
            },
        }
    }
}

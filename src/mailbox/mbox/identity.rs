//! How a file is known again.

use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A file as it was when it was looked at, under a lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    pub dev: u64,
    pub ino: u64,
    pub size: u64,
    mtime: (i64, i64),
    ctime: (i64, i64),
    /// The last change was long enough ago that a further one shows in the times.
    settled: bool,
}

/// Clocks of file systems tick this slowly, at worst.
const TICK: Duration = Duration::from_millis(10);

impl Identity {
    pub fn of(file: &File) -> io::Result<Self> {
        Ok(Self::of_metadata(&file.metadata()?))
    }

    pub fn of_metadata(metadata: &Metadata) -> Self {
        let ctime = (metadata.ctime(), metadata.ctime_nsec());
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let changed =
            Duration::new(u64::try_from(ctime.0).unwrap_or(0), u32::try_from(ctime.1).unwrap_or(0));
        Self {
            dev: metadata.dev(),
            ino: metadata.ino(),
            size: metadata.size(),
            mtime: (metadata.mtime(), metadata.mtime_nsec()),
            ctime,
            settled: since.checked_sub(changed).is_some_and(|age| age > TICK),
        }
    }

    /// Whether a file that looks like `now` is certainly unchanged since we were made. (mutt moves
    /// a flag between two messages with size, inode and mtime as they were: only ctime tells.)
    pub fn unchanged(&self, now: &Self) -> bool {
        self.settled
            && (self.dev, self.ino, self.size) == (now.dev, now.ino, now.size)
            && (self.mtime, self.ctime) == (now.mtime, now.ctime)
    }
}

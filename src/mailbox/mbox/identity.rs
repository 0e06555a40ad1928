//! How a file is known again.

use std::fs::{File, FileTimes, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::mailbox::index::Base;

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

    /// Looks at a file that we have changed, or have looked at whole, under its write locks, and
    /// gives it a time that nobody else gives it: the clock of the file system ticks slowly, and a
    /// change within the same tick would not show.
    pub fn stamp(file: &File) -> io::Result<Self> {
        file.set_times(FileTimes::new().set_modified(SystemTime::now()))?;
        Ok(Self { settled: true, ..Self::of(file)? })
    }

    /// As an index keeps it; `verified` where all of the file was looked at, not only what is new.
    /// Not the device: its number may be another one after a restart.
    pub fn base(&self, verified: bool) -> Base {
        let bits = u64::from(self.settled) | u64::from(verified) << 1;
        let [(m, m_ns), (c, c_ns)] = [self.mtime, self.ctime];
        let times = [m, m_ns, c, c_ns].map(i64::cast_unsigned);
        let [m, m_ns, c, c_ns] = times;
        [bits, self.ino, self.size, m, m_ns, c, c_ns, 0]
    }

    /// Whether the file is certainly as it was when an index kept this.
    pub fn is_of(&self, base: &Base) -> bool {
        let [bits, kept @ ..] = base;
        let [_, now @ ..] = self.base(false);
        bits & 1 == 1 && *kept == now
    }

    /// Whether two indexes kept the same file, certainly.
    pub fn is_same(one: &Base, other: &Base) -> bool {
        let ([bits, one @ ..], [_, other @ ..]) = (one, other);
        bits & 1 == 1 && one == other
    }

    /// Whether a file that looks like `now` may be unchanged.
    pub fn looks_like(&self, now: &Self) -> bool {
        let [_, before @ ..] = self.base(false);
        let [_, now @ ..] = now.base(false);
        before == now
    }

    /// Whether it is the same file, and larger than when an index kept this.
    pub fn has_grown_from(&self, base: &Base) -> bool {
        let [_, ino, size, ..] = *base;
        self.ino == ino && self.size > size
    }

    /// How large the file was when an index kept this.
    pub fn size_of(base: &Base) -> u64 {
        let [_, _, size, ..] = *base;
        size
    }

    /// Whether all of the file was looked at.
    pub fn is_verified(base: &Base) -> bool {
        let [bits, ..] = base;
        bits & 2 == 2
    }
}

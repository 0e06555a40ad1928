//! How a file is known again.

use std::fs::{File, FileTimes, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::mailbox::index::Base;
use crate::mailbox::moment::{boot, moment};

/// A file as it was when it was looked at, under a lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    pub dev: u64,
    pub ino: u64,
    pub size: u64,
    mtime: (i64, i64),
    ctime: (i64, i64),
    /// The last change was long enough ago that a further one shows in the times.
    pub(super) settled: bool,
    /// It was read since it was last changed.
    read: bool,
}

/// Clocks of file systems tick this slowly, at worst.
pub(super) const TICK: Duration = Duration::from_millis(11);

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
            settled: since.checked_sub(changed).is_some_and(|age| age >= TICK),
            read: metadata.accessed().ok() >= metadata.modified().ok(),
        }
    }

    /// Whether a file that looks like `now` is certainly unchanged since we were made. (mutt moves
    /// a flag between two messages with size, inode and mtime as they were: only ctime tells.)
    pub fn unchanged(&self, now: &Self) -> bool {
        self.settled
            && (self.dev, self.ino, self.size) == (now.dev, now.ino, now.size)
            && (self.mtime, self.ctime) == (now.mtime, now.ctime)
    }

    /// How a file looks that was like this when its write locks were taken: unless it is certainly as
    /// it was, it gets a time that nobody else gives it. (The clock of the file system ticks slowly,
    /// and a change of somebody else's within the same tick would not show.) To those who look
    /// whether it was read since mail came, it says what it said before.
    pub fn stamp(&self, file: &File) -> io::Result<Self> {
        let found = Self::of(file)?;
        if self.unchanged(&found) {
            return Ok(found);
        }
        let now = SystemTime::now();
        let mut times = FileTimes::new().set_modified(now);
        if self.read {
            times = times.set_accessed(now);
        }
        moment();
        file.set_times(times)?;
        Ok(Self { settled: true, ..Self::of(file)? })
    }

    /// As an index keeps it; `verified` where all of the file was looked at, not only what is new.
    /// Not the device: its number may be another one after a restart.
    ///
    /// The boot is in it: after a power cut a file can have the bytes of a later moment than its
    /// times and its size, or of an earlier one, since the disk gets them in any order.
    pub fn base(&self, verified: bool) -> Base {
        let bits = u64::from(self.settled) | u64::from(verified) << 1;
        let [(m, m_ns), (c, c_ns)] = [self.mtime, self.ctime];
        let times = [m, m_ns, c, c_ns].map(i64::cast_unsigned);
        let [m, m_ns, c, c_ns] = times;
        [bits, self.ino, self.size, m, m_ns, c, c_ns, boot()]
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
        let [_, ino, size, .., booted] = *base;
        self.ino == ino && self.size > size && booted == boot()
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

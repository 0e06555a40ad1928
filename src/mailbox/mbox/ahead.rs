//! What was read of a file beyond what was asked for: who reads one message after the other has the
//! next ones at hand, and takes the lock once for many.
//!
//! It may be given out without a look at the file: what stood there under the lock is of the message
//! that the index had there, and the text of a message does not change.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use super::cursor::CHUNK;
use super::identity::Identity;
use crate::mailbox::index::Base;
use crate::mailbox::store::Extent;

/// A piece of a file.
#[derive(Debug, Default)]
pub(super) struct Ahead {
    /// What the index says of the file that it is of.
    base: Base,
    at: u64,
    bytes: Vec<u8>,
    /// Where the message ends that was read last.
    next: u64,
}

impl Ahead {
    /// These bytes of a message, if they are at hand.
    pub fn get(&mut self, base: &Base, of: &Extent, range: &Range<u64>) -> Option<&[u8]> {
        let from = usize::try_from(range.start.checked_sub(self.at)?).ok()?;
        let to = usize::try_from(range.end.checked_sub(self.at)?).ok()?;
        let bytes = self.bytes.get(from..to).filter(|_| self.base == *base)?;
        self.next = of.end();
        Some(bytes)
    }

    /// Reads these bytes of a message, in a file that is locked and that the index describes.
    pub fn read(
        &mut self,
        file: &File,
        base: &Base,
        of: &Extent,
        range: &Range<u64>,
    ) -> io::Result<&[u8]> {
        let wanted = range.end.saturating_sub(range.start);
        let length = if of.start == self.next {
            Identity::size_of(base).saturating_sub(range.start).min(CHUNK).max(wanted)
        } else {
            wanted
        };
        self.base = Base::default();
        self.bytes.resize(usize::try_from(length).unwrap_or(0), 0);
        file.read_exact_at(&mut self.bytes, range.start)?;
        (self.base, self.at, self.next) = (*base, range.start, of.end());
        let wanted = usize::try_from(wanted).unwrap_or(usize::MAX);
        Ok(self.bytes.get(..wanted).unwrap_or_default())
    }
}

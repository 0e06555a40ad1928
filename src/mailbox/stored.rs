//! A message in its stored form, complete before the mailbox is touched.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// A message as it will stand in an mbox: `From_` line, header, blank line, quoted body, line ends
/// LF; without the blank line that separates it from the next.
///
/// What is large lies in a file without a name.
#[derive(Debug)]
pub struct StoredMessage {
    head: Vec<u8>,
    spool: Option<(File, u64)>,
    tail: Vec<u8>,
}

/// How much of the spooled part is in memory at once.
const CHUNK: u64 = 256 * 1024;

/// Small pieces are written together, up to this size.
const COLLECT: usize = 256 * 1024;

impl StoredMessage {
    /// From the three parts that follow each other: the beginning, a file with its length, the
    /// rest.
    ///
    /// `None` where this can't be a message in an mbox: it must begin with `From ` and end with a
    /// line end.
    pub fn new(head: Vec<u8>, spool: Option<(File, u64)>, tail: Vec<u8>) -> Option<Self> {
        let ended = match (tail.last(), &spool) {
            (Some(last), _) => *last == b'\n',
            (None, Some((file, length))) => {
                let mut last = [0];
                let at = length.checked_sub(1)?;
                file.read_exact_at(&mut last, at).ok()?;
                last == *b"\n"
            }
            (None, None) => head.last() == Some(&b'\n'),
        };
        (head.starts_with(b"From ") && ended).then_some(Self { head, spool, tail })
    }

    /// A message that is whole in memory.
    pub fn from_bytes(bytes: Vec<u8>) -> Option<Self> {
        Self::new(bytes, None, Vec::new())
    }

    /// Its length in bytes; `None` if no file could hold it.
    pub fn length(&self) -> Option<u64> {
        let memory = u64::try_from(self.head.len().checked_add(self.tail.len())?).ok()?;
        let spooled = self.spool.as_ref().map_or(0, |(_, length)| *length);
        memory.checked_add(spooled).filter(|n| i64::try_from(*n).is_ok())
    }

    /// Gives the bytes in their order to `sink`, in large pieces.
    pub fn each(&self, sink: &mut dyn FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
        sink(&self.head)?;
        if let Some((file, length)) = &self.spool {
            let mut buffer = Vec::new();
            let mut at = 0;
            while at < *length {
                let n = CHUNK.min(length.saturating_sub(at));
                buffer.resize(usize::try_from(n).unwrap_or(0), 0);
                file.read_exact_at(&mut buffer, at)?;
                sink(&buffer)?;
                at = at.saturating_add(n);
            }
        }
        sink(&self.tail)
    }
}

/// Messages that are appended together, each behind the blank line that ends the one before it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Batch<'a>(pub &'a [StoredMessage]);

impl Batch<'_> {
    /// The length of all of it, as [`StoredMessage::length`].
    pub fn length(&self) -> Option<u64> {
        let separators = u64::try_from(self.0.len().checked_sub(1)?).ok()?;
        let lengths = self.0.iter().map(StoredMessage::length);
        let all: Option<u64> =
            lengths.into_iter().try_fold(separators, |sum, length| sum.checked_add(length?));
        all.filter(|n| i64::try_from(*n).is_ok())
    }

    /// Gives the bytes in their order to `sink`, collected into large pieces.
    pub fn each(&self, sink: &mut dyn FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
        let mut collected = Vec::new();
        for (number, message) in self.0.iter().enumerate() {
            if number > 0 {
                collected.push(b'\n');
            }
            message.each(&mut |bytes| {
                if collected.len() + bytes.len() > COLLECT {
                    sink(&collected)?;
                    collected.clear();
                }
                if bytes.len() > COLLECT {
                    return sink(bytes);
                }
                collected.extend_from_slice(bytes);
                Ok(())
            })?;
        }
        sink(&collected)
    }
}

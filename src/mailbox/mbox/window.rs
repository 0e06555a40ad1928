//! A window on a file: large reads at any position, never a mapping (neighbours truncate).

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

const CAPACITY: usize = 1024 * 1024;

/// Reads a file through one buffer that is moved along it.
pub struct Window<'a> {
    file: &'a File,
    /// Where the file ends, as of the beginning of the reading.
    end: u64,
    start: u64,
    buffer: Vec<u8>,
    peeked: Vec<u8>,
}

impl<'a> Window<'a> {
    /// On the first `end` bytes of `file`.
    pub fn new(file: &'a File, end: u64) -> Self {
        Self { file, end, start: 0, buffer: Vec::new(), peeked: Vec::new() }
    }

    /// Where the file ends.
    pub fn end(&self) -> u64 {
        self.end
    }

    /// The bytes from `at`: `want` at least (up to 64 KiB), unless the file ends before.
    pub fn view(&mut self, at: u64, want: usize) -> io::Result<&[u8]> {
        let kept = at
            .checked_sub(self.start)
            .and_then(|skip| usize::try_from(skip).ok())
            .filter(|skip| *skip <= self.buffer.len());
        let held = kept.map_or(0, |skip| self.buffer.len().saturating_sub(skip));
        let left = usize::try_from(self.end.saturating_sub(at)).unwrap_or(usize::MAX);
        let offset = match kept {
            Some(skip) if held >= want.min(left) => skip,
            _ => {
                match kept {
                    Some(skip) => drop(self.buffer.drain(..skip)),
                    None => self.buffer.clear(),
                }
                self.start = at;
                self.fill(left)?;
                0
            }
        };
        Ok(self.buffer.get(offset..).unwrap_or_default())
    }

    /// The bytes from `at`, `want` at most and unless the file ends before, without moving the
    /// window away from where it stands.
    pub fn peek(&mut self, at: u64, want: usize) -> io::Result<&[u8]> {
        let left = usize::try_from(self.end.saturating_sub(at)).unwrap_or(usize::MAX);
        let want = want.min(left);
        let inside = at
            .checked_sub(self.start)
            .and_then(|skip| usize::try_from(skip).ok())
            .and_then(|skip| Some(skip..skip.checked_add(want)?))
            .filter(|range| range.end <= self.buffer.len());
        if let Some(range) = inside {
            return Ok(self.buffer.get(range).unwrap_or_default());
        }
        self.peeked.resize(want, 0);
        let read = read_full(self.file, &mut self.peeked, at)?;
        self.peeked.truncate(read);
        Ok(&self.peeked)
    }

    fn fill(&mut self, left: usize) -> io::Result<()> {
        let filled = self.buffer.len();
        let full = CAPACITY.min(left).max(filled);
        self.buffer.resize(full, 0);
        let at = (self.start).saturating_add(u64::try_from(filled).unwrap_or(0));
        let space = self.buffer.get_mut(filled..).unwrap_or_default();
        let read = read_full(self.file, space, at)?;
        self.buffer.truncate(filled.saturating_add(read));
        if self.buffer.len() < full {
            // Somebody cut it off, without a lock of ours.
            self.end = at.saturating_add(u64::try_from(read).unwrap_or(0));
        }
        Ok(())
    }
}

/// Fills `space` from the file, or as much of it as the file has.
pub fn read_full(file: &File, space: &mut [u8], at: u64) -> io::Result<usize> {
    let mut filled = 0;
    while let Some(rest) = space.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        let at = at.saturating_add(u64::try_from(filled).unwrap_or(u64::MAX));
        match file.read_at(rest, at) {
            Ok(0) => break,
            Ok(n) => filled = filled.saturating_add(n),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

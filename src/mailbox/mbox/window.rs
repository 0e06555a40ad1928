//! A window on a file: large reads at any position, never a mapping (neighbours truncate).

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// So much is read at once: it stays in the processor's cache until it has been looked at.
pub const CAPACITY: usize = 256 * 1024;

/// Where the bytes come from.
pub trait Source {
    /// Reads from `at` on, as [`FileExt::read_at`] does. Each call is one look at the file: this is
    /// where a lock is taken, and where is seen whether the file is still the same.
    fn read_at(&mut self, buffer: &mut [u8], at: u64) -> io::Result<usize>;
}

impl Source for &File {
    fn read_at(&mut self, buffer: &mut [u8], at: u64) -> io::Result<usize> {
        FileExt::read_at(*self, buffer, at)
    }
}

impl<F: FnMut(&mut [u8], u64) -> io::Result<usize>> Source for F {
    fn read_at(&mut self, buffer: &mut [u8], at: u64) -> io::Result<usize> {
        self(buffer, at)
    }
}

impl Source for &[u8] {
    fn read_at(&mut self, buffer: &mut [u8], at: u64) -> io::Result<usize> {
        let rest = usize::try_from(at).ok().and_then(|at| self.get(at..)).unwrap_or_default();
        let length = rest.len().min(buffer.len());
        for (space, byte) in buffer.iter_mut().zip(rest) {
            *space = *byte;
        }
        Ok(length)
    }
}

/// Reads a file through one buffer that is moved along it.
pub struct Window<S> {
    source: S,
    /// Where the file ends, as of the beginning of the reading.
    end: u64,
    start: u64,
    buffer: Vec<u8>,
    /// So much of the buffer is of the file.
    filled: usize,
    capacity: usize,
    peeked: Vec<u8>,
}

impl<S: Source> Window<S> {
    /// On the first `end` bytes of a file, of which so many are read at once.
    pub fn new(source: S, end: u64, capacity: usize) -> Self {
        let (buffer, peeked) = (Vec::new(), Vec::new());
        Self { source, end, start: 0, buffer, filled: 0, capacity, peeked }
    }

    /// Where the file ends.
    pub fn end(&self) -> u64 {
        self.end
    }

    /// The bytes from `at`: `want` at least (up to the capacity), unless the file ends before.
    pub fn view(&mut self, at: u64, want: usize) -> io::Result<&[u8]> {
        let left = usize::try_from(self.end.saturating_sub(at)).unwrap_or(usize::MAX);
        let mut offset = self.offset(at);
        let held = offset.map_or(0, |offset| self.filled.saturating_sub(offset));
        if offset.is_none() || held < want.min(left) {
            match offset {
                Some(offset) => self.buffer.copy_within(offset..self.filled, 0),
                None => self.filled = 0,
            }
            self.filled = held;
            self.start = at;
            self.fill(self.capacity.min(left).max(self.filled))?;
            offset = Some(0);
        }
        Ok(self.buffer.get(offset.unwrap_or(0)..self.filled).unwrap_or_default())
    }

    /// The bytes from `at`, `want` at most and unless the file ends before, without moving the
    /// window away from where it stands.
    pub fn peek(&mut self, at: u64, want: usize) -> io::Result<&[u8]> {
        let left = usize::try_from(self.end.saturating_sub(at)).unwrap_or(usize::MAX);
        let want = want.min(left);
        let offset = at.checked_sub(self.start).and_then(|offset| usize::try_from(offset).ok());
        let place = offset.and_then(|offset| Some(offset..offset.checked_add(want)?));
        let near = self.filled.saturating_add(self.capacity);
        if let Some(place) = place.filter(|place| place.end <= near) {
            if place.end > self.filled {
                // What lies between is wanted next, most likely: one more read is enough for both.
                let most = usize::try_from(self.end.saturating_sub(self.start));
                let full = place.end.max(self.filled.saturating_add(self.capacity / 4));
                self.fill(full.min(most.unwrap_or(usize::MAX)))?;
            }
            let place = place.start.min(self.filled)..place.end.min(self.filled);
            return Ok(self.buffer.get(place).unwrap_or_default());
        }
        self.peeked.resize(want, 0);
        let read = fill(&mut self.source, &mut self.peeked, at)?;
        self.peeked.truncate(read);
        Ok(&self.peeked)
    }

    /// Where `at` is in the buffer, if it is there, or at its end.
    fn offset(&self, at: u64) -> Option<usize> {
        let offset = usize::try_from(at.checked_sub(self.start)?).ok()?;
        (offset <= self.filled).then_some(offset)
    }

    /// Reads on until the buffer has so much.
    fn fill(&mut self, full: usize) -> io::Result<()> {
        if self.buffer.len() < full {
            self.buffer.resize(full, 0);
        }
        let at = self.start.saturating_add(count(self.filled));
        let space = self.buffer.get_mut(self.filled..full).unwrap_or_default();
        let read = fill(&mut self.source, space, at)?;
        self.filled = self.filled.saturating_add(read);
        if self.filled < full {
            // Somebody cut it off, without a lock of ours.
            self.end = at.saturating_add(count(read));
        }
        Ok(())
    }
}

fn count(bytes: usize) -> u64 {
    u64::try_from(bytes).unwrap_or(u64::MAX)
}

/// Fills `space` from the file, or as much of it as the file has.
pub fn read_full(mut file: &File, space: &mut [u8], at: u64) -> io::Result<usize> {
    fill(&mut file, space, at)
}

fn fill(source: &mut impl Source, space: &mut [u8], at: u64) -> io::Result<usize> {
    let mut filled = 0;
    while let Some(rest) = space.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match source.read_at(rest, at.saturating_add(count(filled))) {
            Ok(0) => break,
            Ok(n) => filled = filled.saturating_add(n),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

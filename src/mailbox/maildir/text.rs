//! The text of a message's file: its octets counted, and read as a client gets them.

use std::fs::File;
use std::io::{self, Read};
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;

use super::name;
use crate::mailbox::Error;
use crate::mailbox::crlf::{Crlf, Measure};
use crate::mailbox::uids::Uid;

/// So much is read at once.
const CHUNK: usize = 64 * 1024;

/// Opens a message's file; what is no regular file is not waited for.
pub(super) fn open(part: &OwnedFd, name: &[u8]) -> nix::Result<File> {
    let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
    Ok(File::from(openat(part, name, flags, Mode::empty())?))
}

/// What a file tells of its message.
#[derive(Clone, Copy, Debug)]
pub(super) struct Measured {
    /// Octets with CRLF line ends.
    pub size: u64,
    /// Those of the header with its blank line.
    pub header: u32,
    /// When it arrived.
    pub date: i64,
}

/// Counts the octets of a message; none if it is no regular file. Where its name tells the size,
/// only the header is read.
pub(super) fn measure(mut file: &File, name: &[u8]) -> io::Result<Option<Measured>> {
    let found = file.metadata()?;
    if !found.is_file() {
        return Ok(None);
    }
    let length = found.size();
    let may_be = length..=length.saturating_mul(2);
    let told = name::number(name, b",W=").filter(|told| may_be.contains(told));
    let mut measure = Measure::default();
    let mut buffer = vec![0; if told.is_some() { CHUNK / 8 } else { CHUNK }];
    let size = loop {
        let n = match file.read(&mut buffer) {
            Ok(n) => n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        measure.push(buffer.get(..n).unwrap_or_default());
        match told {
            _ if n == 0 => break measure.size(),
            Some(told) if measure.header().is_some() => break told,
            _ => {}
        }
    };
    let header = measure.header().unwrap_or(size);
    let header = u32::try_from(header).unwrap_or(u32::MAX);
    Ok(Some(Measured { size, header, date: found.mtime() }))
}

/// A message that is being read. Where a client gets it in pieces, each byte of the file is read
/// once.
#[derive(Debug)]
pub(super) struct Reading {
    pub uid: Uid,
    /// The Maildir, for errors.
    path: PathBuf,
    file: File,
    /// Bytes of the file that were read.
    stored: u64,
    crlf: Crlf,
    /// What was read last, as a client gets it.
    piece: Vec<u8>,
    /// Where that ends in the message.
    end: u64,
    buffer: Vec<u8>,
}

impl Reading {
    pub fn new(uid: Uid, path: &Path, file: File) -> Self {
        let (crlf, piece, buffer) = (Crlf::default(), Vec::new(), Vec::new());
        Self { uid, path: path.to_owned(), file, stored: 0, crlf, piece, end: 0, buffer }
    }

    /// Gives octets to `sink`. [`Error::Changed`] if there are not so many.
    pub fn read(
        &mut self,
        range: Range<u64>,
        sink: &mut dyn FnMut(&[u8]) -> io::Result<()>,
    ) -> Result<(), Error> {
        if range.start < self.begin() {
            (self.stored, self.end, self.crlf) = (0, 0, Crlf::default());
            self.piece.clear();
        }
        let mut at = range.start;
        while at < range.end {
            if at >= self.end {
                self.next()?;
                continue;
            }
            let offset = |octet: u64| {
                usize::try_from(octet.saturating_sub(self.begin())).unwrap_or(usize::MAX)
            };
            let end = range.end.min(self.end);
            let octets = self.piece.get(offset(at)..offset(end)).unwrap_or_default();
            sink(octets).map_err(Error::Sink)?;
            at = end;
        }
        Ok(())
    }

    /// Where the piece begins in the message.
    fn begin(&self) -> u64 {
        self.end.saturating_sub(self.piece.len() as u64)
    }

    fn next(&mut self) -> Result<(), Error> {
        self.buffer.resize(CHUNK, 0);
        let n = loop {
            match self.file.read_at(&mut self.buffer, self.stored) {
                Ok(0) => return Err(Error::Changed),
                Ok(n) => break n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(Error::io(&self.path, "be read", error)),
            }
        };
        self.piece.clear();
        self.crlf.push(self.buffer.get(..n).unwrap_or_default(), &mut self.piece);
        self.stored = self.stored.saturating_add(n as u64);
        self.end = self.end.saturating_add(self.piece.len() as u64);
        Ok(())
    }
}

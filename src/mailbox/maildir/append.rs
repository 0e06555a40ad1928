//! Messages that are put into a Maildir with marks: written into `tmp/` by their base names, then
//! moved into `cur/`.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::time::UNIX_EPOCH;

use nix::fcntl::renameat;
use nix::unistd::{UnlinkatFlags, fsync, unlinkat};

use super::folder::Folder;
use super::text::Measured;
use super::{deliver, name};
use crate::mailbox::Error;
use crate::mailbox::crlf::Measure;
use crate::mailbox::moment::moment;
use crate::mailbox::store::Arrival;

/// Messages that were written.
#[derive(Debug)]
pub(super) struct Written {
    tmp: OwnedFd,
    cur: OwnedFd,
    files: Vec<NewFile>,
    /// Names in `cur/`.
    placed: Vec<Vec<u8>>,
    /// Nobody else of ours counts what the quota is for.
    _quota: Option<File>,
}

/// One of them.
#[derive(Debug)]
pub(super) struct NewFile {
    /// Its base.
    pub name: String,
    pub measured: Measured,
}

impl Written {
    /// Writes them, durably.
    pub fn new(folder: &Folder, arrivals: &[Arrival]) -> Result<Self, Error> {
        let (place, parts) = (&folder.place, &folder.parts);
        let fail = |error: io::Error| folder.fail("be written", error);
        let quota = if place.quota == 0 { None } else { parts.lock(place)? };
        if place.quota != 0 {
            let before = parts.size().map_err(|error| folder.fail("be counted", error))?;
            let size = arrivals
                .iter()
                .fold(before, |sum, arrival| sum.saturating_add(arrival.message.length()));
            place.has_room(size)?;
        }
        let mut written = Self {
            tmp: parts.tmp.try_clone().map_err(fail)?,
            cur: parts.cur.try_clone().map_err(fail)?,
            files: Vec::new(),
            placed: Vec::new(),
            _quota: quota,
        };
        match arrivals.iter().try_for_each(|arrival| written.write(arrival)) {
            Ok(()) => Ok(written),
            Err(error) => {
                written.undo();
                Err(fail(error))
            }
        }
    }

    fn write(&mut self, arrival: &Arrival) -> io::Result<()> {
        let message = &arrival.message;
        let mut measure = Measure::default();
        measure.push(&message.trace);
        message.text.each(&mut |bytes| {
            measure.push(bytes);
            Ok(())
        })?;
        let date = message.at.duration_since(UNIX_EPOCH).map_or(0, |at| at.as_secs());
        let header = measure.header().unwrap_or(measure.size());
        let measured = Measured {
            size: measure.size(),
            header: u32::try_from(header).unwrap_or(u32::MAX),
            date: i64::try_from(date).unwrap_or(0),
        };
        let name = name::unique(message)?;
        self.files.push(NewFile { name: name.clone(), measured });
        moment();
        deliver::write(&self.tmp, &name, message, Some(message.at))
    }

    /// They, in their order.
    pub fn files(&self) -> &[NewFile] {
        &self.files
    }

    /// Gives them these names in `cur/`, durably.
    pub fn place(&mut self, names: &[Vec<u8>]) -> io::Result<()> {
        for (file, name) in self.files.iter().zip(names) {
            moment();
            renameat(&self.tmp, file.name.as_str(), &self.cur, name.as_slice())?;
            self.placed.push(name.clone());
        }
        Ok(fsync(&self.cur)?)
    }

    /// Removes them again.
    pub fn undo(&self) {
        for file in self.files.iter().skip(self.placed.len()) {
            let _ = unlinkat(&self.tmp, file.name.as_str(), UnlinkatFlags::NoRemoveDir);
        }
        for name in &self.placed {
            let _ = unlinkat(&self.cur, name.as_slice(), UnlinkatFlags::NoRemoveDir);
        }
    }
}

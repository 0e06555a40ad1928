//! The small files of the folders as a whole: the lock of whoever changes something, and what is
//! replaced as a whole.
//!
//! Those that are ours alone stand in the directory `[paths] index`: Dovecot would show them among
//! the folders.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Instant;

use super::Folders;
use super::error::Error;
use crate::mailbox::dotlock::{Dotlock, Tried};
use crate::mailbox::lock::pause;
use crate::mailbox::moment::moment;
use crate::sys::lock::{Kind, try_flock};
use crate::sys::signal;

/// The lock; what it holds is [`super::rename`]'s.
pub(super) const LOCK: &str = ".folders";

/// What folders are for, and the same before it is whole.
const USES: &str = ".special-use";
const NEW_USES: &str = ".special-use.new";

/// So large a small file may be.
const MOST: u64 = 16 * 1024 * 1024;

/// The folders while nobody else of ours changes them.
#[derive(Debug)]
pub(super) struct Lock {
    pub file: File,
}

impl Folders {
    /// Keeps others out, and finishes what a killed process left. The directory of folders is made
    /// where it is missing.
    pub(super) fn lock(&self) -> Result<Lock, Error> {
        self.root.make_root()?;
        let Some(file) = self.small.file(LOCK, true)? else {
            return Err(self.failed(LOCK, "can't be made", io::ErrorKind::NotFound.into()));
        };
        self.patiently(&self.small.path_of(LOCK), || {
            try_flock(&file, Kind::Exclusive).map(|got| got.then_some(()))
        })?;
        let lock = Lock { file };
        let _ = self.recover(&lock);
        self.root.clean()?;
        Ok(lock)
    }

    /// Tries until it is done or the time is over.
    fn patiently<T>(
        &self,
        path: &Path,
        mut action: impl FnMut() -> io::Result<Option<T>>,
    ) -> Result<T, Error> {
        let started = Instant::now();
        let mut tries = 0_u32;
        loop {
            match action() {
                Ok(Some(done)) => return Ok(done),
                Ok(None) => {}
                Err(error) => return Err(Error::io(path.display(), "be locked", &error)),
            }
            if started.elapsed() >= self.inbox.lock_timeout || signal::is_end_asked_for() {
                let text = format!("{} is locked by another program", path.display());
                return Err(Error::InUse(text));
            }
            tries = tries.saturating_add(1);
            std::thread::sleep(pause(tries));
        }
    }

    pub(super) fn failed(&self, ending: &str, why: &str, error: io::Error) -> Error {
        self.small.error(ending, why, Some(error)).into()
    }

    /// What is said of the folders' uses; nothing where it can't be read.
    pub(super) fn read_uses(&self) -> Vec<u8> {
        let file = self.small.file(USES, false).ok().flatten();
        file.and_then(|file| read(&file).ok()).unwrap_or_default()
    }

    /// Puts it into the old one's place.
    pub(super) fn replace_uses(&self, _lock: &Lock, bytes: &[u8]) -> Result<(), Error> {
        let fail = |error| self.failed(NEW_USES, "can't be written", error);
        let Some(file) = self.small.file(NEW_USES, true)? else {
            return Err(fail(io::ErrorKind::NotFound.into()));
        };
        moment();
        file.set_len(0).map_err(fail)?;
        moment();
        file.write_all_at(bytes, 0).and_then(|()| file.sync_all()).map_err(fail)?;
        moment();
        Ok(self.small.rename(NEW_USES, USES)?)
    }

    /// Reads a file beside the folders; a missing one is empty.
    pub(super) fn read_beside(&self, name: &str) -> Result<Vec<u8>, Error> {
        match self.root.file(name)? {
            Some(file) => {
                read(&file).map_err(|error| self.root.fail(Path::new(name), "be read", &error))
            }
            None => Ok(Vec::new()),
        }
    }

    /// Changes a file beside the folders: all of it, durably, or not at all. Dovecot, which writes it,
    /// too, takes the dot lock.
    pub(super) fn change_beside(
        &self,
        _lock: &Lock,
        name: &str,
        change: impl FnOnce(Vec<u8>) -> Option<Vec<u8>>,
    ) -> Result<(), Error> {
        let Some(dir) = self.root.dir(Path::new(""))? else {
            return Ok(());
        };
        let path = self.root.path.join(name);
        let _dotlock = self.patiently(&path, || match Dotlock::try_make(&dir, name.as_ref())? {
            Tried::Made(lock) => Ok(Some(lock)),
            Tried::Held(_) => Ok(None),
        })?;
        let Some(bytes) = change(self.read_beside(name)?) else {
            return Ok(());
        };
        let hidden = self.root.hidden()?;
        let mut file = self.root.make_file(&hidden)?;
        moment();
        let written = file.write_all(&bytes).and_then(|()| file.sync_all());
        written.map_err(|error| self.root.fail(Path::new(name), "be written", &error))?;
        self.root.replace(&hidden, name)
    }
}

/// Reads a small file.
pub(super) fn read(file: &File) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(MOST.saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MOST {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    Ok(bytes)
}

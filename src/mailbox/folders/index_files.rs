//! The small files of mailboxes, when mailboxes come, go and move: they follow, so that UIDs stay.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use nix::fcntl::{AtFlags, OFlag, openat, renameat};
use nix::sys::stat::{Mode, fstat, fstatat};
use nix::unistd::{Uid, UnlinkatFlags, fsync, unlinkat};

use super::error::Error;
use super::root;
use crate::mailbox::directory;
use crate::mailbox::index::{ENDING, NEW, stem};
use crate::mailbox::moment::moment;

/// Digits of the digest in a file's name.
const DIGITS: usize = 16;

/// The directory of the small files, with what is in it.
#[derive(Debug)]
pub(super) struct IndexFiles<'a> {
    path: &'a Path,
    dir: Option<OwnedFd>,
    /// The endings that a mailbox has, by what its files' names begin with.
    endings: HashMap<OsString, Vec<OsString>>,
}

impl<'a> IndexFiles<'a> {
    pub fn read(path: &'a Path, owner: Uid) -> Result<Self, Error> {
        let mut files = Self { path, dir: None, endings: HashMap::new() };
        // Where there is none, or it can't be used, there is nothing to take along.
        let Ok(dir) = directory::open_directory(path) else {
            return Ok(files);
        };
        let found = fstat(&dir).map_err(|error| files.fail(&error.into()))?;
        if found.st_uid != owner.as_raw() || found.st_mode & 0o022 != 0 {
            return Ok(files);
        }
        for name in root::names(&dir).map_err(|error| files.fail(&error))? {
            if let Some((stem, ending)) = parts(&name) {
                files.endings.entry(stem).or_default().push(ending);
            }
        }
        files.dir = Some(dir);
        Ok(files)
    }

    fn fail(&self, error: &io::Error) -> Error {
        Error::io(self.path.display(), "be changed", error)
    }

    /// What this mailbox has.
    fn of(&mut self, mailbox: &Path) -> Option<(&OwnedFd, OsString, Vec<OsString>)> {
        let stem = stem(mailbox);
        let endings = self.endings.remove(&stem)?;
        Some((self.dir.as_ref()?, stem, endings))
    }

    /// Whether there is something of this mailbox.
    pub fn has(&self, mailbox: &Path) -> bool {
        self.endings.contains_key(&stem(mailbox))
    }

    /// Removes what a mailbox had.
    pub fn remove(&mut self, mailbox: &Path) -> Result<(), Error> {
        let Some((dir, stem, endings)) = self.of(mailbox) else {
            return Ok(());
        };
        let mut last = Ok(());
        for ending in endings {
            moment();
            let name = joined(&stem, &ending);
            match unlinkat(dir, name.as_os_str(), UnlinkatFlags::NoRemoveDir) {
                Ok(()) | Err(nix::Error::ENOENT) => {}
                Err(error) => last = Err(error),
            }
        }
        last.map_err(|error| self.fail(&error.into()))
    }

    /// Gives what a mailbox had to its new name. What the new name has already was made since the
    /// mailbox is called so: it stays.
    pub fn rename(&mut self, from: &Path, to: &Path) -> Result<(), Error> {
        let new = stem(to);
        let Some((dir, old, endings)) = self.of(from) else {
            return Ok(());
        };
        let mut last = Ok(());
        for ending in endings {
            let (old, new) = (joined(&old, &ending), joined(&new, &ending));
            let taken = fstatat(dir, new.as_os_str(), AtFlags::AT_SYMLINK_NOFOLLOW).is_ok();
            moment();
            let done = if taken {
                unlinkat(dir, old.as_os_str(), UnlinkatFlags::NoRemoveDir)
            } else {
                renameat(dir, old.as_os_str(), dir, new.as_os_str())
            };
            if let Err(error) = done
                && error != nix::Error::ENOENT
            {
                last = Err(error);
            }
        }
        last.map_err(|error| self.fail(&error.into()))
    }

    /// Gives a copy of a mailbox's index to another one, which has none.
    pub fn copy(&mut self, from: &Path, to: &Path) -> Result<(), Error> {
        let new = stem(to);
        let Some((dir, old, _)) = self.of(from) else {
            return Ok(());
        };
        let copied = copy(dir, &joined(&old, OsStr::new(ENDING)), &new);
        copied.map_err(|error| self.fail(&error))
    }

    /// Makes it all durable.
    pub fn sync(&self) -> Result<(), Error> {
        match &self.dir {
            Some(dir) => fsync(dir).map_err(|error| self.fail(&error.into())),
            None => Ok(()),
        }
    }
}

fn copy(dir: &OwnedFd, old: &OsStr, new: &OsStr) -> io::Result<()> {
    let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
    let mut from = match openat(dir, old, flags | OFlag::O_RDONLY, Mode::empty()) {
        Ok(from) => File::from(from),
        Err(nix::Error::ENOENT) => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    let (hidden, name) = (joined(new, OsStr::new(NEW)), joined(new, OsStr::new(ENDING)));
    moment();
    let write = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_TRUNC;
    let mode = Mode::S_IRUSR | Mode::S_IWUSR;
    let mut to = File::from(openat(dir, hidden.as_os_str(), flags | write, mode)?);
    moment();
    io::copy(&mut from, &mut to)?;
    to.sync_all()?;
    moment();
    Ok(renameat(dir, hidden.as_os_str(), dir, name.as_os_str())?)
}

fn joined(stem: &OsStr, ending: &OsStr) -> OsString {
    let mut name = stem.to_owned();
    name.push(ending);
    name
}

/// `NAME-DIGITS` and `.ending`.
fn parts(name: &OsStr) -> Option<(OsString, OsString)> {
    let bytes = name.as_bytes();
    for (at, _) in bytes.iter().enumerate().rev().filter(|(_, byte)| **byte == b'.') {
        let (stem, ending) = bytes.split_at_checked(at)?;
        let digits = stem.len().checked_sub(DIGITS).and_then(|start| stem.split_at_checked(start));
        if let Some((before, digits)) = digits
            && before.ends_with(b"-")
            && digits.iter().all(u8::is_ascii_hexdigit)
        {
            return Some((OsString::from_vec(stem.into()), OsString::from_vec(ending.into())));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::path::Path;

    use super::{joined, parts, stem};

    #[test]
    fn a_files_name_tells_whose_it_is() {
        for mailbox in ["/m/box", "/m/a.b/c.d-0123456789abcdef.index", "/m/.a.b/", "/m/\u{fc}"] {
            for ending in [".index", ".redo.new"] {
                let name = joined(&stem(Path::new(mailbox)), OsStr::new(ending));
                assert_eq!(parts(&name), Some((stem(Path::new(mailbox)), ending.into())));
            }
        }
        for name in ["uidvalidity", "duplicates", "box.index", "box-0123.index", ".index"] {
            assert_eq!(parts(OsStr::new(name)), None);
        }
    }
}

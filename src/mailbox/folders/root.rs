//! The directory of folders, and what stands below it.
//!
//! Every path here is relative to it, and is walked a step at a time: a symbolic link, another
//! user's directory or one that all may write is as good as nothing there. (The way to the directory
//! of folders itself is the operator's.)

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::dir::Dir;
use nix::fcntl::{AtFlags, OFlag, RenameFlags, openat, renameat, renameat2};
use nix::sys::stat::{Mode, SFlag, fstat, fstatat, mkdirat};
use nix::unistd::{Uid, UnlinkatFlags, fsync, unlinkat};

use super::error::Error;
use crate::mailbox::directory;
use crate::mailbox::maildir::PARTS;
use crate::mailbox::moment::moment;

/// What is under way and has no name yet, or has lost it, is called so, with a number behind it.
const HIDDEN: &str = "..hikyaku.";

/// What a name leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Thing {
    /// Nothing.
    Nothing,
    /// A file that can be an mbox.
    Mbox,
    /// A directory with messages.
    Maildir,
    /// A directory without.
    Directory,
    /// What is no folder: a link, a FIFO, a file with two names, or somebody else's.
    Foreign,
}

#[derive(Debug)]
pub(super) struct Root {
    pub path: PathBuf,
    owner: Uid,
    /// What may stand below it and is no folder: the inbox, the directory of indexes.
    reserved: [PathBuf; 2],
}

impl Root {
    pub fn new(path: &Path, owner: Uid, reserved: [PathBuf; 2]) -> Self {
        Self { path: path.to_owned(), owner, reserved }
    }

    /// The words for what failed.
    pub fn fail(&self, relative: &Path, doing: &str, error: &io::Error) -> Error {
        Error::io(self.path.join(relative).display(), doing, error)
    }

    /// Opens the directory itself; `None` where it is missing.
    fn open(&self) -> Result<Option<OwnedFd>, Error> {
        let fail = |error| self.fail(Path::new(""), "be opened", &error);
        let Some(dir) = directory::open_if_there(&self.path).map_err(fail)? else {
            return Ok(None);
        };
        if self.is_safe(&dir, true) {
            return Ok(Some(dir));
        }
        let path = self.path.display();
        let text = format!("{path} is not its user's, or all may write it");
        Err(Error::NoPermission(text))
    }

    fn is_safe(&self, dir: &OwnedFd, or_root: bool) -> bool {
        fstat(dir).is_ok_and(|found| {
            let owner = found.st_uid == self.owner.as_raw() || (or_root && found.st_uid == 0);
            owner && directory::is_safe_directory(found.st_mode)
        })
    }

    /// Opens a directory; `None` where there is none.
    pub fn dir(&self, relative: &Path) -> Result<Option<OwnedFd>, Error> {
        let Some(mut dir) = self.open()? else {
            return Ok(None);
        };
        for step in relative {
            match self.step(&dir, step) {
                Ok(Some(next)) => dir = next,
                Ok(None) => return Ok(None),
                Err(error) => return Err(self.fail(relative, "be opened", &error.into())),
            }
        }
        Ok(Some(dir))
    }

    /// The same where it must be there.
    fn there(&self, relative: &Path) -> Result<OwnedFd, Error> {
        let gone = || self.fail(relative, "be opened", &io::ErrorKind::NotFound.into());
        self.dir(relative)?.ok_or_else(gone)
    }

    fn step(&self, dir: &OwnedFd, name: &OsStr) -> nix::Result<Option<OwnedFd>> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        // No path of ours has such steps; one that stood in a file would not be ours.
        if name == "." || name == ".." || name == "/" {
            return Ok(None);
        }
        match openat(dir, name, flags, Mode::empty()) {
            Ok(next) => Ok(self.is_safe(&next, false).then_some(next)),
            Err(
                nix::Error::ENOENT
                | nix::Error::ENOTDIR
                | nix::Error::ELOOP
                | nix::Error::ENAMETOOLONG,
            ) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// What a path leads to.
    pub fn look(&self, relative: &Path) -> Result<Thing, Error> {
        let (parent, name) = parts(relative);
        match self.dir(parent)? {
            Some(dir) => Ok(self.look_in(&dir, parent, name)),
            None => Ok(Thing::Nothing),
        }
    }

    /// What a name in the open directory `parent` leads to.
    pub fn look_in(&self, dir: &OwnedFd, parent: &Path, name: &OsStr) -> Thing {
        let is_here = |path: &PathBuf| {
            path.file_name() == Some(name) && *path == self.path.join(parent).join(name)
        };
        if self.reserved.iter().any(is_here) {
            return Thing::Foreign;
        }
        self.look_at(dir, name)
    }

    fn look_at(&self, dir: &OwnedFd, name: &OsStr) -> Thing {
        let found = match fstatat(dir, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
            Ok(found) => found,
            Err(nix::Error::ENOENT | nix::Error::ENAMETOOLONG) => return Thing::Nothing,
            Err(_) => return Thing::Foreign,
        };
        if found.st_uid != self.owner.as_raw() {
            return Thing::Foreign;
        }
        match SFlag::from_bits_truncate(found.st_mode) & SFlag::S_IFMT {
            SFlag::S_IFREG if found.st_nlink == 1 => Thing::Mbox,
            SFlag::S_IFDIR => match self.step(dir, name) {
                Ok(Some(inside)) if self.is_maildir(&inside) => Thing::Maildir,
                Ok(Some(_)) => Thing::Directory,
                _ => Thing::Foreign,
            },
            _ => Thing::Foreign,
        }
    }

    fn is_maildir(&self, dir: &OwnedFd) -> bool {
        PARTS.iter().all(|part| matches!(self.step(dir, OsStr::new(part)), Ok(Some(_))))
    }

    /// The names in a directory; `None` where there is none.
    pub fn names(&self, relative: &Path) -> Result<Option<(OwnedFd, Vec<OsString>)>, Error> {
        let Some(dir) = self.dir(relative)? else {
            return Ok(None);
        };
        let names = names(&dir).map_err(|error| self.fail(relative, "be read", &error))?;
        Ok(Some((dir, names)))
    }

    /// Makes the directory itself, where it is missing.
    pub fn make_root(&self) -> Result<(), Error> {
        if self.open()?.is_some() {
            return Ok(());
        }
        moment();
        directory::make(&self.path).map_err(|error| self.fail(Path::new(""), "be made", &error))
    }

    /// Makes a directory, durably.
    pub fn make_dir(&self, relative: &Path) -> Result<(), Error> {
        let (parent, name) = parts(relative);
        let dir = self.there(parent)?;
        moment();
        match mkdirat(&dir, name, Mode::S_IRWXU) {
            Ok(()) | Err(nix::Error::EEXIST) => {}
            Err(error) => return Err(self.fail(relative, "be made", &error.into())),
        }
        self.sync(parent, &dir)
    }

    /// Makes an empty file, durably, in a place where nothing is.
    pub fn make_file(&self, relative: &Path) -> Result<File, Error> {
        let (parent, name) = parts(relative);
        let dir = self.there(parent)?;
        let flags = OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_EXCL;
        let flags = flags | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        moment();
        let file = openat(&dir, name, flags, Mode::S_IRUSR | Mode::S_IWUSR)
            .map_err(|error| self.fail(relative, "be made", &error.into()))?;
        self.sync(parent, &dir)?;
        Ok(File::from(file))
    }

    /// Makes an empty Maildir, durably and at once, in a place where nothing is.
    pub fn make_maildir(&self, relative: &Path, subfolder: bool) -> Result<(), Error> {
        let hidden = self.hidden()?;
        self.make_dir(&hidden)?;
        for part in PARTS {
            self.make_dir(&hidden.join(part))?;
        }
        if subfolder {
            self.make_file(&hidden.join("maildirfolder"))?;
        }
        self.rename(&hidden, relative)
    }

    /// Opens a file in the directory itself, for reading; `None` where there is none.
    pub fn file(&self, name: &str) -> Result<Option<File>, Error> {
        let Some(dir) = self.open()? else {
            return Ok(None);
        };
        let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
        match openat(&dir, name, flags, Mode::empty()) {
            Ok(file) if self.look_at(&dir, OsStr::new(name)) == Thing::Mbox => {
                Ok(Some(File::from(file)))
            }
            Ok(_) => {
                let path = self.path.join(name);
                let text = format!("{} is no plain file of its user's", path.display());
                Err(Error::NoPermission(text))
            }
            Err(nix::Error::ENOENT) => Ok(None),
            Err(error) => Err(self.fail(Path::new(name), "be opened", &error.into())),
        }
    }

    /// Renames, durably; what has the new name stays, and that is an error.
    pub fn rename(&self, from: &Path, to: &Path) -> Result<(), Error> {
        let (old_parent, old) = parts(from);
        let (new_parent, new) = parts(to);
        let (old_dir, new_dir) = (self.there(old_parent)?, self.there(new_parent)?);
        moment();
        let renamed = match renameat2(&old_dir, old, &new_dir, new, RenameFlags::RENAME_NOREPLACE) {
            // File systems that can't promise that (NFS) are asked first.
            Err(nix::Error::EINVAL) => match self.look_at(&new_dir, new) {
                Thing::Nothing => renameat(&old_dir, old, &new_dir, new),
                _ => Err(nix::Error::EEXIST),
            },
            done => done,
        };
        renamed.map_err(|error| self.fail(from, "be renamed", &error.into()))?;
        // The new name first: at no moment is there none.
        self.sync(new_parent, &new_dir)?;
        self.sync(old_parent, &old_dir)
    }

    /// Puts a file in another one's place, durably, or where nothing is.
    pub fn replace(&self, from: &Path, name: &str) -> Result<(), Error> {
        let dir = self.there(Path::new(""))?;
        moment();
        renameat(&dir, from, &dir, name)
            .map_err(|error| self.fail(from, "be renamed", &error.into()))?;
        self.sync(Path::new(""), &dir)
    }

    /// Removes a file, durably.
    pub fn remove_file(&self, relative: &Path) -> Result<(), Error> {
        let (parent, name) = parts(relative);
        let dir = self.there(parent)?;
        moment();
        unlinkat(&dir, name, UnlinkatFlags::NoRemoveDir)
            .map_err(|error| self.fail(relative, "be removed", &error.into()))?;
        self.sync(parent, &dir)
    }

    /// Removes a directory, durably; false where something is in it.
    pub fn remove_dir(&self, relative: &Path) -> Result<bool, Error> {
        let (parent, name) = parts(relative);
        let dir = self.there(parent)?;
        moment();
        match unlinkat(&dir, name, UnlinkatFlags::RemoveDir) {
            Ok(()) => self.sync(parent, &dir).map(|()| true),
            Err(nix::Error::ENOTEMPTY | nix::Error::EEXIST) => Ok(false),
            Err(error) => Err(self.fail(relative, "be removed", &error.into())),
        }
    }

    /// Removes a Maildir with all that is in it; its name goes at once.
    pub fn remove_maildir(&self, relative: &Path) -> Result<(), Error> {
        let hidden = self.hidden()?;
        self.rename(relative, &hidden)?;
        // What can't be removed now is tried again by whoever changes a folder next.
        moment();
        let _ = std::fs::remove_dir_all(self.path.join(hidden));
        Ok(())
    }

    /// A name that nothing has, and that is no folder's.
    pub fn hidden(&self) -> Result<PathBuf, Error> {
        let mut random = [0; 8];
        getrandom::fill(&mut random)
            .map_err(|error| self.fail(Path::new(""), "be changed", &io::Error::other(error)))?;
        Ok(format!("{HIDDEN}{:016x}", u64::from_ne_bytes(random)).into())
    }

    /// Removes what killed processes left under such names. The folders are locked.
    pub fn clean(&self) -> Result<(), Error> {
        let Some((dir, names)) = self.names(Path::new(""))? else {
            return Ok(());
        };
        for name in names.iter().filter(|name| name.as_bytes().starts_with(HIDDEN.as_bytes())) {
            moment();
            let _ = match self.look_at(&dir, name) {
                Thing::Directory | Thing::Maildir => {
                    std::fs::remove_dir_all(self.path.join(name)).is_ok()
                }
                _ => unlinkat(&dir, name.as_os_str(), UnlinkatFlags::NoRemoveDir).is_ok(),
            };
        }
        Ok(())
    }

    fn sync(&self, relative: &Path, dir: &OwnedFd) -> Result<(), Error> {
        match fsync(dir) {
            // One that may be written and not read can't be synced.
            Ok(()) | Err(nix::Error::EBADF) => Ok(()),
            Err(error) => Err(self.fail(relative, "be made durable", &error.into())),
        }
    }
}

/// The names in an open directory, without `.` and `..`.
pub(super) fn names(dir: &OwnedFd) -> io::Result<Vec<OsString>> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let mut entries = Dir::openat(dir, ".", flags, Mode::empty())?;
    let mut names = Vec::new();
    for entry in entries.iter() {
        let name = OsStr::from_bytes(entry?.file_name().to_bytes()).to_owned();
        if name != "." && name != ".." {
            names.push(name);
        }
    }
    Ok(names)
}

/// The directory of a path, and the name in it.
fn parts(relative: &Path) -> (&Path, &OsStr) {
    let parent = relative.parent().unwrap_or(Path::new(""));
    (parent, relative.file_name().unwrap_or_default())
}

//! The directories of a Maildir, held open: names in them are the user's, whatever is renamed above.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Instant;

use nix::dir::Dir;
use nix::fcntl::{AtFlags, OFlag, openat};
use nix::sys::stat::{Mode, SFlag, fstat, fstatat};
use nix::unistd::fsync;

use super::name;
use crate::mailbox::lock::pause;
use crate::mailbox::{Error, Place, directory};
use crate::sys::lock::{Kind, try_flock};
use crate::sys::signal;

/// The directories that make a directory a Maildir.
pub(in crate::mailbox) const PARTS: [&str; 3] = ["tmp", "new", "cur"];

/// Whether there is one at this path.
pub fn is_at(path: &Path) -> bool {
    PARTS.iter().all(|part| path.join(part).is_dir())
}

/// A Maildir's directories.
#[derive(Debug)]
pub(super) struct Parts {
    pub root: OwnedFd,
    pub tmp: OwnedFd,
    pub new: OwnedFd,
    pub cur: OwnedFd,
}

impl Parts {
    /// Opens those of the Maildir at this place; what is missing is made.
    pub fn open(place: &Place) -> Result<Self, Error> {
        let path = &place.path;
        let fail = |doing, error: io::Error| Error::io(path, doing, error);
        let root = match directory::open_directory(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                directory::make(path).map_err(|error| fail("be made", error))?;
                directory::open_directory(path)
            }
            opened => opened,
        };
        let root = root.map_err(|error| fail("be opened", error))?;
        check(place, path, &root)?;
        if is_subfolder(path) {
            let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW;
            openat(&root, "maildirfolder", flags, Mode::S_IRUSR | Mode::S_IWUSR)
                .map_err(|error| fail("be made", error.into()))?;
        }
        let mut made = false;
        let mut part = |name: &'static str| -> Result<OwnedFd, Error> {
            let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
            let open = || openat(&root, name, flags, Mode::empty());
            let opened = match open() {
                Err(nix::Error::ENOENT) => {
                    made = true;
                    match nix::sys::stat::mkdirat(&root, name, Mode::S_IRWXU) {
                        Ok(()) | Err(nix::Error::EEXIST) => open(),
                        Err(error) => Err(error),
                    }
                }
                opened => opened,
            };
            let path = path.join(name);
            let opened = opened.map_err(|error| Error::io(&path, "be opened", error.into()))?;
            check(place, &path, &opened)?;
            Ok(opened)
        };
        let (tmp, new, cur) = (part("tmp")?, part("new")?, part("cur")?);
        if made {
            fsync(&root).map_err(|error| fail("be made durable", error.into()))?;
        }
        Ok(Self { root, tmp, new, cur })
    }

    /// Keeps out others of ours who count what a quota is for. Where a directory can't be locked
    /// (NFS wants a file that is open for writing), the quota is as exact as that.
    pub fn lock(&self, place: &Place) -> Result<Option<File>, Error> {
        let directory =
            self.new.try_clone().map_err(|error| Error::io(&place.path, "be locked", error))?;
        let directory = File::from(directory);
        let started = Instant::now();
        let mut tries = 0_u32;
        loop {
            match try_flock(&directory, Kind::Exclusive) {
                Ok(true) => return Ok(Some(directory)),
                Ok(false) => {}
                Err(_) => return Ok(None),
            }
            let waited = started.elapsed();
            if waited >= place.lock_timeout || signal::is_end_asked_for() {
                let path = place.path.clone();
                return Err(Error::Locked { path, held: "flock lock".into(), waited });
            }
            tries = tries.saturating_add(1);
            std::thread::sleep(pause(tries));
        }
    }

    /// The size of all messages: what their names tell, or else the files themselves.
    pub fn size(&self) -> io::Result<u64> {
        let mut sum = 0_u64;
        for directory in [&self.new, &self.cur] {
            let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
            let mut entries = Dir::openat(directory, ".", flags, Mode::empty())?;
            for entry in entries.iter() {
                let entry = entry?;
                let file = entry.file_name();
                if file.to_bytes().starts_with(b".") {
                    continue;
                }
                let size = name::number(file.to_bytes(), b",S=").or_else(|| {
                    let found = fstatat(directory, file, AtFlags::AT_SYMLINK_NOFOLLOW).ok()?;
                    let regular = found.st_mode & SFlag::S_IFMT.bits() == SFlag::S_IFREG.bits();
                    regular.then(|| u64::try_from(found.st_size).unwrap_or(0))
                });
                sum = sum.saturating_add(size.unwrap_or(0));
            }
        }
        Ok(sum)
    }
}

/// A directory that somebody else has put there is no mailbox of the user's.
fn check(place: &Place, path: &Path, directory: &OwnedFd) -> Result<(), Error> {
    let found = fstat(directory).map_err(|error| Error::io(path, "be looked at", error.into()))?;
    let refused = |why: String| Err(Error::Refused { path: path.to_owned(), why });
    if found.st_uid != place.owner.as_raw() {
        return refused(format!(
            "belongs to uid {}, not to its user (uid {})",
            found.st_uid, place.owner
        ));
    }
    if found.st_mode & 0o002 != 0 {
        return refused("is writable for all".into());
    }
    Ok(())
}

/// Whether the path names a Maildir++ subfolder.
fn is_subfolder(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."))
}

//! Dot locks: `FILE.lock` beside a mailbox, the lock that all mail programs know.
//!
//! The lock file is made without a name, or with a unique one, and linked to its name, which
//! fails where somebody else's stands (also over NFS). It holds the pid, and is touched while it
//! is held long. One that was not touched for five minutes is stale, unless the process of its pid
//! lives. A pid that can't be read, is 0 (procmail's) or another host's leaves the age to decide.

use std::ffi::{OsStr, OsString};
use std::fs::{File, FileTimes};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use nix::fcntl::{AtFlags, OFlag, open, openat};
use nix::sys::signal::kill;
use nix::sys::stat::{Mode, SFlag, fstatat};
use nix::unistd::{Pid, UnlinkatFlags, gethostname, linkat, unlinkat};

use crate::sys::fd;

/// A lock that nobody touched for so long is stale.
const STALE: Duration = Duration::from_mins(5);

/// A held lock is touched when its last touch is so long ago.
pub const TOUCH: Duration = Duration::from_mins(1);

/// Opens a directory in which a mailbox stands. Symbolic links on the way are the operator's
/// (/var/spool/mail leads to /var/mail on many hosts).
pub fn open_directory(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    match open(path, flags | OFlag::O_RDONLY, Mode::empty()) {
        // Not readable, but names in it can be used.
        Err(nix::Error::EACCES) => Ok(open(path, flags | OFlag::O_PATH, Mode::empty())?),
        opened => Ok(opened?),
    }
}

/// Whether a directory of this mode may hold mailboxes: one that all may write needs the sticky
/// bit, or anybody could put their own file in a mailbox's place.
pub fn is_safe_directory(mode: u32) -> bool {
    mode & 0o002 == 0 || mode & 0o1000 != 0
}

/// What became of one try.
#[derive(Debug)]
pub enum Tried {
    /// The lock is ours.
    Made(Dotlock),
    /// Somebody else has it; who, as far as is known.
    Held(String),
}

/// A dot lock that is held; dropping it gives it back.
#[derive(Debug)]
pub struct Dotlock {
    dir: OwnedFd,
    name: OsString,
    file: File,
    touched: Instant,
}

impl Dotlock {
    /// Tries once, without waiting, to lock the file `mailbox` of directory `dir`.
    pub fn try_make(dir: &OwnedFd, mailbox: &OsStr) -> io::Result<Tried> {
        let mut name = mailbox.to_owned();
        name.push(".lock");
        let mut made = make(dir, &name)?;
        if made.is_none() {
            // None: given back between the two looks.
            if let Some(other) = Other::look(dir, &name)?
                && !(other.is_stale() && other.remove(dir, &name)?)
            {
                return Ok(Tried::Held(other.who()));
            }
            made = make(dir, &name)?;
        }
        let Some(file) = made else {
            return Ok(Tried::Held("dot lock".into()));
        };
        Ok(Tried::Made(Self {
            dir: dir.try_clone()?,
            name,
            file,
            touched: Instant::now(),
        }))
    }

    /// To be called now and then while the lock is held: keeps it fresh. False when the lock has
    /// been taken away from us.
    pub fn touch(&mut self) -> bool {
        if self.touched.elapsed() < TOUCH {
            return true;
        }
        self.touched = Instant::now();
        let now = FileTimes::new().set_modified(SystemTime::now());
        self.file.set_times(now).is_ok() && self.is_ours()
    }

    fn is_ours(&self) -> bool {
        let here = fstatat(
            &self.dir,
            self.name.as_os_str(),
            AtFlags::AT_SYMLINK_NOFOLLOW,
        );
        match (here, self.file.metadata()) {
            (Ok(here), Ok(ours)) => (here.st_dev, here.st_ino) == (ours.dev(), ours.ino()),
            _ => false,
        }
    }
}

impl Drop for Dotlock {
    fn drop(&mut self) {
        if self.is_ours() {
            let name = self.name.as_os_str();
            let _ = unlinkat(&self.dir, name, UnlinkatFlags::NoRemoveDir);
        }
    }
}

/// Makes the lock file; `None` where the name is taken.
fn make(dir: &OwnedFd, name: &OsStr) -> io::Result<Option<File>> {
    let linked = match (name.to_str(), fd::unnamed_file(dir, 0o644)) {
        (Some(name), Ok(mut file)) => {
            write_pid(&mut file)?;
            fd::link(&file, dir, name, fd::own_descriptors().ok().as_ref()).map(|()| file)
        }
        (Some(_), Err(error)) if error.kind() == io::ErrorKind::PermissionDenied => {
            return Err(error);
        }
        // File systems without unnamed files, such as NFS.
        _ => make_named(dir, name),
    };
    match linked {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(None),
        Err(error) => Err(error),
    }
}

fn make_named(dir: &OwnedFd, name: &OsStr) -> io::Result<File> {
    let mut random = [0; 8];
    getrandom::fill(&mut random).map_err(io::Error::other)?;
    let pid = std::process::id();
    let unique = format!(".lk{pid}.{:016x}", u64::from_ne_bytes(random));
    let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW;
    let mode = Mode::from_bits_truncate(0o644);
    let flags = flags | OFlag::O_CLOEXEC;
    let mut file = File::from(openat(dir, unique.as_str(), flags, mode)?);
    let linked = write_pid(&mut file).and_then(|()| {
        let linked = linkat(dir, unique.as_str(), dir, name, AtFlags::empty());
        // Over NFS an answer may get lost: the number of names tells.
        if file.metadata()?.nlink() == 2 {
            return Ok(());
        }
        Ok(linked?)
    });
    let _ = unlinkat(dir, unique.as_str(), UnlinkatFlags::NoRemoveDir);
    linked.map(|()| file)
}

fn write_pid(file: &mut File) -> io::Result<()> {
    file.write_all(format!("{}\n", std::process::id()).as_bytes())
}

/// A lock file that stands in our way.
struct Other {
    identity: (u64, u64, i64),
    regular: bool,
    age: Duration,
    pid: Option<Pid>,
}

impl Other {
    fn look(dir: &OwnedFd, name: &OsStr) -> io::Result<Option<Self>> {
        let found = match fstatat(dir, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
            Ok(found) => found,
            Err(nix::Error::ENOENT) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let seconds = u64::try_from(found.st_mtime).unwrap_or(0);
        let changed = UNIX_EPOCH
            .checked_add(Duration::from_secs(seconds))
            .unwrap_or_else(SystemTime::now);
        let regular = SFlag::from_bits_truncate(found.st_mode & SFlag::S_IFMT.bits());
        let regular = regular == SFlag::S_IFREG;
        Ok(Some(Self {
            identity: (found.st_dev, found.st_ino, found.st_mtime),
            regular,
            age: changed.elapsed().unwrap_or_default(),
            pid: if regular { read_pid(dir, name) } else { None },
        }))
    }

    fn is_stale(&self) -> bool {
        self.regular && self.age > STALE && !self.pid.is_some_and(lives)
    }

    fn who(&self) -> String {
        match self.pid {
            Some(pid) => format!("dot lock of pid {pid}"),
            None => "dot lock".into(),
        }
    }

    /// Removes it, unless it has become another one meanwhile; false where we may not.
    fn remove(&self, dir: &OwnedFd, name: &OsStr) -> io::Result<bool> {
        if Self::look(dir, name)?.is_none_or(|now| now.identity != self.identity) {
            return Ok(true);
        }
        match unlinkat(dir, name, UnlinkatFlags::NoRemoveDir) {
            Ok(()) | Err(nix::Error::ENOENT) => Ok(true),
            Err(nix::Error::EPERM | nix::Error::EACCES) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}

/// The pid in a lock file, if it is one of this host: `123`, or Dovecot's `123:host`.
fn read_pid(dir: impl AsFd, name: &OsStr) -> Option<Pid> {
    let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
    let file = File::from(openat(dir, name, flags, Mode::empty()).ok()?);
    let mut text = Vec::new();
    file.take(300).read_to_end(&mut text).ok()?;
    let text = std::str::from_utf8(&text).ok()?.trim();
    let (pid, host) = text.split_once(':').unwrap_or((text, ""));
    let ours = || gethostname().is_ok_and(|own| own == host);
    if !host.is_empty() && !ours() {
        return None;
    }
    let pid: i32 = pid.trim().parse().ok()?;
    (pid > 0).then(|| Pid::from_raw(pid))
}

fn lives(pid: Pid) -> bool {
    kill(pid, None) != Err(nix::Error::ESRCH)
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::fs::{self, File, FileTimes};
    use std::path::Path;
    use std::time::{Duration, SystemTime};

    use super::{Dotlock, Tried, make_named, open_directory};

    fn try_lock(dir: &Path) -> Tried {
        Dotlock::try_make(&open_directory(dir).unwrap(), OsStr::new("box")).unwrap()
    }

    fn put(dir: &Path, text: &str, age: u64) {
        let file = File::create(dir.join("box.lock")).unwrap();
        fs::write(dir.join("box.lock"), text).unwrap();
        let then = SystemTime::now() - Duration::from_secs(age);
        file.set_times(FileTimes::new().set_modified(then)).unwrap();
    }

    #[test]
    fn a_lock_is_held_until_it_is_dropped() {
        let dir = tempfile::tempdir().unwrap();
        let Tried::Made(lock) = try_lock(dir.path()) else {
            panic!("not made")
        };
        let text = fs::read_to_string(dir.path().join("box.lock")).unwrap();
        assert_eq!(text, format!("{}\n", std::process::id()));
        assert!(matches!(try_lock(dir.path()), Tried::Held(_)));
        drop(lock);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn without_unnamed_files_a_unique_name_is_linked_and_goes() {
        let dir = tempfile::tempdir().unwrap();
        let open = open_directory(dir.path()).unwrap();
        let name = OsStr::new("box.lock");
        make_named(&open, name).unwrap();
        assert!(make_named(&open, name).is_err());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_lock_that_another_has_taken_over_is_not_removed() {
        let dir = tempfile::tempdir().unwrap();
        let lock = try_lock(dir.path());
        fs::remove_file(dir.path().join("box.lock")).unwrap();
        put(dir.path(), "1", 0);
        drop(lock);
        assert!(dir.path().join("box.lock").exists());
    }

    #[test]
    fn a_symbolic_link_is_never_followed_and_never_stale() {
        let dir = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("target", dir.path().join("box.lock")).unwrap();
        assert!(matches!(try_lock(dir.path()), Tried::Held(_)));
        assert!(!dir.path().join("target").exists());
    }

    #[test]
    fn an_old_lock_is_stale_unless_its_process_lives() {
        let dir = tempfile::tempdir().unwrap();
        for text in ["", "0", "-1", "999999999", "1:another.host"] {
            put(dir.path(), text, 301);
            assert!(matches!(try_lock(dir.path()), Tried::Made(_)), "{text}");
        }
        let own = std::process::id();
        for text in [format!("{own}"), format!("{own}\n"), format!("{own}:")] {
            put(dir.path(), &text, 301);
            assert!(matches!(try_lock(dir.path()), Tried::Held(_)), "{text}");
        }
    }

    #[test]
    fn a_young_lock_is_respected_whatever_stands_in_it() {
        let dir = tempfile::tempdir().unwrap();
        for text in ["", "0", "-1", "999999999", "nonsense"] {
            put(dir.path(), text, 10);
            assert!(matches!(try_lock(dir.path()), Tried::Held(_)), "{text}");
        }
    }
}

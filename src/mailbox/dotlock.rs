//! Dot locks: `FILE.lock` beside a mailbox, the lock that all mail programs know.
//!
//! The lock file is made without a name, or with a unique one, and linked to its name, which
//! fails where somebody else's stands (also over NFS). It holds the pid, and is touched while it
//! is held long. One that was not touched for five minutes is stale, unless the process of its pid
//! lives. A pid that can't be read, is 0 (procmail's) or another host's leaves the age to decide.
//!
//! Our own locks need not get old: their holder keeps a flock on the lock file, which ends with
//! it. They are known by their pid's ten digits, which other programs read as well.

use std::ffi::{OsStr, OsString};
use std::fs::{File, FileTimes};
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use nix::fcntl::{AtFlags, OFlag, openat};
use nix::sys::signal::kill;
use nix::sys::stat::{Mode, SFlag, fstatat};
use nix::unistd::{Pid, UnlinkatFlags, gethostname, linkat, unlinkat};

use crate::sys::fd;
use crate::sys::lock::{self, Kind};

/// A lock that nobody touched for so long is stale.
const STALE: Duration = Duration::from_mins(5);

/// A held lock is touched when its last touch is so long ago.
pub const TOUCH: Duration = Duration::from_mins(1);

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
        // First of all: where it fails there must be no lock that nobody gives back.
        let held = dir.try_clone()?;
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
        Ok(Tried::Made(Self { dir: held, name, file, touched: Instant::now() }))
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
        let here = fstatat(&self.dir, self.name.as_os_str(), AtFlags::AT_SYMLINK_NOFOLLOW);
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
            fd::link(&file, dir, name, None).map(|()| file)
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

/// Before the file has a name, so that nobody ever sees it without them.
fn write_pid(file: &mut File) -> io::Result<()> {
    let pid = std::process::id();
    // A file system without flock gets a lock that has to grow old, like anybody's.
    let text = match lock::try_flock(file, Kind::Exclusive) {
        Ok(true) => format!("{pid:010}\n"),
        _ => format!("{pid}\n"),
    };
    match file.write_all(text.as_bytes()) {
        // Mail can be read on a disk that is full. Without a pid the lock is as good as procmail's.
        Err(error) if error.kind() == io::ErrorKind::StorageFull => file.set_len(0),
        written => written,
    }
}

/// A lock file that stands in our way.
struct Other {
    /// Held open, so that its inode can't be another file's meanwhile; where we may not, none.
    file: Option<File>,
    seen: Seen,
    age: Duration,
    text: Vec<u8>,
}

impl Other {
    fn look(dir: &OwnedFd, name: &OsStr) -> io::Result<Option<Self>> {
        let Some(seen) = Seen::at(dir, name)? else {
            return Ok(None);
        };
        let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
        let file = match openat(dir, name, flags, Mode::empty()) {
            Ok(fd) => Some(File::from(fd)),
            Err(nix::Error::ENOENT) => return Ok(None),
            Err(_) => None,
        };
        // Between the two calls it may have become another one: then this is no news of it.
        let file = file.filter(|file| {
            let found = file.metadata();
            found.is_ok_and(|found| found.is_file() && (found.dev(), found.ino()) == seen.identity)
        });
        let mut text = Vec::new();
        if let Some(file) = &file {
            file.take(300).read_to_end(&mut text)?;
        }
        Ok(Some(Self { file, age: seen.changed.elapsed().unwrap_or_default(), seen, text }))
    }

    /// Whether nobody holds it any more. (True leaves us with its flock, so that of several who
    /// look, one removes it.)
    fn is_stale(&self) -> bool {
        let alive = self.pid().map(lives);
        let old = self.age > STALE;
        let ended = self.is_of_ours() && (old || alive == Some(false));
        self.seen.regular
            && (ended || (old && alive != Some(true)))
            && self
                .file
                .as_ref()
                .is_none_or(|file| lock::try_flock(file, Kind::Exclusive).unwrap_or(false))
    }

    fn is_of_ours(&self) -> bool {
        self.file.is_some()
            && self.text.len() == 11
            && self.text.ends_with(b"\n")
            && self.text.iter().take(10).all(u8::is_ascii_digit)
    }

    /// The pid in it, if it is one of this host: `123`, or Dovecot's `123:host`.
    fn pid(&self) -> Option<Pid> {
        let text = std::str::from_utf8(&self.text).ok()?.trim();
        let (pid, host) = text.split_once(':').unwrap_or((text, ""));
        let ours = || gethostname().is_ok_and(|own| own == host);
        if !host.is_empty() && !ours() {
            return None;
        }
        let pid: i32 = pid.trim().parse().ok()?;
        (pid > 0).then(|| Pid::from_raw(pid))
    }

    fn who(&self) -> String {
        match self.pid() {
            Some(pid) => format!("dot lock of pid {pid}"),
            None => "dot lock".into(),
        }
    }

    /// Removes it, unless it has become another one meanwhile; false where we may not.
    fn remove(&self, dir: &OwnedFd, name: &OsStr) -> io::Result<bool> {
        if Seen::at(dir, name)?.is_none_or(|now| now.identity != self.seen.identity) {
            return Ok(true);
        }
        match unlinkat(dir, name, UnlinkatFlags::NoRemoveDir) {
            Ok(()) | Err(nix::Error::ENOENT) => Ok(true),
            Err(nix::Error::EPERM | nix::Error::EACCES) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}

/// What a name leads to.
struct Seen {
    /// Device and inode.
    identity: (u64, u64),
    regular: bool,
    changed: SystemTime,
}

impl Seen {
    fn at(dir: &OwnedFd, name: &OsStr) -> io::Result<Option<Self>> {
        let found = match fstatat(dir, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
            Ok(found) => found,
            Err(nix::Error::ENOENT) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let seconds = u64::try_from(found.st_mtime).unwrap_or(0);
        let changed = UNIX_EPOCH.checked_add(Duration::from_secs(seconds));
        Ok(Some(Self {
            identity: (found.st_dev, found.st_ino),
            regular: found.st_mode & SFlag::S_IFMT.bits() == SFlag::S_IFREG.bits(),
            changed: changed.unwrap_or_else(SystemTime::now),
        }))
    }
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

    use super::{Dotlock, Tried, make_named};
    use crate::mailbox::directory::open_directory;

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
        let Tried::Made(lock) = try_lock(dir.path()) else { panic!("not made") };
        let text = fs::read_to_string(dir.path().join("box.lock")).unwrap();
        assert_eq!(text, format!("{:010}\n", std::process::id()));
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
    fn a_lock_of_ours_is_stale_as_soon_as_its_process_has_ended() {
        let dir = tempfile::tempdir().unwrap();
        put(dir.path(), "0999999999\n", 0);
        let held = File::open(dir.path().join("box.lock")).unwrap();
        held.lock().unwrap();
        // A process that this host does not see (a container's, another host's) holds it.
        assert!(matches!(try_lock(dir.path()), Tried::Held(_)));
        held.unlock().unwrap();
        assert!(matches!(try_lock(dir.path()), Tried::Made(_)));
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

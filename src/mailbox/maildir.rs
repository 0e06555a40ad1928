//! A Maildir: a directory with a file for each message.
//!
//! A message is written whole in `tmp/` and made durable before it gets its name in `new/`, so no
//! lock is needed and no reader ever sees a part of one. (Where there is a quota, deliveries keep an
//! flock on `new/` from the count to the names, or together they would exceed it.) Its file name is
//! unique by time, process and chance, and tells its size (`,S=`) and its size with CRLF line ends
//! (`,W=`) to readers that would have to count. A subfolder (Maildir++) is a Maildir below, whose
//! name begins with a dot.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use nix::dir::Dir;
use nix::fcntl::{AtFlags, OFlag, openat, renameat};
use nix::sys::stat::{Mode, SFlag, fstat, fstatat};
use nix::unistd::{UnlinkatFlags, fsync, gethostname, unlinkat};

use super::lock::pause;
use super::message::NewMessage;
use super::{Error, Growth, Place, directory};
use crate::sys::lock::{Kind, try_flock};
use crate::sys::signal;

/// What small pieces are collected in before they are written.
const BUFFER: usize = 64 * 1024;

/// The directories that make a directory a Maildir.
const PARTS: [&str; 3] = ["tmp", "new", "cur"];

/// Whether there is one at this path.
pub fn is_at(path: &Path) -> bool {
    PARTS.iter().all(|part| path.join(part).is_dir())
}

/// A Maildir that messages are put into.
#[derive(Debug)]
pub struct Maildir {
    place: Place,
}

/// Its directories, held open.
struct Opened {
    tmp: OwnedFd,
    new: OwnedFd,
    cur: OwnedFd,
}

impl Maildir {
    /// The Maildir at this place, which need not exist yet.
    pub fn new(place: Place) -> Self {
        Self { place }
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.place.path
    }

    /// Puts messages into `new/`. On return they are on stable storage, files and names; on any
    /// failure none of them is there.
    pub fn append(&mut self, messages: &[NewMessage]) -> Result<Growth, Error> {
        if messages.is_empty() {
            return Ok(Growth::default());
        }
        let opened = self.open()?;
        let _lock = if self.place.quota == 0 { None } else { self.lock(&opened)? };
        let added = messages.iter().fold(0, |sum: u64, one| sum.saturating_add(one.length()));
        let before = if self.place.quota == 0 { 0 } else { self.size(&opened)? };
        let growth = Growth { before, after: before.saturating_add(added) };
        self.place.has_room(growth.after)?;
        let mut names: Vec<String> = Vec::new();
        let written = messages
            .iter()
            .try_for_each(|message| {
                let name = unique_name(message)?;
                names.push(name.clone());
                write(&opened.tmp, &name, message)
            })
            .and_then(|()| {
                names.iter().try_for_each(|name| {
                    Ok(renameat(&opened.tmp, name.as_str(), &opened.new, name.as_str())?)
                })
            })
            .and_then(|()| Ok(fsync(&opened.new)?));
        if let Err(error) = written {
            for name in &names {
                for directory in [&opened.tmp, &opened.new] {
                    let _ = unlinkat(directory, name.as_str(), UnlinkatFlags::NoRemoveDir);
                }
            }
            return Err(self.fail("be written", error));
        }
        Ok(growth)
    }

    /// Keeps other deliveries of ours out. Where a directory can't be locked (NFS wants a file that
    /// is open for writing), the quota is as exact as that.
    fn lock(&self, opened: &Opened) -> Result<Option<File>, Error> {
        let directory = opened.new.try_clone().map_err(|error| self.fail("be locked", error))?;
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
            if waited >= self.place.lock_timeout || signal::is_end_asked_for() {
                let path = self.place.path.clone();
                return Err(Error::Locked { path, held: "flock lock".into(), waited });
            }
            tries = tries.saturating_add(1);
            std::thread::sleep(pause(tries));
        }
    }

    fn fail(&self, doing: &'static str, error: io::Error) -> Error {
        Error::io(&self.place.path, doing, error)
    }

    fn open(&self) -> Result<Opened, Error> {
        let path = &self.place.path;
        let root = match directory::open_directory(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                directory::make(path).map_err(|error| self.fail("be made", error))?;
                directory::open_directory(path)
            }
            opened => opened,
        };
        let root = root.map_err(|error| self.fail("be opened", error))?;
        self.check(path, &root)?;
        if is_subfolder(path) {
            let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW;
            openat(&root, "maildirfolder", flags, Mode::S_IRUSR | Mode::S_IWUSR)
                .map_err(|error| self.fail("be made", error.into()))?;
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
            self.check(&path, &opened)?;
            Ok(opened)
        };
        let opened = Opened { tmp: part("tmp")?, new: part("new")?, cur: part("cur")? };
        if made {
            fsync(&root).map_err(|error| self.fail("be made durable", error.into()))?;
        }
        Ok(opened)
    }

    /// A directory that somebody else has put there is no mailbox of the user's.
    fn check(&self, path: &Path, directory: &OwnedFd) -> Result<(), Error> {
        let found = fstat(directory).map_err(|error| self.fail("be looked at", error.into()))?;
        let refused = |why: String| Err(Error::Refused { path: path.to_owned(), why });
        if found.st_uid != self.place.owner.as_raw() {
            return refused(format!(
                "belongs to uid {}, not to its user (uid {})",
                found.st_uid, self.place.owner
            ));
        }
        if found.st_mode & 0o002 != 0 {
            return refused("is writable for all".into());
        }
        Ok(())
    }

    /// The size of all its messages: what their names tell, or else the files themselves.
    fn size(&self, opened: &Opened) -> Result<u64, Error> {
        let fail = |error: nix::Error| self.fail("be counted", error.into());
        let mut sum = 0_u64;
        for directory in [&opened.new, &opened.cur] {
            let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
            let mut entries = Dir::openat(directory, ".", flags, Mode::empty()).map_err(fail)?;
            for entry in entries.iter() {
                let entry = entry.map_err(fail)?;
                let name = entry.file_name();
                if name.to_bytes().starts_with(b".") {
                    continue;
                }
                let size = size_in_name(name.to_bytes()).or_else(|| {
                    let found = fstatat(directory, name, AtFlags::AT_SYMLINK_NOFOLLOW).ok()?;
                    let regular = found.st_mode & SFlag::S_IFMT.bits() == SFlag::S_IFREG.bits();
                    regular.then(|| u64::try_from(found.st_size).unwrap_or(0))
                });
                sum = sum.saturating_add(size.unwrap_or(0));
            }
        }
        Ok(sum)
    }
}

/// Whether the path names a Maildir++ subfolder.
fn is_subfolder(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."))
}

fn size_in_name(name: &[u8]) -> Option<u64> {
    let at = memchr::memmem::find(name, b",S=")?;
    let digits = name.get(at + 3..)?;
    let end = digits.iter().position(|b| !b.is_ascii_digit()).unwrap_or(digits.len());
    std::str::from_utf8(digits.get(..end)?).ok()?.parse().ok()
}

/// `TIME.MmicrosecondsPpidRrandom.HOST,S=size,W=size`
fn unique_name(message: &NewMessage) -> io::Result<String> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let random = getrandom::u64().map_err(io::Error::other)?;
    let host = gethostname().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let mut safe = String::new();
    for c in host.chars() {
        match c {
            '/' => safe.push_str("\\057"),
            ':' => safe.push_str("\\072"),
            c if c.is_ascii_graphic() && c != ',' => safe.push(c),
            _ => safe.push('_'),
        }
    }
    let size = message.length();
    let trace = memchr::memchr_iter(b'\n', &message.trace).count() as u64;
    let network = message.text.network_length().saturating_add(message.trace.len() as u64 + trace);
    Ok(format!(
        "{}.M{:06}P{}R{random:016x}.{safe},S={size},W={network}",
        now.as_secs(),
        now.subsec_micros(),
        std::process::id(),
    ))
}

fn write(tmp: &OwnedFd, name: &str, message: &NewMessage) -> io::Result<()> {
    let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_CLOEXEC;
    let mode = Mode::S_IRUSR | Mode::S_IWUSR;
    let mut file =
        io::BufWriter::with_capacity(BUFFER, File::from(openat(tmp, name, flags, mode)?));
    file.write_all(&message.trace)?;
    message.text.each(&mut |bytes| file.write_all(bytes))?;
    file.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;
    use std::path::{Path, PathBuf};
    use std::rc::Rc;
    use std::time::SystemTime;

    use super::{Maildir, is_at, size_in_name};
    use crate::mailbox::{Error, Growth, NewMessage, Place, Stager};

    fn at(path: PathBuf, quota: u64) -> Maildir {
        Maildir::new(Place {
            index: path.join(".index"),
            path,
            owner: nix::unistd::geteuid(),
            locks: Vec::new(),
            libexec: PathBuf::new(),
            lock_timeout: std::time::Duration::ZERO,
            quota,
        })
    }

    fn message(body: &str) -> NewMessage {
        let mut stager = Stager::new(1_000_000);
        stager.push(format!("Subject: x\r\n\r\n{body}\r\n").as_bytes()).unwrap();
        let text = Rc::new(stager.finish().unwrap());
        NewMessage::delivered(b"s@b.org", b"u@c.org", SystemTime::now(), text)
    }

    fn files(directory: &Path) -> Vec<(String, String)> {
        let mut found: Vec<_> = fs::read_dir(directory)
            .unwrap()
            .map(|entry| {
                let entry = entry.unwrap();
                let text = fs::read_to_string(entry.path()).unwrap();
                (entry.file_name().into_string().unwrap(), text)
            })
            .collect();
        found.sort();
        found
    }

    #[test]
    fn messages_stand_in_new_with_their_sizes_in_their_names() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("a/b/Maildir/");
        let messages = [message("From one"), message("two")];
        assert_eq!(at(path.clone(), 0).append(&messages).unwrap().before, 0);
        assert!(is_at(&path));
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
        let found = files(&path.join("new"));
        let head = "Return-Path: <s@b.org>\nDelivered-To: u@c.org\nSubject: x\n\n";
        let mut texts: Vec<&str> = found.iter().map(|(_, text)| text.as_str()).collect();
        texts.sort_unstable();
        assert_eq!(texts, [format!("{head}From one\n"), format!("{head}two\n")]);
        for (name, text) in &found {
            assert_eq!(size_in_name(name.as_bytes()), Some(text.len() as u64));
            let network = text.len() + text.lines().count();
            assert!(name.ends_with(&format!(",W={network}")), "{name}");
        }
        assert!(files(&path.join("tmp")).is_empty());
        assert!(!path.join("maildirfolder").exists());
        let folder = path.join(".Work.2024");
        at(folder.clone(), 0).append(&messages).unwrap();
        assert!(folder.join("maildirfolder").exists());
    }

    #[test]
    fn a_failure_leaves_nothing() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("Maildir/");
        let mut maildir = at(path.clone(), 0);
        maildir.append(&[message("1")]).unwrap();
        let before = files(&path.join("new"));
        let spool = Some((tempfile::tempfile().unwrap(), 9));
        let torn = crate::mailbox::Staged { spool, ..Default::default() };
        let torn = NewMessage { text: Rc::new(torn), ..message("") };
        assert!(maildir.append(&[message("2"), torn]).is_err());
        assert_eq!(files(&path.join("new")), before);
        assert!(files(&path.join("tmp")).is_empty());
    }

    #[test]
    fn the_quota_counts_what_names_and_files_tell() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("Maildir/");
        let one = message("1").length();
        at(path.clone(), 0).append(&[message("1")]).unwrap();
        fs::write(path.join("cur/plain:2,S"), "x".repeat(100)).unwrap();
        let growth = at(path.clone(), 2 * one + 100).append(&[message("2")]).unwrap();
        assert_eq!(growth, Growth { before: one + 100, after: 2 * one + 100 });
        let full = at(path.clone(), 3 * one + 99).append(&[message("3")]);
        assert!(matches!(full, Err(Error::OverQuota { .. })));
        assert_eq!(files(&path.join("new")).len(), 2);
    }

    #[test]
    fn what_is_no_directory_of_the_users_is_refused() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("Maildir/");
        fs::create_dir(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o777)).unwrap();
        assert!(matches!(at(path.clone(), 0).append(&[message("1")]), Err(Error::Refused { .. })));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).unwrap();
        std::os::unix::fs::symlink("/tmp", path.join("new")).unwrap();
        assert!(at(path.clone(), 0).append(&[message("1")]).is_err());
    }
}

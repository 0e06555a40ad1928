//! Putting messages into a Maildir's `new/`.
//!
//! Where there is a quota, deliveries keep an flock on `new/` from the count to the names, or
//! together they would exceed it.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::SystemTime;

use nix::fcntl::{OFlag, openat, renameat};
use nix::sys::stat::Mode;
use nix::unistd::{UnlinkatFlags, fsync, unlinkat};

use super::name;
use super::parts::Parts;
use crate::mailbox::{Error, Growth, NewMessage, Place};

/// What small pieces are collected in before they are written.
const BUFFER: usize = 64 * 1024;

/// A Maildir that messages are put into.
#[derive(Debug)]
pub struct Maildir {
    place: Place,
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
        let opened = Parts::open(&self.place)?;
        let _lock = if self.place.quota == 0 { None } else { opened.lock(&self.place)? };
        let added = messages.iter().fold(0, |sum: u64, one| sum.saturating_add(one.length()));
        let before = if self.place.quota == 0 {
            0
        } else {
            opened.size().map_err(|error| self.fail("be counted", error))?
        };
        let growth = Growth { before, after: before.saturating_add(added) };
        self.place.has_room(growth.after)?;
        let mut names: Vec<String> = Vec::new();
        let written = messages
            .iter()
            .try_for_each(|message| {
                let name = name::unique(message)?;
                names.push(name.clone());
                write(&opened.tmp, &name, message, None)
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

    fn fail(&self, doing: &'static str, error: io::Error) -> Error {
        Error::io(&self.place.path, doing, error)
    }
}

/// Writes a message into `tmp/`, durably; the file may be given another time than now.
pub(super) fn write(
    tmp: &OwnedFd,
    name: &str,
    message: &NewMessage,
    modified: Option<SystemTime>,
) -> io::Result<()> {
    let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_CLOEXEC;
    let mode = Mode::S_IRUSR | Mode::S_IWUSR;
    let mut file =
        io::BufWriter::with_capacity(BUFFER, File::from(openat(tmp, name, flags, mode)?));
    file.write_all(&message.trace)?;
    message.text.each(&mut |bytes| file.write_all(bytes))?;
    let file = file.into_inner().map_err(io::IntoInnerError::into_error)?;
    if let Some(modified) = modified {
        file.set_modified(modified)?;
    }
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;
    use std::path::{Path, PathBuf};
    use std::rc::Rc;
    use std::time::SystemTime;

    use super::Maildir;
    use crate::mailbox::maildir::is_at;
    use crate::mailbox::maildir::name::number;
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
            assert_eq!(number(name.as_bytes(), b",S="), Some(text.len() as u64));
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

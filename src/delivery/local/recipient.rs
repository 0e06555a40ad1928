//! The user that mail is delivered to: how a process becomes them, and where their mailboxes are.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use nix::fcntl::{AtFlags, OFlag, openat};
use nix::sys::stat::{Mode, fchmod, fstat, fstatat, mkdirat};
use nix::unistd::{Gid, Group, fsync};

use crate::config::{self, Config};
use crate::delivery::Failure;
use crate::mailbox::folders::Folders;
use crate::mailbox::{self, LOCK_TIMEOUT, Place, Store, directory, names_maildir};
use crate::sys::{Account, privilege};

/// Becomes the recipient, for good. As root, a missing inbox is made first, as the user and with the
/// group of the spool directory: the user alone may not.
///
/// Without root, only the process's own account can be become.
pub fn become_recipient(config: &Config, account: &Account) -> Result<(), Failure> {
    if privilege::is_root() {
        if account.uid.is_root() {
            let text = "root has no mailbox; give its mail to a person by an alias";
            return Err(Failure::permanent("5.1.1", text));
        }
        make_inbox(&inbox_of(config, account)?, account).map_err(|error| {
            let name = &account.name;
            Failure::temporary("4.3.0", format!("can't make the mailbox of {name}: {error}"))
        })?;
    }
    privilege::become_account(account)
        .map_err(|error| Failure::temporary("4.3.0", format!("delivery: {error}")))
}

/// Makes the missing inbox with the user's own rights, plus the group mail where the directory is
/// root's and of that group: a directory that a user may have put there gets no group of ours.
fn make_inbox(inbox: &Path, account: &Account) -> io::Result<()> {
    let (Some(parent), Some(name)) = (inbox.parent(), inbox.file_name()) else {
        return Ok(());
    };
    // Looked at with the user's rights, too: the way there may lead through their home.
    let looked = privilege::with_group(account, account.gid, || -> io::Result<_> {
        // Where it can't be opened, that is the mailbox's error, in its own words.
        let Ok(dir) = directory::open_directory(parent) else {
            return Ok(None);
        };
        if fstatat(&dir, name, AtFlags::AT_SYMLINK_NOFOLLOW).is_ok() {
            return Ok(None);
        }
        let found = fstat(&dir)?;
        Ok(Some((dir, found)))
    })??;
    let Some((dir, found)) = looked else {
        return Ok(());
    };
    let group = Gid::from_raw(found.st_gid);
    let mail = Group::from_name("mail")?.map(|group| group.gid);
    let group = (found.st_uid == 0 && Some(group) == mail).then_some(group);
    let make = || {
        if names_maildir(inbox) {
            // Where it can't be made, that is the mailbox's error, too.
            return Ok(mkdirat(&dir, name, Mode::S_IRWXU).is_ok());
        }
        make_empty(&dir, name, if group.is_some() { 0o660 } else { 0o600 })
    };
    if privilege::with_group(account, group.unwrap_or(account.gid), make)?? {
        // By root: the user may not be allowed to open the directory so that it can be synced.
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        fsync(openat(&dir, ".", flags, Mode::empty())?)?;
    }
    Ok(())
}

/// Makes the file; false where it was there.
fn make_empty(dir: impl AsFd, name: &OsStr, mode: u32) -> io::Result<bool> {
    let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW;
    let flags = flags | OFlag::O_CLOEXEC;
    match openat(&dir, name, flags, Mode::S_IRUSR | Mode::S_IWUSR) {
        Ok(file) => {
            // Whatever the umask was; the user who appends syncs the file.
            fchmod(File::from(file), Mode::from_bits_truncate(mode))?;
            Ok(true)
        }
        Err(nix::Error::EEXIST) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// The user's and the domain's part of an account's name; a name without a domain is of the first
/// local one.
fn names<'a>(config: &'a Config, account: &'a Account) -> (&'a str, &'a str) {
    let own = config.local_domains.first().unwrap_or(&config.hostname);
    account.name.rsplit_once('@').unwrap_or((&account.name, own))
}

fn inbox_of(config: &Config, account: &Account) -> Result<PathBuf, Failure> {
    expand(config, account, "inbox", &config.paths.inbox)
}

fn expand(
    config: &Config,
    account: &Account,
    key: &str,
    pattern: &str,
) -> Result<PathBuf, Failure> {
    let (user, domain) = names(config, account);
    config::expand(pattern, user, domain, &account.home).ok_or_else(|| {
        let text = format!("{:?} can't stand in [paths] {key} {pattern:?}", account.name);
        Failure::temporary("4.3.5", text)
    })
}

/// The address of an account, with its extension: what Delivered-To says.
pub fn address_of(config: &Config, account: &Account, extension: &str) -> String {
    let (user, domain) = names(config, account);
    let delimiter = if extension.is_empty() { "" } else { &config.delivery.recipient_delimiter };
    format!("{user}{delimiter}{extension}@{domain}")
}

/// The account's inbox, open for a reader.
pub fn open_inbox(config: &Config, account: &Account) -> Result<Box<dyn Store>, Failure> {
    Ok(mailbox::open(inbox_place(config, account)?)?)
}

/// The place of the account's inbox.
pub fn inbox_place(config: &Config, account: &Account) -> Result<Place, Failure> {
    place_of(config, account, inbox_of(config, account)?)
}

/// A mailbox of the account's at this path.
pub fn place_of(config: &Config, account: &Account, path: PathBuf) -> Result<Place, Failure> {
    Ok(Place {
        path,
        index: index_of(config, account)?,
        owner: account.uid,
        locks: config.mailbox.locks.clone(),
        libexec: config.paths.libexec.clone(),
        lock_timeout: LOCK_TIMEOUT,
        quota: config.mailbox.quota,
    })
}

/// The directory of the account's folders.
pub fn folders_of(config: &Config, account: &Account) -> Result<PathBuf, Failure> {
    expand(config, account, "folders", &config.paths.folders)
}

/// The directory of the account's small files.
pub fn index_of(config: &Config, account: &Account) -> Result<PathBuf, Failure> {
    expand(config, account, "index", &config.paths.index)
}

/// The account's folders.
pub fn folders(config: &Config, account: &Account) -> Result<Folders, Failure> {
    let root = folders_of(config, account)?;
    Ok(Folders::open(&root, inbox_place(config, account)?))
}

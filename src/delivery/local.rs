//! Delivery into a user's mailbox.
//!
//! A process that delivers is one recipient for good ([`become_recipient`]) before it reads a byte
//! of the message. Then it makes an [`Agent`] for the mailbox and gives it messages, one or many:
//! [`Agent::stage`], [`Stager::push`] as the bytes come, [`Agent::deliver`]. What deliver has
//! returned for is on stable storage.

mod stage;

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use nix::fcntl::{AtFlags, OFlag, openat};
use nix::sys::stat::{Mode, fchmod, fstat, fstatat};
use nix::unistd::{Gid, Group, fsync};

use super::Failure;
use super::failure::LOCKED;
use crate::config::{self, Config};
use crate::mailbox::mbox::LOCK_TIMEOUT;
use crate::mailbox::{Mbox, Place, StoredMessage, dotlock};
use crate::sys::{Account, privilege};

pub use stage::{Envelope, Stager};

/// Becomes the recipient, for good. As root, a missing spool file is made first, as the user and
/// with the group of the spool directory: the user alone may not.
///
/// Without root, only the process's own account can be become.
pub fn become_recipient(config: &Config, account: &Account) -> Result<(), Failure> {
    if privilege::is_root() {
        if account.uid.is_root() {
            let text = "root has no mailbox; give its mail to a person by an alias";
            return Err(Failure::permanent("5.1.1", text));
        }
        make_spool_file(&inbox_of(config, account)?, account).map_err(|error| {
            let name = &account.name;
            Failure::temporary("4.3.0", format!("can't make the mailbox of {name}: {error}"))
        })?;
    }
    privilege::become_account(account)
        .map_err(|error| Failure::temporary("4.3.0", format!("delivery: {error}")))
}

/// Makes the missing file with the user's own rights, plus the group mail where the directory is
/// root's and of that group: a directory that a user may have put there gets no group of ours.
fn make_spool_file(inbox: &Path, account: &Account) -> io::Result<()> {
    let (Some(parent), Some(name)) = (inbox.parent(), inbox.file_name()) else {
        return Ok(());
    };
    let mail = Group::from_name("mail")?.map(|group| group.gid);
    // Looked at with the user's rights, too: the way there may lead through their home.
    let made = privilege::with_group(account, account.gid, || -> io::Result<_> {
        // Where it can't be opened, that is the mailbox's error, in its own words.
        let Ok(dir) = dotlock::open_directory(parent) else {
            return Ok(None);
        };
        let found = fstat(&dir)?;
        let group = Gid::from_raw(found.st_gid);
        let is_spool = found.st_uid == 0 && Some(group) == mail;
        Ok(Some((dir, is_spool.then_some(group))))
    })??;
    let Some((dir, group)) = made else {
        return Ok(());
    };
    let (group, mode) = match group {
        Some(group) => (group, 0o660),
        None => (account.gid, 0o600),
    };
    if privilege::with_group(account, group, || make_empty(&dir, name, mode))?? {
        // By root: the user may not be allowed to open the directory so that it can be synced.
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        fsync(openat(&dir, ".", flags, Mode::empty())?)?;
    }
    Ok(())
}

/// Makes the file; false where it was there.
fn make_empty(dir: impl AsFd, name: &OsStr, mode: u32) -> io::Result<bool> {
    if fstatat(&dir, name, AtFlags::AT_SYMLINK_NOFOLLOW).is_ok() {
        return Ok(false);
    }
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
    match account.name.rsplit_once('@') {
        Some((user, domain)) => (user, domain),
        None => (&account.name, own),
    }
}

fn inbox_of(config: &Config, account: &Account) -> Result<PathBuf, Failure> {
    let (user, domain) = names(config, account);
    let inbox = &config.paths.inbox;
    let unfit = || {
        let text = format!("{:?} can't stand in the path {inbox:?}", account.name);
        Failure::temporary("4.3.5", text)
    };
    if inbox.ends_with('/') {
        let text = format!(
            "[paths] inbox {inbox:?} ends in /, a Maildir, and this version writes mbox files only: \
             take the / away"
        );
        return Err(Failure::temporary("4.3.5", text));
    }
    config::expand(inbox, user, domain, &account.home).ok_or_else(unfit)
}

/// The account's mailbox.
pub fn mailbox_of(config: &Config, account: &Account) -> Result<Mbox, Failure> {
    let (user, domain) = names(config, account);
    let index = config::expand(&config.paths.index, user, domain, &account.home);
    let Some(index) = index else {
        let text = format!("{:?} can't stand in [paths] index", account.name);
        return Err(Failure::temporary("4.3.5", text));
    };
    Ok(Mbox::new(Place {
        inbox: inbox_of(config, account)?,
        index,
        owner: account.uid,
        locks: config.mailbox.locks.clone(),
        libexec: config.paths.libexec.clone(),
        lock_timeout: LOCK_TIMEOUT,
    }))
}

/// What is put into Delivered-To for an account that was named without a domain.
pub fn address_of(config: &Config, account: &Account) -> String {
    let (user, domain) = names(config, account);
    format!("{user}@{domain}")
}

/// Delivers messages to one recipient's mailbox.
#[derive(Debug)]
pub struct Agent {
    mailbox: Mbox,
    limit: u64,
}

/// A message that waits for its delivery: its text, or why that can't be delivered; its envelope.
#[derive(Debug)]
pub struct Staged {
    /// The text.
    pub text: Result<Stager, Failure>,
    /// The reverse-path, empty for the null sender.
    pub sender: String,
    /// The address for Delivered-To.
    pub recipient: String,
}

/// A message that has been delivered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivered {
    /// Its size as stored.
    pub size: u64,
    /// The mailbox.
    pub mailbox: PathBuf,
}

impl Agent {
    /// For the account that this process has become.
    pub fn new(config: &Config, account: &Account) -> Result<Self, Failure> {
        Ok(Self { mailbox: mailbox_of(config, account)?, limit: config.smtp.max_message_size })
    }

    /// Begins a message.
    pub fn stage(&self) -> Stager {
        Stager::new(self.limit)
    }

    /// Appends a staged message to the mailbox; `sender` is the reverse-path (empty for the null
    /// sender), `recipient` the address for Delivered-To.
    pub fn deliver(
        &mut self,
        staged: Stager,
        sender: &[u8],
        recipient: &[u8],
    ) -> Result<Delivered, Failure> {
        let at = SystemTime::now();
        let message = staged.finish(&Envelope { sender, recipient, at })?;
        self.mailbox.append(&message)?;
        Ok(self.delivered(&message))
    }

    /// Appends several messages with one sync. Where that fails, each is tried alone, so that one
    /// message that can't be stored does not keep the others out.
    pub fn deliver_all(&mut self, batch: Vec<Staged>) -> Vec<Result<Delivered, Failure>> {
        let at = SystemTime::now();
        let mut messages = Vec::new();
        // A failure of its own, or the place of the message among those that are left.
        let fates: Vec<Result<usize, Failure>> = batch
            .into_iter()
            .map(|Staged { text, sender, recipient }| {
                let envelope =
                    Envelope { sender: sender.as_bytes(), recipient: recipient.as_bytes(), at };
                messages.push(text?.finish(&envelope)?);
                Ok(messages.len() - 1)
            })
            .collect();
        let all = self.mailbox.append_all(&messages).map_err(Failure::from);
        fates
            .into_iter()
            .map(|fate| {
                let message = messages.get(fate?);
                let message = message.ok_or_else(|| Failure::temporary("4.3.0", "lost count"))?;
                match &all {
                    Ok(()) => {}
                    // A lock that could not be had for all of them can't be had for one.
                    Err(failure) if failure.code() == LOCKED => return Err(failure.clone()),
                    Err(_) => self.mailbox.append(message)?,
                }
                Ok(self.delivered(message))
            })
            .collect()
    }

    fn delivered(&self, message: &StoredMessage) -> Delivered {
        Delivered { size: message.length().unwrap_or(0), mailbox: self.mailbox.path().to_owned() }
    }

    /// What the operator should know of what was found in the mailbox.
    pub fn take_warnings(&mut self) -> Vec<String> {
        self.mailbox.take_warnings()
    }
}

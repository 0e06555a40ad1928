//! Who are you: accounts and their passwords.
//!
//! Accounts come from the host (passwd, and shadow or PAM) or from a users file. Whoever asks learns only
//! whether name and password belong together: an unknown name takes the time of a wrong password.

pub mod app_passwords;
pub mod certificates;
pub mod hash;
pub mod keeper;
pub mod scram;
pub mod users_file;

use std::io;

use nix::unistd::{Gid, Uid, getegid, geteuid};

use crate::config::{Config, Source};
use crate::sys::{Account, account, pam, privilege};

use hash::Hash;
use users_file::Entry;

pub use app_passwords::Scope;

/// The longest name of an account, in bytes.
pub const MAX_NAME: usize = 64;

/// What a name and a password came to.
#[derive(Debug)]
pub enum Verdict {
    /// They belong together: this is the account.
    Accepted(Account),
    /// They do not; which of the two is wrong is nobody's business.
    Refused,
    /// It can't be told now, for the reason given (which is for the log).
    Unavailable(String),
}

/// Whether `name` can be the name of an account at all.
pub fn is_name(name: &str) -> bool {
    !matches!(name, "" | "." | "..")
        && name.len() <= MAX_NAME
        && !name.starts_with('-')
        && !name.contains(|c: char| c == '/' || c == ':' || c.is_control())
}

/// Finds the account that is served under this name.
///
/// As root, uid 0 and uids below `[users] min_uid` are never served; without root, only accounts
/// of our own uid are. An error says that it can't be told now, not that there is none.
pub fn find_account(config: &Config, name: &str) -> io::Result<Option<Account>> {
    if !is_name(name) {
        return Ok(None);
    }
    let found = match config.users.source {
        Source::System => Account::by_name(name)?,
        Source::File => users_file::look_up(&config.users.file, name)?.map(|entry| entry.account),
    };
    Ok(found.and_then(|account| served(config, account, Identity::own())))
}

/// Tells whether the password is that account's: its own one, which is good for everything, or an
/// app password for this scope. Both are looked at, right or not; but PAM, which counts failures, is not
/// asked about an app password.
pub fn authenticate(config: &Config, scope: Scope, name: &str, password: &[u8]) -> Verdict {
    let app = app_passwords::verify(&config.users.app_passwords, name, scope, password);
    let found = app.and_then(|is_app| {
        if !config.auth.pam_service.is_empty() {
            return by_pam(config, name, Some(password).filter(|_| !is_app));
        }
        let Credentials { account, hash } = credentials(config, name)?;
        let right = hash.verify(password) | is_app;
        Ok(account.filter(|_| right))
    });
    match found {
        Ok(Some(account)) => Verdict::Accepted(account),
        Ok(None) => Verdict::Refused,
        Err(error) => Verdict::Unavailable(error.to_string()),
    }
}

/// The account, where PAM takes the password and says that the account may be used; only the latter
/// where there is no password, as its user has proven in another way who it is.
fn by_pam(config: &Config, name: &str, password: Option<&[u8]>) -> io::Result<Option<Account>> {
    let service = &config.auth.pam_service;
    if let Some(account) = find_account(config, name)? {
        return Ok(pam::ask(service, &account.name, password)?.then_some(account));
    }
    // Whom we do not serve PAM may know: it is asked all the same, for the time that takes, and about a
    // password that nobody has. What was typed is none of its business.
    if let Some(password) = password {
        let name = if is_name(name) { name } else { NOBODY };
        pam::ask(service, name, Some(&vec![b'\x08'; password.len()]))?;
    }
    Ok(None)
}

/// What PAM is asked about for what can't be the name of an account.
const NOBODY: &str = "-";

/// The account of this name, where it is one that may log in: a locked one may not, by whatever it
/// proves who it is.
fn may_log_in(config: &Config, name: &str) -> io::Result<Option<Account>> {
    if config.auth.pam_service.is_empty() {
        return Ok(credentials(config, name)?.account);
    }
    by_pam(config, name, None)
}

/// What a password is held against. Where there is no such account, or its password is locked, the
/// hash is a stand-in, so that the answer takes its time all the same.
struct Credentials {
    account: Option<Account>,
    hash: Hash,
}

fn credentials(config: &Config, name: &str) -> io::Result<Credentials> {
    match config.users.source {
        Source::System => system_credentials(config, name),
        Source::File => file_credentials(config, name),
    }
}

fn system_credentials(config: &Config, name: &str) -> io::Result<Credentials> {
    if !privilege::is_root() {
        return Err(io::Error::other(
            "passwords of the host's accounts can be read by root only; without root, \
             [users] source = \"file\" is wanted",
        ));
    }
    if let Some(account) = find_account(config, name)?
        && let Some(text) = account::shadow_hash(&account.name)?
    {
        match Hash::parse(&text) {
            Ok(Hash::Locked) => {}
            Ok(hash) => {
                return Ok(Credentials { account: Some(account), hash });
            }
            Err(what) => {
                return Err(io::Error::other(format!("password of {name:?}: {what}")));
            }
        }
    }
    // The first ordinary account's kind of hash is taken for the kind that this host uses.
    let usual = match Account::by_uid(Uid::from_raw(config.users.min_uid)) {
        Ok(Some(first)) => account::shadow_hash(&first.name).ok().flatten(),
        _ => None,
    };
    let hash = usual.and_then(|text| Hash::parse(&text).ok());
    Ok(Credentials {
        account: None,
        hash: hash.filter(|hash| !matches!(hash, Hash::Locked)).unwrap_or_else(Hash::stand_in),
    })
}

fn file_credentials(config: &Config, name: &str) -> io::Result<Credentials> {
    let lines = users_file::read(&config.users.file)?;
    let usable = |hash: &Hash| !matches!(hash, Hash::Locked);
    let others: Vec<Hash> = lines
        .iter()
        .filter_map(|line| line.as_ref().ok())
        .map(|entry| entry.hash.clone())
        .filter(usable)
        .collect();
    if is_name(name)
        && let Some(Entry { account, hash }) = users_file::find(lines, name).transpose()?
        && let Some(account) = served(config, account, Identity::own())
        && usable(&hash)
    {
        return Ok(Credentials { account: Some(account), hash });
    }
    // An unknown name costs what some known one costs, and the same one each time it is tried.
    let draw = usize::try_from(crc32fast::hash(name.as_bytes())).unwrap_or(0);
    let index = draw.checked_rem(others.len()).unwrap_or(0);
    Ok(Credentials {
        account: None,
        hash: others.into_iter().nth(index).unwrap_or_else(Hash::stand_in),
    })
}

/// Whom this process runs as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Effective user id.
    pub uid: Uid,
    /// Effective group id.
    pub gid: Gid,
}

impl Identity {
    /// That of this process.
    pub fn own() -> Self {
        Self { uid: geteuid(), gid: getegid() }
    }
}

/// The account, where the rules for who is served allow it.
fn served(config: &Config, account: Account, own: Identity) -> Option<Account> {
    if own.uid.is_root() {
        let uid = account.uid.as_raw();
        return (uid != 0 && uid >= config.users.min_uid).then_some(account);
    }
    // Without root there is no way into another group than the one that the process has.
    (account.uid == own.uid).then_some(Account { gid: own.gid, ..account })
}

#[cfg(test)]
mod tests;

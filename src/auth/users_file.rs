//! The users file: virtual accounts, a line each, as Dovecot's passwd-file has them.
//!
//! ```text
//! user:{SCHEME}hash:uid:gid:gecos:home:shell:extra
//! ```
//!
//! Later fields may be missing; `#` begins a comment line. The first line of a name counts. What is
//! wrong with a line concerns that line's user only.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use nix::unistd::{Gid, Uid};

use super::{Identity, hash::Hash, is_name};
use crate::sys::Account;

/// The largest users file that is read.
const MAX_FILE: u64 = 16 * 1024 * 1024;

/// The home of a virtual user that has none.
const NO_HOME: &str = "/nonexistent";

/// The shell of a virtual user that has none.
const NO_SHELL: &str = "/usr/sbin/nologin";

/// One account of the file.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Who it is.
    pub account: Account,
    /// What its password is held against.
    pub hash: Hash,
}

/// What is wrong with one line: `file:line: what`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    pub(super) file: PathBuf,
    pub(super) line: usize,
    /// Whose line it is, where that can be read.
    pub user: Option<String>,
    pub(super) what: String,
}

impl std::error::Error for Error {}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.file.display(), self.line, self.what)
    }
}

impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        Self::new(io::ErrorKind::InvalidData, error)
    }
}

/// Reads the file and parses it for this process. It must be a regular file, by whatever name.
pub fn read(path: &Path) -> io::Result<Vec<Result<Entry, Error>>> {
    Ok(parse(path, &text(path)?, Identity::own()))
}

/// Reads the file for one user's line, as [`find`] does; the others are not parsed.
pub fn look_up(path: &Path, name: &str) -> io::Result<Option<Entry>> {
    let bytes = text(path)?;
    let line = lines(&bytes).find(|(line, _)| user(line) == Some(name));
    Ok(line.map(|line| one(path, line, Identity::own())).transpose()?)
}

/// The file's bytes, of a regular file that is not too large. Errors name it.
pub fn text(path: &Path) -> io::Result<Vec<u8>> {
    let named =
        |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
    // A FIFO in its place would otherwise be waited for.
    let metadata = std::fs::metadata(path).map_err(named)?;
    if !metadata.is_file() {
        return Err(named(io::Error::other("is not a regular file")));
    }
    let file = File::open(path).map_err(named)?;
    let size = usize::try_from(metadata.len().min(MAX_FILE)).unwrap_or(0);
    let mut bytes = Vec::with_capacity(size.saturating_add(1));
    file.take(MAX_FILE + 1).read_to_end(&mut bytes).map_err(named)?;
    if u64::try_from(bytes.len()).is_ok_and(|length| length <= MAX_FILE) {
        return Ok(bytes);
    }
    Err(named(io::Error::other("is larger than 16 MiB")))
}

/// Parses the text of the file `name`, for a process that runs as `own`: without root, empty ids
/// are its own.
pub fn parse(name: &Path, bytes: &[u8], own: Identity) -> Vec<Result<Entry, Error>> {
    lines(bytes).map(|line| one(name, line, own)).collect()
}

/// The lines that are of users, with their numbers.
pub fn lines(bytes: &[u8]) -> impl Iterator<Item = (&[u8], usize)> {
    bytes
        .split(|byte| *byte == b'\n')
        .zip(1..)
        .map(|(line, number)| (line.strip_suffix(b"\r").unwrap_or(line), number))
        .filter(|(line, _)| !line.trim_ascii().is_empty() && !line.starts_with(b"#"))
}

fn one(name: &Path, (line, number): (&[u8], usize), own: Identity) -> Result<Entry, Error> {
    entry(line, own).map_err(|what| Error {
        file: name.to_owned(),
        line: number,
        user: user(line).map(str::to_owned),
        what,
    })
}

/// The line of this user: the first one, be it right or wrong.
pub fn find(lines: Vec<Result<Entry, Error>>, name: &str) -> Option<Result<Entry, Error>> {
    lines.into_iter().find(|line| match line {
        Ok(entry) => entry.account.name == name,
        Err(error) => error.user.as_deref() == Some(name),
    })
}

/// Whose line it is.
pub fn user(line: &[u8]) -> Option<&str> {
    let name = line.split(|byte| *byte == b':').next()?;
    std::str::from_utf8(name).ok()
}

fn entry(line: &[u8], own: Identity) -> Result<Entry, String> {
    let line = std::str::from_utf8(line).map_err(|_| "not UTF-8 text".to_owned())?;
    let mut fields = line.split(':');
    let mut field = || fields.next().unwrap_or_default();
    let (name, password, uid, gid) = (field(), field(), field(), field());
    let (_gecos, home, shell) = (field(), field(), field());
    if !is_name(name) {
        return Err(format!("{name:?} can't be a user's name"));
    }
    let uid = match id("uid", uid)? {
        Some(uid) => Uid::from_raw(uid),
        None if own.uid.is_root() => return Err("a uid is wanted: user:password:uid:gid".into()),
        None => own.uid,
    };
    let gid = match id("gid", gid)? {
        Some(gid) => Gid::from_raw(gid),
        None if own.uid.is_root() => return Err("a gid is wanted: user:password:uid:gid".into()),
        None => own.gid,
    };
    let or =
        |text: &str, default: &str| PathBuf::from(if text.is_empty() { default } else { text });
    let home = or(home, NO_HOME);
    if !home.is_absolute() {
        return Err("the home directory must be an absolute path".into());
    }
    Ok(Entry {
        account: Account { name: name.to_owned(), uid, gid, home, shell: or(shell, NO_SHELL) },
        hash: Hash::parse(password)?,
    })
}

fn id(what: &str, text: &str) -> Result<Option<u32>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    // The largest number is no id: setresuid(2) takes it for "leave it as it is".
    match text.parse() {
        Ok(number) if number < u32::MAX && text.bytes().all(|b| b.is_ascii_digit()) => {
            Ok(Some(number))
        }
        _ => Err(format!("{text:?} is no {what}")),
    }
}

//! Tables of names: the alias file, the file of virtual users, and the access table.
//!
//! They are lines of text (hikyaku-aliases(5)). A line that begins with a blank goes on with the
//! line before it; lines that are empty or begin with `#` say nothing.
//!
//! ```text
//! name: member, member            aliases
//! user@domain member, member      virtual users; also @domain, and a domain alone
//! from:user@domain REJECT         access (access)
//! ```
//!
//! [`Table`] finds the line of one key: by the index beside the file where it fits ([`index`]), or
//! by reading the file. What is wrong with a line concerns that line's key only.

use std::cell::RefCell;
use std::fmt;
use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::MAX_MEMBERS;
use super::forward::{self, Entry};
use super::index::{self, Index, Stamp};
use crate::message::Address;
use crate::message::address::{self, Alphabet};

/// The largest file that is read.
pub const MAX_FILE: u64 = 64 << 20;

/// The longest line with those that go on with it, in bytes.
pub const MAX_LINE: usize = 1 << 20;

/// A file that was changed so recently may be changing still, or change again without a new time in
/// its inode.
const SETTLED: Duration = Duration::from_millis(50);

/// So many times it is waited for.
const PATIENCE: usize = 20;

/// How the key of a line is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Syntax {
    /// `name: members`.
    Aliases,
    /// `user@domain members`, `@domain members`, `domain anything`.
    Virtual,
    /// `connect:host action`, `from:sender action`, `to:recipient action`.
    Access,
}

/// A line and those that go on with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line<'a> {
    /// Where it begins, in bytes.
    pub offset: usize,
    /// Its number, from 1.
    pub number: usize,
    /// All of it, with the line ends inside.
    pub text: &'a [u8],
}

/// The lines of a text that have something to say.
pub fn lines(text: &[u8]) -> impl Iterator<Item = Line<'_>> {
    let (mut at, mut number) = (0, 0);
    let mut physical = text.split_inclusive(|byte| *byte == b'\n').map(move |line| {
        let offset = at;
        at += line.len();
        number += 1;
        Line { offset, number, text: line }
    });
    let mut next: Option<Line<'_>> = None;
    std::iter::from_fn(move || {
        let first = next.take().or_else(|| physical.by_ref().find(|line| !is_silent(line.text)))?;
        let mut end = first.offset + first.text.len();
        for line in physical.by_ref() {
            if is_silent(line.text) {
                continue;
            }
            if !line.text.starts_with(b" ") && !line.text.starts_with(b"\t") {
                next = Some(line);
                break;
            }
            end = line.offset + line.text.len();
        }
        Some(Line { text: text.get(first.offset..end)?, ..first })
    })
}

fn is_silent(line: &[u8]) -> bool {
    matches!(line.trim_ascii_start().first(), None | Some(b'#'))
}

/// The key of a line, in lower case and without quotes, and where its value begins.
///
/// An error says what is wrong and what to write instead.
pub fn key(syntax: Syntax, line: &[u8]) -> Result<(String, usize), String> {
    if line.starts_with(b" ") || line.starts_with(b"\t") {
        return Err("begins with a blank, but there is no line before that it could go on \
                    with; take the blank away"
            .into());
    }
    let first = line.split(|byte| *byte == b'\n').next().unwrap_or(line);
    match syntax {
        Syntax::Aliases => alias_key(first),
        Syntax::Virtual => virtual_key(first),
        Syntax::Access => access_key(first),
    }
}

fn alias_key(line: &[u8]) -> Result<(String, usize), String> {
    let (mut quoted, mut escaped) = (false, false);
    let colon = line.iter().position(|byte| {
        if std::mem::take(&mut escaped) {
            return false;
        }
        match byte {
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b':' => return !quoted,
            _ => {}
        }
        false
    });
    let Some(colon) = colon else {
        return Err("has no colon; an alias is written name: member, member".into());
    };
    let name = line.get(..colon).unwrap_or_default().trim_ascii();
    let wrong = || {
        let name = String::from_utf8_lossy(name);
        format!(
            "{name:?} can't be the name of an alias; it is a name without domain, in double \
                 quotes where it has blanks or other special characters"
        )
    };
    let mailbox = address::mailbox(name, Alphabet::Ascii).map_err(|_| wrong())?;
    let address = mailbox.or_domain("");
    if !address.domain().is_empty() {
        return Err(format!(
            "{address}: an alias is a name without domain; names with domain stand in the file of \
             virtual users"
        ));
    }
    Ok((address.local().to_ascii_lowercase(), colon + 1))
}

fn virtual_key(line: &[u8]) -> Result<(String, usize), String> {
    let mut quoted = false;
    let end = line.iter().position(|byte| {
        quoted ^= *byte == b'"';
        byte.is_ascii_whitespace() && !quoted
    });
    let end = end.unwrap_or(line.len());
    let name = line.get(..end).unwrap_or_default();
    let wrong = || {
        let name = String::from_utf8_lossy(name);
        format!("{name:?} is neither user@domain nor @domain nor a domain")
    };
    let domain = |text| address::domain(text, Alphabet::Ascii).map_err(|_| wrong());
    let key = if let Some(host) = name.strip_prefix(b"@") {
        format!("@{}", domain(host)?)
    } else if name.contains(&b'@') {
        let mailbox = address::mailbox(name, Alphabet::Ascii).map_err(|_| wrong())?;
        let address = mailbox.or_domain("");
        if address.domain().is_empty() {
            return Err(wrong());
        }
        format!("{}@{}", address.local(), address.domain())
    } else {
        domain(name)?
    };
    Ok((key.to_ascii_lowercase(), end))
}

fn access_key(line: &[u8]) -> Result<(String, usize), String> {
    let end = line.iter().position(u8::is_ascii_whitespace).unwrap_or(line.len());
    let key = String::from_utf8_lossy(line.get(..end).unwrap_or_default()).to_ascii_lowercase();
    let wrong = |what: &str| Err(format!("{key:?} {what}"));
    match key.split_once(':') {
        Some(("connect" | "from" | "to", "")) => wrong("has nothing behind the colon"),
        // As addresses are written for people.
        Some(("connect", who)) => {
            let address = who.parse::<std::net::IpAddr>();
            Ok((address.map_or(key.clone(), |address| format!("connect:{address}")), end))
        }
        Some(("from" | "to", who)) => {
            // Of the domain alone.
            let domain = who.strip_prefix('@');
            Ok((domain.map_or(key.clone(), |domain| key.replace(who, domain)), end))
        }
        _ => wrong("is none of connect:host, from:sender and to:recipient"),
    }
}

/// The addresses that a virtual user leads to, in the order of the text; those without a domain are
/// in `origin`. `@domain` is the address of the user `local` there.
pub fn targets(text: &[u8], origin: &str, local: &str) -> Result<Vec<Address>, forward::Error> {
    if let Some(host) = text.trim_ascii().strip_prefix(b"@") {
        let address = address::domain(host, Alphabet::Ascii)
            .and_then(|host| Address::new(local, &host))
            .map_err(|_| {
                let what = format!("@{}: this is no domain", String::from_utf8_lossy(host));
                forward::Error { line: 1, what }
            })?;
        return Ok(vec![address]);
    }
    let members = forward::parse_at_most(text, origin, MAX_MEMBERS)?;
    let addresses = members.into_iter().map(|member| {
        let Entry::Address(address) = member else {
            let what = "a virtual user leads to addresses only; lead it to an alias that has the \
                        command or the file";
            return Err(forward::Error { line: 1, what: what.into() });
        };
        Ok(address)
    });
    addresses.collect()
}

/// What a table says of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Value {
    /// What stands behind the key.
    pub text: Vec<u8>,
    /// The file.
    pub file: PathBuf,
    /// The key's line, from 1.
    pub line: usize,
}

impl Value {
    /// Something about the value's line of this number, from 1: `file:line: what`.
    pub fn at(&self, line: usize, what: impl fmt::Display) -> String {
        let line = self.line + line.saturating_sub(1);
        format!("{}:{line}: {what}", self.file.display())
    }
}

/// A table in a file, which need not be there.
#[derive(Debug)]
pub struct Table {
    path: PathBuf,
    syntax: Syntax,
    /// As it was found last; looked at again with each question.
    opened: RefCell<Option<Opened>>,
    /// It stays as it was found when it was opened, or could not be.
    frozen: Option<Result<(), String>>,
}

#[derive(Debug)]
struct Opened {
    stamp: Stamp,
    file: File,
    index: Option<Index>,
    /// As it was read last.
    read: Option<Stamp>,
    /// When it was looked for an index: its own stamp, if there was one.
    index_stamp: Option<Stamp>,
}

impl Table {
    /// The table in the file at `path`.
    pub fn new(path: &Path, syntax: Syntax) -> Self {
        Self { path: path.to_owned(), syntax, opened: RefCell::new(None), frozen: None }
    }

    /// Opens the file, for a process that soon can open none: from then on it is as it was now.
    pub fn freeze(&mut self) {
        let opened = self.refresh(&mut self.opened.borrow_mut());
        self.frozen = Some(opened.map_err(|error| error.to_string()));
    }

    /// Its file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether there is such a file, or may be.
    pub fn is_there(&self) -> bool {
        let opened = self.frozen.is_some() && self.opened.borrow().is_none();
        !opened || matches!(self.frozen, Some(Err(_)))
    }

    /// The value of a key, given in lower case; the first line of a key counts. An error says that
    /// it can't be told now, and names the file.
    pub fn find(&self, key: &str) -> io::Result<Option<Value>> {
        let named = |error: io::Error| {
            io::Error::new(error.kind(), format!("{}: {error}", self.path.display()))
        };
        let mut opened = self.opened.borrow_mut();
        let current = match &self.frozen {
            None => self.refresh(&mut opened),
            Some(found) => found.clone().map_err(io::Error::other),
        };
        current.map_err(named)?;
        let Some(Opened { file, index, read, .. }) = opened.as_mut() else {
            return Ok(None);
        };
        if let Some(found) = index.as_ref().map(|index| self.look_up(file, index, key)) {
            match found {
                Ok(value) => return Ok(value),
                // It is a help, and no more: what it can't tell the file itself does.
                Err(_) => *index = None,
            }
        }
        let (text, stamp) = read_settled(file, *read).map_err(named)?;
        *read = Some(stamp);
        let found = lines(&text).find_map(|line| self.value(&line, key));
        if let Some(long) = found.as_ref().filter(|value| value.text.len() > MAX_LINE) {
            return Err(io::Error::other(long.at(1, format!("is longer than {MAX_LINE} bytes"))));
        }
        Ok(found)
    }

    /// Opens the file, and its index, where that has not been done or they have changed since.
    fn refresh(&self, opened: &mut Option<Opened>) -> io::Result<()> {
        let Some(found) = look(&self.path)? else {
            *opened = None;
            return Ok(());
        };
        let found = Stamp::of(&found);
        let index_path = index::path_of(&self.path);
        let index_stamp = std::fs::metadata(&index_path).ok().map(|found| Stamp::of(&found));
        if opened.as_ref().is_some_and(|o| o.stamp == found && o.index_stamp == index_stamp) {
            return Ok(());
        }
        *opened = None;
        let file = open(&self.path)?;
        let metadata = file.metadata()?;
        let stamp = Stamp::of(&metadata);
        let index = Index::open(&index_path, &metadata, self.syntax).ok();
        *opened = Some(Opened { stamp, file, index, read: None, index_stamp });
        Ok(())
    }

    fn look_up(&self, file: &File, index: &Index, key: &str) -> io::Result<Option<Value>> {
        let hash = index::hash(key);
        for record in index.find(hash)? {
            let text = line_at(file, record.offset)?;
            let line = Line { offset: 0, number: record.line, text: &text };
            let (found, _) = super::table::key(self.syntax, &text).map_err(io::Error::other)?;
            if index::hash(&found) != hash {
                return Err(io::ErrorKind::InvalidData.into());
            }
            if found == key {
                return Ok(self.value(&line, key));
            }
        }
        Ok(None)
    }

    fn value(&self, line: &Line<'_>, wanted: &str) -> Option<Value> {
        let (key, start) = key(self.syntax, line.text).ok().filter(|(key, _)| key == wanted)?;
        debug_assert_eq!(key, wanted);
        let text = line.text.get(start..)?.to_vec();
        Some(Value { text, file: self.path.clone(), line: line.number })
    }
}

/// Whether there just is no such file.
pub fn is_missing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

/// What is at `path`, if there is something. Editors move a file away before they write it anew, so
/// that one that has just gone may come back; and a link that leads to nothing is no missing file.
fn look(path: &Path) -> io::Result<Option<Metadata>> {
    for _ in 0..PATIENCE {
        match std::fs::metadata(path) {
            Err(error) if is_missing(&error) => {}
            found => return found.map(Some),
        }
        if !path.parent().is_some_and(|parent| parent.metadata().is_ok_and(|found| settle(&found)))
        {
            break;
        }
    }
    match std::fs::symlink_metadata(path) {
        Ok(_) => Err(io::Error::other("is a link to a file that is not there")),
        Err(_) => Ok(None),
    }
}

/// Waits until the last change is no recent one any more; false where it is none now.
fn settle(found: &Metadata) -> bool {
    unsettled(found).map(std::thread::sleep).is_some()
}

/// How long it takes until the last change is no recent one any more, where it is one.
fn unsettled(found: &Metadata) -> Option<Duration> {
    let age = found.modified().ok().and_then(|changed| changed.elapsed().ok())?;
    SETTLED.checked_sub(age).filter(|left| !left.is_zero())
}

/// Opens a table, which must be a regular file: a FIFO in its place is not waited for.
pub fn open(path: &Path) -> io::Result<File> {
    let file = File::options().read(true).custom_flags(nix::libc::O_NONBLOCK).open(path)?;
    let found = file.metadata()?;
    if !found.is_file() {
        return Err(io::Error::other("is not a regular file"));
    }
    if found.size() > MAX_FILE {
        return Err(io::Error::other(format!("is larger than {} MiB", MAX_FILE >> 20)));
    }
    Ok(file)
}

/// All of a file, as nobody has changed it for a moment: what is written in its place, and is not
/// whole yet, is waited for. `seen` is how it was found before.
pub fn read_settled(file: &File, mut seen: Option<Stamp>) -> io::Result<(Vec<u8>, Stamp)> {
    for _ in 0..PATIENCE {
        let found = file.metadata()?;
        let stamp = Stamp::of(&found);
        if settle(&found) {
            continue;
        }
        // ext4 makes a file empty before it says when.
        if found.len() == 0 && seen != Some(stamp) {
            seen = Some(stamp);
            std::thread::sleep(SETTLED);
            continue;
        }
        let text = read_all(file)?;
        if Stamp::of(&file.metadata()?) == stamp {
            return Ok((text, stamp));
        }
    }
    Err(being_changed())
}

/// All of a file; one that has just been changed is not waited for.
pub fn read_at_once(file: &File) -> io::Result<Vec<u8>> {
    let found = file.metadata()?;
    let text = read_all(file)?;
    if unsettled(&found).is_some() || Stamp::of(&file.metadata()?) != Stamp::of(&found) {
        return Err(being_changed());
    }
    Ok(text)
}

fn being_changed() -> io::Error {
    io::Error::other("is being changed; try again")
}

fn read_all(file: &File) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    let mut from_start = io::BufReader::with_capacity(64 * 1024, At { file, offset: 0 });
    from_start.by_ref().take(MAX_FILE).read_to_end(&mut text)?;
    Ok(text)
}

/// A file read from its start, whatever was read of it before.
struct At<'a> {
    file: &'a File,
    offset: u64,
}

impl Read for At<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read_at(buffer, self.offset)?;
        self.offset += count as u64;
        Ok(count)
    }
}

/// The line that begins at `offset`, with those that go on with it.
fn line_at(file: &File, offset: u64) -> io::Result<Vec<u8>> {
    let mut size = 1024;
    loop {
        let mut text = vec![0; size];
        let mut length = 0;
        while let Some(room) = text.get_mut(length..).filter(|room| !room.is_empty()) {
            match file.read_at(room, offset + length as u64)? {
                0 => break,
                count => length += count,
            }
        }
        text.truncate(length);
        let end = lines(&text).next().map(|line| (line.offset, line.text.len()));
        // It ends here where another line begins behind it, or the file ends.
        if length < size || lines(&text).nth(1).is_some() {
            return match end {
                Some((0, end)) => {
                    text.truncate(end);
                    Ok(text)
                }
                _ => Err(io::ErrorKind::InvalidData.into()),
            };
        }
        if size >= MAX_LINE {
            return Err(io::ErrorKind::InvalidData.into());
        }
        size *= 4;
    }
}

#[cfg(test)]
mod tests;

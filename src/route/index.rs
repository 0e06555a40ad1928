//! The index beside a table: where in its file the line of a key begins (hikyaku-aliases(5)).
//!
//! ```text
//! hikyaku-index 1 SYNTAX COUNT SIZE MTIME INODE CRC\n     96 bytes; hexadecimal numbers
//! HASH OFFSET LINE CRC                                    24 bytes each, sorted; little-endian
//! ```
//!
//! It is a help, never trusted: it counts only while size, time and inode of the table are those
//! that it was made of; each record that is looked at proves itself by a checksum over its place
//! and its content; and the line that it leads to must have the key. Whatever does not fit, the
//! table itself is read.

use std::fs::{File, Metadata};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::MAX_MEMBERS;
use super::access::Access;
use super::forward;
use super::table::{self, MAX_LINE, Syntax};

const HEAD: usize = 96;
const RECORD: usize = 24;

/// What tells one state of a file from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    size: u64,
    /// Nanoseconds since 1970.
    modified: i128,
    inode: u64,
}

impl Stamp {
    /// That of a file.
    pub fn of(found: &Metadata) -> Self {
        let modified = i128::from(found.mtime()) * 1_000_000_000 + i128::from(found.mtime_nsec());
        Self { size: found.size(), modified, inode: found.ino() }
    }
}

/// The index of the table at `path`.
pub fn path_of(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".index");
    name.into()
}

/// FNV-1a of 64 bits.
pub fn hash(key: &str) -> u64 {
    key.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

/// One key's place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Record {
    hash: u64,
    /// Where its line begins, in bytes.
    pub offset: u64,
    /// That line's number, from 1.
    pub line: usize,
}

impl Record {
    /// The record at this place in the index.
    fn encode(&self, place: u64) -> [u8; RECORD] {
        let mut bytes = [0; RECORD];
        let line = u32::try_from(self.line).unwrap_or(u32::MAX);
        let content = self.hash.to_le_bytes().into_iter().chain(self.offset.to_le_bytes());
        for (to, from) in bytes.iter_mut().zip(content.chain(line.to_le_bytes())) {
            *to = from;
        }
        let crc = checksum(place, bytes.get(..RECORD - 4).unwrap_or_default());
        for (to, from) in bytes.iter_mut().skip(RECORD - 4).zip(crc.to_le_bytes()) {
            *to = from;
        }
        bytes
    }

    fn parse(place: u64, bytes: &[u8; RECORD]) -> Option<Self> {
        let (hash, rest) = bytes.split_first_chunk()?;
        let (offset, rest) = rest.split_first_chunk()?;
        let (line, crc) = rest.split_first_chunk()?;
        let right = checksum(place, bytes.get(..RECORD - 4)?);
        (u32::from_le_bytes(crc.try_into().ok()?) == right).then_some(Self {
            hash: u64::from_le_bytes(*hash),
            offset: u64::from_le_bytes(*offset),
            line: usize::try_from(u32::from_le_bytes(*line)).ok()?,
        })
    }
}

fn checksum(place: u64, content: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(&place.to_le_bytes());
    crc.update(content);
    crc.finalize()
}

fn head(syntax: Syntax, count: u64, stamp: Stamp) -> String {
    let syntax = match syntax {
        Syntax::Aliases => 'a',
        Syntax::Virtual => 'v',
        Syntax::Access => 'c',
    };
    let Stamp { size, modified, inode } = stamp;
    let text =
        format!("hikyaku-index 1 {syntax} {count:08x} {size:08x} {modified:032x} {inode:016x}");
    format!("{text} {:08x}\n", crc32fast::hash(text.as_bytes()))
}

/// An index that fits its table.
#[derive(Debug)]
pub struct Index {
    file: File,
    count: u64,
}

impl Index {
    /// Opens the index at `path` of the table whose metadata these are. It must be its owner's or
    /// root's.
    pub fn open(path: &Path, table: &Metadata, syntax: Syntax) -> io::Result<Self> {
        let flags = nix::libc::O_NONBLOCK | nix::libc::O_NOFOLLOW;
        let file = File::options().read(true).custom_flags(flags).open(path)?;
        let found = file.metadata()?;
        let ours = found.uid() == table.uid() || found.uid() == 0;
        let body = found.size().checked_sub(HEAD as u64).filter(|_| ours && found.is_file());
        let body = body.ok_or(io::ErrorKind::InvalidData)?;
        let count = body / RECORD as u64;
        let mut line = [0; HEAD];
        file.read_exact_at(&mut line, 0)?;
        let wanted = padded(&head(syntax, count, Stamp::of(table)));
        if line != wanted || body % RECORD as u64 != 0 {
            return Err(io::ErrorKind::InvalidData.into());
        }
        Ok(Self { file, count })
    }

    /// The records of a hash, in the order of their lines.
    pub fn find(&self, hash: u64) -> io::Result<Vec<Record>> {
        let (mut low, mut high) = (0, self.count);
        while low < high {
            let middle = low.midpoint(high);
            if self.record(middle)?.hash < hash { low = middle + 1 } else { high = middle }
        }
        let mut found = Vec::new();
        while low < self.count {
            let record = self.record(low)?;
            if record.hash != hash {
                break;
            }
            found.push(record);
            low += 1;
        }
        Ok(found)
    }

    fn record(&self, place: u64) -> io::Result<Record> {
        let mut bytes = [0; RECORD];
        self.file.read_exact_at(&mut bytes, HEAD as u64 + place * RECORD as u64)?;
        Record::parse(place, &bytes).ok_or_else(|| io::ErrorKind::InvalidData.into())
    }
}

/// The first line in its fixed width.
fn padded(text: &str) -> [u8; HEAD] {
    let mut bytes = [b'\n'; HEAD];
    for (to, from) in bytes.iter_mut().zip(text.bytes()) {
        *to = from;
    }
    bytes
}

/// What a table has.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Keys.
    pub count: usize,
    /// Bytes of the longest value.
    pub longest: usize,
    /// Bytes of all keys and values.
    pub total: usize,
    /// What is wrong with lines, as `file:line: what`.
    pub errors: Vec<String>,
    /// What is strange but does no harm, likewise.
    pub warnings: Vec<String>,
    records: Vec<Record>,
}

/// Reads a table through; addresses without a domain are in `origin`.
pub fn check(path: &Path, syntax: Syntax, origin: &str) -> io::Result<Summary> {
    Ok(read(path, syntax, origin)?.0)
}

/// Reads a table through and writes its index, unless a line is wrong.
pub fn compile(path: &Path, syntax: Syntax, origin: &str) -> io::Result<Summary> {
    let (summary, stamp) = read(path, syntax, origin)?;
    if !summary.errors.is_empty() {
        return Ok(summary);
    }
    let index = path_of(path);
    let directory = index.parent().unwrap_or(Path::new("/"));
    let mut file = tempfile::Builder::new().prefix(".index-").tempfile_in(directory)?;
    let count = summary.records.len() as u64;
    let mut bytes = padded(&head(syntax, count, stamp)).to_vec();
    for (place, record) in (0..).zip(&summary.records) {
        bytes.extend_from_slice(&record.encode(place));
    }
    file.write_all(&bytes)?;
    file.as_file().set_permissions(std::fs::Permissions::from_mode(0o644))?;
    file.as_file().sync_all()?;
    file.persist(&index).map_err(|error| error.error)?;
    File::open(directory)?.sync_all()?;
    Ok(summary)
}

fn read(path: &Path, syntax: Syntax, origin: &str) -> io::Result<(Summary, Stamp)> {
    let file = table::open(path)?;
    let (text, stamp) = table::read_settled(&file, None)?;
    let mut summary = Summary::default();
    let mut seen = std::collections::HashMap::new();
    for line in table::lines(&text) {
        let at = |number: usize, what: &str| {
            format!("{}:{}: {what}", path.display(), line.number + number.saturating_sub(1))
        };
        if line.text.len() > MAX_LINE {
            let what = format!(
                "is longer than {MAX_LINE} bytes; put the members into a file of \
                                their own and :include: that"
            );
            summary.errors.push(at(1, &what));
            continue;
        }
        let (key, start) = match table::key(syntax, line.text) {
            Ok(found) => found,
            Err(what) => {
                summary.errors.push(at(1, &what));
                continue;
            }
        };
        let value = line.text.get(start..).unwrap_or_default();
        // A virtual domain's own line may say anything.
        let members = match syntax {
            Syntax::Aliases => {
                forward::parse_at_most(value, origin, MAX_MEMBERS).map(|members| members.len())
            }
            Syntax::Virtual if key.contains('@') => {
                table::targets(value, origin, "x").map(|targets| targets.len())
            }
            Syntax::Virtual => Ok(1),
            Syntax::Access => match Access::parse(value) {
                Ok(_) => Ok(1),
                Err(what) => Err(forward::Error { line: 1, what }),
            },
        };
        match members {
            Ok(0) => summary.errors.push(at(1, &format!("{key}: there is nothing behind it"))),
            Ok(_) => {}
            Err(error) => summary.errors.push(at(error.line, &error.what)),
        }
        let length = value.trim_ascii().len();
        summary.longest = summary.longest.max(length);
        summary.total += key.len() + length;
        summary.count += 1;
        let record = Record { hash: hash(&key), offset: line.offset as u64, line: line.number };
        if let Some(first) = seen.get(&key) {
            let what = format!("{key} stands in line {first} already; this line does nothing");
            summary.warnings.push(at(1, &what));
        }
        seen.entry(key).or_insert(line.number);
        summary.records.push(record);
    }
    summary.records.sort_unstable();
    Ok((summary, stamp))
}

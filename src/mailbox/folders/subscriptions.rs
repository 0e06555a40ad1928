//! What a user has subscribed to: a file that Dovecot reads and writes, too.
//!
//! A line is a name as it stands on the disk, with the layout's separator; behind the lines `V`, tab,
//! `2` and an empty one, tabs separate the words. Lines that are no name of ours stay.

use super::Folders;
use super::error::Error;
use super::layout::Layout;
use super::name::{Name, disk_word};

/// What begins a file of Dovecot's second version.
const SECOND: &[u8] = b"V\t2\n\n";

impl Folders {
    /// The names that are subscribed to, whether they exist or not.
    pub fn subscriptions(&self) -> Result<Vec<Name>, Error> {
        let bytes = self.read_beside(self.file_of_subscriptions())?;
        let (separator, lines) = self.lines(&bytes);
        Ok(lines.split(|b| *b == b'\n').filter_map(|line| name_of(line, separator)).collect())
    }

    /// Subscribes to a name, which need not exist.
    pub fn subscribe(&self, name: &Name) -> Result<(), Error> {
        let lock = self.lock()?;
        self.change_beside(&lock, self.file_of_subscriptions(), |mut bytes| {
            let (separator, lines) = self.lines(&bytes);
            if lines.split(|b| *b == b'\n').any(|line| is(line, separator, name)) {
                return None;
            }
            let words: Vec<String> = name.words().map(disk_word).collect();
            let line = words.join(&char::from(separator).to_string());
            if !bytes.is_empty() && !bytes.ends_with(b"\n") {
                bytes.push(b'\n');
            }
            bytes.extend_from_slice(line.as_bytes());
            bytes.push(b'\n');
            Some(bytes)
        })
    }

    /// Takes a subscription back; one that is not there is no error.
    pub fn unsubscribe(&self, name: &Name) -> Result<(), Error> {
        let lock = self.lock()?;
        self.change_beside(&lock, self.file_of_subscriptions(), |bytes| {
            let (separator, lines) = self.lines(&bytes);
            let head = bytes.len().saturating_sub(lines.len());
            let mut left = bytes.get(..head).unwrap_or_default().to_vec();
            let others = lines.split_inclusive(|b| *b == b'\n');
            for line in others.filter(|line| !is(line.trim_ascii_end(), separator, name)) {
                left.extend_from_slice(line);
            }
            (left.len() < bytes.len()).then_some(left)
        })
    }

    fn file_of_subscriptions(&self) -> &'static str {
        match self.layout {
            Layout::Files => ".subscriptions",
            Layout::Maildirs => "subscriptions",
        }
    }

    /// What separates words, and the lines.
    fn lines<'a>(&self, bytes: &'a [u8]) -> (u8, &'a [u8]) {
        match (bytes.strip_prefix(SECOND), self.layout) {
            (Some(lines), _) => (b'\t', lines),
            (None, Layout::Files) => (b'/', bytes),
            (None, Layout::Maildirs) => (b'.', bytes),
        }
    }
}

fn is(line: &[u8], separator: u8, name: &Name) -> bool {
    name_of(line, separator).as_ref() == Some(name)
}

fn name_of(line: &[u8], separator: u8) -> Option<Name> {
    let mut name = None;
    let text = str::from_utf8(line).ok()?;
    if text.eq_ignore_ascii_case("INBOX") {
        return Some(Name::inbox());
    }
    for word in text.split(char::from(separator)) {
        name = Some(Name::on_disk(name.as_ref(), word)?);
    }
    name
}

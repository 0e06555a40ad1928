//! A new message as it will stand in an mbox.

use std::io;
use std::rc::Rc;

use super::quote::Quoter;
use super::{fields, from_line, own};
use crate::mailbox::message::{NewMessage, Staged};
use crate::mailbox::store::Flags;
use crate::mailbox::uids::Uid;

/// Room for flags and keywords that are later written in place; blank, each means the same as if it
/// were not there. (A blank X-UID would not: c-client then numbers all messages anew.)
pub(super) const STATUS: usize = 10;

/// From this width on Dovecot, too, finds room in X-Keywords for its UID and some keywords, and
/// moves nothing.
pub(super) const KEYWORDS: usize = 90;

/// The first message of a mailbox gets X-IMAPbase, with the names of all keywords.
const FIRST_KEYWORDS: usize = 150;

/// Small pieces are written together, up to this size.
const COLLECT: usize = 256 * 1024;

/// A message in its stored form: `From_` line, header, blank line, quoted body, line ends LF;
/// without the blank line that separates it from the next. Its length is known before the first
/// byte is written.
#[derive(Debug)]
pub(super) struct Stored {
    /// What is put in front of the text.
    head: Vec<u8>,
    text: Rc<Staged>,
}

impl Stored {
    /// A message that nobody has marked yet. `first`: of an empty mailbox.
    pub fn of(message: &NewMessage, first: bool) -> Self {
        Self::marked(message, first, None, Flags::default(), &[])
    }

    /// A message with its marks, and with its UID where the mailbox says that it is given.
    pub fn marked(
        message: &NewMessage,
        first: bool,
        uid: Option<Uid>,
        flags: Flags,
        keywords: &[String],
    ) -> Self {
        let text = Rc::clone(&message.text);
        let body = text.length().saturating_sub(text.header).saturating_add(text.from_lines);
        let mut head = from_line::write(&message.sender, message.at);
        head.extend_from_slice(&message.trace);
        head.extend_from_slice(format!("Content-Length: {body}\n").as_bytes());
        if text.from_lines > 0 {
            head.extend_from_slice(format!("{}: yes\n", fields::QUOTED).as_bytes());
        }
        let room = if first { FIRST_KEYWORDS } else { KEYWORDS };
        let letters = |table: &[(u8, Flags)]| {
            let letters = table.iter().filter(|(_, flag)| flags.has(*flag));
            letters.map(|(letter, _)| char::from(*letter)).collect::<String>()
        };
        let words: String = keywords.iter().flat_map(|word| [" ", word.as_str()]).collect();
        let uid = uid.map(|uid| format!("X-UID: {uid}\n")).unwrap_or_default();
        // As it is where the UID is written later.
        let room = room.saturating_add(words.len()).saturating_sub(uid.len());
        for (field, value, width) in [
            ("Status", letters(&own::STATUS), STATUS),
            ("X-Status", letters(&own::X_STATUS), STATUS),
            ("X-Keywords", words, room),
        ] {
            if field == "X-Keywords" {
                head.extend_from_slice(uid.as_bytes());
            }
            let blank = if value.is_empty() || value.starts_with(' ') { "" } else { " " };
            head.extend_from_slice(
                format!("{field}:{:width$}\n", [blank, &value].concat()).as_bytes(),
            );
        }
        Self { head, text }
    }

    /// Its length in bytes.
    pub fn length(&self) -> u64 {
        let head = self.head.len() as u64;
        head.saturating_add(self.text.length()).saturating_add(self.text.from_lines)
    }

    /// How many NULs are in it.
    fn nuls(&self) -> u64 {
        self.text.nuls().saturating_add(memchr::memchr_iter(0, &self.head).count() as u64)
    }

    /// Gives the bytes in their order to `sink`, in large pieces.
    fn each(&self, sink: &mut dyn FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
        sink(&self.head)?;
        if self.text.from_lines == 0 {
            return self.text.each(sink);
        }
        let mut header = self.text.header;
        let (mut quoter, mut quoted) = (Quoter::default(), Vec::new());
        self.text.each(&mut |piece| {
            let own = usize::try_from(header).unwrap_or(usize::MAX).min(piece.len());
            header = header.saturating_sub(own as u64);
            let (own, body) = piece.split_at(own);
            quoted.clear();
            quoted.extend_from_slice(own);
            quoter.push(body, &mut |bytes| quoted.extend_from_slice(bytes));
            sink(&quoted)
        })
    }
}

/// Messages that are appended together, each behind the blank line that ends the one before it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Batch<'a>(pub &'a [Stored]);

impl Batch<'_> {
    /// The length of all of it; `None` if no file could hold it.
    pub fn length(&self) -> Option<u64> {
        let separators = u64::try_from(self.0.len().checked_sub(1)?).ok()?;
        let all = self.0.iter().try_fold(separators, |sum, one| sum.checked_add(one.length()));
        all.filter(|n| i64::try_from(*n).is_ok())
    }

    /// How many NULs are in all of it.
    pub fn nuls(&self) -> u64 {
        self.0.iter().fold(0, |sum, one| sum.saturating_add(one.nuls()))
    }

    /// The first message's `From_` line.
    pub fn first_line(&self) -> &[u8] {
        let head = self.0.first().map(|first| first.head.split_inclusive(|b| *b == b'\n'));
        head.and_then(|mut lines| lines.next()).unwrap_or_default()
    }

    /// Gives the bytes in their order to `sink`, collected into large pieces.
    pub fn each(&self, sink: &mut dyn FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
        let mut collected = Vec::new();
        for (number, message) in self.0.iter().enumerate() {
            if number > 0 {
                collected.push(b'\n');
            }
            message.each(&mut |bytes| {
                if collected.len() + bytes.len() > COLLECT {
                    sink(&collected)?;
                    collected.clear();
                }
                if bytes.len() > COLLECT {
                    return sink(bytes);
                }
                collected.extend_from_slice(bytes);
                Ok(())
            })?;
        }
        sink(&collected)
    }
}

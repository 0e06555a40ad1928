//! What the mailbox's own fields in a header say of its message.
//!
//! Neighbours write them, and strangers may have: a message that another program delivered has the
//! ones that its sender put there.

use super::fields::{self, Hidden};
use crate::mailbox::store::{Flags, MOST_KEYWORDS, is_keyword};
use crate::mailbox::uids::Uid;

/// So much of a header line is looked at for what a field says.
pub(super) const LOOK: usize = 2 * super::from_line::LONGEST;

/// The letters of `Status` and `X-Status`, but for the `O` of old messages.
pub(super) const STATUS: [(u8, Flags); 1] = [(b'R', Flags::SEEN)];
pub(super) const X_STATUS: [(u8, Flags); 4] =
    [(b'A', Flags::ANSWERED), (b'F', Flags::FLAGGED), (b'T', Flags::DRAFT), (b'D', Flags::DELETED)];

/// What a message's own fields say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Own {
    /// `Status` and `X-Status`.
    pub flags: Flags,
    /// `Status` says that a session has been told of the message.
    pub old: bool,
    /// The words of `X-Keywords`, each once.
    pub keywords: Vec<String>,
    /// `X-UID`. Whether it can be believed is for [`super::Believed`] to say.
    pub uid: Option<Uid>,
    /// `X-IMAPbase`, or the pseudo message's `X-IMAP`.
    pub base: Option<ImapBase>,
    /// What can be written there.
    pub room: Room,
}

/// What the first message says of the whole mailbox.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImapBase {
    /// The mailbox's UIDVALIDITY.
    pub uid_validity: u32,
    /// The largest UID that was given.
    pub uid_last: Uid,
    /// The names of its keywords.
    pub keywords: Vec<String>,
}

/// What the fields have room for, whatever it will be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Room {
    /// Any flags, with the keywords that are there.
    pub flags: bool,
    /// Any UID.
    pub uid: bool,
    /// So many more bytes of keywords, with a blank for each; nothing else being written.
    pub keywords: u32,
}

/// The words of a field's value.
pub(super) fn words(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    // Most are blank, and wide.
    let value = value.trim_ascii();
    value.split(|b| !b.is_ascii_graphic() && b.is_ascii()).filter(|word| !word.is_empty())
}

/// Takes in the header's lines, one by one.
#[derive(Debug, Default)]
pub(super) struct Reader {
    own: Own,
    imap: Option<ImapBase>,
    /// What the line before belongs to.
    field: Option<Hidden>,
    status: Width,
    x_status: Width,
    uid: Width,
    /// Of X-Keywords, without what is in use.
    spare: Width,
}

/// How much the first field of a kind can hold.
#[derive(Clone, Copy, Debug, Default)]
struct Width {
    bytes: Option<usize>,
    /// There is one that goes over more than one line: nothing is written then.
    folded: bool,
}

impl Width {
    fn see(&mut self, bytes: usize) {
        self.bytes.get_or_insert(bytes);
    }

    fn holds(self, most: usize) -> bool {
        !self.folded && self.bytes.is_some_and(|bytes| bytes >= most)
    }
}

impl Reader {
    /// A line that begins a field, or its beginning.
    pub fn line(&mut self, field: Option<Hidden>, line: &[u8]) {
        self.field = field;
        let Some(field) = field else {
            return;
        };
        let colon = memchr::memchr(b':', line).map_or(line.len(), |colon| colon + 1);
        let value = line.get(colon..).unwrap_or_default();
        let text = without_line_end(value);
        match field {
            Hidden::Status => self.status.see(text.len() - unknown(text, &STATUS, b"O")),
            Hidden::XStatus => self.x_status.see(text.len() - unknown(text, &X_STATUS, b"")),
            Hidden::Keywords => {
                let used: usize = words(text).map(|word| word.len() + 1).sum();
                self.spare.see(text.len().saturating_sub(used));
            }
            Hidden::Uid => {
                self.uid.see(text.len());
                let uid = number(text.trim_ascii()).filter(|uid| *uid > 0);
                self.own.uid = self.own.uid.or(uid);
            }
            Hidden::ImapBase if self.own.base.is_none() => self.own.base = base(text),
            Hidden::Imap if self.imap.is_none() => self.imap = base(text),
            _ => {}
        }
        self.value(field, text);
        if text.len() == value.len() {
            self.fold();
        }
    }

    /// A line that belongs to the field before it.
    pub fn folded_line(&mut self, line: &[u8]) {
        let Some(field) = self.field else {
            return;
        };
        self.value(field, line);
        if let Some(base) = self.base_of(field) {
            add_words(&mut base.keywords, line);
        }
        self.fold();
    }

    fn value(&mut self, field: Hidden, text: &[u8]) {
        let own = &mut self.own;
        match field {
            Hidden::Status => {
                own.flags = own.flags | flags(text, &STATUS);
                own.old |= text.contains(&b'O');
            }
            Hidden::XStatus => own.flags = own.flags | flags(text, &X_STATUS),
            Hidden::Keywords => add_words(&mut own.keywords, text),
            _ => {}
        }
    }

    fn base_of(&mut self, field: Hidden) -> Option<&mut ImapBase> {
        match field {
            Hidden::ImapBase => self.own.base.as_mut(),
            Hidden::Imap => self.imap.as_mut(),
            _ => None,
        }
    }

    fn fold(&mut self) {
        match self.field {
            Some(Hidden::Status) => self.status.folded = true,
            Some(Hidden::XStatus) => self.x_status.folded = true,
            Some(Hidden::Keywords) => self.spare.folded = true,
            Some(Hidden::Uid) => self.uid.folded = true,
            _ => {}
        }
    }

    /// All lines have come. `X-IMAP` counts in the pseudo message only.
    pub fn finish(self, internal: bool) -> Own {
        let mut own = self.own;
        if internal {
            own.base = own.base.or(self.imap);
        }
        let spare = self.spare.bytes.filter(|_| !self.spare.folded).unwrap_or(0);
        let made = |width: Width, most: usize, line: &str| match width.holds(most) {
            true => 0,
            false if width.folded => usize::MAX,
            false => line.len(),
        };
        let flags = made(self.status, 2, "Status: RO\r\n").saturating_add(made(
            self.x_status,
            4,
            "X-Status: AFTD\r\n",
        ));
        own.room = Room {
            flags: flags <= spare,
            uid: match self.uid.bytes {
                Some(_) => self.uid.holds(10),
                None => spare >= "X-UID: 4294967295\r\n".len(),
            },
            keywords: u32::try_from(spare).unwrap_or(u32::MAX),
        };
        own
    }
}

/// The own fields of a header that is at hand.
pub(super) fn read(header: &[u8]) -> Own {
    let mut reader = Reader::default();
    for line in header.split_inclusive(|b| *b == b'\n') {
        let line = line.get(..LOOK).unwrap_or(line);
        if matches!(line, b"\n" | b"\r\n" | b"\r") {
            break;
        }
        match line.first() {
            Some(b' ' | b'\t') => reader.folded_line(line),
            _ => reader.line(fields::hidden(line), line),
        }
    }
    reader.finish(false)
}

/// A line without its end.
pub(super) fn without_line_end(line: &[u8]) -> &[u8] {
    line.strip_suffix(b"\n").map_or(line, |line| line.strip_suffix(b"\r").unwrap_or(line))
}

fn flags(text: &[u8], letters: &[(u8, Flags)]) -> Flags {
    let of = |byte: &u8| letters.iter().find(|(letter, _)| letter == byte).map(|(_, flag)| *flag);
    text.iter().filter_map(of).fold(Flags::default(), |flags, flag| flags | flag)
}

/// How many bytes mean something that we don't know.
fn unknown(text: &[u8], letters: &[(u8, Flags)], others: &[u8]) -> usize {
    text.iter().filter(|byte| is_unknown(**byte, letters, others)).count()
}

pub(super) fn is_unknown(byte: u8, letters: &[(u8, Flags)], others: &[u8]) -> bool {
    !byte.is_ascii_whitespace()
        && !others.contains(&byte)
        && letters.iter().all(|(letter, _)| *letter != byte)
}

fn add_words(keywords: &mut Vec<String>, text: &[u8]) {
    for word in words(text).filter_map(|word| std::str::from_utf8(word).ok()) {
        let known = keywords.iter().any(|known| known == word);
        if is_keyword(word) && !known && keywords.len() < MOST_KEYWORDS {
            keywords.push(word.to_owned());
        }
    }
}

/// `UIDVALIDITY UIDLAST keyword…`
fn base(text: &[u8]) -> Option<ImapBase> {
    let mut numbers = words(text);
    let uid_validity = number(numbers.next()?).filter(|n| *n > 0)?;
    let uid_last = number(numbers.next()?)?;
    let mut keywords = Vec::new();
    for word in numbers {
        add_words(&mut keywords, word);
    }
    Some(ImapBase { uid_validity, uid_last, keywords })
}

fn number(digits: &[u8]) -> Option<u32> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0_u32, |n, b| {
        let digit = b.is_ascii_digit().then(|| u32::from(b.wrapping_sub(b'0')))?;
        n.checked_mul(10)?.checked_add(digit)
    })
}

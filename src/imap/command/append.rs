//! APPEND, up to the message: its literal is not a part of the command but streamed.
//!
//! ```text
//! append      = "APPEND" SP mailbox [SP flag-list] [SP date-time] SP append-data
//! append-data = literal / literal8 / append-data-ext
//! ```

use super::cursor::Cursor;
use super::date::{DateTime, date_time};
use super::flag::{Flag, flag_list};
use super::{Dialect, Error, Failure, beginning};

/// Where a message goes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppendTo {
    /// The command's tag.
    pub tag: String,
    /// The mailbox.
    pub mailbox: String,
    /// The first message; by MULTIAPPEND (RFC 3502) others may follow it.
    pub message: Appended,
}

/// A message that follows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Appended {
    /// Its flags.
    pub flags: Vec<Flag>,
    /// Its date.
    pub date: Option<DateTime>,
    /// Its octets.
    pub size: u64,
    /// Whether it comes as a literal8 (RFC 3516), and so may have NULs.
    pub binary: bool,
}

/// Reads an APPEND whose text ends with the announcement of a literal.
///
/// `None`: it is another command. [`Error::More`]: the literal is the mailbox's name, and to be
/// kept. An APPEND that ends otherwise is an error.
pub fn append(text: &[u8], dialect: Dialect) -> Option<Result<AppendTo, Failure>> {
    let (tag, name, mut cursor) = beginning(text, dialect).ok()?;
    if name != "APPEND" {
        return None;
    }
    let mut read = || {
        cursor.sp()?;
        let mailbox = cursor.mailbox()?;
        Ok((mailbox, message(&mut cursor)?))
    };
    Some(match read() {
        Ok((mailbox, message)) => Ok(AppendTo { tag, mailbox, message }),
        Err(error) => Err(Failure { tag: Some(tag), error }),
    })
}

/// Reads what stands behind a message and ends with the announcement of another one.
pub fn append_more(text: &[u8]) -> Result<Appended, Error> {
    message(&mut Cursor::new(text, false))
}

/// `[SP flag-list] [SP date-time] SP (literal / literal8)`, up to the octets.
fn message(cursor: &mut Cursor) -> Result<Appended, Error> {
    cursor.sp()?;
    let mut flags = Vec::new();
    if cursor.peek() == Some(b'(') {
        flags = flag_list(cursor)?;
        cursor.sp()?;
    }
    let mut date = None;
    if cursor.peek() == Some(b'"') {
        date = Some(date_time(cursor)?);
        cursor.sp()?;
    }
    let binary = cursor.eat(b'~');
    let size = cursor.announcement().map_err(|_| Error::Wanted("a message as a literal"))?;
    if cursor.is_at_end() {
        Ok(Appended { flags, date, size, binary })
    } else {
        Err(Error::Wanted("a message as a literal"))
    }
}

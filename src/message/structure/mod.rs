//! The structure of a message: its envelope, and the tree of its MIME parts (RFC 2045, RFC 2046), as
//! IMAP tells of them (RFC 9051 section 7.5.2).
//!
//! A [`Parser`] takes a message in pieces and keeps of it what is asked for, within bounds: a
//! message of any size costs no more than its few fields. What comes out knows where each part
//! stands, so that a part of a message is a range of its octets. Whatever strangers send has a
//! structure; where something is broken, it is what Dovecot makes of it, for which clients are ready.

mod addresses;
mod encode;
mod fields;
mod lexer;
mod parse;
#[cfg(test)]
mod tests;

use std::ops::Range;

pub use encode::{decode, encode};
pub use parse::Parser;

/// The most parts that lie within each other.
pub const MAX_DEPTH: usize = 100;
/// The most parts of a message. What stands behind them is one more, into which nobody looks.
pub const MAX_PARTS: usize = 10_000;
/// The most octets of fields that are kept of a message. What comes behind them counts as missing.
pub const MAX_FIELDS: usize = 16 << 20;
/// The most addresses that are kept of a message, the marks of groups among them.
pub const MAX_ADDRESSES: usize = 20_000;
/// The most parameters that are kept of a message, languages among them.
pub const MAX_PARAMETERS: usize = 20_000;

/// A message: the whole one, or one that is within another.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Structure {
    /// What its header says of it.
    pub envelope: Envelope,
    /// The message as a part.
    pub root: Part,
}

/// The fields that ENVELOPE is made of; `None` where one is missing. They are what stood there,
/// unfolded and without a charset.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Envelope {
    /// `Date:`
    pub date: Option<Vec<u8>>,
    /// `Subject:`
    pub subject: Option<Vec<u8>>,
    /// `From:`
    pub from: Vec<Address>,
    /// `Sender:`
    pub sender: Vec<Address>,
    /// `Reply-To:`
    pub reply_to: Vec<Address>,
    /// `To:`
    pub to: Vec<Address>,
    /// `Cc:`
    pub cc: Vec<Address>,
    /// `Bcc:`
    pub bcc: Vec<Address>,
    /// `In-Reply-To:`
    pub in_reply_to: Option<Vec<u8>>,
    /// `Message-ID:`
    pub message_id: Option<Vec<u8>>,
}

/// An address of a field, or the mark of a group, as ENVELOPE has them: a group begins with its name
/// as `mailbox` and no `host`, and ends with neither.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Address {
    /// The display name, without quotes.
    pub name: Option<Vec<u8>>,
    /// The route of RFC 822: `@a,@b`.
    pub route: Option<Vec<u8>>,
    /// The local part, without quotes; empty where it is missing.
    pub mailbox: Option<Vec<u8>>,
    /// The domain; empty where it is missing.
    pub host: Option<Vec<u8>>,
}

/// A parameter of a field. Continuations (RFC 2231 section 3) are put together; a value with a
/// charset stays as it is, and its name ends in `*`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Parameter {
    /// Its name.
    pub name: Vec<u8>,
    /// Its value, without quotes.
    pub value: Vec<u8>,
}

/// A value with parameters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Disposition {
    /// `inline`, `attachment`
    pub value: Vec<u8>,
    /// `filename` and others.
    pub parameters: Vec<Parameter>,
}

/// A part of a message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Part {
    /// The type, as written; `text` where none is named.
    pub kind: Vec<u8>,
    /// The subtype, as written.
    pub subtype: Vec<u8>,
    /// The parameters of the type.
    pub parameters: Vec<Parameter>,
    /// `Content-ID:`
    pub id: Option<Vec<u8>>,
    /// `Content-Description:`
    pub description: Option<Vec<u8>>,
    /// `Content-Transfer-Encoding:`
    pub encoding: Option<Vec<u8>>,
    /// `Content-MD5:`
    pub md5: Option<Vec<u8>>,
    /// `Content-Disposition:`
    pub disposition: Option<Disposition>,
    /// `Content-Language:`
    pub languages: Vec<Vec<u8>>,
    /// `Content-Location:`
    pub location: Option<Vec<u8>>,
    /// Where in the message its header begins.
    pub start: u64,
    /// Where its body begins.
    pub body: u64,
    /// Where its body ends.
    pub end: u64,
    /// The line ends in its body.
    pub lines: u64,
    /// What it consists of.
    pub content: Content,
}

/// What a part consists of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Content {
    /// Text.
    #[default]
    Text,
    /// Something into which nobody looks.
    Other,
    /// Parts; there may be none.
    Multipart(Vec<Part>),
    /// A message.
    Message(Box<Structure>),
}

impl Part {
    /// The octets of its header, with the blank line.
    pub fn header(&self) -> Range<u64> {
        self.start..self.body
    }

    /// The octets of its body.
    pub fn text(&self) -> Range<u64> {
        self.body..self.end
    }

    /// The message that it is.
    pub fn message(&self) -> Option<&Structure> {
        match &self.content {
            Content::Message(message) => Some(message),
            _ => None,
        }
    }

    /// Those that it has, by their numbers from 1 on.
    fn child(&self, number: u32) -> Option<&Self> {
        match &self.content {
            Content::Multipart(parts) => parts.get(usize::try_from(number).ok()?.checked_sub(1)?),
            Content::Message(message) => message.child(number),
            Content::Text | Content::Other => None,
        }
    }
}

impl Structure {
    /// The part with these numbers (RFC 9051 section 6.4.5.1); without any the message itself.
    ///
    /// `BODY[n]` is its [`Part::text`], `BODY[n.MIME]` its [`Part::header`]; `BODY[n.HEADER]` and
    /// `BODY[n.TEXT]` are those of the [`Part::message`] that it is.
    pub fn part(&self, numbers: &[u32]) -> Option<&Part> {
        let Some((first, rest)) = numbers.split_first() else {
            return Some(&self.root);
        };
        rest.iter().try_fold(self.child(*first)?, |part, number| part.child(*number))
    }

    /// A message without parts has one: itself.
    fn child(&self, number: u32) -> Option<&Part> {
        match self.root.content {
            Content::Multipart(_) => self.root.child(number),
            _ => (number == 1).then_some(&self.root),
        }
    }
}

//! From bytes to commands (RFC 9051 section 2.2.1): lines, and the literals between them.
//!
//! ```text
//! literal  = "{" number64 ["+"] "}" CRLF *CHAR8      ; the sign: not synchronizing, RFC 7888
//! literal8 = "~{" number64 ["+"] "}" CRLF *OCTET
//! ```
//!
//! Where a line ends with the announcement of a literal, whoever drives the [`Reader`] says whether
//! its octets are kept as a part of the command, streamed to where they belong, or not wanted. All
//! that is kept of a command is within [`Limits`]; what is not wanted is passed over as a whole, so
//! that no octet of a literal is ever taken for a command.
//!
//! Quirk, for people at a terminal: a line may end with a bare LF.

use super::command::tag;

/// What a command may be made of.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of its lines, announcements of literals included.
    pub text: usize,
    /// Octets of the literals that are kept, all together.
    pub literals: usize,
}

impl Limits {
    /// Of a stranger: 8 KiB in all.
    pub const BEFORE_LOGIN: Self = Self { text: 4 * 1024, literals: 4 * 1024 };
    /// Of a user.
    pub const AFTER_LOGIN: Self = Self { text: 64 * 1024, literals: 64 * 1024 };
}

/// A literal that was announced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Literal {
    /// Its octets; a number too large to count is the largest one.
    pub size: u64,
    /// Whether the client waits to be told that it may send them. Otherwise they come whatever is
    /// said.
    pub synchronizing: bool,
    /// Whether it is a literal8.
    pub binary: bool,
}

/// What a look at the input gave.
#[derive(Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// A whole command, or what stands of it behind a literal that was streamed, without its line
    /// end. The literals that were kept stand in it as they were sent.
    Command(Vec<u8>),
    /// [`Reader::text`] ends with the announcement of a literal: [`Reader::keep`],
    /// [`Reader::stream`] or [`Reader::refuse`] it. Until then this comes again.
    Literal(Literal),
    /// Octets of a literal that is streamed; never none.
    Chunk(&'a [u8]),
    /// They were all.
    End,
    /// A command had more text than is taken; this was its tag, unless the text was that of what
    /// stands behind a literal that was streamed.
    TooLong(Option<String>),
    /// The input is used up.
    More,
}

/// So many bytes of a long command are looked at for its tag.
const MAX_BEGINNING: usize = 256;

/// So many bytes at the end of a line can be the announcement of a literal.
const MAX_ANNOUNCEMENT: usize = 64;

/// Collects one command at a time from reads of any size.
#[derive(Debug)]
pub struct Reader {
    limits: Limits,
    text: Vec<u8>,
    /// Where in the text the line that is read begins.
    line: usize,
    /// Whether a literal of the command was streamed.
    has_streamed: bool,
    /// Bytes of the command's lines so far, and octets of its literals.
    spent: Limits,
    state: State,
}

#[derive(Debug, PartialEq, Eq)]
enum State {
    Line,
    Announced(Literal),
    /// So many octets are to come that are kept.
    Keep(u64),
    /// So many that are streamed.
    Stream(u64),
    /// So many that nobody wants, and then a line of the same command.
    Skip(u64),
    /// A line that nobody wants: what could be an announcement at its end, and the event that is to
    /// be told then.
    Unwanted(Vec<u8>, Option<Event<'static>>),
}

impl Reader {
    /// For commands within these limits.
    pub fn new(limits: Limits) -> Self {
        let spent = Limits { text: 0, literals: 0 };
        let text = Vec::new();
        Self { limits, text, line: 0, has_streamed: false, spent, state: State::Line }
    }

    /// What has come of the command so far.
    pub fn text(&self) -> &[u8] {
        &self.text
    }

    /// Whether a command has begun.
    pub fn is_amid_command(&self) -> bool {
        self.state != State::Line || !self.text.is_empty() || self.spent.text > 0
    }

    /// Whether the literal that was announced is within the limits.
    pub fn fits(&self) -> bool {
        match &self.state {
            State::Announced(literal) => {
                let left = self.limits.literals.saturating_sub(self.spent.literals);
                usize::try_from(literal.size).is_ok_and(|size| size <= left)
            }
            _ => false,
        }
    }

    /// The literal becomes a part of the command; one that does not fit is refused. A client that
    /// waits has to be told to go on.
    pub fn keep(&mut self) {
        if !self.fits() {
            return self.refuse();
        }
        if let State::Announced(literal) = &self.state {
            let size = usize::try_from(literal.size).unwrap_or(usize::MAX);
            self.spent.literals = self.spent.literals.saturating_add(size);
            self.state = State::Keep(literal.size);
        }
    }

    /// The literal comes in pieces, and then the rest of the command. A client that waits has to be
    /// told to go on.
    pub fn stream(&mut self) {
        if let State::Announced(literal) = &self.state {
            self.state = State::Stream(literal.size);
            self.text = Vec::new();
            self.has_streamed = true;
        }
    }

    /// The command is not wanted, for which the client has to be told why: what there is of it is
    /// passed over.
    pub fn refuse(&mut self) {
        if let State::Announced(literal) = &self.state {
            let literal = *literal;
            self.begin();
            if !literal.synchronizing {
                self.state = State::Skip(literal.size);
            }
        }
    }

    /// A new command.
    fn begin(&mut self) {
        *self = Self::new(self.limits);
    }

    /// Takes what it can from the input.
    pub fn take<'a>(&mut self, input: &mut &'a [u8]) -> Event<'a> {
        loop {
            match &mut self.state {
                State::Announced(literal) => return Event::Literal(*literal),
                State::Keep(0) => {
                    self.line = self.text.len();
                    self.state = State::Line;
                }
                State::Stream(0) => {
                    self.line = 0;
                    self.state = State::Line;
                    return Event::End;
                }
                State::Skip(0) => self.state = State::Unwanted(Vec::new(), None),
                _ if input.is_empty() => return Event::More,
                State::Keep(left) => {
                    let octets = split(input, left);
                    self.text.extend_from_slice(octets);
                }
                State::Stream(left) => return Event::Chunk(split(input, left)),
                State::Skip(left) => {
                    split(input, left);
                }
                State::Line => {
                    let (part, ended) = line(input);
                    if let Some(event) = self.wanted(part, ended) {
                        return event;
                    }
                }
                State::Unwanted(end, event) => {
                    let (part, ended) = line(input);
                    add_end(end, part);
                    if ended {
                        let (literal, event) = (announced(without_cr(end)), event.take());
                        self.begin();
                        if let Some(literal) = literal.filter(|literal| !literal.synchronizing) {
                            self.state = State::Skip(literal.size);
                        }
                        if let Some(event) = event {
                            return event;
                        }
                    }
                }
            }
        }
    }

    /// A part of a line, perhaps its last one.
    fn wanted(&mut self, part: &[u8], ended: bool) -> Option<Event<'static>> {
        self.spent.text = self.spent.text.saturating_add(part.len()).saturating_add(ended.into());
        if self.spent.text > self.limits.text {
            let mut text = std::mem::take(&mut self.text);
            let mut end = Vec::new();
            add_end(&mut end, text.get(self.line..).unwrap_or_default());
            add_end(&mut end, part);
            text.extend(part.iter().take(MAX_BEGINNING));
            // Not more than has come in any case, whatever the reads are.
            text.truncate(MAX_BEGINNING.min(self.limits.text));
            let tag = tag(&text).filter(|_| text.contains(&b' ') && !self.has_streamed);
            let event = Event::TooLong(tag);
            if !ended {
                self.state = State::Unwanted(end, Some(event));
                return None;
            }
            let literal = announced(without_cr(&end));
            self.begin();
            if let Some(literal) = literal.filter(|literal| !literal.synchronizing) {
                self.state = State::Skip(literal.size);
            }
            return Some(event);
        }
        self.text.extend_from_slice(part);
        if !ended {
            return None;
        }
        if self.text.len() > self.line && self.text.last() == Some(&b'\r') {
            self.text.pop();
        }
        match announced(self.text.get(self.line..).unwrap_or_default()) {
            None => {
                let text = std::mem::take(&mut self.text);
                self.begin();
                Some(Event::Command(text))
            }
            Some(literal) => {
                self.text.extend_from_slice(b"\r\n");
                self.state = State::Announced(literal);
                None
            }
        }
    }
}

/// Takes a line off the input, or as much of it as there is.
fn line<'a>(input: &mut &'a [u8]) -> (&'a [u8], bool) {
    let all = *input;
    let end = memchr::memchr(b'\n', all);
    let (part, behind) = all.split_at(end.unwrap_or(all.len()));
    *input = behind.get(1..).unwrap_or_default();
    (part, end.is_some())
}

/// Takes at most so many octets off the input.
fn split<'a>(input: &mut &'a [u8], left: &mut u64) -> &'a [u8] {
    let length = usize::try_from(*left).unwrap_or(usize::MAX).min(input.len());
    let (octets, rest) = input.split_at(length);
    *input = rest;
    *left = left.saturating_sub(length as u64);
    octets
}

/// Keeps the end of a line.
fn add_end(end: &mut Vec<u8>, part: &[u8]) {
    end.extend_from_slice(part.get(part.len().saturating_sub(MAX_ANNOUNCEMENT)..).unwrap_or(part));
    end.drain(..end.len().saturating_sub(MAX_ANNOUNCEMENT));
}

/// A line without the CR of its end.
fn without_cr(line: &[u8]) -> &[u8] {
    line.strip_suffix(b"\r").unwrap_or(line)
}

/// The literal that a line announces at its end. Any line: what is no announcement by the grammar
/// is no command either.
fn announced(line: &[u8]) -> Option<Literal> {
    let line = line.strip_suffix(b"}")?;
    let (line, synchronizing) = match line.strip_suffix(b"+") {
        Some(line) => (line, false),
        None => (line, true),
    };
    let before = line.iter().rposition(|byte| !byte.is_ascii_digit())?;
    let (line, digits) = line.split_at(before.saturating_add(1));
    let line = line.strip_suffix(b"{").filter(|_| !digits.is_empty())?;
    let size = digits.iter().fold(0_u64, |size, digit| {
        size.saturating_mul(10).saturating_add(u64::from(digit.wrapping_sub(b'0')))
    });
    Some(Literal { size, synchronizing, binary: line.last() == Some(&b'~') })
}

#[cfg(test)]
#[path = "input_tests.rs"]
mod tests;

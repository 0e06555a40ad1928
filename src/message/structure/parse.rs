//! A message taken apart, in one pass, from pieces of any cut.

use super::fields::{Budget, Fields, MAX_FIELD};
use super::{Content, Envelope, MAX_DEPTH, MAX_PARTS, Parameter, Part, Structure};

/// The longest boundary that is looked for; of a longer one only so much counts (RFC 2046 section
/// 5.1.1 allows 70).
const MAX_BOUNDARY: usize = 80;
/// How much of a line tells whether it is a delimiter.
const LOOK: usize = MAX_BOUNDARY + 4;

/// Where the next octet belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// To a line of a header.
    Header,
    /// To a line of a body that may be a delimiter.
    LineStart,
    /// To a line of a body that is none.
    Body,
    /// To a delimiter. Behind one that opens a part, that part begins.
    Delimiter { opens: bool },
}

/// Takes a message apart.
#[derive(Debug)]
pub struct Parser {
    /// The octets that were taken, and the line ends among them.
    at: u64,
    line_ends: u64,
    last: u8,
    /// What is known of the current line: all of it in a header, as far as fields may go.
    line: Vec<u8>,
    line_start: u64,
    /// Octets of the line end before it that go with it, should it be a delimiter.
    newline: u64,
    place: Place,
    /// The parts that have not ended, each within the one before.
    open: Vec<Open>,
    parts: usize,
    budget: Budget,
    /// The whole message, once it has ended.
    whole: Option<Structure>,
}

/// A part that has not ended yet.
#[derive(Debug)]
struct Open {
    /// It is a message's root, and its header has an envelope.
    of_message: bool,
    fields: Fields,
    envelope: Envelope,
    part: Part,
    /// The line ends before its body.
    line_ends: u64,
    /// What delimits its parts, as long as more of them may come.
    boundary: Option<Vec<u8>>,
}

impl Open {
    fn new(of_message: bool, start: u64) -> Self {
        Self {
            of_message,
            fields: Fields::new(of_message),
            envelope: Envelope::default(),
            part: Part { start, ..Part::default() },
            line_ends: 0,
            boundary: None,
        }
    }
}

impl Default for Parser {
    /// At the start of a message.
    fn default() -> Self {
        Self {
            at: 0,
            line_ends: 0,
            last: 0,
            line: Vec::new(),
            line_start: 0,
            newline: 0,
            place: Place::Header,
            open: vec![Open::new(true, 0)],
            parts: 1,
            budget: Budget::default(),
            whole: None,
        }
    }
}

impl Parser {
    /// Takes the next piece of the message.
    pub fn push(&mut self, mut piece: &[u8]) {
        while !piece.is_empty() {
            let taken = match self.place {
                Place::Body => self.body(piece),
                _ => self.line(piece),
            };
            piece = piece.get(taken..).unwrap_or_default();
        }
    }

    /// The message is whole.
    pub fn finish(mut self) -> Structure {
        let in_header = self.place == Place::Header;
        let may_delimit = in_header || self.place == Place::LineStart;
        if !self.line.is_empty() && may_delimit && !self.delimits() && in_header {
            self.header_line();
        }
        while self.place == Place::Header {
            self.end_header();
        }
        self.close(0, self.at, self.line_ends);
        self.whole.unwrap_or_default()
    }

    /// Counts what was taken.
    fn count(&mut self, taken: &[u8], line_ends: u64) {
        self.at += taken.len() as u64;
        self.line_ends += line_ends;
        self.last = taken.last().copied().unwrap_or(self.last);
    }

    /// The octets of the line end with which the next piece ends, if it does.
    fn line_end(&self, taken: &[u8]) -> u64 {
        let before = match taken {
            [.., before, _] => *before,
            _ => self.last,
        };
        if before == b'\r' { 2 } else { 1 }
    }

    /// Takes what belongs to no delimiter for sure.
    fn body(&mut self, piece: &[u8]) -> usize {
        let mut taken = piece;
        if self.open.iter().any(|open| open.boundary.is_some())
            && let Some(end) = line_start(piece)
        {
            taken = piece.get(..end).unwrap_or(piece);
            self.newline = self.line_end(taken);
            self.place = Place::LineStart;
        }
        let line_ends = memchr::memchr_iter(b'\n', taken).count() as u64;
        self.count(taken, line_ends);
        self.line_start = self.at;
        taken.len()
    }

    /// Takes what belongs to the current line.
    fn line(&mut self, piece: &[u8]) -> usize {
        let end = memchr::memchr(b'\n', piece).map(|at| at + 1);
        let mut taken = piece.get(..end.unwrap_or(piece.len())).unwrap_or(piece);
        let most = match self.place {
            Place::Header => MAX_FIELD,
            _ => LOOK,
        };
        let room = most.saturating_sub(self.line.len());
        if self.place == Place::LineStart {
            // So much decides; the rest is looked at afterwards, as what it is.
            taken = taken.get(..room).unwrap_or(taken);
        }
        let ended = taken.ends_with(b"\n");
        let newline = self.line_end(taken);
        self.line.extend_from_slice(taken.get(..room).unwrap_or(taken));
        self.count(taken, 0);
        match self.place {
            Place::LineStart => self.line_of_body(ended, newline),
            _ if !ended => {}
            Place::Header => {
                if !self.delimits() {
                    self.line_ends += 1;
                    self.newline = newline;
                    self.header_line();
                }
                if let Place::Delimiter { opens } = self.place {
                    self.behind_delimiter(opens, newline);
                }
            }
            Place::Delimiter { opens } => self.behind_delimiter(opens, newline),
            Place::Body => {}
        }
        taken.len()
    }

    /// Looks at what is known of a line of a body, as soon as that is enough.
    fn line_of_body(&mut self, ended: bool, newline: u64) {
        let may_be = self.line.iter().zip(b"--").all(|(a, b)| a == b);
        if may_be && !ended && self.line.len() < LOOK {
            return;
        }
        if may_be && self.delimits() {
            if let (true, Place::Delimiter { opens }) = (ended, self.place) {
                self.behind_delimiter(opens, newline);
            }
            return;
        }
        self.line.clear();
        if ended {
            self.line_ends += 1;
            self.newline = newline;
            self.line_start = self.at;
        } else {
            self.place = Place::Body;
        }
    }

    /// Whether the current line is a delimiter (RFC 2046 section 5.1.1). Then the parts before it
    /// have ended.
    fn delimits(&mut self) -> bool {
        let Some((depth, last)) = self.find_delimiter() else {
            return false;
        };
        let in_header = self.place == Place::Header;
        // The line end before it belongs to it, even that of the blank line behind a header.
        let behind_header = |open: &Open| in_header || open.part.body == self.line_start;
        let from = self
            .open
            .last()
            .map_or(0, |open| if behind_header(open) { open.part.start } else { open.part.body });
        let end = self.line_start.saturating_sub(self.newline).max(from);
        let line_ends = self.line_ends.saturating_sub(u64::from(end < self.line_start));
        if in_header {
            // The header ends here, and so does its part.
            self.end_header_at(end, line_ends);
            if self.open.last().is_some_and(|open| open.part.message().is_some()) {
                self.parts += 1;
                self.open.push(Open::new(true, end));
                self.end_header_at(end, line_ends);
            }
        } else if depth + 1 < self.open.len()
            && let Some(open) = self.open.last_mut()
        {
            open.part.body = open.part.body.min(end);
        }
        self.close(depth + 1, end, line_ends);
        if last && let Some(open) = self.open.last_mut() {
            open.boundary = None;
        }
        self.place = Place::Delimiter { opens: !last };
        self.line.clear();
        true
    }

    /// Whose delimiter the current line is, and whether it is the last one.
    ///
    /// A delimiter is a beginning of a line, and not more (RFC 2046 section 5.1.1). Of those that
    /// fit, the longest counts, and of equal ones the innermost.
    fn find_delimiter(&self) -> Option<(usize, bool)> {
        let line = self.line.get(..LOOK).unwrap_or(&self.line).strip_prefix(b"--")?;
        let line = match line.strip_suffix(b"\n") {
            Some(text) => text.strip_suffix(b"\r").unwrap_or(text),
            None => line,
        };
        let closing = line.strip_suffix(b"--");
        let mut best: Option<(usize, &[u8])> = None;
        for (depth, open) in self.open.iter().enumerate().rev() {
            let Some(boundary) = open.boundary.as_deref() else { continue };
            if !line.starts_with(boundary) || best.is_some_and(|(_, b)| b.len() >= boundary.len()) {
                continue;
            }
            best = Some((depth, boundary));
            if line == boundary || closing == Some(boundary) {
                break;
            }
        }
        let (depth, boundary) = best?;
        Some((depth, line.get(boundary.len()..).is_some_and(|rest| rest.starts_with(b"--"))))
    }

    /// A delimiter's line has ended.
    fn behind_delimiter(&mut self, opens: bool, newline: u64) {
        self.line_ends += 1;
        self.line.clear();
        self.line_start = self.at;
        if opens {
            self.begin(false);
        } else {
            self.newline = newline;
            self.place = Place::LineStart;
        }
    }

    /// A part begins here.
    fn begin(&mut self, of_message: bool) {
        self.newline = 0;
        self.parts += 1;
        self.open.push(Open::new(of_message, self.at));
        self.place = Place::Header;
        if self.parts < MAX_PARTS {
            return;
        }
        // All that comes is one part.
        for open in &mut self.open {
            open.boundary = None;
        }
        if let Some(open) = self.open.last_mut() {
            open.part.make_opaque();
            open.part.body = self.at;
            open.line_ends = self.line_ends;
        }
        self.place = Place::Body;
    }

    /// A line of a header is whole.
    fn header_line(&mut self) {
        let line = self.line.strip_suffix(b"\n").unwrap_or(&self.line);
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let ends = line.is_empty();
        if let Some(open) = self.open.last_mut() {
            open.fields.push(line, &mut self.budget);
        }
        self.line.clear();
        self.line_start = self.at;
        if ends {
            self.end_header();
        }
    }

    fn end_header(&mut self) {
        self.end_header_at(self.at, self.line_ends);
        self.line_start = self.at;
        match self.open.last().map(|open| &open.part.content) {
            Some(Content::Message(_)) => self.begin(true),
            _ => self.place = Place::LineStart,
        }
    }

    /// The innermost part's header has ended; what it is, is known.
    fn end_header_at(&mut self, body: u64, line_ends: u64) {
        let is_digest =
            self.open.len().checked_sub(2).and_then(|at| self.open.get(at)).is_some_and(|above| {
                matches!(above.part.content, Content::Multipart(_))
                    && above.part.subtype.eq_ignore_ascii_case(b"digest")
            });
        let depth = self.open.len();
        let Some(open) = self.open.last_mut() else { return };
        let fields = std::mem::take(&mut open.fields);
        if open.of_message {
            open.envelope = fields.envelope(&mut self.budget);
        }
        let part = Part { start: open.part.start, body, ..fields.part(&mut self.budget) };
        open.part = part;
        open.line_ends = line_ends;
        open.classify(is_digest, depth < MAX_DEPTH);
    }

    /// Ends the parts from this depth on.
    fn close(&mut self, depth: usize, end: u64, line_ends: u64) {
        while self.open.len() > depth {
            let Some(open) = self.open.pop() else { return };
            let mut part = open.part;
            part.end = end.max(part.body);
            part.lines = line_ends.saturating_sub(open.line_ends);
            match self.open.last_mut().map(|above| &mut above.part.content) {
                Some(Content::Multipart(parts)) => parts.push(part),
                Some(Content::Message(message)) => {
                    **message = Structure { envelope: open.envelope, root: part };
                }
                _ => self.whole = Some(Structure { envelope: open.envelope, root: part }),
            }
        }
    }
}

impl Open {
    /// Says what it consists of, by its type.
    fn classify(&mut self, is_digest: bool, may_have_parts: bool) {
        let part = &mut self.part;
        if part.kind.is_empty() {
            // RFC 2045 section 5.2, RFC 2046 section 5.1.5.
            let (kind, subtype): (&[u8], &[u8]) =
                if is_digest { (b"message", b"rfc822") } else { (b"text", b"plain") };
            part.kind = kind.to_vec();
            part.subtype = subtype.to_vec();
        }
        let is = |kind: &[u8]| part.kind.eq_ignore_ascii_case(kind);
        part.content = if is(b"text") {
            Content::Text
        } else if is(b"multipart") {
            let is_boundary = |p: &&Parameter| p.name.eq_ignore_ascii_case(b"boundary");
            self.boundary = part
                .parameters
                .iter()
                .find(is_boundary)
                .map(|found| found.value.get(..MAX_BOUNDARY).unwrap_or(&found.value).to_vec());
            Content::Multipart(Vec::new())
        } else if is(b"message") && is_message(&part.subtype) {
            Content::Message(Box::default())
        } else {
            Content::Other
        };
        if !may_have_parts && !matches!(part.content, Content::Text | Content::Other) {
            self.boundary = None;
            part.make_opaque();
        }
    }
}

impl Part {
    /// Nobody looks into it: a file like any other.
    fn make_opaque(&mut self) {
        self.kind = b"application".to_vec();
        self.subtype = b"octet-stream".to_vec();
        self.parameters = Vec::new();
        self.content = Content::Other;
    }
}

/// Whether a message of this subtype is one that IMAP looks into (RFC 9051 section 9, media-message).
fn is_message(subtype: &[u8]) -> bool {
    subtype.eq_ignore_ascii_case(b"rfc822") || subtype.eq_ignore_ascii_case(b"global")
}

/// Where the first line begins that may be a delimiter, behind a line end. The end of the piece may
/// be such a place.
fn line_start(piece: &[u8]) -> Option<usize> {
    let found = memchr::memmem::find(piece, b"\n--").map(|at| at + 1);
    found.or_else(|| match piece {
        [.., b'\n'] => Some(piece.len()),
        [.., b'\n', b'-'] => Some(piece.len() - 1),
        _ => None,
    })
}

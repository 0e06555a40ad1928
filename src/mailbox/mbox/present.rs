//! A stored message as clients see it.

use super::fields;
use super::quote::{FROM, Found, Matcher};

/// Turns the stored bytes of one message (behind its `From_` line) into what POP3 and IMAP clients
/// get: CRLF line ends, no hidden fields, a blank line behind the header in any case, and one `>`
/// off `>From ` lines where we had put it there.
///
/// Input may come in any pieces. Nothing but the beginning of a line is kept.
#[derive(Debug)]
pub struct Presenter {
    part: Part,
    quoted: bool,
    /// Lines of the body that may still be shown.
    lines_left: Option<u64>,
    /// The beginning of a header line that is not known yet, or nothing.
    held: Vec<u8>,
    /// The beginning of a body line that may be quoted.
    matcher: Option<Matcher>,
    /// The last byte given out was a CR.
    cr: bool,
    /// A line has begun, and its end was not given out yet.
    open: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    /// At the beginning of a header line; whether the field before it was hidden.
    HeaderLine { hidden: bool },
    /// Within a header line.
    Field { hidden: bool },
    /// In the body.
    Body,
    /// All that was asked for has been given out.
    Done,
}

impl Presenter {
    /// For a message whose header has our marker (`quoted`) or not; with `body_lines`, so many
    /// lines of the body at most.
    pub fn new(quoted: bool, body_lines: Option<u64>) -> Self {
        Self {
            part: Part::HeaderLine { hidden: false },
            quoted,
            lines_left: body_lines,
            held: Vec::new(),
            matcher: None,
            cr: false,
            open: false,
        }
    }

    /// Whether more input would still change the output.
    pub fn wants_more(&self) -> bool {
        self.part != Part::Done
    }

    /// Takes the next stored bytes.
    pub fn push(&mut self, mut bytes: &[u8], out: &mut Vec<u8>) {
        while !bytes.is_empty() {
            let end = memchr::memchr(b'\n', bytes).map_or(bytes.len(), |at| at + 1);
            let (piece, rest) = bytes.split_at_checked(end).unwrap_or((bytes, &[]));
            bytes = rest;
            match self.part {
                Part::HeaderLine { hidden } => self.header_line(piece, hidden, out),
                Part::Field { hidden } => self.field(piece, hidden, out),
                Part::Body => self.body(piece, out),
                Part::Done => return,
            }
        }
    }

    /// The message has ended.
    pub fn finish(&mut self, out: &mut Vec<u8>) {
        if !self.held.is_empty()
            && let Part::HeaderLine { hidden } = self.part
        {
            let line = std::mem::take(&mut self.held);
            self.decide(&line, hidden, out);
        }
        if let Some(matcher) = self.matcher.take() {
            out.push(b'>');
            out.extend_from_slice(matcher.taken());
            self.open = true;
            self.cr = false;
        }
        if self.open {
            self.copy(b"\n", out);
        }
        if matches!(self.part, Part::HeaderLine { .. } | Part::Field { .. }) {
            out.extend_from_slice(b"\r\n");
        }
        self.part = Part::Done;
    }

    fn header_line(&mut self, piece: &[u8], hidden: bool, out: &mut Vec<u8>) {
        let enough = |line: &[u8]| line.ends_with(b"\n") || line.len() >= fields::LONGEST;
        if self.held.is_empty() && enough(piece) {
            return self.decide(piece, hidden, out);
        }
        self.held.extend_from_slice(piece);
        if enough(&self.held) {
            let line = std::mem::take(&mut self.held);
            self.decide(&line, hidden, out);
        }
    }

    /// The beginning of a header line tells what becomes of it.
    fn decide(&mut self, line: &[u8], hidden: bool, out: &mut Vec<u8>) {
        // A CR alone comes here when the message has ended: half of the blank line.
        if matches!(line, b"\n" | b"\r\n" | b"\r") {
            out.extend_from_slice(b"\r\n");
            self.part = if self.lines_left == Some(0) { Part::Done } else { Part::Body };
            return;
        }
        let folded = matches!(line.first(), Some(b' ' | b'\t'));
        let hidden =
            if folded { hidden } else { fields::name(line).is_some_and(fields::is_hidden) };
        self.field(line, hidden, out);
    }

    fn field(&mut self, piece: &[u8], hidden: bool, out: &mut Vec<u8>) {
        if !hidden {
            self.copy(piece, out);
        }
        self.part = if piece.ends_with(b"\n") {
            Part::HeaderLine { hidden }
        } else {
            Part::Field { hidden }
        };
    }

    fn body(&mut self, piece: &[u8], out: &mut Vec<u8>) {
        let begins = !self.open && self.matcher.is_none();
        if self.quoted && begins && piece.first() == Some(&b'>') {
            self.matcher = Some(Matcher::default());
            // The first one is held back: it goes if `From ` follows, and else comes out late.
            return self.maybe_quoted(piece.get(1..).unwrap_or_default(), out);
        }
        if self.matcher.is_some() {
            return self.maybe_quoted(piece, out);
        }
        self.copy(piece, out);
        self.count(piece);
    }

    fn maybe_quoted(&mut self, piece: &[u8], out: &mut Vec<u8>) {
        let Some(mut matcher) = self.matcher.take() else {
            return;
        };
        let (quotes, found, rest) = matcher.feed(piece);
        out.resize(out.len().saturating_add(quotes), b'>');
        match found {
            Found::More => {
                self.matcher = Some(matcher);
                return;
            }
            Found::From => out.extend_from_slice(FROM),
            Found::Other(taken) => {
                out.push(b'>');
                out.extend_from_slice(FROM.get(..taken).unwrap_or_default());
            }
        }
        self.open = true;
        self.cr = false;
        self.copy(rest, out);
        self.count(rest);
    }

    fn count(&mut self, piece: &[u8]) {
        if let Some(left) = &mut self.lines_left
            && piece.ends_with(b"\n")
        {
            *left = left.saturating_sub(1);
            if *left == 0 {
                self.part = Part::Done;
            }
        }
    }

    /// A piece of one line, its end as CRLF.
    fn copy(&mut self, piece: &[u8], out: &mut Vec<u8>) {
        let (content, ended) = match piece.strip_suffix(b"\n") {
            Some(content) => (content, true),
            None => (piece, false),
        };
        out.extend_from_slice(content);
        if let Some(last) = content.last() {
            self.cr = *last == b'\r';
            self.open = true;
        }
        if ended {
            out.extend_from_slice(if self.cr { b"\n" } else { b"\r\n" });
            self.cr = false;
            self.open = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Presenter;

    fn shown(stored: &[u8], quoted: bool, lines: Option<u64>, step: usize) -> String {
        let mut presenter = Presenter::new(quoted, lines);
        let mut out = Vec::new();
        for piece in stored.chunks(step) {
            presenter.push(piece, &mut out);
        }
        presenter.finish(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn hidden_fields_go_with_their_folded_lines_and_line_ends_become_crlf() {
        let stored = b"A: 1\nStatus: RO\n more\r\nB: 2\r\n\tfolded\nX-UID: 3\n\nbody\r\n\r\nend";
        for step in 1..stored.len() {
            assert_eq!(
                shown(stored, false, None, step),
                "A: 1\r\nB: 2\r\n\tfolded\r\n\r\nbody\r\n\r\nend\r\n"
            );
        }
    }

    #[test]
    fn one_quote_comes_off_only_where_we_quoted() {
        let stored = b"A: 1\n\n>From a\n>>From b\n>Fromage\n>\n> From\n>From";
        for step in 1..stored.len() {
            assert_eq!(
                shown(stored, true, None, step),
                "A: 1\r\n\r\nFrom a\r\n>From b\r\n>Fromage\r\n>\r\n> From\r\n>From\r\n"
            );
            assert!(shown(stored, false, None, step).contains("\r\n>From a\r\n>>From b\r\n"));
        }
    }

    #[test]
    fn so_many_lines_of_the_body_and_a_header_that_never_ended() {
        let stored = b"A: 1\n\n1\n2\n3\n";
        for step in 1..stored.len() {
            assert_eq!(shown(stored, false, Some(0), step), "A: 1\r\n\r\n");
            assert_eq!(shown(stored, true, Some(2), step), "A: 1\r\n\r\n1\r\n2\r\n");
            assert_eq!(shown(stored, false, Some(9), step), "A: 1\r\n\r\n1\r\n2\r\n3\r\n");
            assert_eq!(shown(b"A: 1", false, None, step), "A: 1\r\n\r\n");
            assert_eq!(shown(b"Status: 1", false, None, step), "\r\n");
            assert_eq!(shown(b"A: 1\n\r", false, None, step), "A: 1\r\n\r\n");
            assert_eq!(shown(b"\nx\r", false, None, step), "\r\nx\r\n");
        }
    }
}

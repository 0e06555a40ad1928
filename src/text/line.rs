//! Lines of commands and replies, collected from reads of any size.

/// Collects one line at a time, up to a limit; what is past the limit is dropped up to the line's
/// end, so that memory is bounded and the next line is found.
#[derive(Debug)]
pub struct LineReader {
    line: Vec<u8>,
    limit: usize,
    too_long: bool,
}

/// What a look at the input gave.
#[derive(Debug, PartialEq, Eq)]
pub enum Line {
    /// A whole line, without its end.
    Whole(Vec<u8>),
    /// A line that was longer than the limit; its text is gone.
    TooLong,
    /// The input is used up in the middle of a line.
    More,
}

impl LineReader {
    /// Lines of at most `limit` bytes, their end included.
    pub fn new(limit: usize) -> Self {
        Self { line: Vec::new(), limit, too_long: false }
    }

    /// Whether a line has begun but not ended.
    pub fn is_partial(&self) -> bool {
        !self.line.is_empty() || self.too_long
    }

    /// Whether the line that has begun is past the limit already, wherever it ends.
    pub fn is_too_long(&self) -> bool {
        self.too_long
    }

    /// Takes the rest of a line from the input. It ends with CRLF or a bare LF.
    pub fn take(&mut self, input: &mut &[u8]) -> Line {
        let (part, rest, ended) = match memchr::memchr(b'\n', input) {
            Some(at) => {
                let (part, rest) = input.split_at(at);
                (part, rest.get(1..).unwrap_or_default(), true)
            }
            None => (*input, &[] as &[u8], false),
        };
        *input = rest;
        if self.line.len() + part.len() + 1 > self.limit {
            self.too_long = true;
            self.line.clear();
        } else if !self.too_long {
            self.line.extend_from_slice(part);
        }
        if !ended {
            return Line::More;
        }
        let mut line = std::mem::take(&mut self.line);
        if std::mem::take(&mut self.too_long) {
            return Line::TooLong;
        }
        if line.last() == Some(&b'\r') {
            line.pop();
        }
        Line::Whole(line)
    }
}

/// What somebody said as one harmless line: what is not printable ASCII becomes `?`.
pub fn printable(text: &str) -> impl Iterator<Item = char> {
    text.chars().map(|c| if c == ' ' || c.is_ascii_graphic() { c } else { '?' })
}

/// Appends input of this host to `out` with each bare LF as CRLF: what a person types, or a program
/// pipes, ends lines with LF. `last` is the byte before the input.
pub fn with_crlf(last: &mut u8, input: &[u8], out: &mut Vec<u8>) {
    for part in input.split_inclusive(|byte| *byte == b'\n') {
        match part.strip_suffix(b"\n") {
            Some(line) if line.last().unwrap_or(last) != &b'\r' => {
                out.extend_from_slice(line);
                out.extend_from_slice(b"\r\n");
            }
            _ => out.extend_from_slice(part),
        }
        *last = part.last().copied().unwrap_or(*last);
    }
}

#[cfg(test)]
mod tests {
    use super::{Line, LineReader, with_crlf};

    #[test]
    fn bare_line_feeds_of_this_host_become_line_ends_of_the_network() {
        let input = b"a\nb\r\n\n\r\n";
        for cut in 0..=input.len() {
            let (mut last, mut out) = (b'\n', Vec::new());
            with_crlf(&mut last, &input[..cut], &mut out);
            with_crlf(&mut last, &input[cut..], &mut out);
            assert_eq!(out, b"a\r\nb\r\n\r\n\r\n");
        }
    }

    #[test]
    fn a_line_is_found_whatever_the_reads_are() {
        let mut reader = LineReader::new(10);
        let mut input: &[u8] = b"ab";
        assert_eq!(reader.take(&mut input), Line::More);
        input = b"c\r\nd\ne";
        assert_eq!(reader.take(&mut input), Line::Whole(b"abc".to_vec()));
        assert_eq!(reader.take(&mut input), Line::Whole(b"d".to_vec()));
        assert_eq!(reader.take(&mut input), Line::More);
        assert!(reader.is_partial());
    }

    #[test]
    fn a_line_past_the_limit_is_dropped_and_the_next_one_is_found() {
        let mut reader = LineReader::new(5);
        let mut input: &[u8] = b"123";
        assert_eq!(reader.take(&mut input), Line::More);
        assert!(!reader.is_too_long());
        input = b"456";
        assert_eq!(reader.take(&mut input), Line::More);
        assert!(reader.is_too_long());
        input = b"7\r\nabc\r\n";
        assert_eq!(reader.take(&mut input), Line::TooLong);
        assert_eq!(reader.take(&mut input), Line::Whole(b"abc".to_vec()));
    }
}

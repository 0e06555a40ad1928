//! Text of this host (lines end with LF) as text of the network (lines end with CRLF).

use std::io::{self, BufRead};

/// Reads a message from a program, a piece at a time, with CRLF line ends: LF and CRLF become CRLF, a
/// bare CR becomes a space, and an unfinished last line is finished.
#[derive(Debug)]
pub struct Reader<R> {
    input: R,
    /// Whether a line that is a single dot ends the message.
    dot_ends: bool,
    ended: bool,
    /// How the piece before ended.
    last: Last,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Last {
    /// With a whole line.
    Line,
    /// With a line that has only a dot so far.
    Dot,
    /// With a dot and a CR.
    DotCr,
    /// Within a line.
    Inside,
    /// With a CR that may belong to a line end.
    Cr,
}

impl<R: BufRead> Reader<R> {
    /// Reads from `input`.
    pub fn new(input: R, dot_ends: bool) -> Self {
        Self { input, dot_ends, ended: false, last: Last::Line }
    }

    /// Appends the next piece to `text`; false when the message has ended.
    pub fn read(&mut self, text: &mut Vec<u8>) -> io::Result<bool> {
        if self.ended {
            return Ok(false);
        }
        let piece = match self.input.fill_buf() {
            Ok(piece) => piece,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(true),
            Err(error) => return Err(error),
        };
        let length = piece.len();
        if length == 0 {
            self.ended = true;
            match self.last {
                Last::Line => {}
                Last::Dot | Last::DotCr if self.dot_ends => {}
                Last::Dot | Last::DotCr => text.extend_from_slice(b".\r\n"),
                Last::Inside | Last::Cr => text.extend_from_slice(b"\r\n"),
            }
            return Ok(false);
        }
        text.reserve(length + length / 16);
        let mut rest = piece;
        while let Some((&byte, behind)) = rest.split_first() {
            self.last = match (self.last, byte) {
                (Last::Line, b'.') => Last::Dot,
                (Last::Dot | Last::DotCr, b'\n') if self.dot_ends => {
                    self.ended = true;
                    break;
                }
                (Last::Dot | Last::DotCr, b'\n') => {
                    text.extend_from_slice(b".\r\n");
                    Last::Line
                }
                (Last::Dot, b'\r') => Last::DotCr,
                (Last::Dot, _) => {
                    text.push(b'.');
                    self.last = Last::Inside;
                    continue;
                }
                (Last::DotCr, _) => {
                    text.extend_from_slice(b". ");
                    self.last = Last::Inside;
                    continue;
                }
                (_, b'\n') => {
                    text.extend_from_slice(b"\r\n");
                    Last::Line
                }
                (Last::Cr, _) => {
                    text.push(b' ');
                    self.last = Last::Inside;
                    continue;
                }
                (_, b'\r') => Last::Cr,
                (Last::Line | Last::Inside, _) => {
                    let end = memchr::memchr2(b'\r', b'\n', rest).unwrap_or(rest.len());
                    let (run, behind) = rest.split_at(end);
                    text.extend_from_slice(run);
                    self.last = Last::Inside;
                    rest = behind;
                    continue;
                }
            };
            rest = behind;
        }
        self.input.consume(length);
        Ok(!self.ended)
    }
}

#[cfg(test)]
mod tests {
    use super::Reader;
    use std::io::BufReader;

    fn read(input: &[u8], dot_ends: bool) -> String {
        let mut results = Vec::new();
        for capacity in 1..=input.len() + 1 {
            let mut reader = Reader::new(BufReader::with_capacity(capacity, input), dot_ends);
            let mut text = Vec::new();
            while reader.read(&mut text).unwrap() {}
            results.push(String::from_utf8(text).unwrap());
        }
        assert!(results.windows(2).all(|two| two[0] == two[1]), "{results:?}");
        results.pop().unwrap()
    }

    #[test]
    fn every_line_ends_with_crlf() {
        assert_eq!(read(b"a\nb\r\n\nc", false), "a\r\nb\r\n\r\nc\r\n");
        assert_eq!(read(b"a\rb\r\r\nc\r", false), "a b \r\nc\r\n");
        assert_eq!(read(b"", false), "");
    }

    #[test]
    fn a_line_that_is_a_dot_ends_the_message_unless_dots_are_ignored() {
        assert_eq!(read(b"a\n.\nb\n", true), "a\r\n");
        assert_eq!(read(b"a\n.\r\nb\n", true), "a\r\n");
        assert_eq!(read(b"a\n.\nb\n", false), "a\r\n.\r\nb\r\n");
        assert_eq!(read(b"..\n.x\n. \n", true), "..\r\n.x\r\n. \r\n");
        assert_eq!(read(b"a\n.", true), "a\r\n");
        assert_eq!(read(b"a\n.", false), "a\r\n.\r\n");
    }
}

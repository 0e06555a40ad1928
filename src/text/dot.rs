//! Dot transparency, the sending side: RFC 1939 section 3, RFC 5321 section 4.5.2.
//!
//! A line that begins with a dot gets a second one, and a line that is only a dot ends the text.

use std::borrow::Cow;

use memchr::memmem;

/// Makes text transparent, piece by piece, whatever the pieces' cut is.
///
/// Lines end with CRLF; a bare CR or LF is text like any other.
#[derive(Debug)]
pub struct Stuffer {
    /// The last two bytes of the text so far.
    last: [u8; 2],
}

impl Default for Stuffer {
    /// At the start of a line.
    fn default() -> Self {
        Self { last: *b"\r\n" }
    }
}

impl Stuffer {
    /// Appends a piece of text to `out`, with a second dot where a line begins with one.
    pub fn push(&mut self, piece: &[u8], out: &mut Vec<u8>) {
        // Dots that begin a line whose CRLF came, wholly or half, with the piece before.
        let carried = match (self.last, piece) {
            ([b'\r', b'\n'], [b'.', ..]) => Some(0),
            ([_, b'\r'], [b'\n', b'.', ..]) => Some(1),
            _ => None,
        };
        let found = memmem::find_iter(piece, b"\r\n.").map(|at| at + 2);
        let mut rest = piece;
        let mut taken = 0;
        for dot in carried.into_iter().chain(found) {
            let (before, from_dot) = rest.split_at((dot - taken).min(rest.len()));
            out.extend_from_slice(before);
            out.push(b'.');
            rest = from_dot;
            taken = dot;
        }
        out.extend_from_slice(rest);
        self.last = match *piece {
            [.., a, b] => [a, b],
            [b] => [self.last[1], b],
            [] => self.last,
        };
    }

    /// Ends the text: its last line, where that is unfinished, and the line that is only a dot.
    pub fn finish(self, out: &mut Vec<u8>) {
        if self.last != *b"\r\n" {
            out.extend_from_slice(b"\r\n");
        }
        out.extend_from_slice(b".\r\n");
    }
}

/// Doubles a dot that stands behind NULs at the start of a line: a server that overlooks NULs would
/// take it for one at the start, which a [`Stuffer`] has left single.
#[derive(Debug, Default)]
pub struct Unmasker {
    at: At,
}

/// Where an [`Unmasker`] stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum At {
    #[default]
    Start,
    /// Behind NULs at the start of a line.
    Nul,
    Inside,
    /// Behind a CR.
    Cr,
}

impl Unmasker {
    /// Treats a piece of text, whatever the pieces' cut is.
    pub fn push<'a>(&mut self, piece: &'a [u8]) -> Cow<'a, [u8]> {
        // Hardly any text has one: then it is only the last bytes that matter.
        let is_plain = self.at != At::Nul && memchr::memchr(0, piece).is_none();
        let skipped = if is_plain { piece.len().saturating_sub(2) } else { 0 };
        if skipped > 0 {
            self.at = At::Inside;
        }
        let mut doubled = Vec::new();
        for byte in piece.iter().skip(skipped) {
            if !is_plain {
                doubled.push(*byte);
            }
            self.at = match (self.at, *byte) {
                (At::Start | At::Nul, 0) => At::Nul,
                (At::Nul, b'.') => {
                    doubled.push(b'.');
                    At::Inside
                }
                (At::Cr, b'\n') => At::Start,
                (_, b'\r') => At::Cr,
                _ => At::Inside,
            };
        }
        if is_plain { Cow::Borrowed(piece) } else { Cow::Owned(doubled) }
    }
}

#[cfg(test)]
mod tests {
    use super::{Stuffer, Unmasker};

    #[test]
    fn a_dot_behind_nuls_at_the_start_of_a_line_is_doubled() {
        let text = b"\0\0.a\0b\0.\r\n\0.\r\n\r\0\n\0.\n.\0.\r\n\0x.\r\n";
        let wanted = b"\0\0..a\0b\0.\r\n\0..\r\n\r\0\n\0.\n.\0.\r\n\0x.\r\n";
        for cut in 0..=text.len() {
            let mut unmasker = Unmasker::default();
            let mut got = unmasker.push(&text[..cut]).into_owned();
            got.extend_from_slice(&unmasker.push(&text[cut..]));
            assert_eq!(got, wanted, "{cut}");
        }
        let mut unmasker = Unmasker::default();
        assert_eq!(&*unmasker.push(b"a line\r\n"), b"a line\r\n");
        assert_eq!(&*unmasker.push(b"\0."), b"\0..");
    }

    /// Stuffs the text in two pieces, cut at every place; all cuts must give the same.
    fn stuff(text: &[u8]) -> Vec<u8> {
        let mut results = (0..=text.len()).map(|cut| {
            let (mut stuffer, mut out) = (Stuffer::default(), Vec::new());
            stuffer.push(&text[..cut], &mut out);
            stuffer.push(&text[cut..], &mut out);
            stuffer.finish(&mut out);
            out
        });
        let first = results.next().unwrap();
        assert!(results.all(|result| result == first));
        first
    }

    #[test]
    fn a_dot_at_the_start_of_a_line_is_doubled() {
        assert_eq!(stuff(b".a\r\n..\r\nb.\r\n.\r\n"), b"..a\r\n...\r\nb.\r\n..\r\n.\r\n");
    }

    #[test]
    fn a_dot_behind_a_bare_line_feed_is_text() {
        assert_eq!(stuff(b"a\n.\nb\r.\r\n"), b"a\n.\nb\r.\r\n.\r\n");
    }

    #[test]
    fn the_final_dot_stands_on_a_line_of_its_own() {
        assert_eq!(stuff(b""), b".\r\n");
        assert_eq!(stuff(b"a"), b"a\r\n.\r\n");
        assert_eq!(stuff(b"a\r"), b"a\r\r\n.\r\n");
        assert_eq!(stuff(b"."), b"..\r\n.\r\n");
    }

    #[test]
    fn unstuffed_text_is_the_text() {
        // Every text of up to 6 symbols.
        let symbols = [b'\r', b'\n', b'.', b'x'];
        for length in 0..=6_u32 {
            for number in 0..4_usize.pow(length) {
                let text: Vec<u8> =
                    (0..length).map(|place| symbols[number / 4_usize.pow(place) % 4]).collect();
                let stuffed = stuff(&text);
                let lines = stuffed.strip_suffix(b".\r\n").unwrap();
                let plain = [b"\r\n", lines].concat();
                let plain = String::from_utf8(plain).unwrap().replace("\r\n.", "\r\n");
                let plain = plain.strip_prefix("\r\n").unwrap().as_bytes();
                let whole = text.is_empty() || text.ends_with(b"\r\n");
                let expected = if whole { text.clone() } else { [&text[..], b"\r\n"].concat() };
                assert_eq!(plain, expected);
            }
        }
    }
}

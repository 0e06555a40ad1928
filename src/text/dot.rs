//! Dot transparency, the sending side: RFC 1939 section 3, RFC 5321 section 4.5.2.
//!
//! A line that begins with a dot gets a second one, and a line that is only a dot ends the text. The
//! same is done for a dot behind NULs, with the new one before them, where the receiver takes it off
//! like any other: to servers that drop NULs such a dot would be the end of the text.

use memchr::{memchr, memmem};

/// How many NULs may begin a line; what is longer is no line (RFC 5321 section 4.5.3.1.6), and the
/// rest of the NULs is left out.
const NULS: usize = 998;

/// Makes text transparent, piece by piece, whatever the pieces' cut is.
///
/// Lines end with CRLF; a bare CR or LF is text like any other.
#[derive(Debug)]
pub struct Stuffer {
    /// The last two bytes of the text so far, without `nuls`.
    last: [u8; 2],
    /// So many NULs begin the line, and wait for what follows them.
    nuls: usize,
}

impl Default for Stuffer {
    /// At the start of a line.
    fn default() -> Self {
        Self { last: *b"\r\n", nuls: 0 }
    }
}

impl Stuffer {
    /// Appends a piece of text to `out`, with one more dot where a line begins with one.
    pub fn push(&mut self, piece: &[u8], out: &mut Vec<u8>) {
        // Most texts have no NUL, and only the lines that begin with a dot are looked for.
        let start: &[u8] = if memchr(0, piece).is_none() { b"\r\n." } else { b"\r\n" };
        let start = memmem::Finder::new(start);
        let mut rest = piece;
        while !rest.is_empty() {
            if self.last == *b"\r\n" {
                let nuls = rest.iter().take_while(|byte| **byte == 0).count();
                self.nuls = NULS.min(self.nuls + nuls);
                rest = rest.get(nuls..).unwrap_or_default();
                match rest.first() {
                    None => return,
                    Some(b'.') => out.push(b'.'),
                    Some(_) => {}
                }
                self.release(out);
            }
            let length = match (self.last, rest) {
                // A line end that came in halves.
                ([_, b'\r'], [b'\n', ..]) => 1,
                _ => start.find(rest).map_or(rest.len(), |at| at + 2),
            };
            let (text, more) = rest.split_at(length);
            out.extend_from_slice(text);
            self.last = match *text {
                [.., a, b] => [a, b],
                [b] => [self.last[1], b],
                [] => self.last,
            };
            rest = more;
        }
    }

    /// Ends the text: its last line, where that is unfinished, and the line that is only a dot.
    pub fn finish(mut self, out: &mut Vec<u8>) {
        if self.last != *b"\r\n" || self.nuls > 0 {
            self.release(out);
            out.extend_from_slice(b"\r\n");
        }
        out.extend_from_slice(b".\r\n");
    }

    fn release(&mut self, out: &mut Vec<u8>) {
        out.resize(out.len() + std::mem::take(&mut self.nuls), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::Stuffer;

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
    fn a_dot_behind_nuls_is_doubled_before_them() {
        assert_eq!(stuff(b"\0.\r\n\0\0.a\r\n"), b".\0.\r\n.\0\0.a\r\n.\r\n");
        assert_eq!(stuff(b"a\0.\r\n.\0\r\n"), b"a\0.\r\n..\0\r\n.\r\n");
        // A dot before this one would be the end itself.
        assert_eq!(stuff(b"\0\r\n\0"), b"\0\r\n\0\r\n.\r\n");
    }

    #[test]
    fn nuls_that_fill_more_than_a_line_are_not_kept() {
        let text = [&[0; 5000][..], b".\r\nb\r\n"].concat();
        let stuffed = stuff(&text);
        assert_eq!(stuffed, [b".", &[0; super::NULS][..], b".\r\nb\r\n.\r\n"].concat());
    }

    #[test]
    fn whoever_drops_nuls_finds_one_end() {
        let drops = |text: &[u8]| -> Vec<u8> {
            [b"\r\n", text].concat().into_iter().filter(|byte| *byte != 0).collect()
        };
        // As text is in the queue: with whole line ends only.
        let clean = |text: &Vec<u8>| {
            let text = String::from_utf8(text.clone()).unwrap();
            !text.replace("\r\n", "").contains(['\r', '\n'])
        };
        for text in texts().filter(clean) {
            let dropped = drops(&stuff(&text));
            let at = memchr::memmem::find(&dropped, b"\r\n.\r\n").unwrap();
            assert_eq!(at + 5, dropped.len(), "{}", text.escape_ascii());
        }
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

    /// Every text of up to 6 symbols.
    fn texts() -> impl Iterator<Item = Vec<u8>> {
        let symbols = [b'\r', b'\n', b'.', b'x', 0];
        let text = move |length: u32, number: usize| {
            (0..length).map(|place| symbols[number / 5_usize.pow(place) % 5]).collect()
        };
        (0..=6_u32).flat_map(move |length| {
            (0..5_usize.pow(length)).map(move |number| text(length, number))
        })
    }

    #[test]
    fn unstuffed_text_is_the_text() {
        for text in texts() {
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

//! Message text between DATA and its final dot (RFC 5321 section 4.5.2).
//!
//! Only CRLF `.` CRLF ends the text: a look-alike with a bare LF or CR is text, or else a message
//! could smuggle a second one past us (CVE-2023-51764). Text leaves here with CRLF line ends only: a
//! bare LF becomes CRLF, a bare CR becomes a space.

/// A piece of decoded text.
#[derive(Debug, PartialEq, Eq)]
pub enum Piece<'a> {
    /// Text, to be taken as it is.
    Text(&'a [u8]),
    /// The final dot; what is left in the input is the next command.
    End,
    /// The input is used up.
    More,
}

/// Where in a line the decoder stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    /// At its start; `true` where the line before it ended in CRLF.
    Start(bool),
    /// Behind a dot at its start.
    Dot(bool),
    /// Behind a dot and a CR at its start.
    DotCr(bool),
    /// Somewhere inside.
    Inside,
    /// Behind a CR inside.
    Cr,
}

/// Decodes the text of one message, from input of any cut.
#[derive(Debug)]
pub struct Decoder {
    at: At,
}

impl Default for Decoder {
    /// Behind the line of the DATA command.
    fn default() -> Self {
        Self { at: At::Start(true) }
    }
}

impl Decoder {
    /// Takes the next piece from the input. To be called again until it says `End` or `More`.
    pub fn next<'a>(&mut self, input: &mut &'a [u8]) -> Piece<'a> {
        while let Some((&byte, rest)) = input.split_first() {
            match (self.at, byte) {
                (At::Start(crlf), b'.') => {
                    *input = rest;
                    self.at = At::Dot(crlf);
                }
                (At::Dot(crlf), b'\r') => {
                    *input = rest;
                    self.at = At::DotCr(crlf);
                }
                (At::Dot(_), b'\n') => {
                    *input = rest;
                    self.at = At::Start(false);
                    return Piece::Text(b".\r\n");
                }
                // A dot was put there for transparency only.
                (At::Start(_) | At::Dot(_), _) => self.at = At::Inside,
                (At::DotCr(crlf), b'\n') => {
                    *input = rest;
                    if crlf {
                        return Piece::End;
                    }
                    self.at = At::Start(true);
                    return Piece::Text(b".\r\n");
                }
                (At::Cr, b'\n') => {
                    *input = rest;
                    self.at = At::Start(true);
                    return Piece::Text(b"\r\n");
                }
                (At::DotCr(_) | At::Cr, _) => {
                    self.at = At::Inside;
                    return Piece::Text(b" ");
                }
                (At::Inside, _) => return self.inside(input),
            }
        }
        Piece::More
    }

    /// The longest run of text that needs no change, over as many lines as the input has.
    fn inside<'a>(&mut self, input: &mut &'a [u8]) -> Piece<'a> {
        let all = *input;
        let mut length = 0;
        let (taken, skipped) = loop {
            let tail = all.get(length..).unwrap_or_default();
            let Some(found) = memchr::memchr2(b'\r', b'\n', tail) else {
                break (all.len(), 0);
            };
            let end = length + found;
            match (all.get(end), all.get(end + 1), all.get(end + 2)) {
                // A clean line end, and the next line is clean at its start: go on.
                (Some(b'\r'), Some(b'\n'), Some(next)) if *next != b'.' => length = end + 2,
                (Some(b'\r'), Some(b'\n'), _) => {
                    self.at = At::Start(true);
                    break (end + 2, 0);
                }
                (Some(b'\r'), _, _) => {
                    self.at = At::Cr;
                    break (end, 1);
                }
                // A bare LF: the text up to it now, its line end in the next call.
                _ if end > 0 => break (end, 0),
                _ => {
                    self.at = At::Start(false);
                    *input = all.get(1..).unwrap_or_default();
                    return Piece::Text(b"\r\n");
                }
            }
        };
        let (text, rest) = all.split_at(taken);
        *input = rest.get(skipped..).unwrap_or_default();
        if text.is_empty() { self.next(input) } else { Piece::Text(text) }
    }
}

/// Cleans the line ends of text that comes with its length instead of a final dot (RFC 3030), in
/// pieces of any cut: as [`Decoder`] does, a bare LF becomes CRLF and a bare CR a space. A dot is
/// text like any other.
#[derive(Debug)]
pub struct LineEnds {
    last: Last,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Last {
    /// A whole line.
    Line,
    /// Something inside a line.
    Inside,
    /// A CR that may belong to a line end; it is not given out yet.
    Cr,
}

impl Default for LineEnds {
    /// At the start of the text.
    fn default() -> Self {
        Self { last: Last::Line }
    }
}

impl LineEnds {
    /// Takes the next piece from the input, and nothing where that is used up.
    pub fn next<'a>(&mut self, input: &mut &'a [u8]) -> &'a [u8] {
        let all = *input;
        if self.last == Last::Cr && !all.is_empty() {
            let rest = all.strip_prefix(b"\n");
            *input = rest.unwrap_or(all);
            self.last = if rest.is_some() { Last::Line } else { Last::Inside };
            return if rest.is_some() { b"\r\n" } else { b" " };
        }
        let mut length = 0;
        loop {
            let tail = all.get(length..).unwrap_or_default();
            let Some(found) = memchr::memchr2(b'\r', b'\n', tail) else {
                if !tail.is_empty() {
                    self.last = Last::Inside;
                }
                *input = &[];
                return all;
            };
            let end = length + found;
            let (text, rest) = all.split_at(end);
            if rest.starts_with(b"\r\n") {
                length = end + 2;
                self.last = Last::Line;
                continue;
            }
            if text.is_empty() && rest.starts_with(b"\n") {
                *input = rest.get(1..).unwrap_or_default();
                self.last = Last::Line;
                return b"\r\n";
            }
            if rest.starts_with(b"\r") {
                *input = rest.get(1..).unwrap_or_default();
                self.last = Last::Cr;
                // Nothing is not the end here.
                return if text.is_empty() { self.next(input) } else { text };
            }
            // A bare LF: its line end in the next call.
            *input = rest;
            self.last = Last::Inside;
            return text;
        }
    }

    /// What the end of the text wants: a last line that is unfinished is finished.
    pub fn finish(self) -> &'static [u8] {
        match self.last {
            Last::Line => b"",
            Last::Inside => b"\r\n",
            Last::Cr => b" \r\n",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Decoder, LineEnds, Piece};

    /// Decodes with the input cut at every place; all cuts must give the same.
    fn decode(input: &[u8]) -> (Vec<u8>, Option<usize>) {
        let mut results = Vec::new();
        for cut in 0..=input.len() {
            let (mut decoder, mut text, mut left) = (Decoder::default(), Vec::new(), None);
            let (first, second) = input.split_at(cut);
            for (mut part, behind) in [(first, second.len()), (second, 0)] {
                while left.is_none() {
                    match decoder.next(&mut part) {
                        Piece::Text(piece) => text.extend_from_slice(piece),
                        Piece::End => left = Some(part.len() + behind),
                        Piece::More => break,
                    }
                }
            }
            results.push((text, left));
        }
        assert!(results.windows(2).all(|two| two[0] == two[1]), "{results:?}");
        results.pop().unwrap()
    }

    #[test]
    fn only_crlf_dot_crlf_ends_the_text() {
        assert_eq!(decode(b"a\r\n.\r\nQUIT\r\n"), (b"a\r\n".to_vec(), Some(6)));
        assert_eq!(decode(b".\r\n"), (b"".to_vec(), Some(0)));
        for false_end in
            [&b"a\n.\nb"[..], b"a\r.\rb", b"a\n.\r\nb", b"a\r\n.\nb", b"a\r\n.\rb", b"a\r.\r\nb"]
        {
            assert_eq!(decode(false_end).1, None, "{:?}", false_end.escape_ascii().to_string());
        }
    }

    #[test]
    fn a_dot_at_the_start_of_a_line_is_taken_off() {
        assert_eq!(decode(b"..\r\n.a\r\n...\r\n.\r\n").0, b".\r\na\r\n..\r\n");
    }

    #[test]
    fn bare_line_feeds_become_line_ends_and_bare_carriage_returns_spaces() {
        assert_eq!(decode(b"a\nb\n\nc\rd\r\r\n.\r\n").0, b"a\r\nb\r\n\r\nc d \r\n");
        assert_eq!(decode(b"a\n.\nb\r\n.\r\n").0, b"a\r\n.\r\nb\r\n");
        assert_eq!(decode(b"\n.\r\nx\r\n.\r\n").0, b"\r\n.\r\nx\r\n");
    }

    /// Cleans with the input cut at every place; all cuts must give the same.
    fn clean(input: &[u8]) -> Vec<u8> {
        let mut results = (0..=input.len()).map(|cut| {
            let (mut ends, mut text) = (LineEnds::default(), Vec::new());
            for mut part in [&input[..cut], &input[cut..]] {
                while !part.is_empty() {
                    text.extend_from_slice(ends.next(&mut part));
                }
            }
            text.extend_from_slice(ends.finish());
            text
        });
        let first = results.next().unwrap();
        assert!(results.all(|result| result == first), "{input:?}");
        first
    }

    #[test]
    fn chunks_get_clean_line_ends_and_keep_their_dots() {
        assert_eq!(clean(b"a\r\n.\r\n..b\r\n"), b"a\r\n.\r\n..b\r\n");
        assert_eq!(clean(b"a\n.\nb\r.\r"), b"a\r\n.\r\nb . \r\n");
        assert_eq!(clean(b"a\r\r\n\n"), b"a \r\n\r\n");
        assert_eq!((clean(b""), clean(b"a")), (b"".to_vec(), b"a\r\n".to_vec()));
    }

    /// Every text of up to 7 symbols.
    fn texts() -> impl Iterator<Item = Vec<u8>> {
        let symbols = [b'\r', b'\n', b'.', b'x'];
        let text = move |length: u32, number: usize| {
            (0..length).map(|place| symbols[number / 4_usize.pow(place) % 4]).collect()
        };
        (0..=7_u32).flat_map(move |length| {
            (0..4_usize.pow(length)).map(move |number| text(length, number))
        })
    }

    #[test]
    fn cleaned_text_has_whole_lines_only() {
        for input in texts() {
            let text = String::from_utf8(clean(&input)).unwrap();
            assert!(text.is_empty() || text.ends_with("\r\n"));
            assert!(!text.replace("\r\n", "").contains(['\r', '\n']), "{input:?}");
        }
    }

    #[test]
    fn decoded_text_never_has_a_bare_line_end() {
        for input in texts() {
            let (text, _) = decode(&input);
            let joined = String::from_utf8(text).unwrap().replace("\r\n", "");
            assert!(!joined.contains(['\r', '\n']), "{:?}", input.escape_ascii().to_string());
        }
    }
}

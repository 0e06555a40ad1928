//! mboxrd quoting: `^>*From ` gets one more `>` when it is stored, and loses one when it is read.

/// What must follow the `>`s at the beginning of a line.
pub const FROM: &[u8] = b"From ";

/// Looks for `^>*From ` in a line that arrives in pieces, with nothing kept but where it stands.
#[derive(Debug, Default)]
pub struct Matcher {
    matched: usize,
}

/// What is known after a piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// Nothing yet: the line goes on.
    More,
    /// The line begins with any number of `>` and `From `.
    From,
    /// It begins otherwise; so many bytes of [`FROM`] were taken before that was known.
    Other(usize),
}

impl Matcher {
    /// Takes the next piece: how many `>` it began with, what is known now, and what of the piece
    /// has not been taken. With `From`, all of [`FROM`] has been taken.
    pub fn feed<'a>(&mut self, piece: &'a [u8]) -> (usize, Found, &'a [u8]) {
        let quotes =
            if self.matched == 0 { piece.iter().take_while(|b| **b == b'>').count() } else { 0 };
        let mut rest = piece.get(quotes..).unwrap_or_default();
        while let Some((first, behind)) = rest.split_first() {
            if FROM.get(self.matched) != Some(first) {
                return (quotes, Found::Other(self.matched), rest);
            }
            self.matched += 1;
            rest = behind;
            if self.matched == FROM.len() {
                return (quotes, Found::From, rest);
            }
        }
        (quotes, Found::More, rest)
    }

    /// The line has ended without an answer: the bytes of [`FROM`] that were taken.
    pub fn taken(&self) -> &'static [u8] {
        FROM.get(..self.matched).unwrap_or_default()
    }
}

/// Quotes a body that arrives in pieces, and counts what it has quoted.
#[derive(Debug, Default)]
pub struct Quoter {
    matcher: Matcher,
    /// Within a line whose beginning is known.
    inside: bool,
    quoted: u64,
}

impl Quoter {
    /// Gives the next piece to `out`, quoted. At most the four bytes `From` are held back.
    pub fn push(&mut self, mut piece: &[u8], out: &mut impl FnMut(&[u8])) {
        while !piece.is_empty() {
            if self.inside {
                let end = memchr::memchr(b'\n', piece);
                let (line, rest) = piece.split_at(end.map_or(piece.len(), |end| end + 1));
                self.inside = end.is_none();
                out(line);
                piece = rest;
                continue;
            }
            let (quotes, found, rest) = self.matcher.feed(piece);
            out(piece.get(..quotes).unwrap_or_default());
            piece = rest;
            match found {
                Found::More => return,
                Found::From => {
                    self.quoted += 1;
                    // One `>` is like the other: which of them is the new one does not matter.
                    out(b">");
                    out(FROM);
                }
                Found::Other(taken) => out(FROM.get(..taken).unwrap_or_default()),
            }
            self.matcher = Matcher::default();
            self.inside = true;
        }
    }

    /// How many lines were quoted.
    pub fn quoted(&self) -> u64 {
        self.quoted
    }
}

#[cfg(test)]
mod tests {
    use super::{Found, Matcher, Quoter};

    #[test]
    fn a_line_in_pieces_is_known_as_soon_as_its_last_needed_byte_is_there() {
        let mut matcher = Matcher::default();
        assert_eq!(matcher.feed(b">>"), (2, Found::More, &b""[..]));
        assert_eq!(matcher.feed(b">Fr"), (1, Found::More, &b""[..]));
        assert_eq!(matcher.feed(b"om x"), (0, Found::From, &b"x"[..]));
        let mut matcher = Matcher::default();
        assert_eq!(matcher.feed(b">F"), (1, Found::More, &b""[..]));
        assert_eq!(matcher.taken(), b"F");
        assert_eq!(matcher.feed(b">om"), (0, Found::Other(1), &b">om"[..]));
    }

    #[test]
    fn a_body_in_any_pieces_is_quoted_alike() {
        let body = b"From a\n>From b\n>>\nFrom\n From c\nFro\n\nFFrom d\n>From e\n";
        for step in 1..=body.len() {
            let (mut quoter, mut out) = (Quoter::default(), Vec::new());
            for piece in body.chunks(step) {
                quoter.push(piece, &mut |bytes| out.extend_from_slice(bytes));
            }
            assert_eq!(
                String::from_utf8(out).unwrap(),
                ">From a\n>>From b\n>>\nFrom\n From c\nFro\n\nFFrom d\n>>From e\n"
            );
            assert_eq!(quoter.quoted(), 3);
        }
    }
}

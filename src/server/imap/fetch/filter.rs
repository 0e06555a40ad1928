//! What is told of a message otherwise than it stands there: bodies without their encoding, headers
//! without some of their fields.
//!
//! Each goes through as it streams by, and holds next to nothing, whatever strangers have sent.

use std::rc::Rc;

use crate::message::transfer::Decoder;

/// So much of a line may come before the colon of a field that is looked for, beside its name.
const MAX_BLANKS: usize = 1000;

/// Octets go in, and others come out.
#[derive(Clone, Debug)]
pub enum Filter {
    /// A body that is decoded.
    Decoded(Decoder),
    /// A header of which some fields are picked.
    Fields(Fields),
}

impl Filter {
    /// Takes the next octets, and gives `sink` what becomes of them.
    pub fn push(&mut self, octets: &[u8], sink: &mut dyn FnMut(&[u8])) {
        match self {
            Self::Decoded(decoder) => decoder.push(octets, sink),
            Self::Fields(fields) => fields.push(octets, sink),
        }
    }

    /// All has come.
    pub fn finish(&mut self, sink: &mut dyn FnMut(&[u8])) {
        match self {
            Self::Decoded(decoder) => decoder.finish(sink),
            Self::Fields(fields) => fields.finish(sink),
        }
    }
}

/// Picks fields of a header: `HEADER.FIELDS`, or `HEADER.FIELDS.NOT`.
#[derive(Clone, Debug)]
pub struct Fields {
    names: Rc<[Vec<u8>]>,
    not: bool,
    /// A line's beginning that does not say yet which field it is.
    line: Vec<u8>,
    state: State,
    /// A longer name is none of those that are looked for.
    longest: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// At the beginning of a line, or in the name of its field; the field before it is picked.
    Name { was_picked: bool },
    /// In a line of a field, picked or not.
    Line { is_picked: bool },
    /// Behind the blank line.
    Ended,
}

impl Fields {
    /// Those with these names, or all others.
    pub fn new(names: &[Vec<u8>], not: bool) -> Self {
        let longest = names.iter().map(Vec::len).max().unwrap_or(0).saturating_add(MAX_BLANKS);
        let names = names.iter().cloned().collect();
        // What goes on with nothing belongs to no field.
        Self { names, not, line: Vec::new(), state: State::Name { was_picked: not }, longest }
    }

    fn push(&mut self, octets: &[u8], sink: &mut dyn FnMut(&[u8])) {
        let mut rest = octets;
        while !rest.is_empty() {
            match self.state {
                State::Ended => return,
                State::Line { is_picked } => {
                    let end = memchr::memchr(b'\n', rest);
                    let (line, behind) = rest.split_at(end.map_or(rest.len(), |end| end + 1));
                    if is_picked {
                        sink(line);
                    }
                    if end.is_some() {
                        self.state = State::Name { was_picked: is_picked };
                    }
                    rest = behind;
                }
                State::Name { was_picked } => {
                    let goes_on = self.line.is_empty() && matches!(rest, [b' ' | b'\t', ..]);
                    if goes_on {
                        self.state = State::Line { is_picked: was_picked };
                        continue;
                    }
                    let room = self.longest.saturating_sub(self.line.len()).saturating_add(1);
                    let end = memchr::memchr2(b':', b'\n', rest).map_or(rest.len(), |end| end + 1);
                    let (text, behind) = rest.split_at(end.min(room));
                    self.line.extend_from_slice(text);
                    rest = behind;
                    self.decide(sink);
                }
            }
        }
    }

    /// Looks whether the line's beginning says which field it is.
    fn decide(&mut self, sink: &mut dyn FnMut(&[u8])) {
        let is_picked = match self.line.as_slice() {
            b"\n" | b"\r\n" => {
                sink(&self.line);
                self.line.clear();
                self.state = State::Ended;
                return;
            }
            [name @ .., b':'] => {
                let name = name.trim_ascii_end();
                let is_named = self.names.iter().any(|other| other.eq_ignore_ascii_case(name));
                is_named != self.not
            }
            // It is no field, so it is none of those that are named.
            [.., b'\n'] => self.not,
            line if line.len() > self.longest => self.not,
            _ => return,
        };
        if is_picked {
            sink(&self.line);
        }
        let is_over = self.line.ends_with(b"\n");
        self.line.clear();
        self.state =
            if is_over { State::Name { was_picked: is_picked } } else { State::Line { is_picked } };
    }

    fn finish(&mut self, sink: &mut dyn FnMut(&[u8])) {
        // Where there is no blank line, fields that are named get one all the same, and all others
        // don't: as with Dovecot.
        if self.state != State::Ended && !self.not {
            sink(b"\r\n");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Fields, Filter, MAX_BLANKS};

    fn pick(names: &[&str], not: bool, header: &str) -> String {
        let names: Vec<Vec<u8>> = names.iter().map(|name| name.as_bytes().to_vec()).collect();
        let filter = Filter::Fields(Fields::new(&names, not));
        let picked = |size: usize| {
            let (mut filter, mut out) = (filter.clone(), Vec::new());
            for piece in header.as_bytes().chunks(size) {
                filter.push(piece, &mut |octets| out.extend_from_slice(octets));
            }
            filter.finish(&mut |octets| out.extend_from_slice(octets));
            String::from_utf8(out).unwrap()
        };
        let whole = picked(header.len().max(1));
        for size in 1..header.len().min(100) {
            assert_eq!(picked(size), whole, "{header:?} by {size}");
        }
        whole
    }

    const HEADER: &str =
        "A: 1\r\n a\r\nB: 2\r\n\tb: 3\r\nno field\r\nb : 4\r\n: 5\r\nAB: 6\r\n\r\n";

    #[test]
    fn fields_are_picked_by_their_names_with_all_their_lines() {
        for (names, not, picked) in [
            (&["A"][..], false, "A: 1\r\n a\r\n\r\n"),
            (&["b", "x"], false, "B: 2\r\n\tb: 3\r\nb : 4\r\n\r\n"),
            (&["x"], false, "\r\n"),
            (&["no field"], false, "\r\n"),
            (&["B"], true, "A: 1\r\n a\r\nno field\r\n: 5\r\nAB: 6\r\n\r\n"),
            (&["a", "b", "ab", ""], true, "no field\r\n\r\n"),
        ] {
            assert_eq!(pick(names, not, HEADER), picked, "{names:?}");
        }
    }

    #[test]
    fn a_header_may_end_anywhere() {
        assert_eq!(pick(&["a"], false, ""), "\r\n");
        assert_eq!(pick(&["a"], false, "A: 1"), "A: 1\r\n");
        assert_eq!(pick(&["a"], false, "A: 1\r\nB"), "A: 1\r\n\r\n");
        assert_eq!(pick(&["b"], true, "A: 1\r\nB: 2\r\n"), "A: 1\r\n");
        assert_eq!(pick(&["b"], false, "\r\nB: 2\r\n"), "\r\n");
        assert_eq!(pick(&["b"], false, " B: 2\r\nB: 1\n\nx"), "B: 1\n\n");
    }

    #[test]
    fn a_name_without_end_is_not_kept() {
        let long = "x".repeat(3 * MAX_BLANKS);
        let header = format!("{long}: 1\r\nA{}: 2\r\n\r\n", " ".repeat(MAX_BLANKS - 1));
        assert!(pick(&["a"], false, &header).starts_with("A  "));
        assert_eq!(pick(&["a"], true, &header), format!("{long}: 1\r\n\r\n"));
        let mut fields = Fields::new(&[b"a".to_vec()], false);
        for _ in 0..100 {
            fields.push(&[b'x'; 1000], &mut |_| panic!("it is not picked"));
            assert!(fields.line.len() <= fields.longest);
        }
    }
}

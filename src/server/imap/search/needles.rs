//! Several texts that are looked for at once: a message is read for all of them together.

use memchr::memmem::Finder;

use crate::text::fold::Folder;

/// So much text is searched at once.
const PIECE: usize = 32 * 1024;

/// What is looked for.
#[derive(Debug, Default)]
pub struct Needles(Vec<Needle>);

#[derive(Debug)]
struct Needle {
    /// Folded; not empty.
    finder: Finder<'static>,
    /// In headers, too.
    header: bool,
}

impl Needles {
    /// Its place among them; the same is looked for once.
    pub fn add(&mut self, folded: &str, header: bool) -> usize {
        let is_same = |n: &Needle| n.header == header && n.finder.needle() == folded.as_bytes();
        self.0.iter().position(is_same).unwrap_or_else(|| {
            let finder = Finder::new(folded.as_bytes()).into_owned();
            self.0.push(Needle { finder, header });
            self.0.len().saturating_sub(1)
        })
    }
}

/// A search for all of them in one message.
pub struct Hunt<'a> {
    needles: &'a [Needle],
    found: Vec<bool>,
    folder: Folder,
    /// Folded: what may be the beginning of a needle, and what was not searched yet.
    text: String,
    /// So many bytes may be the beginning of a needle.
    keep: usize,
    is_header: bool,
}

impl<'a> Hunt<'a> {
    /// It begins.
    pub fn new(needles: &'a Needles) -> Self {
        let needles = needles.0.as_slice();
        let longest = needles.iter().map(|needle| needle.finder.needle().len()).max();
        Self {
            needles,
            found: vec![false; needles.len()],
            folder: Folder::default(),
            text: String::new(),
            keep: longest.unwrap_or(0).saturating_sub(1),
            is_header: false,
        }
    }

    /// Which of them are in what was read.
    pub fn found(self) -> Vec<bool> {
        self.found
    }

    /// Whether there is still something to look for; in a header, where `header`.
    pub fn wants(&self, header: bool) -> bool {
        let mut left = self.needles.iter().zip(&self.found).filter(|(_, found)| !**found);
        left.any(|(needle, _)| needle.header || !header)
    }

    /// A text begins, or a header.
    pub fn begin(&mut self, is_header: bool) {
        self.is_header = is_header;
    }

    /// Takes the next piece of a text.
    pub fn push(&mut self, text: &str) {
        self.folder.push(text, &mut self.text);
        if self.text.len() > PIECE.saturating_add(self.keep) {
            self.search();
            let mut from = self.text.len().saturating_sub(self.keep);
            while !self.text.is_char_boundary(from) {
                from = from.saturating_sub(1);
            }
            self.text.drain(..from);
        }
    }

    /// The text is over: nothing is found across its end.
    pub fn end(&mut self) {
        self.folder.finish(&mut self.text);
        self.search();
        self.text.clear();
    }

    fn search(&mut self) {
        for (needle, found) in self.needles.iter().zip(&mut self.found) {
            if !*found && (needle.header || !self.is_header) {
                *found = needle.finder.find(self.text.as_bytes()).is_some();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Hunt, Needles, PIECE};

    fn found(needles: &[&str], text: &str, piece: usize) -> Vec<bool> {
        let mut all = Needles::default();
        for needle in needles {
            all.add(needle, true);
        }
        let mut hunt = Hunt::new(&all);
        hunt.begin(false);
        let chars: Vec<char> = text.chars().collect();
        for piece in chars.chunks(piece) {
            hunt.push(&piece.iter().collect::<String>());
        }
        hunt.end();
        hunt.found()
    }

    #[test]
    fn what_lies_across_the_ends_of_pieces_is_found() {
        for before in (0..8).chain(PIECE - 20..PIECE + 20) {
            let text = "x".repeat(before) + "Needle 下川" + &"y".repeat(PIECE);
            for piece in [1000, 4097, usize::MAX] {
                let found = found(&["needle 下川", "下川", "needles", "川y", "x下"], &text, piece);
                assert_eq!(found, [true, true, false, true, false], "{before}");
            }
        }
    }

    #[test]
    fn a_needle_may_be_longer_than_a_piece() {
        let long = "ab".repeat(PIECE * 2);
        let text = format!("a{long}c");
        assert_eq!(found(&[&long, "bc", "bd"], &text, 999), [true, true, false]);
    }

    #[test]
    fn nothing_is_found_across_the_end_of_a_text() {
        let mut all = Needles::default();
        assert_eq!(all.add("ab", true), 0);
        assert_eq!(all.add("ab", false), 1);
        assert_eq!(all.add("ab", true), 0);
        let mut hunt = Hunt::new(&all);
        for text in ["xa", "bx"] {
            hunt.begin(false);
            hunt.push(text);
            hunt.end();
        }
        hunt.begin(true);
        hunt.push("ab");
        assert!(hunt.wants(true));
        hunt.end();
        assert!(!hunt.wants(true) && hunt.wants(false));
        assert_eq!(hunt.found(), [true, false]);
    }
}

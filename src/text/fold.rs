//! Texts that are compared without regard to case and width: compatibility forms made the same (NFKC),
//! and case folded. So `ＡＢＣ` is found by `abc`, and `下川` whatever charset it came in.

use icu_casemap::CaseMapper;
use icu_normalizer::ComposingNormalizerBorrowed;

/// So much is held back at most: more without a place to divide it is no writing.
const MOST_HELD: usize = 4096;

/// The text as it is compared.
pub fn fold(text: &str) -> String {
    let mut folded = String::new();
    fold_to(text, &mut folded);
    folded
}

fn fold_to(text: &str, out: &mut String) {
    if text.is_ascii() {
        let start = out.len();
        out.push_str(text);
        out.get_mut(start..).unwrap_or_default().make_ascii_lowercase();
        return;
    }
    let normal = ComposingNormalizerBorrowed::new_nfkc().normalize(text);
    out.push_str(&CaseMapper::new().fold_string(&normal));
}

/// Folds a text that comes in pieces, as if it had come in one.
#[derive(Debug, Default)]
pub struct Folder {
    /// What may become another character with what follows.
    held: String,
}

impl Folder {
    /// Takes a piece, and puts behind `out` what is sure.
    pub fn push(&mut self, text: &str, out: &mut String) {
        let end = match text.rfind(stands_alone) {
            Some(end) => end,
            None if self.held.len() > MOST_HELD => 0,
            None => {
                self.held.push_str(text);
                return;
            }
        };
        let (sure, rest) = text.split_at(end);
        if self.held.is_empty() {
            fold_to(sure, out);
        } else {
            self.held.push_str(sure);
            fold_to(&self.held, out);
            self.held.clear();
        }
        self.held.push_str(rest);
    }

    /// The text is over.
    pub fn finish(&mut self, out: &mut String) {
        fold_to(&self.held, out);
        self.held.clear();
    }
}

/// Whether this never becomes one with what stands before it: ASCII, and what most Japanese texts
/// are made of.
fn stands_alone(c: char) -> bool {
    c.is_ascii() || matches!(c, 'ぁ'..='ゖ' | 'ァ'..='ヺ' | '\u{4e00}'..='\u{9fff}')
}

#[cfg(test)]
mod tests {
    use super::{Folder, fold};

    #[test]
    fn case_and_width_make_no_difference() {
        assert_eq!(fold("Hello"), "hello");
        assert_eq!(fold("ＡＢＣ"), "abc");
        assert_eq!(fold("ｶﾞ"), fold("ガ"));
        assert_eq!(fold("Straße"), fold("STRASSE"));
        assert_eq!(fold("cafe\u{301}"), fold("CAFÉ"));
        assert_eq!(fold("下\u{3000}川"), "下 川");
    }

    #[test]
    fn pieces_make_no_difference() {
        let mixed = "Cafe\u{301} ｶﾞｶﾞ 한글 \u{1112}\u{1161}\u{11ab} q\u{323}\u{307}";
        let long = "\u{1112}\u{1161}\u{11ab}".repeat(100);
        for text in [mixed, "Ä下川ﾊﾟ", "a", "", &long] {
            let chars: Vec<String> = text.chars().map(String::from).collect();
            for size in 1..8 {
                let (mut folder, mut folded) = (Folder::default(), String::new());
                for piece in chars.chunks(size) {
                    folder.push(&piece.concat(), &mut folded);
                }
                folder.finish(&mut folded);
                assert_eq!(folded, fold(text), "in pieces of {size}");
            }
        }
    }

    #[test]
    fn what_has_no_place_to_divide_is_bounded() {
        let (mut folder, mut folded) = (Folder::default(), String::new());
        for _ in 0..10_000 {
            folder.push("мир", &mut folded);
            assert!(folder.held.len() < 8192);
        }
    }

    #[test]
    fn what_stands_alone_does_so_whatever_comes_before() {
        let before =
            ["a", "é", "か", "は", "ﾊ", "\u{1100}", "\u{ac00}", "\u{301}", "\u{9c7}", "下"];
        for c in ('\0'..='\u{9fff}').filter(|c| super::stands_alone(*c)) {
            for before in before {
                assert_eq!(fold(&format!("{before}{c}")), fold(before) + &fold(&c.to_string()));
            }
        }
    }
}

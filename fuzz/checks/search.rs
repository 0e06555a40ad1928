//! What octets say as text, and a header's fields: in whatever pieces they come, the same; and what
//! is folded piece by piece is what is folded as a whole.

use hikyaku::message::encoded_word;
use hikyaku::text::charset::{self, Decoder};
use hikyaku::text::fold::{Folder, fold};

use crate::dice::Dice;

const CHARSETS: [&str; 8] = [
    "us-ascii",
    "utf-8",
    "x-unknown",
    "iso-2022-jp",
    "shift_jis",
    "euc-jp",
    "gb18030",
    "iso-8859-1",
];

pub fn check(input: &[u8]) {
    let mut dice = Dice::of(input);
    let charset = Some(CHARSETS[dice.below(CHARSETS.len())].as_bytes());
    let whole = charset::text(charset, input);
    let most = [1, 2, 10, 100][dice.below(4)];
    let (mut decoder, mut folder) = (Decoder::new(charset), Folder::default());
    let (mut text, mut folded) = (String::new(), String::new());
    let mut sink = |piece: &str| {
        text.push_str(piece);
        folder.push(piece, &mut folded);
    };
    let mut rest = input;
    while !rest.is_empty() {
        let (piece, behind) = rest.split_at(rest.len().min(dice.below(most + 1)));
        decoder.push(piece, &mut sink);
        rest = behind;
    }
    decoder.finish(&mut sink);
    folder.finish(&mut folded);
    assert_eq!(text, whole);
    // What has no place to be divided at is, where it is very long.
    if input.len() < 4096 {
        assert_eq!(folded, fold(&whole));
    }

    let said = encoded_word::decode(input);
    let text = charset::text(None, input);
    assert!(said == text || text.contains("=?"));
    // An octet is three at most, and what stands raw in an encoded word is decoded twice.
    assert!(said.len() <= input.len() * 9);
}

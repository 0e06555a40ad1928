//! The text of a message on the wire, against a second reading: only CRLF `.` CRLF ends it, and
//! where the reads are cut makes no difference.

use hikyaku::text::data::{Decoder, LineEnds, Piece};

use crate::dice::Dice;
use crate::text;

pub fn check(input: &[u8]) {
    let mut dice = Dice::of(input);
    let most = [1, 2, 5, 100, 5000][dice.below(5)];
    check_decoder(input, || 1 + dice.below(most));
    check_line_ends(input, || 1 + dice.below(most));
}

fn check_decoder(input: &[u8], mut cut: impl FnMut() -> usize) {
    let (mut decoder, mut found, mut rest, mut used) =
        (Decoder::default(), Vec::new(), input, None);
    while !rest.is_empty() && used.is_none() {
        let (mut part, behind) = rest.split_at(cut().min(rest.len()));
        loop {
            match decoder.next(&mut part) {
                Piece::Text(piece) => {
                    assert!(!piece.is_empty());
                    found.extend_from_slice(piece);
                }
                Piece::End => {
                    used = Some(input.len() - behind.len() - part.len());
                    break;
                }
                Piece::More => {
                    assert!(part.is_empty());
                    break;
                }
            }
        }
        rest = behind;
    }
    match text::decoded(input) {
        Some((wanted, length)) => {
            assert_eq!(used, Some(length));
            assert_eq!(found.escape_ascii().to_string(), wanted.escape_ascii().to_string());
        }
        None => assert_eq!(used, None),
    }
}

fn check_line_ends(input: &[u8], mut cut: impl FnMut() -> usize) {
    let (mut ends, mut found, mut rest) = (LineEnds::default(), Vec::new(), input);
    while !rest.is_empty() {
        let (mut part, behind) = rest.split_at(cut().min(rest.len()));
        while !part.is_empty() {
            found.extend_from_slice(ends.next(&mut part));
        }
        rest = behind;
    }
    found.extend_from_slice(ends.finish());
    assert_eq!(found.escape_ascii().to_string(), text::cleaned(input).escape_ascii().to_string());
}

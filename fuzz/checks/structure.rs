//! The structure of a message: the same from pieces of any cut, the same when it was written and
//! read back, its parts within each other and between their delimiters, and its texts such that a
//! client finds their ends.

use hikyaku::imap::structure::{Revision, body_text, envelope_text};
use hikyaku::message::structure::{
    Content, MAX_DEPTH, MAX_PARTS, Parser, Part, Structure, decode, encode,
};

use crate::dice::Dice;

pub fn check(input: &[u8]) {
    // As octets of a cache, it is one way to write what it says.
    if let Some(structure) = decode(input) {
        assert_eq!(encode(&structure), input);
        check_texts(&structure);
    }
    let structure = parse(std::iter::once(input));
    check_pieces(input, &structure);
    let mut parts = 0;
    check_part(input, &structure.root, 1, &mut parts);
    assert!(parts <= MAX_PARTS + 2);
    let root = &structure.root;
    assert_eq!((root.start, root.end), (0, input.len() as u64));
    check_texts(&structure);
    assert_eq!(decode(&encode(&structure)), Some(structure));
}

fn parse<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> Structure {
    let mut parser = Parser::default();
    pieces.for_each(|piece| parser.push(piece));
    parser.finish()
}

fn check_pieces(input: &[u8], structure: &Structure) {
    let mut dice = Dice::of(input);
    let most = [1, 2, 10, 100, 2000][dice.below(5)];
    let mut rest = input;
    let pieces = std::iter::from_fn(|| {
        let (piece, behind) = rest.split_at(rest.len().min(dice.below(most + 1)));
        let ended = rest.is_empty();
        rest = behind;
        (!ended).then_some(piece)
    });
    assert_eq!(&parse(pieces), structure);
}

fn check_part(input: &[u8], part: &Part, depth: usize, parts: &mut usize) {
    *parts += 1;
    assert!(depth <= MAX_DEPTH);
    assert!(part.start <= part.body && part.body <= part.end && part.end <= input.len() as u64);
    let (header, body) = (octets(input, part.header()), octets(input, part.text()));
    let lines = memchr::memchr_iter(b'\n', body).count();
    assert_eq!(part.lines, lines as u64, "{}", body.escape_ascii());
    // A header has one blank line, at its end.
    let mut blank = header
        .split_inclusive(|byte| *byte == b'\n')
        .map(|line| matches!(line, b"\n" | b"\r\n" | b"\r"));
    assert!(!blank.by_ref().any(|is| is) || blank.next().is_none(), "{}", header.escape_ascii());
    match &part.content {
        Content::Text | Content::Other => {}
        Content::Message(message) => {
            let root = &message.root;
            assert_eq!((root.start, root.end), (part.body, part.end));
            check_part(input, root, depth + 1, parts);
        }
        Content::Multipart(children) => {
            let mut from = part.body;
            for child in children {
                assert!(from <= child.start && child.end <= part.end);
                check_delimiter(&input[..place(child.start)], part);
                check_end(octets(input, child.end..part.end), part);
                from = child.end;
                check_part(input, child, depth + 1, parts);
            }
        }
    }
}

/// Before a part stands a line that begins with the boundary.
fn check_delimiter(before: &[u8], part: &Part) {
    let line = before.strip_suffix(b"\n").unwrap_or(before);
    let line = &line[line.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1)..];
    assert!(line.starts_with(&delimiter(part)), "{}", before.escape_ascii());
}

/// Behind a part that is not the last thing of all comes a delimiter.
fn check_end(behind: &[u8], part: &Part) {
    let line = behind.strip_prefix(b"\r").unwrap_or(behind);
    let line = line.strip_prefix(b"\n").unwrap_or(line);
    assert!(line.is_empty() || line.starts_with(&delimiter(part)), "{}", behind.escape_ascii());
}

fn delimiter(part: &Part) -> Vec<u8> {
    let mut all = part.parameters.iter();
    let boundary = all.find(|p| p.name.eq_ignore_ascii_case(b"boundary")).unwrap();
    [b"--", &boundary.value[..boundary.value.len().min(80)]].concat()
}

fn place(at: u64) -> usize {
    usize::try_from(at).unwrap()
}

fn octets(input: &[u8], range: std::ops::Range<u64>) -> &[u8] {
    &input[place(range.start)..place(range.end)]
}

fn check_texts(structure: &Structure) {
    for extensible in [false, true] {
        for revision in [Revision::One, Revision::Two] {
            let mut text = Vec::new();
            body_text(structure, extensible, revision, &mut text);
            check_text(&text);
        }
    }
    let mut text = Vec::new();
    envelope_text(&structure.envelope, &mut text);
    check_text(&text);
}

/// One parenthesized list, with strings that end within it.
fn check_text(text: &[u8]) {
    let mut depth = 0_usize;
    let mut rest = text;
    while let Some((first, behind)) = rest.split_first() {
        rest = behind;
        match first {
            b'(' => depth += 1,
            b')' => depth -= 1,
            b'"' => loop {
                let (byte, behind) = rest.split_first().unwrap();
                assert!(byte.is_ascii() && !b"\r\n\0".contains(byte));
                rest = behind;
                match byte {
                    b'"' => break,
                    b'\\' => rest = &rest[1..],
                    _ => {}
                }
            },
            b'{' => {
                let end = rest.iter().position(|byte| *byte == b'}').unwrap();
                let length: usize = std::str::from_utf8(&rest[..end]).unwrap().parse().unwrap();
                let (literal, behind) = rest[end + 3..].split_at(length);
                assert!(!literal.contains(&0));
                rest = behind;
            }
            b' ' | b'N' | b'I' | b'L' | b'0'..=b'9' => {}
            _ => panic!("{}", text.escape_ascii()),
        }
        assert!(depth > 0 || rest.is_empty(), "{}", text.escape_ascii());
    }
    assert_eq!(depth, 0);
}

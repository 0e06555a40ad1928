//! The structure of messages beside Dovecot's: ENVELOPE, BODY, BODYSTRUCTURE and the octets of each
//! part are what clients are used to.

#![allow(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests and their helpers fail by panicking"
)]

mod messages;
mod support;

use std::collections::BTreeMap;
use std::fmt::Write;

use hikyaku::imap::structure::{Revision, body_text, envelope_text};
use hikyaku::message::structure::{Content, Parser, Part, Structure};
use messages::{MESSAGES, wire};
use support::dovecot::{self, Answer};
use support::need;
use support::site::Site;

/// Where we differ: the message, the items, and why.
const DIFFERENCES: &[(&str, &[&str], &str)] = &[
    ("folded_first", &["ENVELOPE"], "a Message-ID is told without the blanks around it"),
    ("trailing_blanks", &["ENVELOPE"], "a Message-ID is told without the blanks around it"),
    ("folds", &["ENVELOPE"], "a fold is one blank in each text, not in Subject only"),
    (
        "no_mime_version",
        &["BODY", "BODYSTRUCTURE"],
        "Content fields count without MIME-Version: who sends base64 means it",
    ),
    (
        "names",
        &["ENVELOPE"],
        "blanks around dots are allowed (RFC 5322 section 4.4, obs-local-part)",
    ),
    ("no_local", &["ENVELOPE"], "what there is of an address is told, in brackets as outside"),
    ("empty_items", &["ENVELOPE"], "empty items are none (RFC 5322 section 4.4, obs-addr-list)"),
    ("at_in_name", &["ENVELOPE"], "a name with an at sign ends no list"),
    (
        "semicolons",
        &["ENVELOPE"],
        "semicolons stand for commas outside of groups, as Outlook means them",
    ),
    ("unclosed_quote", &["ENVELOPE"], "what stands in the quote is told"),
    ("unclosed_bracket", &["ENVELOPE"], "the domain is there"),
    ("unclosed_comment", &["ENVELOPE"], "the domain is there"),
    ("behind_bracket", &["ENVELOPE"], "what stands behind an address ends no list"),
    ("double_bracket", &["ENVELOPE"], "a bracket too many ends no list"),
    (
        "type_no_subtype",
        &["BODY", "BODYSTRUCTURE"],
        "what is no type is text/plain (RFC 2045 section 5.2)",
    ),
    (
        "type_word",
        &["BODY", "BODYSTRUCTURE"],
        "what is no type is text/plain (RFC 2045 section 5.2)",
    ),
    (
        "type_empty",
        &["BODY", "BODYSTRUCTURE"],
        "what is no type is text/plain (RFC 2045 section 5.2)",
    ),
    (
        "type_semicolon",
        &["BODY", "BODYSTRUCTURE"],
        "what is no type is text/plain (RFC 2045 section 5.2)",
    ),
    (
        "type_slash",
        &["BODY", "BODYSTRUCTURE"],
        "what is no type is text/plain (RFC 2045 section 5.2)",
    ),
    ("type_garbage", &["BODY", "BODYSTRUCTURE"], "a type is one, whatever stands behind it"),
    ("parameters_odd", &["BODY", "BODYSTRUCTURE"], "a parameter has a name"),
    (
        "parameter_unquoted",
        &["BODY", "BODYSTRUCTURE"],
        "a value without quotes goes to the next blank",
    ),
    ("parameter_unclosed", &["BODY", "BODYSTRUCTURE"], "a quote that is open goes to the end"),
    (
        "rfc2231_both",
        &["BODY", "BODYSTRUCTURE"],
        "a piece that is not in hex is escaped as a whole (RFC 2231 section 7)",
    ),
    ("disposition_empty", &["BODYSTRUCTURE"], "a disposition has a value"),
    (
        "disposition_2231",
        &["BODYSTRUCTURE"],
        "pieces and a whole value of one name are two parameters",
    ),
    (
        "nested",
        &["BODY[1]"],
        "the line end before a delimiter is the delimiter's (RFC 2046 section 5.1.1)",
    ),
    (
        "prefix",
        &["BODY[1]"],
        "the line end before a delimiter is the delimiter's (RFC 2046 section 5.1.1)",
    ),
    (
        "prefix_outer_longer",
        &["BODY[1]"],
        "the line end before a delimiter is the delimiter's (RFC 2046 section 5.1.1)",
    ),
    (
        "message_header_only",
        &["BODY", "BODYSTRUCTURE", "BODY[1]"],
        "the line end before a delimiter is the delimiter's (RFC 2046 section 5.1.1)",
    ),
    (
        "message_empty",
        &["BODY[1.MIME]"],
        "the blank line belongs to the header, where a message should follow",
    ),
    (
        "message_global",
        &["BODY[1.1.MIME]", "BODY[1.1]", "BODY[1.HEADER]", "BODY[1.TEXT]"],
        "RFC 9051 section 6.4.5.1: message/global has parts as message/rfc822 has",
    ),
    (
        "digest_empty_type",
        &["BODY", "BODYSTRUCTURE", "BODY[1.1.MIME]", "BODY[1.1]", "BODY[1.HEADER]", "BODY[1.TEXT]"],
        "what is no type is what a missing one is (RFC 2046 section 5.1.5)",
    ),
];

/// What IMAP's texts are made of.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    Open,
    Close,
    Word(String),
    Text(Vec<u8>),
}

/// The tokens of a text; its literals stand elsewhere, or behind their lengths.
fn tokens(
    mut rest: &[u8],
    literals: &mut dyn Iterator<Item = Vec<u8>>,
    inline: bool,
) -> Vec<Token> {
    let mut found = Vec::new();
    while let Some((first, behind)) = rest.split_first() {
        rest = behind;
        found.push(match first {
            b' ' => continue,
            b'(' => Token::Open,
            b')' => Token::Close,
            b'"' => {
                let mut text = Vec::new();
                while rest[0] != b'"' {
                    rest = if rest[0] == b'\\' { &rest[1..] } else { rest };
                    text.push(rest[0]);
                    rest = &rest[1..];
                }
                rest = &rest[1..];
                Token::Text(text)
            }
            b'{' => {
                let end = rest.iter().position(|byte| *byte == b'}').unwrap();
                let length: usize = std::str::from_utf8(&rest[..end]).unwrap().parse().unwrap();
                rest = &rest[end + 1..];
                if inline {
                    let (text, behind) = rest[2..].split_at(length);
                    rest = behind;
                    Token::Text(text.to_vec())
                } else {
                    Token::Text(literals.next().unwrap())
                }
            }
            _ => {
                let end = rest.iter().position(|byte| b" ()".contains(byte)).unwrap_or(rest.len());
                let word = [&[*first], &rest[..end]].concat();
                rest = &rest[end..];
                Token::Word(String::from_utf8(word).unwrap())
            }
        });
    }
    found
}

fn show(tokens: &[Token]) -> String {
    let mut out = String::new();
    for token in tokens {
        match token {
            Token::Open => out.push('('),
            Token::Close => out.push_str(") "),
            Token::Word(word) => write!(out, "{word} ").unwrap(),
            Token::Text(text) => write!(out, "\"{}\" ", text.escape_ascii()).unwrap(),
        }
    }
    out
}

/// The items of one answer to FETCH.
fn items(answer: Answer) -> BTreeMap<String, Vec<Token>> {
    let text = answer.text.split_once(" FETCH (").unwrap().1.strip_suffix(')').unwrap().to_owned();
    let all = tokens(text.as_bytes(), &mut answer.literals.into_iter(), false);
    let mut items = BTreeMap::new();
    let mut rest = &all[..];
    while let Some((Token::Word(name), behind)) = rest.split_first() {
        let mut depth = 0_usize;
        let length = behind.iter().position(|token| {
            match token {
                Token::Open => depth += 1,
                Token::Close => depth -= 1,
                _ => {}
            }
            depth == 0
        });
        let (value, behind) = behind.split_at(length.unwrap() + 1);
        items.insert(name.clone(), value.to_vec());
        rest = behind;
    }
    assert!(rest.is_empty(), "{}", show(&all));
    items
}

/// What no literal may have is for the session to write: Dovecot's way of it is not looked at here.
fn shown(octets: &[u8]) -> Vec<u8> {
    octets.iter().map(|byte| if *byte == 0 { 0x80 } else { *byte }).collect()
}

fn parse(message: &[u8]) -> Structure {
    let mut parser = Parser::default();
    parser.push(message);
    parser.finish()
}

/// What we say for each item.
fn ours(message: &[u8], structure: &Structure) -> BTreeMap<String, Vec<Token>> {
    let mut items = BTreeMap::new();
    let mut text = Vec::new();
    envelope_text(&structure.envelope, &mut text);
    items.insert("ENVELOPE".to_owned(), tokens(&text, &mut std::iter::empty(), true));
    for (name, extensible) in [("BODY", false), ("BODYSTRUCTURE", true)] {
        let mut text = Vec::new();
        body_text(structure, extensible, Revision::One, &mut text);
        items.insert(name.to_owned(), tokens(&text, &mut std::iter::empty(), true));
    }
    let mut paths = Vec::new();
    paths_of(structure, &mut Vec::new(), &mut paths);
    for path in paths {
        let part = structure.part(&path).unwrap();
        let name = path.iter().map(u32::to_string).collect::<Vec<_>>().join(".");
        let mut add = |name: String, range: std::ops::Range<u64>| {
            let range = usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap();
            items.insert(name, vec![Token::Text(shown(&message[range]))]);
        };
        add(format!("BODY[{name}]"), part.text());
        add(format!("BODY[{name}.MIME]"), part.header());
        if let Some(message) = part.message() {
            add(format!("BODY[{name}.HEADER]"), message.root.header());
            add(format!("BODY[{name}.TEXT]"), message.root.text());
        }
    }
    items
}

fn paths_of(structure: &Structure, path: &mut Vec<u32>, paths: &mut Vec<Vec<u32>>) {
    if let Content::Multipart(parts) = &structure.root.content {
        paths_of_parts(parts, path, paths);
    } else {
        paths_of_parts(std::slice::from_ref(&structure.root), path, paths);
    }
}

fn paths_of_parts(parts: &[Part], path: &mut Vec<u32>, paths: &mut Vec<Vec<u32>>) {
    for (number, part) in (1..).zip(parts) {
        path.push(number);
        paths.push(path.clone());
        match &part.content {
            Content::Multipart(parts) => paths_of_parts(parts, path, paths),
            Content::Message(message) => paths_of(message, path, paths),
            _ => {}
        }
        path.pop();
    }
}

fn differs(message: &str, item: &str) -> bool {
    DIFFERENCES.iter().any(|(name, items, _)| *name == message && items.contains(&item))
}

#[test]
fn structures_are_those_that_dovecot_tells() {
    for (name, ..) in DIFFERENCES {
        assert!(MESSAGES.iter().any(|(known, _)| known == name), "{name}");
    }
    if !need("dovecot") || !need("doveadm") {
        return;
    }
    let site = Site::new();
    let messages = MESSAGES.iter().map(|(_, message)| wire(message));
    let (mut imap, _) = dovecot::on_maildir(&site, "hunt", messages);
    let mut wrong = String::new();
    for (number, (name, message)) in (1..).zip(MESSAGES) {
        let message = wire(message);
        let structure = parse(&message);
        let ours = ours(&message, &structure);
        let mut theirs = BTreeMap::new();
        for item in ours.keys() {
            let asked = item.replace("BODY[", "BODY.PEEK[");
            match imap.command(&format!("FETCH {number} {asked}")) {
                Ok(answers) => theirs.extend(answers.into_iter().flat_map(items)),
                Err(error) => writeln!(wrong, "{name}: {item}: {error}").unwrap(),
            }
        }
        for (item, ours) in &ours {
            let theirs = theirs.get(item).cloned().unwrap_or_default();
            let is_known = differs(name, item);
            match (is_known, *ours == theirs) {
                (false, true) | (true, false) => {}
                (true, true) => writeln!(wrong, "{name}: {item}: no difference").unwrap(),
                (false, false) => {
                    let (ours, theirs) = (show(ours), show(&theirs));
                    writeln!(wrong, "{name}: {item}:\n  ours   {ours}\n  theirs {theirs}").unwrap();
                }
            }
        }
    }
    imap.log_out();
    assert!(wrong.is_empty(), "\n{wrong}");
}

//! FETCH beside Dovecot's: each section of each message, in whole and in parts, is what clients are
//! used to.

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

use hikyaku::imap::command::{Command, Dialect, FetchItem, parse};
use hikyaku::imap::structure::Revision;
use hikyaku::mailbox::{Structures, open};
use hikyaku::message::structure::{Content, Part, Structure};
use hikyaku::server::imap::fetch::{Failure, Fetch};
use hikyaku::server::imap::out::Out;
use messages::{MESSAGES, wire};
use support::dovecot::{self, Imap};
use support::site::Site;
use support::{maildir, need};

/// What an item is answered with.
#[derive(Clone, PartialEq, Eq)]
enum Value {
    Nil,
    Number(u64),
    Text(Vec<u8>),
    /// NO
    Refused,
}

impl Value {
    fn show(&self) -> String {
        match self {
            Self::Nil => "NIL".to_owned(),
            Self::Number(number) => number.to_string(),
            Self::Text(text) => format!("\"{}\"", text.escape_ascii()),
            Self::Refused => "NO".to_owned(),
        }
    }

    /// Of the end of a line, and what its literal had.
    fn of(line: &str, literal: Option<Vec<u8>>) -> Self {
        let last = line.strip_suffix(')').unwrap().rsplit(' ').next().unwrap();
        match (last, literal) {
            (_, Some(text)) => Self::Text(text),
            ("NIL", None) => Self::Nil,
            ("\"\"", None) => Self::Text(Vec::new()),
            (number, None) => Self::Number(number.parse().unwrap_or_else(|_| panic!("{line}"))),
        }
    }
}

/// The sections of a part, and of those in it.
fn sections(parts: &[Part], path: &str, found: &mut Vec<String>) {
    for (number, part) in (1..).zip(parts) {
        let path = format!("{path}{number}");
        found.push(path.clone());
        match &part.content {
            Content::Multipart(parts) => sections(parts, &format!("{path}."), found),
            Content::Message(message) => sections(top(message), &format!("{path}."), found),
            _ => {}
        }
    }
}

fn top(structure: &Structure) -> &[Part] {
    match &structure.root.content {
        Content::Multipart(parts) => parts,
        _ => std::slice::from_ref(&structure.root),
    }
}

/// All that is asked of a message.
fn questions(structure: &Structure) -> Vec<String> {
    const FIELDS: [&str; 5] = [
        "HEADER",
        "TEXT",
        "HEADER.FIELDS (Subject To x-none content-TYPE)",
        "HEADER.FIELDS (x-none)",
        "HEADER.FIELDS.NOT (Subject date)",
    ];
    let mut asked = Vec::new();
    let mut body = |section: String| {
        for partial in ["", "<0.7>", "<3.9>", "<5.100000>", "<100000.5>"] {
            asked.push(format!("BODY.PEEK[{section}]{partial}"));
        }
    };
    body(String::new());
    for text in FIELDS {
        body(text.to_owned());
    }
    let mut parts = Vec::new();
    sections(top(structure), "", &mut parts);
    let missing = parts.iter().flat_map(|part| [format!("{part}.1"), format!("{part}.7")]);
    let mut paths: Vec<String> =
        parts.iter().cloned().chain(missing).chain(["7".to_owned(), "7.1".to_owned()]).collect();
    paths.sort();
    paths.dedup();
    for path in &paths {
        body(path.clone());
        body(format!("{path}.MIME"));
        for text in FIELDS {
            body(format!("{path}.{text}"));
        }
    }
    for part in paths.iter().map(String::as_str).chain([""]) {
        asked.push(format!("BINARY.SIZE[{part}]"));
        for partial in ["", "<0.3>", "<2.4>", "<100000.5>"] {
            asked.push(format!("BINARY.PEEK[{part}]{partial}"));
        }
    }
    asked.extend(["RFC822", "RFC822.HEADER", "RFC822.TEXT", "RFC822.SIZE"].map(str::to_owned));
    asked
}

/// What Dovecot answers; where it ends the session it is refused, and there is a new one.
fn theirs(imap: &mut Imap, again: &dyn Fn() -> Imap, number: u32, item: &str) -> Value {
    match imap.command(&format!("FETCH {number} {item}")) {
        Err(why) => {
            if !why.starts_with("NO ") {
                *imap = again();
            }
            Value::Refused
        }
        Ok(mut answers) => {
            let answer = &mut answers[0];
            assert!(answer.literals.len() < 2, "{}", answer.text);
            Value::of(&answer.text, answer.literals.pop())
        }
    }
}

fn parsed(item: &str) -> Vec<FetchItem> {
    let command = format!("a FETCH 1 {item}");
    match parse(command.as_bytes(), Dialect::default()).map(|tagged| tagged.command) {
        Ok(Command::Fetch { fetch, .. }) => fetch.items,
        _ => panic!("{item}"),
    }
}

/// What we answer.
fn ours(fetch: &mut Fetch, number: u32, uid: u32, item: &str) -> Value {
    let mut line = Vec::new();
    let mut sink = |octets: &[u8]| {
        line.extend_from_slice(octets);
        Ok(())
    };
    let mut out = Out::new(&mut sink);
    match fetch.message(number, uid, &[], &parsed(item), &mut out) {
        Ok(()) => std::io::Write::flush(&mut out).unwrap(),
        Err(Failure::UnknownEncoding) => return Value::Refused,
        Err(failure) => panic!("{item}: {failure:?}"),
    }
    let line = line.strip_suffix(b"\r\n").unwrap();
    let Some(at) = line.windows(3).position(|three| three == b"}\r\n") else {
        return Value::of(std::str::from_utf8(line).unwrap(), None);
    };
    let (head, rest) = (std::str::from_utf8(&line[..at]).unwrap(), &line[at + 3..]);
    let length: usize = head.rsplit_once('{').unwrap().1.parse().unwrap();
    let (text, rest) = rest.split_at(length);
    assert_eq!(rest, b")", "{item}");
    let has_nul = text.contains(&0);
    assert!(!has_nul || head.contains("~{"), "{item}");
    Value::of(&format!("{head}}})"), Some(text.to_vec()))
}

/// Messages of which we have other parts: `structure_dovecot` says why.
const STRUCTURES: [&str; 8] = [
    "nested",
    "prefix",
    "prefix_outer_longer",
    "message_header_only",
    "message_empty",
    "message_encoded",
    "message_global",
    "digest_empty_type",
];

/// Why an answer is another one than Dovecot's.
fn reason(message: &str, item: &str, ours: &Value, theirs: &Value) -> Option<&'static str> {
    let section = item.split_once('[').map_or("", |(_, section)| section);
    let number = section.split([']', 'H', 'T', 'M']).next().unwrap_or_default();
    if *ours == Value::Nil && *theirs == Value::Text(Vec::new()) {
        return Some("what is not there is NIL (RFC 9051 section 4.5)");
    }
    let is_missing = [Value::Nil, Value::Number(0)].contains(ours);
    if is_missing && number.trim_end_matches('.').ends_with(".1") {
        return Some("what is neither a message nor a multipart has no parts");
    }
    if item.starts_with("BINARY") && number.is_empty() {
        return Some("a message is sent as it stands, whose header says how it is encoded");
    }
    if item.starts_with("BINARY") && message.starts_with("encoding_") && *theirs == Value::Refused {
        return Some("an encoding is recognized in spite of blanks, comments and nothing");
    }
    let is_part = section.starts_with(|first: char| first.is_ascii_digit());
    (is_part && STRUCTURES.contains(&message)).then_some("it has another structure")
}

#[test]
fn sections_are_those_that_dovecot_sends() {
    if !need("dovecot") || !need("doveadm") {
        return;
    }
    let site = Site::new();
    let (mut imap, configuration) =
        dovecot::on_maildir(&site, "hunt", MESSAGES.iter().map(|(_, message)| wire(message)));
    let again = || Imap::open(&site, "hunt", &configuration).unwrap();
    let place = maildir::place(site.path(), MESSAGES.iter().map(|(_, message)| wire(message)));
    let mut structures = Structures::open(&place);
    let mut store = open(place).unwrap();
    let uids: Vec<u32> = store.messages().unwrap().iter().map(|message| message.uid).collect();
    assert_eq!(uids.len(), MESSAGES.len());
    let mut wrong = String::new();
    let mut differences = BTreeMap::new();
    let mut asked = 0;
    for ((number, (name, _)), uid) in (1..).zip(MESSAGES).zip(uids) {
        let structure = structures.of(store.as_mut(), uid).unwrap();
        let mut fetch =
            Fetch { store: store.as_mut(), structures: &mut structures, revision: Revision::One };
        for item in questions(&structure) {
            asked += 1;
            let (ours, theirs) =
                (ours(&mut fetch, number, uid, &item), theirs(&mut imap, &again, number, &item));
            if ours == theirs {
                continue;
            }
            if let Some(reason) = reason(name, &item, &ours, &theirs) {
                *differences.entry(reason).or_insert(0) += 1;
                continue;
            }
            let (ours, theirs) = (ours.show(), theirs.show());
            writeln!(wrong, "{name}: {item}:\n  ours   {ours}\n  theirs {theirs}").unwrap();
        }
    }
    imap.log_out();
    assert!(asked > 10_000, "{asked}");
    // Each reason is one that is there.
    assert_eq!(differences.len(), 5, "{asked}: {differences:?}");
    assert!(wrong.is_empty(), "\n{wrong}");
}

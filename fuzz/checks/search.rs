//! What is searched says the same in whatever pieces it comes; and a search for any text in any
//! message: its keys agree with each other, and in a plain message of ASCII the text is found where a
//! slow reading finds it.
//!
//! A search's input is the text, a line end, and the message.

use std::rc::Rc;
use std::time::{Duration, UNIX_EPOCH};

use hikyaku::imap::command::{Key, Search};
use hikyaku::mailbox::store::{Arrival, Flags, Store};
use hikyaku::mailbox::{Memory, NewMessage, Place, Stager, Structures, UidSet};
use hikyaku::message::encoded_word;
use hikyaku::message::structure::Content;
use hikyaku::server::imap::search::{Context, prepare};
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
    check_pieces(input);
    check_words(input);
    if let Some(end) = memchr::memchr(b'\n', input) {
        check_search(&input[..end], &input[end + 1..]);
    }
}

fn check_pieces(input: &[u8]) {
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
}

fn check_words(input: &[u8]) {
    let said = encoded_word::decode(input);
    let text = charset::text(None, input);
    assert!(said == text || text.contains("=?"));
    // An octet is three at most, and what stands raw in an encoded word is decoded twice.
    assert!(said.len() <= input.len() * 9);
}

fn check_search(needle: &[u8], message: &[u8]) {
    let mut mailbox = Mailbox::new(message);
    let body = Key::Body(needle.to_vec());
    let text = Key::Text(needle.to_vec());
    let subject = Key::Header { field: b"Subject".to_vec(), text: needle.to_vec() };
    for charset in [None, Some("ISO-2022-JP"), Some("Shift_JIS")] {
        let mut has = |key: &Key| mailbox.has(charset, key);
        let [in_body, in_text, in_subject] = [has(&body), has(&text), has(&subject)];
        assert!(in_text || !in_body, "what stands in the body is text");
        for (key, found) in [(&body, in_body), (&text, in_text), (&subject, in_subject)] {
            assert_eq!(has(&Key::Not(Box::new(key.clone()))), !found);
        }
        let both = vec![body.clone(), subject.clone()];
        assert_eq!(has(&Key::And(both.clone())), in_body && in_subject);
        assert_eq!(has(&Key::Or(both)), in_body || in_subject);
    }
    let needle = needle.to_ascii_lowercase();
    if let Some(plain) = mailbox.plain_body()
        && needle.is_ascii()
        && !needle.contains(&0x1b)
    {
        let plain = plain.to_ascii_lowercase();
        let is_in = needle.is_empty() || plain.windows(needle.len()).any(|piece| piece == needle);
        assert_eq!(mailbox.has(None, &body), is_in);
    }
}

struct Mailbox {
    store: Memory,
    structures: Structures,
}

impl Mailbox {
    fn new(message: &[u8]) -> Self {
        let mut stager = Stager::new(u64::MAX);
        stager.push(message).unwrap();
        let text = Rc::new(stager.finish().unwrap());
        let message = NewMessage { sender: Vec::new(), at: UNIX_EPOCH, trace: Vec::new(), text };
        let arrival = Arrival { message, flags: Flags::default(), keywords: Vec::new() };
        let mut store = Memory::new(1);
        store.append(&[arrival]).unwrap();
        // There can be no cache.
        let structures = Structures::open(&Place {
            path: "/dev/null/mailbox".into(),
            index: "/dev/null/index".into(),
            owner: nix::unistd::geteuid(),
            locks: Vec::new(),
            libexec: "/dev/null".into(),
            lock_timeout: Duration::from_secs(1),
            quota: 0,
        });
        Self { store, structures }
    }

    fn has(&mut self, charset: Option<&str>, key: &Key) -> bool {
        let charset = charset.map(|name| name.as_bytes().to_vec());
        let search = Search { returns: None, charset, keys: vec![key.clone()] };
        let context = Context { largest_number: 1, largest_uid: 1, saved: &UidSet::new() };
        let program = prepare(&search, &context).unwrap();
        program.matches(&mut self.store, &mut self.structures, 1, 1, false).unwrap()
    }

    /// The body of a message that is text as it stands.
    fn plain_body(&mut self) -> Option<Vec<u8>> {
        let structure = self.structures.of(&mut self.store, 1).unwrap();
        let root = &structure.root;
        let mut body = Vec::new();
        let push = &mut |octets: &[u8]| {
            body.extend_from_slice(octets);
            Ok(())
        };
        self.store.read(1, root.text(), push).unwrap();
        let is_plain = root.content == Content::Text
            && root.encoding.is_none()
            && root.parameters.is_empty()
            && body.is_ascii()
            && !body.contains(&0x1b);
        is_plain.then_some(body)
    }
}

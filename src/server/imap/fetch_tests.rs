//! Each item of one message, in whole and in parts, and what becomes of those that can't be told.

use std::cell::Cell;
use std::fmt::Write as _;

use super::super::doubles::{self, Reader, Through};
use super::*;
use crate::imap::command::{Command, Dialect, parse};
use crate::mailbox::{MboxStore, Memory, Place};

const NESTED: &str = "\
Subject: outer\nTo: a@b.org\nContent-Type: multipart/mixed; boundary=o\n\n\
preamble\n\
--o\nContent-ID: <1>\n\none\n\
--o\nContent-Type: message/rfc822\n\n\
Subject: inner\nX: y\nContent-Type: multipart/mixed; boundary=i\n\n\
--i\nContent-Type: text/html\nContent-Transfer-Encoding: quoted-printable\n\n<p>=3D=\n=00two\n\
--i\nContent-Type: image/png\nContent-Transfer-Encoding: base64\n\nQUJDREVGRw==\n\
--i--\n\
--o\nContent-Transfer-Encoding: x-unknown\n\nfour\n\
--o--\n";

/// Messages can't be read to their ends, after so many reads.
struct Breaking {
    reads: Cell<usize>,
}

impl Reader for Breaking {
    fn read(
        &mut self,
        store: &mut dyn Store,
        uid: Uid,
        range: Range<u64>,
        sink: &mut dyn FnMut(&[u8]) -> io::Result<()>,
    ) -> Result<(), Error> {
        let Some(left) = self.reads.get().checked_sub(1) else {
            let end = range.start + (range.end - range.start) / 2;
            store.read(uid, range.start..end, sink)?;
            return Err(Error::Changed);
        };
        self.reads.set(left);
        store.read(uid, range, sink)
    }
}

/// One mailbox with one message, of which parts may be asked.
struct Mailbox {
    store: Through<Breaking>,
    structures: Structures,
    uid: Uid,
    /// Of the structures' cache.
    _dir: tempfile::TempDir,
}

impl Mailbox {
    fn new(text: &[u8]) -> Self {
        Self::of_kind(text, |_| Box::new(Memory::new(1)))
    }

    fn of_kind(text: &[u8], open: impl FnOnce(Place) -> Box<dyn Store>) -> Self {
        let arrival = doubles::arrival(text, 1_087_754_401);
        let dir = tempfile::tempdir().unwrap();
        let place = doubles::place(dir.path());
        let structures = Structures::open(&place);
        let mut inner = open(place);
        let uid = inner.append(&[arrival]).unwrap()[0];
        let store = Through { inner, reader: Breaking { reads: Cell::new(usize::MAX) } };
        Self { store, structures, uid, _dir: dir }
    }

    /// What the client got, and how it ended.
    fn fetch(&mut self, items: &str) -> (Vec<u8>, Result<(), Failure>) {
        let mut sent = Vec::new();
        let mut sink = |octets: &[u8]| {
            sent.extend_from_slice(octets);
            Ok(())
        };
        let mut out = Out::new(&mut sink);
        let mut fetch = Fetch {
            store: &mut self.store,
            structures: &mut self.structures,
            revision: Revision::Two,
        };
        let items = items_of(items);
        let told = fetch.message(7, self.uid, &["\\Seen", "$x"], &items, &mut out);
        out.flush().unwrap();
        (sent, told)
    }

    fn line(&mut self, items: &str) -> String {
        let (sent, told) = self.fetch(items);
        told.unwrap();
        String::from_utf8(sent).unwrap()
    }

    /// What one item is.
    fn value(&mut self, item: &str) -> Vec<u8> {
        let (sent, told) = self.fetch(item);
        told.unwrap();
        let line = sent.strip_suffix(b")\r\n").unwrap();
        if line.ends_with(b" \"\"") {
            return Vec::new();
        }
        let at = line.windows(3).position(|three| three == b"}\r\n").unwrap();
        let head = std::str::from_utf8(&line[..at]).unwrap();
        let length: usize = head.rsplit_once('{').unwrap().1.parse().unwrap();
        assert_eq!(line.len(), at + 3 + length, "{item}");
        line[at + 3..].to_vec()
    }

    fn check(&mut self, item: &str, told: &str) {
        assert_eq!(self.line(item), format!("* 7 FETCH ({told})\r\n"), "{item}");
    }
}

fn items_of(text: &str) -> Vec<FetchItem> {
    let command = format!("a FETCH 1 ({text})");
    match parse(command.as_bytes(), Dialect::default()).map(|tagged| tagged.command) {
        Ok(Command::Fetch { fetch, .. }) => fetch.items,
        _ => panic!("{text}"),
    }
}

#[test]
fn what_the_store_knows_is_told_without_a_read() {
    let mut mailbox = Mailbox::new(NESTED.as_bytes());
    mailbox.store.reader.reads.set(0);
    let line = mailbox.line("UID FLAGS RFC822.SIZE INTERNALDATE");
    let size = NESTED.len() + NESTED.lines().count();
    let begin = format!("* 7 FETCH (UID 1 FLAGS (\\Seen $x) RFC822.SIZE {size} INTERNALDATE \"");
    assert!(line.starts_with(&begin), "{line}");
    assert!(line.contains("-Jun-2004 ") && line.ends_with("\")\r\n"), "{line}");
}

#[test]
fn sections_are_what_their_numbers_and_words_say() {
    let mut mailbox = Mailbox::new(NESTED.as_bytes());
    for (item, told) in [
        ("BODY.PEEK[1]", "BODY[1] {3}\r\none"),
        ("BODY.PEEK[1.MIME]", "BODY[1.MIME] {19}\r\nContent-ID: <1>\r\n\r\n"),
        ("BODY.PEEK[1.HEADER]", "BODY[1.HEADER] NIL"),
        ("BODY.PEEK[1.1]", "BODY[1.1] NIL"),
        ("BODY.PEEK[9]", "BODY[9] NIL"),
        ("BODY.PEEK[2.HEADER.FIELDS (X)]", "BODY[2.HEADER.FIELDS (X)] {8}\r\nX: y\r\n\r\n"),
        (
            "BODY.PEEK[HEADER.FIELDS (SUBJECT)]",
            "BODY[HEADER.FIELDS (SUBJECT)] {18}\r\nSubject: outer\r\n\r\n",
        ),
        ("BODY.PEEK[HEADER.FIELDS (SUBJECT)]<9.3>", "BODY[HEADER.FIELDS (SUBJECT)]<9> {3}\r\nout"),
        ("BODY.PEEK[2.2]", "BODY[2.2] {12}\r\nQUJDREVGRw=="),
        ("BODY.PEEK[2.2]<4.4>", "BODY[2.2]<4> {4}\r\nREVG"),
        ("BODY.PEEK[2.2]<12.4>", "BODY[2.2]<12> \"\""),
        ("BODY.PEEK[]<99999.4>", "BODY[]<99999> \"\""),
        ("BODY.PEEK[1] UID", "BODY[1] {3}\r\none UID 1"),
    ] {
        mailbox.check(item, told);
    }
    let whole = mailbox.value("RFC822");
    assert_eq!(String::from_utf8(whole.clone()).unwrap(), NESTED.replace('\n', "\r\n"));
    assert_eq!(mailbox.value("BODY[]"), whole);
    let parts = [mailbox.value("RFC822.HEADER"), mailbox.value("RFC822.TEXT")].concat();
    assert_eq!(parts, whole);
    let parts = [mailbox.value("BODY[2.HEADER]"), mailbox.value("BODY[2.TEXT]")].concat();
    assert_eq!(parts, mailbox.value("BODY[2]"));
    let mut plain = Mailbox::new(b"Subject: x\n\nhello\n");
    plain.check("BODY[1]", "BODY[1] {7}\r\nhello\r\n");
    plain.check("BODY[1.MIME]", "BODY[1.MIME] {14}\r\nSubject: x\r\n\r\n");
    plain.check("BODY[2]", "BODY[2] NIL");
}

#[test]
fn bodies_are_decoded() {
    let mut mailbox = Mailbox::new(NESTED.as_bytes());
    for (item, told) in [
        ("BINARY[1]", "BINARY[1] {3}\r\none"),
        ("BINARY[2.1]", "BINARY[2.1] ~{8}\r\n<p>=\0two"),
        ("BINARY[2.1]<0.4>", "BINARY[2.1]<0> {4}\r\n<p>="),
        ("BINARY.PEEK[2.2]", "BINARY[2.2] {7}\r\nABCDEFG"),
        ("BINARY[2.2]<2.3>", "BINARY[2.2]<2> {3}\r\nCDE"),
        ("BINARY[2.2]<7.3>", "BINARY[2.2]<7> \"\""),
        ("BINARY[9]", "BINARY[9] NIL"),
        ("BINARY.SIZE[2.1]", "BINARY.SIZE[2.1] 8"),
        ("BINARY.SIZE[2.2]", "BINARY.SIZE[2.2] 7"),
        ("BINARY.SIZE[9]", "BINARY.SIZE[9] 0"),
    ] {
        mailbox.check(item, told);
    }
    for item in ["BINARY[3]", "BINARY.SIZE[3]", "UID BINARY[3] FLAGS"] {
        let (sent, told) = mailbox.fetch(item);
        assert!(matches!(told, Err(Failure::UnknownEncoding)), "{item}: {told:?}");
        assert!(sent.is_empty(), "{item}");
    }
}

#[test]
fn a_literal_has_no_nul_unless_it_may() {
    let mut mailbox = Mailbox::new(b"Subject: a\0b\n\nc\0\n");
    assert_eq!(mailbox.value("BODY[TEXT]"), b"c\x80\r\n");
    assert_eq!(mailbox.value("BODY[HEADER.FIELDS (Subject)]"), b"Subject: a\x80b\r\n\r\n");
    let (sent, _) = mailbox.fetch("BINARY[1]");
    assert_eq!(sent, b"* 7 FETCH (BINARY[1] ~{4}\r\nc\0\r\n)\r\n");
}

#[test]
fn parts_are_the_whole_when_they_are_put_together() {
    let mut mailbox = Mailbox::new(NESTED.as_bytes());
    for item in [
        "BODY[]",
        "BODY[TEXT]",
        "BODY[HEADER]",
        "BODY[HEADER.FIELDS.NOT (To)]",
        "BODY[2]",
        "BODY[2.HEADER.FIELDS (x subject)]",
        "BODY[2.1.MIME]",
        "BINARY[2.1]",
        "BINARY[2.2]",
        "BINARY[]",
    ] {
        let whole = mailbox.value(item);
        assert!(!whole.is_empty(), "{item}");
        for size in [1, 2, 3, 7, 64, 1000] {
            let mut parts = Vec::new();
            loop {
                let part = mailbox.value(&format!("{item}<{}.{size}>", parts.len()));
                if part.is_empty() {
                    break;
                }
                assert!(part.len() == size || parts.len() + part.len() == whole.len());
                parts.extend(part);
            }
            assert_eq!(parts, whole, "{item} by {size}");
        }
    }
}

/// Of a mebibyte or two, each line of which is another.
fn large() -> (String, Vec<u8>) {
    let mut text = String::from("Content-Transfer-Encoding: quoted-printable\n\n");
    let mut decoded = Vec::new();
    for number in 0..100_000 {
        write!(text, "=41line {number}=\n=0D=0A").unwrap();
        decoded.extend_from_slice(format!("Aline {number}\r\n").as_bytes());
    }
    text.push('\n');
    decoded.extend_from_slice(b"\r\n");
    (text, decoded)
}

#[test]
fn what_is_large_goes_through_twice_and_is_the_same() {
    let (text, decoded) = large();
    let mut mailbox = Mailbox::new(text.as_bytes());
    assert_eq!(mailbox.value("BODY[]"), text.replace('\n', "\r\n").into_bytes());
    assert!(mailbox.value("BINARY[1]") == decoded);
    mailbox.check("BINARY.SIZE[1]", &format!("BINARY.SIZE[1] {}", decoded.len()));
    let from = 300_001;
    let part = mailbox.value(&format!("BINARY[1]<{from}.200000>"));
    assert!(part == decoded[from..from + 200_000]);
    // Near the beginning only the beginning is read: one step of several.
    for (item, reads) in [("BINARY[1]<0.9>", 1), ("BINARY[1]<0.100000>", 2)] {
        mailbox.store.reader.reads.set(reads);
        mailbox.value(item);
        assert_eq!(mailbox.store.reader.reads.get(), 0, "{item}");
    }
}

#[test]
fn an_mbox_tells_the_same() {
    let (large, _) = large();
    for text in [NESTED, "Subject: x\n\nFrom here\n>From there\n\nhello", &large] {
        let mut memory = Mailbox::new(text.as_bytes());
        let open = |place| -> Box<dyn Store> { Box::new(MboxStore::open(place).unwrap()) };
        let mut mbox = Mailbox::of_kind(text.as_bytes(), open);
        for item in [
            "RFC822.SIZE ENVELOPE BODY BODYSTRUCTURE INTERNALDATE",
            "BODY[] BODY[1] BODY[HEADER] BODY[TEXT] BODY[1.MIME]",
            // Forwards and backwards.
            "BODY[]<0.10> BODY[]<10.300000> BODY[]<5.7> BODY[TEXT]<3.9> BODY[]<99999999.1>",
            "BODY[2.2] BODY[2.1] BODY[HEADER.FIELDS.NOT (To)] BODY[2.HEADER.FIELDS (x)]",
            "BINARY[1]<7.9> BINARY[2.1] BINARY[2.2]<1.2> BINARY.SIZE[2.1] BINARY.SIZE[1]",
        ] {
            let ((ours, told), (theirs, wanted)) = (mbox.fetch(item), memory.fetch(item));
            assert!(told.is_ok() && wanted.is_ok(), "{item}: {told:?} {wanted:?}");
            assert!(ours == theirs, "{item}");
        }
    }
}

#[test]
fn a_literal_that_breaks_off_ends_the_connection_and_before_it_nothing_is_told() {
    let (text, _) = large();
    for (text, reads, item, is_broken) in [
        // All of it was still here.
        (NESTED, 0, "UID BODY[]", false),
        (NESTED, 0, "ENVELOPE", false),
        (NESTED, 1, "UID BINARY[2.1]", false),
        // Some of it was sent.
        (&text, 0, "UID BODY[]", true),
        (&text, 1, "UID BODY[] BODY[TEXT]", true),
    ] {
        let mut mailbox = Mailbox::new(text.as_bytes());
        mailbox.store.reader.reads.set(reads);
        let (sent, told) = mailbox.fetch(item);
        assert_eq!(matches!(told, Err(Failure::Broken(_))), is_broken, "{item}: {told:?}");
        assert_eq!(matches!(told, Err(Failure::Gone)), !is_broken, "{item}: {told:?}");
        assert_eq!(!sent.is_empty(), is_broken, "{item}");
    }
}

#[test]
fn a_line_that_was_begun_is_ended_where_an_item_fails_outside_of_a_literal() {
    let long = "x".repeat(200_000);
    let text = format!(
        "Content-Type: multipart/mixed; boundary=o\n\n--o\n\n{long}\n--o\n\
         Content-Transfer-Encoding: x-unknown\n\ntwo\n--o--\n"
    );
    let mut mailbox = Mailbox::new(text.as_bytes());
    let (sent, told) = mailbox.fetch("BODY[1] BINARY[2] FLAGS");
    assert!(matches!(told, Err(Failure::UnknownEncoding)), "{told:?}");
    let sent = String::from_utf8(sent).unwrap();
    assert_eq!(sent, format!("* 7 FETCH (BODY[1] {{200000}}\r\n{long})\r\n"));
}

#[test]
fn a_message_that_is_gone_is_not_told_of() {
    let mut mailbox = Mailbox::new(NESTED.as_bytes());
    mailbox.uid = 9;
    let (sent, told) = mailbox.fetch("FLAGS");
    assert!(matches!(told, Err(Failure::Gone)) && sent.is_empty());
}

#[test]
fn who_reads_a_message_has_seen_it() {
    for (items, seen) in [
        ("FLAGS UID ENVELOPE BODY BODYSTRUCTURE RFC822.HEADER RFC822.SIZE", false),
        ("BODY.PEEK[] BINARY.PEEK[1] BINARY.SIZE[1]", false),
        ("BODY[]", true),
        ("BODY[HEADER]", true),
        ("UID BINARY[1]", true),
        ("RFC822", true),
        ("RFC822.TEXT", true),
    ] {
        assert_eq!(sets_seen(&items_of(items)), seen, "{items}");
    }
}

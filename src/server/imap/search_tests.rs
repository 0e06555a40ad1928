//! Each key of a search, alone and with others, on mailboxes in memory.

use std::io;
use std::ops::Range;

use base64ct::Encoding as _;

use super::super::doubles::{self, Reader, Through};
use super::*;
use crate::imap::command::{Command, Dialect, parse};
use crate::mailbox::Memory;
use crate::mailbox::store::{Flags, Marking};
use crate::sys::clock;

/// 2004-06-21 12:00 UTC.
const NOON: u64 = 1_087_819_200;

/// Counts what is read.
#[derive(Default)]
struct Counting {
    octets: u64,
}

impl Reader for Counting {
    /// In pieces, as mailboxes in files give them.
    fn read(
        &mut self,
        store: &mut dyn Store,
        uid: Uid,
        range: Range<u64>,
        sink: &mut dyn FnMut(&[u8]) -> io::Result<()>,
    ) -> Result<(), Error> {
        store.read(uid, range, &mut |text| {
            text.chunks(1000).try_for_each(|piece| {
                self.octets += piece.len() as u64;
                sink(piece)
            })
        })
    }
}

struct Mailbox {
    store: Through<Counting>,
    /// Somebody else's hand on it.
    other: Memory,
    structures: Structures,
    saved: UidSet,
    /// Of the structures' cache.
    _dir: tempfile::TempDir,
}

impl Mailbox {
    fn new(messages: &[impl AsRef<[u8]>]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let other = Memory::new(1);
        let mut mailbox = Self {
            store: Through { inner: Box::new(other.another()), reader: Counting::default() },
            other,
            structures: Structures::open(&doubles::place(dir.path())),
            saved: UidSet::new(),
            _dir: dir,
        };
        for message in messages {
            mailbox.add(message.as_ref(), NOON);
        }
        mailbox
    }

    fn add(&mut self, text: &[u8], at: u64) -> Uid {
        self.store.append(&[doubles::arrival(text, at)]).unwrap()[0]
    }

    fn mark(&mut self, uid: Uid, flags: Flags, keyword: &str) {
        let keywords: Vec<String> = keyword.split_whitespace().map(str::to_owned).collect();
        let uids = [uid].into_iter().collect();
        self.store.mark(&uids, Marking::Add, flags, &keywords, None).unwrap();
    }

    fn program(&self, search: &[u8]) -> Result<Program, BadCharset> {
        let messages = self.store.messages().unwrap();
        let context = Context {
            largest_number: u32::try_from(messages.len()).unwrap(),
            largest_uid: messages.last().map_or(0, |message| message.uid),
            saved: &self.saved,
        };
        prepare(&parsed(search), &context)
    }

    /// The UIDs of what is found.
    fn find(&mut self, search: impl AsRef<[u8]>) -> Vec<Uid> {
        let program = self.program(search.as_ref()).unwrap();
        let uids: Vec<Uid> =
            self.store.messages().unwrap().iter().map(|message| message.uid).collect();
        let (store, structures) = (&mut self.store, &mut self.structures);
        // The last two are recent.
        let recent = uids.len().saturating_sub(2);
        let mut found = Vec::new();
        for (at, uid) in uids.into_iter().enumerate() {
            let number = u32::try_from(at + 1).unwrap();
            if program.matches(store, structures, number, uid, at >= recent).unwrap() {
                found.push(uid);
            }
        }
        found
    }
}

fn parsed(search: &[u8]) -> Search {
    let command = [b"a SEARCH ", search].concat();
    match parse(&command, Dialect::default()).map(|tagged| tagged.command) {
        Ok(Command::Search { search, .. }) => search,
        other => panic!("{}: {other:?}", search.escape_ascii()),
    }
}

const PLAIN: &str = "From: a@b.org\n\nhello\n";

#[test]
fn flags_and_keywords() {
    let mut mailbox = Mailbox::new(&[PLAIN; 5]);
    mailbox.mark(1, Flags::SEEN | Flags::ANSWERED, "$Forwarded");
    mailbox.mark(2, Flags::FLAGGED, "");
    mailbox.mark(3, Flags::DELETED | Flags::DRAFT, "Other $forwarded");
    mailbox.mark(5, Flags::SEEN, "");
    for (search, found) in [
        ("ALL", &[1, 2, 3, 4, 5][..]),
        ("SEEN", &[1, 5]),
        ("UNSEEN", &[2, 3, 4]),
        ("ANSWERED", &[1]),
        ("UNANSWERED FLAGGED", &[2]),
        ("UNFLAGGED", &[1, 3, 4, 5]),
        ("DELETED", &[3]),
        ("UNDELETED UNDRAFT UNSEEN", &[2, 4]),
        ("DRAFT", &[3]),
        ("KEYWORD $FORWARDED", &[1, 3]),
        ("UNKEYWORD $Forwarded", &[2, 4, 5]),
        ("KEYWORD other", &[3]),
        ("KEYWORD none", &[]),
        ("UNKEYWORD none", &[1, 2, 3, 4, 5]),
        ("RECENT", &[4, 5]),
        ("OLD", &[1, 2, 3]),
        ("NEW", &[4]),
        ("NOT NEW", &[1, 2, 3, 5]),
    ] {
        assert_eq!(mailbox.find(search), found, "{search}");
    }
}

#[test]
fn numbers_and_uids() {
    let mut mailbox = Mailbox::new(&[PLAIN; 6]);
    mailbox.store.expunge(&[2, 6].into_iter().collect()).unwrap();
    mailbox.saved = [3, 6].into_iter().collect();
    for (search, found) in [
        ("2", &[3][..]),
        ("2:3", &[3, 4]),
        ("*", &[5]),
        ("3:*", &[4, 5]),
        ("9:*", &[5]),
        ("9", &[]),
        ("UID 2:4", &[3, 4]),
        ("UID *", &[5]),
        ("UID 9:*", &[5]),
        ("NOT UID 3:4", &[1, 5]),
        ("1 UID 1", &[1]),
        ("$", &[3]),
        ("NOT UID $", &[1, 4, 5]),
        ("4294967295:1", &[1, 3, 4, 5]),
        ("UID 4294967295,5:4,*:*", &[4, 5]),
    ] {
        assert_eq!(mailbox.find(search), found, "{search}");
    }
    let odd: Vec<String> = (0..10_000).map(|n| (20_001 - 2 * n).to_string()).collect();
    assert_eq!(mailbox.find(format!("UID {}", odd.join(","))), [3, 5]);
    let mut empty = Mailbox::new(&[PLAIN; 0]);
    for search in ["*", "1:*", "UID *", "NOT UID *", "$", "ALL", "OR ALL *"] {
        assert_eq!(empty.find(search), [0; 0], "{search}");
    }
}

#[test]
fn sizes_and_modseqs() {
    // Of 13, 14 and 15 octets.
    let mut mailbox = Mailbox::new(&["A: b\n\nhell\n", "A: b\n\nhello\n", "A: b\n\nhello!\n"]);
    let sizes: Vec<u64> =
        mailbox.store.messages().unwrap().iter().map(|message| message.size).collect();
    assert_eq!(sizes, [14, 15, 16]);
    assert_eq!(mailbox.find("LARGER 15"), [3]);
    assert_eq!(mailbox.find("SMALLER 15"), [1]);
    assert_eq!(mailbox.find("NOT LARGER 15 NOT SMALLER 15"), [2]);
    mailbox.mark(2, Flags::SEEN, "");
    let modseq = mailbox.store.message(2).unwrap().unwrap().modseq;
    assert_eq!(mailbox.find(format!("MODSEQ {modseq}")), [2]);
    assert_eq!(mailbox.find(format!("MODSEQ {}", modseq + 1)), [0; 0]);
    assert_eq!(mailbox.find("MODSEQ 0"), [1, 2, 3]);
}

#[test]
fn dates_of_arrival_are_those_of_the_host() {
    let mut mailbox = Mailbox::new(&[PLAIN; 0]);
    // The midnight of the host, and the second before it.
    let zone = clock::zone();
    let midnight = jiff::civil::date(2004, 6, 22).to_zoned_datetime(zone.clone()).unwrap();
    let midnight = u64::try_from(midnight.timestamp().as_second()).unwrap();
    mailbox.add(PLAIN.as_bytes(), midnight - 1);
    mailbox.add(PLAIN.as_bytes(), midnight);
    for (search, found) in [
        ("ON 21-Jun-2004", &[1][..]),
        ("ON 22-Jun-2004", &[2]),
        ("BEFORE 22-Jun-2004", &[1]),
        ("BEFORE 21-Jun-2004", &[]),
        ("SINCE 22-Jun-2004", &[2]),
        ("SINCE 21-Jun-2004", &[1, 2]),
        ("NOT SINCE 22-Jun-2004", &[1]),
    ] {
        assert_eq!(mailbox.find(search), found, "{search}");
    }
}

#[test]
fn dates_of_sending_are_those_that_stand_there() {
    let mut mailbox = Mailbox::new(&[
        "Date: Mon, 21 Jun 2004 23:15:20 -0900\n\nx\n",
        "Date: Tue, 22 Jun 2004\n 00:15:20 +1400 (x)\n\nx\n",
        "Date: never\n\nx\n",
        "Subject: x\n\nx\n",
    ]);
    for (search, found) in [
        ("SENTON 21-Jun-2004", &[1][..]),
        ("SENTON 22-Jun-2004", &[2]),
        ("SENTBEFORE 22-Jun-2004", &[1]),
        ("SENTSINCE 22-Jun-2004", &[2]),
        ("SENTSINCE 1-Jan-1970", &[1, 2]),
        ("NOT SENTSINCE 22-Jun-2004", &[1, 3, 4]),
    ] {
        assert_eq!(mailbox.find(search), found, "{search}");
    }
}

#[test]
fn fields_of_the_header() {
    let mut mailbox = Mailbox::new(&[
        &b"From: Toshi <toshi@tenbin.org>\nTo: hunt@b.org\nSubject: one\n\ttwo \n  three\n\nx\n"[..],
        b"From: =?iso-2022-jp?b?GyRCMjxAbhsoQg==?= <x@y.org>\nCc: c@d.org\nBcc:\nSubject:\n\nx\n",
        b"FROM : \x1b$B2<@n\x1b(B <x@y.org>\nSubject: =?utf-8?b?5LiL5Q==?=\n =?utf-8?b?t50=?=\n\nx\n",
        b"From: gr\xfcn\nX-A: one\nX-A: two\n\nSubject: one\n",
    ]);
    for (search, found) in [
        ("FROM toshi", &[1][..]),
        ("FROM \"TOSHI <\"", &[1]),
        ("FROM \"下川\"", &[2, 3]),
        ("CHARSET ISO-2022-JP FROM \"\x1b$B2<@n\x1b(B\"", &[2, 3]),
        ("SUBJECT \"下川\"", &[3]),
        ("FROM \"GRÜN\"", &[4]),
        ("TO hunt", &[1]),
        ("CC d.org", &[2]),
        ("BCC x", &[]),
        ("BCC \"\"", &[2]),
        ("SUBJECT \"\"", &[1, 2, 3]),
        ("HEADER Subject \"one two three\"", &[1]),
        ("HEADER x-a two", &[4]),
        ("HEADER x-a \"\"", &[4]),
        ("HEADER x-none \"\"", &[]),
        ("HEADER \"\" \"\"", &[]),
        ("NOT HEADER x-a one", &[1, 2, 3]),
        ("SUBJECT one", &[1]),
    ] {
        assert_eq!(mailbox.find(search), found, "{search}");
    }
}

const MULTIPART: &str = "\
Subject: outer\nContent-Type: multipart/mixed; boundary=o\n\n\
preamble\n\
--o\nX-Mime: mimefield\n\none\n\
--o\nContent-Type: message/rfc822\n\n\
Subject: =?utf-8?q?in=6Eer?=\nContent-Type: multipart/alternative; boundary=i\n\n\
--i\nContent-Type: text/html\nContent-Transfer-Encoding: quoted-printable\n\n<p>t=\n=77o\n\
--i\nContent-Type: image/png\nContent-Transfer-Encoding: base64\n\nQUJDREVGRw==\n\
--i--\n\
--o\nContent-Transfer-Encoding: x-unknown\n\nfour\n\
--o\nContent-Type: message/delivery-status\n\nStatus: five\n\
--o--\nepilogue\n";

#[test]
fn texts_of_parts() {
    let mut mailbox = Mailbox::new(&[MULTIPART, PLAIN]);
    for (search, found) in [
        ("BODY one", &[1][..]),
        ("BODY two", &[1]),
        ("BODY five", &[1]),
        ("BODY hello", &[2]),
        ("BODY \"\"", &[1, 2]),
        ("TEXT \"\"", &[1, 2]),
        ("BODY outer", &[]),
        ("TEXT outer", &[1]),
        ("TEXT \"Subject: outer\"", &[1]),
        ("BODY inner", &[]),
        ("TEXT inner", &[1]),
        ("BODY mimefield", &[]),
        ("TEXT mimefield", &[1]),
        ("TEXT two", &[1]),
        ("TEXT four", &[]),
        ("TEXT ABCDEFG", &[]),
        ("TEXT QUJDREVG", &[]),
        ("TEXT preamble", &[]),
        ("TEXT epilogue", &[]),
        ("BODY onefour", &[]),
        ("BODY one BODY two TEXT inner", &[1]),
        ("OR BODY hello BODY two", &[1, 2]),
        ("NOT BODY one", &[2]),
    ] {
        assert_eq!(mailbox.find(search), found, "{search}");
    }
}

/// A text in each charset, in each encoding.
#[test]
fn charsets_and_encodings() {
    const TEXT: &str = "こんにちは。これはテストのメイルです。下川 ＡＢＣ";
    let mut messages = Vec::new();
    for charset in ["ISO-2022-JP", "Shift_JIS", "EUC-JP", "UTF-8"] {
        let octets = charset::named(charset.as_bytes()).unwrap().encode(TEXT).0;
        for (encoding, body) in [
            ("8bit", octets.to_vec()),
            ("base64", base64ct::Base64::encode_string(&octets).into_bytes()),
            ("quoted-printable", quoted_printable(&octets)),
        ] {
            let header = format!(
                "Content-Type: text/plain; charset={charset}\nContent-Transfer-Encoding: {encoding}\n\n"
            );
            messages.push([header.into_bytes(), body, b"\n".to_vec()].concat());
        }
    }
    let mut mailbox = Mailbox::new(&messages);
    let all: Vec<Uid> = (1..=12).collect();
    for text in ["下川", "テスト", "ﾃｽﾄ", "abc", "ＡＢＣ", "川 a"] {
        assert_eq!(mailbox.find(format!("BODY \"{text}\"")), all, "{text}");
        for charset in ["UTF-8", "ISO-2022-JP", "Shift_JIS", "EUC-JP"] {
            let text = charset::named(charset.as_bytes()).unwrap().encode(text).0;
            // Half-width kana are not in all of them.
            if text.contains(&b'&') {
                continue;
            }
            let search =
                [format!("CHARSET {charset} TEXT {{{}}}\r\n", text.len()).as_bytes(), &text]
                    .concat();
            assert_eq!(mailbox.find(search), all, "{charset}");
        }
    }
    assert_eq!(mailbox.find("BODY \"山\""), [0; 0]);
}

fn quoted_printable(octets: &[u8]) -> Vec<u8> {
    let mut text = Vec::new();
    for (at, octet) in octets.iter().enumerate() {
        if at % 20 == 19 {
            text.extend_from_slice(b"=\n");
        }
        text.extend_from_slice(format!("={octet:02X}").as_bytes());
    }
    text
}

#[test]
fn a_charset_is_known_or_refused() {
    let mailbox = Mailbox::new(&[PLAIN]);
    for charset in ["US-ASCII", "utf-8", "iso-2022-jp", "koi8-r", "windows-1252"] {
        assert!(mailbox.program(format!("CHARSET {charset} ALL").as_bytes()).is_ok());
    }
    for charset in ["x-unknown", "iso-2022-kr"] {
        assert!(mailbox.program(format!("CHARSET {charset} ALL").as_bytes()).is_err());
    }
    for charset in CHARSETS {
        assert!(charset::named(charset.as_bytes()).is_some());
    }
}

#[test]
fn the_lectures_message_is_found() {
    let mut mailbox = Mailbox::new(&[&b"\
From: Toshihiko SHIMOKAWA / \x1b$B2<@nObI'\x1b(B <toshi@tenbin.org>\n\
Content-Type: text/plain; charset=ISO-2022-JP\nContent-Transfer-Encoding: 7bit\n\
Content-Disposition: inline\n\n\
\x1b$B$3$s$K$A$O!#$3$l$O%F%9%H$N%a%$%k$G$9!#\x1b(B\n"[..]]);
    for search in
        ["FROM \"下川\"", "TEXT \"下川\"", "BODY \"テスト\"", "BODY \"ﾒｲﾙ\"", "FROM shimokawa"]
    {
        assert_eq!(mailbox.find(search), [1], "{search}");
    }
}

/// What has to be read of a message of 300,000 octets.
#[test]
fn a_message_is_read_once_for_all_keys_and_not_at_all_for_some() {
    let body = "0123456789 abcdefgh\n".repeat(15_000);
    let mut mailbox = Mailbox::new(&[format!("From: a@b.org\nSubject: x\n\nfirst\n{body}last\n")]);
    let (size, header) = {
        let message = mailbox.store.messages().unwrap()[0];
        (message.size, u64::from(message.header))
    };
    // For the structure.
    mailbox.find("BODY none");
    let keys = |n| format!("NOT BODY none{n} TEXT \"{} a\"", n % 10);
    let all = (0..300).map(keys).collect::<Vec<_>>().join(" ");
    let mut read = |search: &str, found: bool| {
        mailbox.store.reader.octets = 0;
        assert_eq!(mailbox.find(search), if found { &[1][..] } else { &[] }, "{search}");
        mailbox.store.reader.octets
    };
    assert_eq!(read("BODY none", false), size - header);
    assert_eq!(read("TEXT none", false), size);
    assert_eq!(read("TEXT last", true), size);
    assert_eq!(read(&all, false), size);
    assert_eq!(read("BODY none SEEN", false), 0);
    assert_eq!(read("OR BODY none UNSEEN", true), 0);
    assert_eq!(read("BODY none SUBJECT none", false), header);
    assert_eq!(read("OR BODY none SUBJECT x", true), header);
    assert_eq!(read("NOT (BODY none SEEN)", true), 0);
    assert_eq!(read("TEXT b.org", true), header);
    // Not much more than it takes to find it.
    assert!(read("BODY first", true) < 50_000);
}

/// Also where its structure is not known yet.
#[test]
fn a_small_message_is_read_once() {
    let parts = (0..50).map(|n| format!("--b\nX-{n}: y\n\ntext {n}\n"));
    let parts: String = parts.collect();
    let message =
        format!("Subject: x\nContent-Type: multipart/mixed; boundary=b\n\n{parts}--b--\n");
    for search in ["BODY none", "TEXT none BODY none NOT TEXT x", "NOT BODY \"text 49\"", "TEXT x"]
    {
        let mut mailbox = Mailbox::new(&[&message]);
        for _ in 0..2 {
            mailbox.store.reader.octets = 0;
            mailbox.find(search);
            assert_eq!(
                mailbox.store.reader.octets,
                mailbox.store.messages().unwrap()[0].size,
                "{search}"
            );
        }
    }
    let mut mailbox = Mailbox::new(&[&message]);
    let header = u64::from(mailbox.store.messages().unwrap()[0].header);
    assert_eq!(mailbox.find("SUBJECT none BODY none"), [0; 0]);
    assert_eq!(mailbox.store.reader.octets, header);
}

#[test]
fn what_lies_across_pieces_is_found() {
    // The store gives 1000 octets at once, a search has 32 KiB.
    for before in (980..1010).chain(32_740..32_800) {
        let message = format!(
            "Content-Type: text/plain; charset=iso-2022-jp\n\n{}needle \x1b$B2<@n\x1b(B{}\n",
            "x".repeat(before),
            "y".repeat(40_000)
        );
        let mut mailbox = Mailbox::new(&[message]);
        assert_eq!(mailbox.find("BODY \"Needle 下川\""), [1], "{before}");
    }
}

#[test]
fn what_is_gone_is_not_found() {
    let mut mailbox = Mailbox::new(&[PLAIN; 2]);
    mailbox.other.expunge(&[1].into_iter().collect()).unwrap();
    assert_eq!(mailbox.find("BODY hello"), [2]);
    assert_eq!(mailbox.find("NOT BODY hello"), [0; 0]);
    mailbox.store.sync().unwrap();
    assert_eq!(mailbox.find("ALL"), [2]);
}

#[test]
fn a_chain_of_a_thousand_keys_is_obeyed() {
    let mut mailbox = Mailbox::new(&[PLAIN, "Subject: n7.\n\nn499.\n", "Subject: x\n\nx\n"]);
    let any = |key: &str| (0..500).map(|n| format!("{key} n{n}.")).collect::<Vec<_>>();
    for (key, found) in [("SUBJECT", &[2][..]), ("BODY", &[2]), ("HEADER x", &[])] {
        let keys = any(key);
        let right = format!("OR {}", keys[..499].join(" OR ")) + " " + &keys[499];
        let left = "OR ".repeat(499) + &keys.join(" ");
        assert_eq!(mailbox.find(right), found, "{key}");
        assert_eq!(mailbox.find(left), found, "{key}");
    }
    assert_eq!(mailbox.find("NOT ".repeat(99) + "ALL"), [0; 0]);
    assert_eq!(mailbox.find("OR SEEN (".repeat(100) + "ALL" + &")".repeat(100)), [1, 2, 3]);
}

/// The keys of these programs.
const KEYS: [&str; 12] = [
    "SEEN",
    "FLAGGED",
    "2:3",
    "UID 4",
    "RECENT",
    "SUBJECT hello",
    "FROM a@b",
    "SENTON 21-Jun-2004",
    "BODY one",
    "BODY hello",
    "TEXT hello",
    "TEXT inner",
];

/// Programs of all shapes, beside what their keys say alone.
#[test]
fn keys_are_put_together_as_they_are_meant() {
    let mut mailbox = Mailbox::new(&[
        MULTIPART,
        PLAIN,
        "Subject: hello\n\none two\n",
        "Date: 21 Jun 2004 00:00 Z\n\nHELLO one\n",
        "From: x\n\nnothing\n",
    ]);
    mailbox.mark(2, Flags::SEEN, "");
    mailbox.mark(3, Flags::SEEN | Flags::FLAGGED, "");
    let alone: Vec<Vec<Uid>> = KEYS.iter().map(|key| mailbox.find(key)).collect();
    let mut dice = 1_u64;
    let mut roll = move |below: u64| {
        dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (dice >> 33) % below
    };
    for _ in 0..2000 {
        let (program, expected) = shape(&mut roll, 4, &KEYS, &alone);
        assert_eq!(mailbox.find(&program), expected, "{program}");
    }
}

/// A key of any shape, and what it finds.
fn shape(
    roll: &mut dyn FnMut(u64) -> u64,
    depth: u64,
    keys: &[&str],
    alone: &[Vec<Uid>],
) -> (String, Vec<Uid>) {
    let all = 1..=5;
    match roll(if depth == 0 { 1 } else { 4 }) {
        1 => {
            let (key, found) = shape(roll, depth - 1, keys, alone);
            (format!("NOT {key}"), all.filter(|uid| !found.contains(uid)).collect())
        }
        2 => {
            let (one, first) = shape(roll, depth - 1, keys, alone);
            let (other, second) = shape(roll, depth - 1, keys, alone);
            let either = |uid: &Uid| first.contains(uid) || second.contains(uid);
            (format!("OR {one} {other}"), all.filter(either).collect())
        }
        3 => {
            let some: Vec<_> = (0..=roll(3)).map(|_| shape(roll, depth - 1, keys, alone)).collect();
            let text: Vec<&str> = some.iter().map(|(key, _)| key.as_str()).collect();
            let each = |uid: &Uid| some.iter().all(|(_, found)| found.contains(uid));
            (format!("({})", text.join(" ")), all.filter(each).collect())
        }
        _ => {
            let at = usize::try_from(roll(keys.len() as u64)).unwrap();
            (keys[at].to_owned(), alone[at].clone())
        }
    }
}

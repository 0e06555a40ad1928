use std::io::{self, Write};

use xxhash_rust::xxh3::xxh3_128;

use super::super::own;
use super::super::present::Presenter;
use super::{CAPACITY, Found, LOOK, Scanner, Source};
use crate::mailbox::store::Flags;

/// The messages that clients are shown.
struct Snapshot {
    messages: Vec<Found>,
}

fn list(content: &[u8]) -> Snapshot {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(content).unwrap();
    let all = Scanner::new(&file, content.len() as u64).map(Result::unwrap);
    Snapshot { messages: all.filter(|found| !found.internal).collect() }
}

/// The bodies as they stand in the file.
fn bodies(content: &str) -> Vec<&str> {
    let snapshot = list(content.as_bytes());
    let place = |n: u64| usize::try_from(n).unwrap();
    let mut last = None;
    for message in &snapshot.messages {
        assert!(last.is_none_or(|end| end == message.extent.start));
        last = Some(message.extent.end());
    }
    if let Some(end) = last {
        assert_eq!(place(end), content.len());
    }
    snapshot
        .messages
        .iter()
        .map(|m| &content[place(m.extent.body_start())..place(m.extent.body_end())])
        .collect()
}

const FROM: &str = "From a@b Thu Jan  1 00:00:00 1970\n";

#[test]
fn messages_begin_behind_a_blank_line_only() {
    assert_eq!(
        bodies(&format!("{FROM}A: 1\n\nx\n{FROM}y\n\n{FROM}\nz\n")),
        [&format!("x\n{FROM}y\n")[..], "z\n"]
    );
    assert_eq!(
        bodies(&format!("{FROM}A: 1\n\n\nFrom here on\n\n\n{FROM}\n")),
        ["\nFrom here on\n\n", ""]
    );
    assert_eq!(bodies(&format!("{FROM}A: 1\n\n{FROM}A: 2\n\n")), ["", ""]);
    assert_eq!(bodies(&format!("{FROM}A: 1\n\n\n{FROM}A: 2\n\n\n")), ["", ""]);
}

#[test]
fn a_message_behind_one_that_lacks_its_blank_line_is_found_by_its_header() {
    // procmail writes no blank line behind a message that came without its last line end.
    let file = format!("{FROM}A: 1\n\nx\n{FROM}B: 1\n\ny\n\n{FROM}C: 1\n\nz\n");
    assert_eq!(bodies(&file), ["x\n", "y\n", "z\n"]);
    let text = format!("x\n{FROM}and so on: x\n");
    assert_eq!(bodies(&format!("{FROM}A: 1\n\n{text}")), [text]);
    for size in (1024 * 1024 - 17000..1024 * 1024 + 200).step_by(97) {
        let fill = "0123456789abcde\n".repeat(size / 16);
        let file = format!("{FROM}A: 1\n\n{fill}{FROM}B: 1\n\nz\n");
        assert_eq!(bodies(&file), [&fill[..], "z\n"]);
    }
}

#[test]
fn files_without_a_last_line_end_and_with_crlf_read_right() {
    assert_eq!(bodies(&format!("{FROM}A: 1\n\nx")), ["x"]);
    assert_eq!(bodies(&format!("{FROM}A: 1")), [""]);
    assert_eq!(bodies(FROM.trim_end()), [""]);
    assert_eq!(bodies(""), [""; 0]);
    let crlf = format!("{FROM}A: 1\n\nx\n\n{FROM}A: 1\n\ny\n\n").replace('\n', "\r\n");
    assert_eq!(bodies(&crlf), ["x\r\n", "y\r\n"]);
}

#[test]
fn what_stands_before_the_first_message_is_nobodys() {
    assert_eq!(bodies("no mailbox\n\nat all\n"), [""; 0]);
    assert_eq!(bodies(&format!("\n\n{FROM}\nx\n")), ["x\n"]);
    assert_eq!(bodies(&format!("junk\n\n{FROM}\nx\n")), ["x\n"]);
    assert_eq!(bodies(&format!("junk\n{FROM}\nx\n")), [""; 0]);
}

#[test]
fn content_length_is_believed_where_a_message_or_the_end_follows() {
    let inner = format!("x\n\n{FROM}y\n");
    let n = inner.len();
    for (before, after) in [("", "\n"), ("", ""), ("  ", "\n\n")] {
        let file = format!("{FROM}Content-Length: {before}{n}\n\n{inner}{after}");
        assert_eq!(bodies(&file), [&inner[..]], "{file}");
    }
    let file = format!("{FROM}Content-Length: {n}\n\n{inner}\n{FROM}\nz\n");
    assert_eq!(bodies(&file), [&inner[..], "z\n"]);
    let file = format!("{FROM}Content-Length: {n}\n\n{inner}{FROM}\nz\n");
    assert_eq!(bodies(&file), [&inner[..], "z\n"]);
    let bare = inner.trim_end();
    let file = format!("{FROM}Content-Length: {}\n\n{bare}\n\n{FROM}\nz\n", n - 1);
    assert_eq!(bodies(&file), [bare, "z\n"]);
}

#[test]
fn a_wrong_content_length_is_not_believed() {
    for n in [
        "0",
        "1",
        "40",
        "999999999",
        "-1",
        "x",
        "",
        "18446744073709551615",
        "99999999999999999999999",
    ] {
        let file = format!("{FROM}Content-Length: {n}\n\nx\ny\n\n{FROM}\nz\n");
        assert_eq!(bodies(&file), ["x\ny\n", "z\n"], "{n}");
    }
}

#[test]
fn boundaries_are_found_wherever_they_fall_in_the_window() {
    // Sizes around the window's, so that each byte of the boundary is the first of a new read.
    for size in (1024 * 1024 - 9000..1024 * 1024 + 200).step_by(97) {
        let fill = "0123456789abcde\n".repeat(size / 16);
        let file = format!("{FROM}A: 1\n\n{fill}\n{FROM}\nz\n");
        assert_eq!(bodies(&file), [&fill[..], "z\n"]);
    }
    let wide = "x".repeat(3_000_000);
    let file = format!("{FROM}A: {wide}\n\n{wide}\n\n{FROM}\nz\n");
    assert_eq!(bodies(&file), [&format!("{wide}\n")[..], "z\n"]);
}

#[test]
fn the_pseudo_message_of_other_programs_is_not_listed() {
    let internal = format!(
        "{FROM}Subject: DON'T DELETE THIS MESSAGE -- FOLDER INTERNAL DATA\nX-IMAP: 1 2\n\ntext\n\n"
    );
    assert_eq!(list(format!("{internal}{FROM}\nx\n").as_bytes()).messages.len(), 1);
    assert_eq!(list(format!("{FROM}\nx\n\n{internal}").as_bytes()).messages.len(), 2);
}

#[test]
fn nul_bytes_and_broken_text_are_kept_and_counted() {
    let file = [FROM.as_bytes(), b"A: \xff\0\n\n\0\0\xfe\n\n", FROM.as_bytes(), b"\n\0"].concat();
    let snapshot = list(&file);
    assert_eq!(snapshot.messages.len(), 2);
    assert_eq!(snapshot.messages[0].size, 7 + 2 + 5);
    assert_eq!(snapshot.messages[1].size, 2 + 3);
}

#[test]
fn flags_of_other_programs_change_neither_size_nor_unique_id() {
    let plain = list(format!("{FROM}A: 1\n\nx\n").as_bytes());
    let flagged = format!("{FROM}Status: RO\nA: 1\nX-UID:    7\nX-Keywords: a\n b\n\nx\n\n");
    let flagged = list(flagged.as_bytes());
    assert_eq!(plain.messages[0].digest, flagged.messages[0].digest);
    assert_eq!(plain.messages[0].size, flagged.messages[0].size);
}

fn scan(content: &[u8], window: usize) -> Vec<Found> {
    let scanner = Scanner::with_window(content, content.len() as u64, window);
    scanner.map(Result::unwrap).collect()
}

/// Files of odd parts, among them some that are as large as what is looked at together.
fn odd_file(dice: &mut impl FnMut(usize) -> usize) -> Vec<u8> {
    let long = [LOOK - 30, LOOK - 1, LOOK, LOOK + 1, 2 * LOOK - 40, 3 * LOOK][dice(6)] + dice(9);
    let x = "x".repeat(long);
    let parts = [
        FROM,
        "From b Fri Jan  2 00:00:00 1970 -0100\r\n",
        "\n",
        "\r\n",
        "Status: RO\n",
        "X-Status: AF\r\n",
        "X-Keywords: a b\n c\n",
        "X-UID: 5\n",
        "X-IMAPbase: 7 0000000009 a\n",
        "Content-Length: 7\n",
        "Content-Length: 8200\n",
        "X-Mbox-Quoted: yes\n",
        "Subject: a\r\n",
        "text\n",
        ">From here\n",
        "From here\n",
        "\r",
        "\0\u{fc}\n",
        &x,
        &format!("{}\n", "0123456789abcde\n".repeat(long / 16)),
        &format!("Subject: {x}\n"),
    ];
    let mut file = String::new();
    for _ in 0..dice(24) {
        file.push_str(parts[[dice(4), dice(parts.len())][dice(2)]]);
    }
    file.into_bytes()
}

#[test]
fn what_is_found_depends_on_no_window_and_is_what_a_client_gets() {
    let mut seed = 3_u64;
    let mut dice = move |most: usize| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        usize::try_from(seed >> 33).unwrap() % most
    };
    let mut seen = 0;
    for _ in 0..400 {
        let file = odd_file(&mut dice);
        let found = scan(&file, CAPACITY);
        for window in [0, 2 * LOOK + 1, 3 * LOOK + 77] {
            assert!(found == scan(&file, window), "{window}: {}", file.escape_ascii());
        }
        let size = file.len() as u64;
        for (n, message) in found.iter().enumerate() {
            seen += 1;
            check_shown(&file, message);
            let mut scanner = Scanner::new(&file[..], size);
            let alone = scanner.message_at(message.extent.start).unwrap();
            if n > 0 {
                assert!(alone.as_ref() == Some(message));
            }
            scanner.go_to(message.end());
            assert!(scanner.map(Result::unwrap).eq(found[n + 1..].iter().cloned()));
        }
        assert!(found.last().is_none_or(|last| last.end() == size));
    }
    assert!(seen > 500, "{seen}");
}

fn check_shown(file: &[u8], message: &Found) {
    let place = |n: u64| usize::try_from(n).unwrap();
    let extent = &message.extent;
    let stored = &file[place(extent.header_start())..place(extent.body_end())];
    let shown = |lines| {
        let mut out = Vec::new();
        let mut presenter = Presenter::new(extent.quoted, lines);
        presenter.push(stored, &mut out);
        presenter.finish(&mut out);
        out
    };
    let (all, mut header) = (shown(None), shown(Some(0)));
    assert_eq!(message.size, all.len() as u64, "{}", stored.escape_ascii());
    assert_eq!(message.header, header.len() as u64, "{}", stored.escape_ascii());
    header.extend_from_slice(&file[place(extent.body_start())..place(extent.body_end())]);
    if extent.body_start() < extent.body_end() && !header.ends_with(b"\n") {
        header.push(b'\n');
    }
    assert_eq!(u128::from_be_bytes(message.digest), xxh3_128(&header));
    assert_eq!(message.own.flags, own::read(stored).flags);
}

#[test]
fn the_fields_of_the_mailbox_tell_flags_keywords_and_uids() {
    let file = format!(
        "{FROM}X-IMAPbase: 1764000000 0000000012 work  $Junk\nStatus: RO\nX-Status: FTx\n\
         X-Keywords: work\n $Junk work ()\nX-UID:     11\nX-UID: 12\n\n\n\
         {FROM}status : O\nX-UID: 0\nX-UID: x\nX-IMAP: 1 2\n\n"
    );
    let found = scan(file.as_bytes(), CAPACITY);
    let own = &found[0].own;
    assert_eq!(own.flags, Flags::SEEN | Flags::FLAGGED | Flags::DRAFT);
    assert!(own.old);
    assert_eq!(own.keywords, ["work", "$Junk"]);
    assert_eq!(own.uid, Some(11));
    let base = own.base.as_ref().unwrap();
    assert_eq!((base.uid_validity, base.uid_last), (1_764_000_000, 12));
    assert_eq!(base.keywords, ["work", "$Junk"]);
    let own = &found[1].own;
    assert_eq!((own.flags, own.old, own.uid), (Flags::default(), true, None));
    assert_eq!(own.base, None);
}

#[test]
fn the_pseudo_message_is_told_with_what_it_says_of_the_mailbox() {
    let internal = format!(
        "{FROM}Subject: DON'T DELETE THIS MESSAGE -- FOLDER INTERNAL DATA\n\
         X-IMAP: 1764000000 0000000002 a\n\ntext\n\n"
    );
    let found = scan(format!("{internal}{FROM}X-UID: 2\n\nx\n").as_bytes(), CAPACITY);
    assert_eq!(found.iter().map(|one| one.internal).collect::<Vec<_>>(), [true, false]);
    assert_eq!(found[0].own.base.as_ref().unwrap().uid_last, 2);
    let found = scan(format!("{FROM}\nx\n\n{internal}").as_bytes(), CAPACITY);
    assert!(found.iter().all(|one| !one.internal && one.own.base.is_none()));
}

#[test]
fn large_headers_and_many_empty_messages_are_found() {
    let lines = "X-Spam: yes\nStatus: R\nX-Keywords: a b\n".repeat(80_000);
    let file = format!("{FROM}{lines}\nx\n\n{FROM}\n");
    let found = scan(file.as_bytes(), 0);
    assert_eq!(found.len(), 2);
    assert_eq!(found[0].header, 80_000 * 13 + 2);
    assert_eq!(found[0].own.keywords, ["a", "b"]);
    check_shown(file.as_bytes(), &found[0]);
    let many = format!("{FROM}\n\n").repeat(100_000);
    assert_eq!(scan(many.as_bytes(), CAPACITY).len(), 100_000);
    assert_eq!(scan(format!("{FROM}\n").repeat(1000).as_bytes(), CAPACITY).len(), 1000);
}

#[test]
fn a_file_that_is_cut_while_it_is_read_ends_there() {
    let file = format!("{FROM}A: 1\n\nx\n\n").repeat(5000);
    let all = scan(file.as_bytes(), CAPACITY).len();
    let longer = 2 * file.len() as u64;
    let found: Vec<_> = Scanner::new(file.as_bytes(), longer).map(Result::unwrap).collect();
    assert_eq!((found.len(), found[all - 1].end()), (all, file.len() as u64));
    let mut left = 2;
    let failing = |buffer: &mut [u8], at: u64| {
        left -= 1;
        let mut source = file.as_bytes();
        if left < 0 { Err(io::ErrorKind::Other.into()) } else { source.read_at(buffer, at) }
    };
    let mut scanner = Scanner::with_window(failing, file.len() as u64, 0);
    assert!(scanner.any(|found| found.is_err()));
}

#[test]
fn a_crlf_that_the_window_cuts_is_one_line_end() {
    let lines = "0123456789abcd\r\n".repeat(3 * LOOK / 16);
    for shift in 0..16 {
        let body = format!("{}{lines}", "x".repeat(shift));
        for length in ["A: 1".to_owned(), format!("Content-Length: {}", body.len())] {
            let file = format!("{FROM}{length}\r\n\r\n{body}\r\n");
            let found = scan(file.as_bytes(), 0);
            assert_eq!(found.len(), 1);
            check_shown(file.as_bytes(), &found[0]);
        }
    }
}

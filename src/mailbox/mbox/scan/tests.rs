use std::io::Write;

use super::{Found, Scanner};

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

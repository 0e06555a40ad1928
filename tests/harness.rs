//! What the suites stand on must hold by itself.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests and their helpers fail by panicking"
)]

mod support;

use support::mbox;
use support::transcript::{matches, unescape};

#[test]
fn a_pattern_matches_what_it_says() {
    for (pattern, line) in [
        ("250 Ok", "250 Ok"),
        ("250...", "250 Ok"),
        ("250[- ]SIZE ...", "250-SIZE 5"),
        ("250 ...queued as...", "250 2.0.0 Ok: queued as X"),
        ("...", ""),
        ("+OK ... octets", "+OK 5 octets"),
    ] {
        assert!(matches(pattern, line), "{pattern} {line}");
    }
    for (pattern, line) in [
        ("250 Ok", "250 Ok."),
        ("250[- ]x", "250=x"),
        ("250 ...as...b", "250 a b"),
        ("", "x"),
    ] {
        assert!(!matches(pattern, line), "{pattern} {line}");
    }
    assert_eq!(
        unescape("a\\0{3*b\\n}\\x80{c}").unwrap(),
        b"a\0b\nb\nb\n\x80{c}"
    );
}

#[test]
fn the_mbox_reader_finds_messages_after_empty_lines_only() {
    let messages = mbox::parse(
        b"From a Mon Jun 21 03:15:20 2004\nSubject: one\n two\n\nText\nFrom here on\n>From b\n\n\
          From b Mon Jun 21 03:15:20 2004\n\nText\n\n",
    );
    assert_eq!(messages.len(), 2);
    assert_eq!(messages[0].field("subject"), Some("one\n two"));
    assert_eq!(messages[0].text(), "Text\nFrom here on\nFrom b\n");
    assert_eq!(messages[1].body, b"Text\n");
}

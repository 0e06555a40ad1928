//! Commands and literals, from pieces of any size.

use super::{Event, Limits, Literal, Reader};

const SMALL: Limits = Limits { text: 40, literals: 20 };

/// What comes of the input, where literals are kept that fit, `S` before a literal streams it, and
/// others are refused.
fn read(limits: Limits, input: &[u8], piece: usize) -> Vec<String> {
    let mut reader = Reader::new(limits);
    let (mut told, mut chunks) = (Vec::new(), Vec::new());
    for mut rest in input.chunks(piece) {
        loop {
            match reader.take(&mut rest) {
                Event::More => break,
                Event::Command(text) => told.push(format!("command {}", text.escape_ascii())),
                Event::TooLong(tag) => told.push(format!("too long {tag:?}")),
                Event::Chunk(octets) => chunks.extend_from_slice(octets),
                Event::End => told.push(format!("streamed {}", chunks.escape_ascii())),
                Event::Literal(literal) => {
                    assert_eq!(reader.take(&mut rest), Event::Literal(literal));
                    let sign = if literal.synchronizing { "" } else { "+" };
                    let tilde = if literal.binary { "~" } else { "" };
                    let what = format!("{tilde}{}{sign}", literal.size);
                    if reader.text().starts_with(b"S") {
                        told.push(format!("stream {what}"));
                        chunks.clear();
                        reader.stream();
                    } else if reader.fits() {
                        told.push(format!("keep {what}"));
                        reader.keep();
                    } else {
                        told.push(format!("refuse {what}"));
                        reader.refuse();
                    }
                }
            }
            assert!(reader.text().len() <= limits.text + limits.literals + 2);
        }
        assert!(rest.is_empty());
    }
    told.push(if reader.is_amid_command() { "amid".into() } else { "done".into() });
    told
}

fn check(input: &str, wanted: &[&str]) {
    for piece in [1, 2, 3, 7, 1000] {
        assert_eq!(read(SMALL, input.as_bytes(), piece), wanted, "{input:?} by {piece}");
    }
}

#[test]
fn lines_are_commands() {
    check("a NOOP\r\nb\nc", &["command a NOOP", "command b", "amid"]);
    check("\r\n\n", &["command ", "command ", "done"]);
    check("a\rb\r\r\n", &["command a\\rb\\r", "done"]);
}

#[test]
fn literals_are_parts_of_commands() {
    check(
        "a LOGIN {4}\r\nfred {3+}\n\r\nx\r\nb\r\n",
        &[
            "keep 4",
            "keep 3+",
            "command a LOGIN {4}\\r\\nfred {3+}\\r\\n\\r\\nx",
            "command b",
            "done",
        ],
    );
    check("a {0}\r\n\r\n", &["keep 0", "command a {0}\\r\\n", "done"]);
    check("a {0}\r\n b\r\n", &["keep 0", "command a {0}\\r\\n b", "done"]);
    check("a ~{2}\r\n\0\0\r\n", &["keep ~2", "command a ~{2}\\r\\n\\x00\\x00", "done"]);
    check("a {00002}\r\nxy\r\n", &["keep 2", "command a {00002}\\r\\nxy", "done"]);
}

#[test]
fn what_a_literal_has_announces_nothing() {
    check("a {3}\r\n{5}\r\nb\r\n", &["keep 3", "command a {3}\\r\\n{5}", "command b", "done"]);
    check("a {2}\r\n{1}\r\nb\r\n", &["keep 2", "command a {2}\\r\\n{1}", "command b", "done"]);
    check("a {1}\r\n}\r\nb\r\n", &["keep 1", "command a {1}\\r\\n}", "command b", "done"]);
    check(
        "a {2}\r\n{1}{3}\r\nb{1}\r\n",
        &["keep 2", "keep 3", "command a {2}\\r\\n{1}{3}\\r\\nb{1}", "done"],
    );
}

#[test]
fn what_is_no_announcement_is_text() {
    for text in ["a {}", "a {+}", "a 5}", "a {x}", "a {5}x", "a {-1}", "a {1 }", "{1++}", "}", "+}"]
    {
        check(&format!("{text}\r\n"), &[&format!("command {text}"), "done"]);
    }
}

#[test]
fn a_second_cr_is_text() {
    check("a {5}\r\r\nb\r\n", &["command a {5}\\r", "command b", "done"]);
}

#[test]
fn a_literal_that_is_streamed_comes_in_pieces_and_then_the_rest() {
    check(
        "S {30}\r\n0123456789012345678901234567{5 {2}\r\nxy\r\n",
        &[
            "stream 30",
            "streamed 0123456789012345678901234567{5",
            "keep 2",
            "command  {2}\\r\\nxy",
            "done",
        ],
    );
    check("S {0+}\r\n\r\n", &["stream 0+", "streamed ", "command ", "done"]);
    check("S ~{1}\r\n\0\n", &["stream ~1", "streamed \\x00", "command ", "done"]);
}

#[test]
fn a_command_that_is_refused_is_passed_over_with_all_its_literals() {
    check(
        "a {21+}\r\nb NOOP\r\nc LOGOUT\r\nxx {10+}\r\nd LOGOUT\r\ny {3}\r\ne\r\n",
        &["refuse 21+", "command e", "done"],
    );
    // The client waits: it sends nothing of it.
    check("a {21}\r\nb\r\n", &["refuse 21", "command b", "done"]);
    check("a {15}\r\n012345678901234 {6+}\r\nx\r\ny\r\nz\r\n", &["keep 15", "refuse 6+", "done"]);
}

#[test]
fn a_number_too_large_to_count_is_the_largest() {
    let mut reader = Reader::new(SMALL);
    let mut input = &b"a {99999999999999999999+}\r\nb\r\n"[..];
    let literal = Literal { size: u64::MAX, synchronizing: false, binary: false };
    assert_eq!(reader.take(&mut input), Event::Literal(literal));
    assert!(!reader.fits());
    reader.keep();
    assert_eq!(reader.take(&mut input), Event::More);
    assert!(input.is_empty() && reader.is_amid_command());
}

#[test]
fn a_long_command_is_told_of_and_the_next_one_is_found() {
    let long = "x".repeat(39);
    check(&format!("{long}\nb\n"), &[&format!("command {long}"), "command b", "done"]);
    check(&format!("{long}x\nb\n"), &["too long None", "command b", "done"]);
    check(&"x".repeat(300), &["amid"]);
    check(&format!("{}\n", "x".repeat(300)), &["too long None", "done"]);
    check(
        &format!("S {{1+}}\nxb {}\nc\n", "x".repeat(50)),
        &["stream 1+", "streamed x", "too long None", "command c", "done"],
    );
    for length in [40, 41, 50, 1000] {
        let input = format!("a {}\r\nb\r\n", "x".repeat(length));
        for piece in [1, 3, 39, 40, 41, 5000] {
            let told = read(SMALL, input.as_bytes(), piece);
            assert_eq!(told, ["too long Some(\"a\")", "command b", "done"]);
        }
    }
}

#[test]
fn what_a_long_command_announces_is_passed_over_too() {
    let long = "x".repeat(100);
    let input = format!("a {long} {{10+}}\r\nb LOGOUT\r\n {{3+}}\r\n\r\nc\r\nd\r\n");
    for piece in [1, 2, 3, 7, 39, 40, 1000] {
        let told = read(SMALL, input.as_bytes(), piece);
        assert_eq!(told[0], "too long Some(\"a\")");
        assert_eq!(told[1..], ["command d", "done"]);
    }
    // The limit lies in the announcement, wherever the cuts are.
    for length in 25..45 {
        let input = format!("a {} {{11+}}\r\nb LOGOUT\r\n \r\nd\r\n", "x".repeat(length));
        for piece in 1..50 {
            let told = read(Limits { literals: 0, ..SMALL }, input.as_bytes(), piece);
            assert_eq!(told[1..], ["command d", "done"], "{length} by {piece}: {}", told[0]);
        }
    }
    // Announced to be sent when asked for, which it is not.
    let input = format!("a {long} {{10}}\r\nb\r\n");
    assert_eq!(read(SMALL, input.as_bytes(), 8)[1..], ["command b", "done"]);
    // Begun within the limit, and with a literal before it.
    let input = format!("a {{2}}\r\nxy{long} {{4+}}\r\nzz\r\n\r\nb\r\n");
    for piece in [1, 5, 1000] {
        let told = read(SMALL, input.as_bytes(), piece);
        assert_eq!(told[1], "too long Some(\"a\")");
        assert_eq!(told[2..], ["command b", "done"]);
    }
}

#[test]
fn many_literals_are_one_budget() {
    check(
        "a {10}\r\n0123456789{10}\r\n0123456789 {1+}\r\nx\r\nb\r\n",
        &["keep 10", "keep 10", "refuse 1+", "command b", "done"],
    );
    let many = "{0+}\r\n".repeat(20);
    let told = read(SMALL, format!("{many}\r\nb\r\n").as_bytes(), 5);
    assert_eq!(told.last().unwrap(), "done");
    assert!(told.iter().any(|one| one.starts_with("too long")), "{told:?}");
}

#[test]
fn the_limits_before_login_are_8_kib_in_all() {
    let Limits { text, literals } = Limits::BEFORE_LOGIN;
    assert!(text + literals <= 8 * 1024);
}

//! BDAT and BINARYMIME (RFC 3030), from clients of the network.

use super::*;

const ENVELOPE: &str = "MAIL FROM:<a@b>\r\nRCPT TO:<a@here>\r\n";

/// Plays what stands behind EHLO, cut in several ways that must give the same: all codes behind
/// that of EHLO, and the messages.
fn strictly(input: &[u8]) -> (String, Vec<Vec<u8>>) {
    let limits = Limits { message_size: 100, recipients: 2, errors: 20 };
    let input = [b"EHLO x\r\n", input].concat();
    let (hello, rest) = input.split_at(8);
    let mut results = (1..rest.len()).map(|cut| {
        let mut session = Session::new(Dialect::Smtp, "here", "here", limits, true);
        // Nothing stands behind EHLO before its reply.
        assert_eq!(session.step(&mut &hello[..]), Action::Read);
        let (replies, messages) = play(session, rest, cut);
        (codes(&replies)[2..].join(" "), messages)
    });
    let first = results.next().unwrap();
    assert!(results.all(|result| result == first), "{:?}", input.escape_ascii().to_string());
    first
}

fn envelope_and(text: &[u8]) -> (String, Vec<Vec<u8>>) {
    strictly(&[ENVELOPE.as_bytes(), text].concat())
}

#[test]
fn chunks_may_be_pipelined_and_make_one_message() {
    let (codes, messages) = envelope_and(b"BDAT 4\r\na\r\n.BDAT 3\r\n\r\nbBDAT 0 LAST\r\nQUIT\r\n");
    assert_eq!(codes, "250 250 250 250 250 221");
    assert_eq!(messages, [b"a\r\n.\r\nb\r\n"]);
}

#[test]
fn nothing_in_a_chunk_ends_it_and_no_second_message_comes_out() {
    for end in ["\r\n.\r\n", "\n.\n", "\n.\r\n", "\r\n.\n", "\r.\r", "\r\n.\r", "\0\r\n.\r\n"] {
        let text = format!("t{end}MAIL FROM:<x@y>\r\nRCPT TO:<b@here>\r\nDATA\r\nu\r\n.\r\n");
        let input = format!("BDAT {} LAST\r\n{text}QUIT\r\n", text.len());
        let (codes, messages) = envelope_and(input.as_bytes());
        assert_eq!(codes, "250 250 250 221", "{end:?}");
        assert_eq!(messages.len(), 1);
        // And it can be sent on with DATA: no bare CR or LF is left.
        let text = String::from_utf8(messages[0].clone()).unwrap();
        assert!(!text.replace("\r\n", "").contains(['\r', '\n']), "{text:?}");
    }
}

#[test]
fn a_line_end_between_two_chunks_is_one() {
    let (_, messages) = envelope_and(b"BDAT 2\r\na\rBDAT 3\r\n\nb\rBDAT 1 LAST\r\nc");
    assert_eq!(messages, [b"a\r\nb c\r\n"]);
}

#[test]
fn a_binary_text_stays_as_it_is_and_takes_no_data() {
    let start = "MAIL FROM:<a@b> BODY=BINARYMIME\r\nRCPT TO:<a@here>\r\n";
    let input = [start.as_bytes(), b"BDAT 9 LAST\r\n\r\n\r\n.\n\0\r\xffQUIT\r\n"].concat();
    let (codes, messages) = strictly(&input);
    assert_eq!(codes, "250 250 250 221");
    assert_eq!(messages, [b"\r\n\r\n.\n\0\r\xff"]);
    let (codes, messages) = strictly(format!("{start}DATA\r\n").as_bytes());
    assert_eq!((codes.as_str(), messages.len()), ("250 250 503", 0));
}

#[test]
fn data_and_bdat_do_not_mix() {
    let (codes, messages) = envelope_and(b"BDAT 1\r\naDATA\r\n");
    assert_eq!((codes.as_str(), messages.len()), ("250 250 250 503", 0));
    let text = format!("BDAT 1\r\naRSET\r\n{ENVELOPE}BDAT 1 LAST\r\nb");
    let (codes, messages) = envelope_and(text.as_bytes());
    assert_eq!(codes, "250 250 250 250 250 250 250");
    assert_eq!(messages, [b"b\r\n"]);
}

#[test]
fn the_size_is_checked_before_a_chunk_comes() {
    for (text, wanted) in [
        (format!("BDAT 101 LAST\r\n{}", "x".repeat(101)), "552"),
        (format!("BDAT 60\r\n{0}BDAT 60\r\n{0}BDAT 1 LAST\r\nx", "x".repeat(60)), "250 552 552"),
        // Clean line ends are longer than bare ones.
        (format!("BDAT 90 LAST\r\n{}", "x\n".repeat(45)), "552"),
    ] {
        let (codes, messages) = envelope_and(format!("{text}{ENVELOPE}").as_bytes());
        assert_eq!(codes, format!("250 250 {wanted} 250 250"), "{text}");
        assert!(messages.is_empty());
    }
    // Whatever is said of what comes, only so much is taken for it.
    let mut session = Session::new(Dialect::Smtp, "here", "here", LIMITS, true);
    let input = format!("EHLO x\r\n{ENVELOPE}BDAT 99999999999999999999 LAST\r\nxxxx");
    let mut part = input.as_bytes();
    let (hello, mut rest) = part.split_at(8);
    part = hello;
    assert_eq!(session.step(&mut part), Action::Read);
    assert!(matches!(session.step(&mut rest), Action::CheckRecipient(_)));
    session.recipient(Verdict::Accept);
    assert_eq!(session.step(&mut rest), Action::Discard);
    assert_eq!(session.step(&mut rest), Action::Read);
}

#[test]
fn a_chunk_for_nobody_is_refused_and_its_bytes_are_no_commands() {
    let (codes, messages) =
        strictly(b"BDAT 6\r\nQUIT\r\nMAIL FROM:<a@b>\r\nBDAT 6 LAST\r\nQUIT\r\nNOOP\r\n");
    assert_eq!((codes.as_str(), messages.len()), ("503 250 554 250", 0));
}

#[test]
fn without_pipelining_nothing_may_stand_behind_a_command() {
    let session = Session::new(Dialect::Smtp, "here", "here", LIMITS, true);
    let (replies, messages) = play(session, b"BDAT 6 LAST\r\nQUIT\r\n", 100);
    assert_eq!((codes(&replies).join(" ").as_str(), messages.len()), ("220 503", 0));
}

#[test]
fn the_network_is_told_all_extensions_and_their_limits() {
    let session = Session::new(Dialect::Smtp, "here", "here", LIMITS, true);
    let (replies, _) = play(session, b"EHLO x\r\n", 100);
    let wanted = "250-here|250-PIPELINING|250-SIZE 100|250-LIMITS RCPTMAX=2|250-8BITMIME|\
                  250-SMTPUTF8|250-ENHANCEDSTATUSCODES|250-DSN|250-CHUNKING|250-BINARYMIME|\
                  250-VRFY|250 HELP|";
    assert_eq!(replies.replace("\r\n", "|").split_once('|').unwrap().1, wanted);
}

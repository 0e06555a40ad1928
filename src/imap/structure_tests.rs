//! The texts of the RFCs' examples, and what can't stand in quotes.

use super::*;
use crate::message::structure::Parser;

fn parse(message: &str) -> Structure {
    let mut parser = Parser::default();
    parser.push(message.replace('\n', "\r\n").as_bytes());
    parser.finish()
}

fn envelope(message: &str) -> String {
    let mut out = Vec::new();
    envelope_text(&parse(message).envelope, &mut out);
    String::from_utf8(out).unwrap()
}

fn body_of(message: &str, extensible: bool, revision: Revision) -> String {
    let mut out = Vec::new();
    body_text(&parse(message), extensible, revision, &mut out);
    String::from_utf8(out).unwrap()
}

/// The message of RFC 9051 section 8, whose text is left out there.
fn sample() -> String {
    let text = "x".repeat(3028 - 2 * 92) + &"\n".repeat(92);
    format!(
        "Date: Wed, 17 Jul 1996 02:23:25 -0700 (PDT)\n\
         From: Terry Gray <gray@cac.washington.edu>\n\
         Subject: IMAP4rev2 WG mtg summary and minutes\n\
         To: imap@cac.washington.edu\n\
         cc: minutes@CNRI.Reston.VA.US, John Klensin <KLENSIN@MIT.EDU>\n\
         Message-Id: <B27397-0100000@cac.washington.edu>\n\
         MIME-Version: 1.0\n\
         Content-Type: TEXT/PLAIN; CHARSET=US-ASCII\n\n{text}"
    )
}

#[test]
fn the_session_of_the_rfc_has_this_envelope() {
    assert_eq!(
        envelope(&sample()),
        "(\"Wed, 17 Jul 1996 02:23:25 -0700 (PDT)\" \
         \"IMAP4rev2 WG mtg summary and minutes\" \
         ((\"Terry Gray\" NIL \"gray\" \"cac.washington.edu\")) \
         ((\"Terry Gray\" NIL \"gray\" \"cac.washington.edu\")) \
         ((\"Terry Gray\" NIL \"gray\" \"cac.washington.edu\")) \
         ((NIL NIL \"imap\" \"cac.washington.edu\")) \
         ((NIL NIL \"minutes\" \"CNRI.Reston.VA.US\")\
         (\"John Klensin\" NIL \"KLENSIN\" \"MIT.EDU\")) NIL NIL \
         \"<B27397-0100000@cac.washington.edu>\")"
    );
}

#[test]
fn the_session_of_the_rfc_has_this_body() {
    // With 7BIT the RFC means what the message says nothing of.
    assert_eq!(
        body_of(&sample(), false, Revision::Two),
        "(\"TEXT\" \"PLAIN\" (\"CHARSET\" \"US-ASCII\") NIL NIL \"7bit\" 3028 92)"
    );
}

#[test]
fn two_parts_are_told_as_the_rfc_has_them() {
    let second = "x".repeat(4554 - 2 * 73) + &"\n".repeat(73);
    let first = "y".repeat(1152 - 2 * 23) + &"\n".repeat(23);
    let message = format!(
        "Content-Type: multipart/mixed; boundary=b\n\n\
         --b\nContent-Type: TEXT/PLAIN; CHARSET=US-ASCII\nContent-Transfer-Encoding: 7BIT\n\n{first}\n\
         --b\nContent-Type: TEXT/PLAIN; CHARSET=US-ASCII; NAME=\"cc.diff\"\n\
         Content-ID: <960723163407.20117h@cac.washington.edu>\n\
         Content-Description: Compiler diff\nContent-Transfer-Encoding: BASE64\n\n{second}\n--b--\n"
    );
    assert_eq!(
        body_of(&message, false, Revision::One),
        "((\"TEXT\" \"PLAIN\" (\"CHARSET\" \"US-ASCII\") NIL NIL \"7BIT\" 1152 23)\
         (\"TEXT\" \"PLAIN\" (\"CHARSET\" \"US-ASCII\" \"NAME\" \"cc.diff\") \
         \"<960723163407.20117h@cac.washington.edu>\" \"Compiler diff\" \
         \"BASE64\" 4554 73) \"MIXED\")"
            .replace("MIXED", "mixed")
    );
}

#[test]
fn extensions_follow_in_body_structures_only() {
    let message = "Content-Type: image/png\nContent-MD5: abc=\nContent-Language: de, en\n\
                   Content-Disposition: inline; filename=a\nContent-Location: b\n\nx\n";
    assert_eq!(
        body_of(message, false, Revision::Two),
        "(\"image\" \"png\" NIL NIL NIL \"7bit\" 3)"
    );
    assert_eq!(
        body_of(message, true, Revision::Two),
        "(\"image\" \"png\" NIL NIL NIL \"7bit\" 3 \"abc=\" (\"inline\" (\"filename\" \"a\")) \
         (\"de\" \"en\") \"b\")"
    );
}

#[test]
fn a_multipart_without_parts_has_an_empty_one() {
    let message = "Content-Type: multipart/mixed; boundary=b\n\nx\n";
    assert_eq!(
        body_of(message, false, Revision::Two),
        "((\"text\" \"plain\" (\"charset\" \"us-ascii\") NIL NIL \"7bit\" 0 0) \"mixed\")"
    );
    assert_eq!(
        body_of(message, true, Revision::Two),
        "((\"text\" \"plain\" (\"charset\" \"us-ascii\") NIL NIL \"7bit\" 0 0 NIL NIL NIL NIL) \
         \"mixed\" (\"boundary\" \"b\") NIL NIL NIL)"
    );
}

#[test]
fn message_global_is_a_message_to_those_who_know_it() {
    let message = "Content-Type: message/global\n\nSubject: x\n\ny\n";
    assert_eq!(
        body_of(message, false, Revision::One),
        "(\"message\" \"global\" NIL NIL NIL \"7bit\" 17)"
    );
    assert_eq!(
        body_of(message, false, Revision::Two),
        "(\"message\" \"global\" NIL NIL NIL \"7bit\" 17 \
         (NIL \"x\" NIL NIL NIL NIL NIL NIL NIL NIL) \
         (\"text\" \"plain\" (\"charset\" \"us-ascii\") NIL NIL \"7bit\" 3 1) 3)"
    );
}

#[test]
fn groups_and_missing_domains_are_told_apart() {
    assert_eq!(
        envelope("To: A: b@c.org;, root\nCc: :;\n\n"),
        "(NIL NIL NIL NIL NIL ((NIL NIL \"A\" NIL)(NIL NIL \"b\" \"c.org\")(NIL NIL NIL NIL)\
         (NIL NIL \"root\" \"MISSING_DOMAIN\")) ((NIL NIL \"\" NIL)(NIL NIL NIL NIL)) NIL NIL NIL)"
    );
}

#[test]
fn strings_are_quoted_where_they_may_be_and_else_have_their_lengths() {
    let text = |text: &[u8]| {
        let mut out = Vec::new();
        string(text, &mut out);
        String::from_utf8(out).unwrap()
    };
    assert_eq!(text(b""), "\"\"");
    assert_eq!(text(b"a \"b\" \\c"), "\"a \\\"b\\\" \\\\c\"");
    assert_eq!(text("ä".as_bytes()), "{2}\r\nä");
    assert_eq!(text(b"a\0"), "{4}\r\na\u{fffd}");
    assert_eq!(text(b"a\rb\nc"), "{5}\r\na\rb\nc");
}

use super::*;

mod auth;
mod chunks;
mod lmtp;

const LIMITS: Limits = Limits { message_size: 100, recipients: 2, errors: 5 };

/// Plays input in pieces of `cut` bytes; recipients at `here` are accepted. Returns all replies
/// and the messages that were committed.
fn play(session: Session, input: &[u8], cut: usize) -> (String, Vec<Vec<u8>>) {
    play_with(session, input, cut, || Ok(()))
}

/// The same with an answer of the caller's to [`Action::Open`]. By LMTP each reply to a text names
/// its recipient.
fn play_with(
    mut session: Session,
    input: &[u8],
    cut: usize,
    mut open: impl FnMut() -> Result<(), Reply>,
) -> (String, Vec<Vec<u8>>) {
    let (mut messages, mut text) = (Vec::new(), Vec::new());
    for mut part in input.chunks(cut) {
        loop {
            match session.step(&mut part) {
                Action::Read => break,
                Action::CheckRecipient(address) => session.recipient(match address.domain() {
                    "here" => Verdict::Accept,
                    _ => Verdict::Refuse(Reply::new(554, "5.7.1", "Relay access denied")),
                }),
                // The rest would be the handshake's; here it goes on in the clear.
                Action::StartTls => session.start_tls(Ok(())),
                Action::LookUp(LookUp::Verify(address)) if address.domain() == "here" => {
                    session.looked_up(Ok(&[Reply::new(250, "2.1.5", format!("<{address}>"))]));
                }
                Action::LookUp(LookUp::Verify(_)) => {
                    session.looked_up(Err(Reply::new(550, "5.1.1", "nobody")));
                }
                Action::LookUp(LookUp::Expand(_)) => {
                    let members =
                        ["a", "b"].map(|name| Reply::new(250, "2.1.5", format!("<{name}>")));
                    session.looked_up(Ok(&members));
                }
                Action::Claim(_) => session.claimed(),
                Action::Authenticate(..) => session.authenticate(crate::sasl::Answer::Refused),
                Action::Open => session.opened(open()),
                Action::Store(piece) => text.extend_from_slice(piece),
                Action::Discard => text.clear(),
                Action::Commit => {
                    messages.push(std::mem::take(&mut text));
                    let count = session.replies_after_text();
                    let recipients = &session.transaction().unwrap().recipients;
                    let replies: Vec<Reply> = (recipients.iter().take(count))
                        .map(|to| Reply::new(250, "2.0.0", format!("<{}> X", to.address)))
                        .collect();
                    session.stored(&replies);
                }
                Action::Close => {
                    return (String::from_utf8(session.output.clone()).unwrap(), messages);
                }
            }
        }
    }
    (String::from_utf8(session.output.clone()).unwrap(), messages)
}

fn codes(replies: &str) -> Vec<&str> {
    replies.lines().filter(|l| l.as_bytes()[3] == b' ').map(|line| &line[..3]).collect()
}

fn lenient(dialect: Dialect) -> Session {
    Session::new(dialect, "here", "here", LIMITS, false)
}

#[test]
fn the_session_of_the_lecture_is_taken_to_the_letter() {
    let input = b"HELO mx.smkwlab.net\r\nMAIL FROM: toshi@is.kyusan-u.ac.jp\r\n\
        RCPT TO: toshi@here\r\nDATA\r\nHello. This is test.\r\n.\r\nQUIT\r\n";
    for cut in 1..input.len() {
        let (replies, messages) = play(lenient(Dialect::Smtp), input, cut);
        assert_eq!(codes(&replies), ["220", "250", "250", "250", "354", "250", "221"]);
        assert_eq!(messages, [b"Hello. This is test.\r\n"]);
    }
}

#[test]
fn commands_out_of_order_are_refused_with_503() {
    let input = b"MAIL FROM:<a@b>\r\nEHLO x\r\nRCPT TO:<a@here>\r\nDATA\r\nMAIL FROM:<>\r\n\
        MAIL FROM:<>\r\nQUIT\r\n";
    let (replies, _) = play(lenient(Dialect::Smtp), input, 1000);
    assert_eq!(codes(&replies), ["220", "503", "250", "503", "503", "250", "503", "221"]);
}

#[test]
fn a_message_past_the_limit_is_refused_after_its_text_and_the_next_one_is_taken() {
    let mut input = b"EHLO x\r\nMAIL FROM:<a@b>\r\nRCPT TO:<a@here>\r\nDATA\r\n".to_vec();
    input.extend([b'x'; 200]);
    input.extend(b"\r\n.\r\nMAIL FROM:<a@b>\r\nRCPT TO:<a@here>\r\nDATA\r\nok\r\n.\r\n");
    for cut in [1, 7, 1000] {
        let (replies, messages) = play(lenient(Dialect::Smtp), &input, cut);
        assert_eq!(codes(&replies)[4..], ["354", "552", "250", "250", "354", "250"]);
        assert_eq!(messages, [b"ok\r\n"]);
    }
}

#[test]
fn recipients_count_once_and_up_to_the_limit() {
    let input = b"EHLO x\r\nMAIL FROM:<a@b>\r\nRCPT TO:<a@here>\r\nRCPT TO:<a@HERE>\r\n\
        RCPT TO:<b@here>\r\nRCPT TO:<c@here>\r\nRCPT TO:<c@there>\r\n";
    let (replies, _) = play(lenient(Dialect::Smtp), input, 1000);
    assert_eq!(codes(&replies)[3..], ["250", "554", "250", "452", "452"]);
}

#[test]
fn input_before_its_turn_ends_a_strict_session() {
    for input in [&b"EHLO x\r\nMAIL FROM:<a@b>\r\n"[..], b"HELO x\r\nMAIL FROM:<a@b>\r\n"] {
        let (replies, _) =
            play(Session::new(Dialect::Smtp, "here", "here", LIMITS, true), input, 1000);
        assert_eq!(codes(&replies), ["220", "503"]);
    }
    // Whether or not the command before it is right, or is one.
    for input in [&b"EHLO\r\nNOOP\r\n"[..], b"QUIT now\r\nNOOP\r\n", b"FOO\r\nNOOP\r\n"] {
        let session = Session::new(Dialect::Smtp, "here", "here", LIMITS, true);
        assert_eq!(codes(&play(session, input, 1000).0), ["220", "503"]);
    }
    for input in [&b"DATA now\r\nNOOP\r\n"[..], b"auth PLAIN !\r\nNOOP\r\n"] {
        let mut session = Session::new(Dialect::Smtp, "here", "here", LIMITS, true);
        session.extended = true;
        assert_eq!(codes(&play(session, input, 1000).0), ["220", "503"]);
    }
    let mut session = Session::new(Dialect::Smtp, "here", "here", LIMITS, true);
    session.extended = true;
    let input = b"MAIL FROM:<a@b>\r\n";
    assert!(play(session, input, 1000).0.contains("503 5.5.1"));
}

fn offering() -> Session {
    let mut session = lenient(Dialect::Smtp);
    session.offer_tls();
    session
}

#[test]
fn starttls_is_offered_until_tls_is_on() {
    assert!(!play(lenient(Dialect::Smtp), b"EHLO x\r\n", 100).0.contains("STARTTLS"));
    let (replies, _) = play(lenient(Dialect::Smtp), b"STARTTLS\r\n", 10);
    assert_eq!(codes(&replies), ["220", "502"]);
    let (replies, _) = play(offering(), b"EHLO x\r\n", 8);
    assert!(replies.ends_with("250-STARTTLS\r\n250-VRFY\r\n250 HELP\r\n"), "{replies}");
    let (replies, _) = play(offering(), b"STARTTLS\r\nEHLO xy\r\nSTARTTLS\r\n", 10);
    assert_eq!(codes(&replies), ["220", "220", "250", "503"], "{replies}");
}

#[test]
fn what_was_said_before_tls_is_forgotten() {
    let mut session = offering();
    let mut input = &b"EHLO x\r\nMAIL FROM:<a@b>\r\nSTARTTLS\r\n"[..];
    assert_eq!(session.step(&mut input), Action::StartTls);
    assert_eq!((session.helo(), session.protocol()), ("x", "ESMTP"));
    session.start_tls(Ok(()));
    assert_eq!((session.helo(), session.protocol()), ("", "SMTP"));
    assert!(session.transaction().is_none());
    session.output().clear();
    let mut input = &b"MAIL FROM:<a@b>\r\nEHLO y\r\n"[..];
    assert_eq!(session.step(&mut input), Action::Read);
    let replies = String::from_utf8(session.output().clone()).unwrap();
    assert_eq!(codes(&replies), ["503", "250"]);
    assert!(!replies.contains("STARTTLS"), "{replies}");
    assert_eq!((session.helo(), session.protocol()), ("y", "ESMTPS"));
}

#[test]
fn what_comes_behind_starttls_in_the_clear_ends_the_session() {
    for input in ["STARTTLS\r\nEHLO x\r\n", "EHLO x\r\nSTARTTLS\r\n\x16\x03\x01"] {
        let (replies, _) = play(offering(), input.as_bytes(), 1000);
        assert!(replies.contains("503 5.5.0 ") && !replies.contains("Ready"), "{replies}");
    }
}

#[test]
fn a_session_without_a_usable_certificate_goes_on_in_the_clear() {
    let mut session = offering();
    let mut input = &b"EHLO x\r\nSTARTTLS\r\n"[..];
    assert_eq!(session.step(&mut input), Action::StartTls);
    session.start_tls(Err(Reply::new(454, "4.7.0", "TLS not available")));
    assert_eq!((session.helo(), session.protocol()), ("x", "ESMTP"));
    let (replies, _) = play(session, b"MAIL FROM:<a@b>\r\nSTARTTLS x\r\n", 17);
    assert_eq!(codes(&replies)[2..], ["454", "250", "501"]);
}

#[test]
fn too_many_errors_end_the_session() {
    let (replies, _) = play(lenient(Dialect::Smtp), &b"FOO\r\n".repeat(20), 1000);
    assert_eq!(codes(&replies), ["220", "500", "500", "500", "500", "500", "421"]);
}

#[test]
fn too_many_hops_are_refused() {
    let limits = Limits { message_size: 10_000, ..LIMITS };
    let mut input = b"HELO x\r\nMAIL FROM:<a@b>\r\nRCPT TO:<a@here>\r\nDATA\r\n".to_vec();
    input.extend(b"Received: x\r\n".repeat(101));
    input.extend(b"\r\nbody\r\n.\r\n");
    let (replies, messages) =
        play(Session::new(Dialect::Smtp, "here", "here", limits, false), &input, 50);
    assert!(replies.contains("554 5.4.6"));
    assert!(messages.is_empty());
}

#[test]
fn no_input_makes_the_output_grow_without_bound_or_panic() {
    // A small generator with a fixed seed: words of the protocol and noise.
    let words: [&[u8]; 20] = [
        b"EHLO x",
        b"LHLO x",
        b"MAIL FROM:<a@b>",
        b"MAIL FROM:<\xc3\xa9@b> SMTPUTF8 RET=HDRS ENVID=",
        b"RCPT TO:<a@here>",
        b"RCPT TO:<\xc3\xa9@here> NOTIFY=DELAY ORCPT=utf-8;",
        b"DATA",
        b"BDAT 3",
        b"BDAT 5 LAST",
        b"+41",
        b"\\x{E9}",
        b"\r\n",
        b".\r\n",
        b"RSET",
        b"\n",
        b"\r",
        b"\0",
        b"\xff",
        b"\xc3",
        b"x",
    ];
    let mut seed = 1_u64;
    for turn in 0..4000 {
        let dialect = if turn % 2 == 0 { Dialect::Smtp } else { Dialect::Lmtp };
        let mut input = Vec::new();
        if turn % 3 == 0 {
            input.extend_from_slice(b"EHLO x\r\nLHLO x\r\nMAIL FROM:<> SMTPUTF8\r\n");
        }
        for _ in 0..30 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            input.extend_from_slice(words[usize::try_from(seed >> 33).unwrap() % words.len()]);
            if seed & 0x3_0000 == 0 {
                input.extend_from_slice(b"\r\n");
            }
        }
        let whole = play(lenient(dialect), &input, 1000);
        assert_eq!(whole, play(lenient(dialect), &input, 3), "cut alters the outcome");
    }
}

#[test]
fn on_a_pipe_there_is_no_chunking() {
    let (replies, _) = play(lenient(Dialect::Smtp), b"EHLO x\r\n", 100);
    let wanted = "250-here\r\n250-PIPELINING\r\n250-SIZE 100\r\n250-LIMITS RCPTMAX=2\r\n\
        250-8BITMIME\r\n250-SMTPUTF8\r\n250-ENHANCEDSTATUSCODES\r\n250-DSN\r\n250-VRFY\r\n\
        250 HELP\r\n";
    assert_eq!(replies.split_once("\r\n").unwrap().1, wanted);
    let input = b"EHLO x\r\nMAIL FROM:<a@b> BODY=BINARYMIME\r\nMAIL FROM:<a@b>\r\n\
        RCPT TO:<a@here>\r\nBDAT 1\r\nDATA\r\n.\r\n";
    let (replies, _) = play(lenient(Dialect::Smtp), input, 1000);
    assert_eq!(codes(&replies)[2..], ["501", "250", "250", "500", "354", "250"]);
}

#[test]
fn lookups_are_answered_where_they_are_offered() {
    let input = b"EHLO x\r\nVRFY <a@here>\r\nVRFY a\r\nVRFY a@there\r\nVRFY Some Body\r\n\
        EXPN list\r\n";
    let (replies, _) = play(lenient(Dialect::Smtp), input, 1000);
    assert_eq!(codes(&replies)[2..], ["252", "252", "252", "252", "550"]);
    let mut session = lenient(Dialect::Smtp);
    session.offer_lookups(true, true);
    let (replies, _) = play(session, input, 1000);
    assert_eq!(codes(&replies)[2..], ["250", "250", "550", "501", "250"]);
    assert!(replies.ends_with("250-2.1.5 <a>\r\n250 2.1.5 <b>\r\n"), "{replies}");
    assert!(replies.contains("250-EXPN\r\n"), "{replies}");
}

#[test]
fn lookups_may_say_that_the_answer_may_have_utf8() {
    let mut session = lenient(Dialect::Smtp);
    session.offer_lookups(true, true);
    let input = b"EHLO x\r\nVRFY a SMTPUTF8\r\nVRFY <a@here>  smtputf8\r\nEXPN list SMTPUTF8\r\n\
        VRFY SMTPUTF8\r\nVRFY a SMTPUTF8=1\r\nVRFY a SMTPUTF8 SMTPUTF8\r\n";
    let (replies, _) = play(session, input, 1000);
    assert_eq!(codes(&replies)[2..], ["250", "250", "250", "250", "501", "501"]);
}

#[test]
fn xclient_begins_the_session_anew_for_those_who_may() {
    let input = b"EHLO x\r\nXCLIENT ADDR=192.0.2.1 LOGIN=hunt HELO=far.example\r\n\
        MAIL FROM:<a@b>\r\nXCLIENT LOGIN=[UNAVAILABLE]\r\nRSET\r\n\
        XCLIENT LOGIN=[UNAVAILABLE]\r\nMAIL FROM:<a@b>\r\nXCLIENT X\r\n";
    let (replies, _) = play(lenient(Dialect::Smtp), input, 1000);
    assert_eq!(codes(&replies)[2..], ["500", "250", "500", "250", "500", "250", "500"]);
    for cut in [1, 1000] {
        let mut session = lenient(Dialect::Smtp);
        session.offer_xclient();
        let mut input = &input[..];
        let (replies, _) = play(session, input, cut);
        assert_eq!(codes(&replies)[2..], ["220", "250", "503", "250", "220", "503", "501"]);
        let mut session = lenient(Dialect::Smtp);
        session.offer_xclient();
        while !matches!(session.step(&mut input), Action::Claim(_)) {}
        session.claimed();
        assert_eq!((session.user(), session.helo()), (Some("hunt"), "far.example"));
        assert_eq!(session.protocol(), "ESMTPA");
    }
}

//! What LMTP does in its own way, and the extensions that it has.

use super::*;
use crate::smtp::dsn::{Notify, Ret};

/// Room for more recipients and errors than the other tests need.
fn session() -> Session {
    let limits = Limits { message_size: 100, recipients: 5, errors: 20 };
    Session::new(Dialect::Lmtp, "foo.edu", "foo.edu", limits, false)
}

fn full() -> Result<(), Reply> {
    Err(Reply::new(452, "4.3.1", "no room"))
}

#[test]
fn lmtp_answers_once_for_each_recipient() {
    let input =
        b"LHLO x\r\nMAIL FROM:<>\r\nRCPT TO:<a@here>\r\nRCPT TO:<b@here>\r\nDATA\r\nt\r\n.\r\n\
        EHLO x\r\nQUIT\r\n";
    let (replies, messages) = play(lenient(Dialect::Lmtp), input, 1000);
    assert_eq!(
        codes(&replies),
        ["220", "250", "250", "250", "250", "354", "250", "250", "500", "221"]
    );
    assert_eq!(messages.len(), 1);
}

#[test]
fn chunks_make_a_message_and_an_unwanted_chunk_is_skipped() {
    let input = b"LHLO x\r\nBDAT 6\r\nQUIT\r\nMAIL FROM:<>\r\nBDAT 4 LAST\r\nabcdRCPT TO:<a@here>\r\n\
        BDAT 3\r\nab\nDATA\r\nRCPT TO:<b@here>\r\nBDAT 0 LAST\r\nMAIL FROM:<>\r\nRCPT TO:<a@here>\r\n\
        BDAT 2\r\nxyRSET\r\nMAIL FROM:<>\r\nRCPT TO:<a@here>\r\nBDAT 2 LAST\r\nokQUIT\r\n";
    let limits = Limits { errors: 20, ..LIMITS };
    for cut in [1, 2, 3, 7, 1000] {
        let session = Session::new(Dialect::Lmtp, "here", "here", limits, false);
        let (replies, messages) = play(session, input, cut);
        let wanted = "220 250 503 250 250 250 503 503 250 250 250 250 250 250 250 250 221";
        assert_eq!(codes(&replies).join(" "), wanted, "cut {cut}");
        assert_eq!(messages, [&b"ab\r\n"[..], b"ok\r\n"]);
    }
    // The limit holds for chunks, too.
    let mut input = b"LHLO x\r\nMAIL FROM:<>\r\nRCPT TO:<a@here>\r\nBDAT 200 LAST\r\n".to_vec();
    input.extend([b'x'; 200]);
    input.extend(b"NOOP\r\n");
    let session = Session::new(Dialect::Lmtp, "here", "here", limits, false);
    let (replies, messages) = play(session, &input, 64);
    assert_eq!(codes(&replies)[4..], ["552", "250"]);
    assert!(messages.is_empty());
    // On a pipe SMTP does not announce it: nobody could count there.
    let (replies, _) = play(lenient(Dialect::Smtp), b"EHLO x\r\nBDAT 1\r\n", 100);
    assert_eq!(codes(&replies)[2..], ["500"]);
}

#[test]
fn lmtp_announces_its_extensions() {
    let (replies, _) = play(session(), b"LHLO x\r\n", 1000);
    let wanted = "220 foo.edu LMTP Hikyaku\r\n250-foo.edu\r\n250-PIPELINING\r\n250-SIZE 100\r\n\
        250-LIMITS RCPTMAX=5\r\n250-8BITMIME\r\n250-SMTPUTF8\r\n250-ENHANCEDSTATUSCODES\r\n250-DSN\r\n250-CHUNKING\r\n250 BINARYMIME\r\n";
    assert_eq!(replies, wanted);
}

#[test]
fn the_session_of_rfc_2033_is_answered_as_it_is_there() {
    // Its example; here it is the domain that tells who is known.
    let input = b"LHLO foo.edu\r\nMAIL FROM:<chris@bar.com>\r\nRCPT TO:<pat@here>\r\n\
        RCPT TO:<jones@there>\r\nRCPT TO:<green@here>\r\nDATA\r\nBlah blah blah...\r\n\
        ...etc. etc. etc.\r\n.\r\nQUIT\r\n";
    for cut in 1..input.len() {
        let (replies, messages) = play(session(), input, cut);
        let wanted = "220 250 250 250 554 250 354 250 250 221";
        assert_eq!(codes(&replies).join(" "), wanted, "cut {cut}");
        assert!(replies.contains("\r\n250 2.0.0 <pat@here> X\r\n250 2.0.0 <green@here> X\r\n221"));
        assert_eq!(messages, [b"Blah blah blah...\r\n..etc. etc. etc.\r\n"]);
    }
}

#[test]
fn each_rcpt_that_was_accepted_has_its_reply_even_for_the_same_recipient() {
    let input = b"LHLO x\r\nMAIL FROM:<>\r\nRCPT TO:<a@here>\r\nRCPT TO:<a@here>\r\n\
        RCPT TO:<b@here>\r\nDATA\r\n.\r\nNOOP\r\n";
    let (replies, _) = play(session(), input, 1000);
    assert!(replies.ends_with(
        "250 2.0.0 <a@here> X\r\n250 2.0.0 <a@here> X\r\n250 2.0.0 <b@here> X\r\n250 2.0.0 Ok\r\n"
    ));
}

#[test]
fn data_without_recipients_has_one_reply_and_the_last_chunk_none() {
    for (input, wanted) in [
        ("DATA\r\n", "503"),
        ("MAIL FROM:<>\r\nDATA\r\n", "250 503"),
        ("MAIL FROM:<>\r\nRCPT TO:<a@there>\r\nDATA\r\n", "250 554 503"),
        ("BDAT 3\r\nabc", "503"),
        ("MAIL FROM:<>\r\nBDAT 3\r\nabc", "250 503"),
        ("BDAT 3 LAST\r\nabc", ""),
        ("MAIL FROM:<>\r\nBDAT 0 LAST\r\n", "250"),
        ("MAIL FROM:<>\r\nRCPT TO:<a@there>\r\nBDAT 3 LAST\r\nabc", "250 554"),
    ] {
        let input = format!("LHLO x\r\n{input}QUIT\r\n");
        for cut in [1, 1000] {
            let (replies, messages) = play(session(), input.as_bytes(), cut);
            let wanted = format!("220 250 {wanted} 221").replace("  ", " ");
            assert_eq!(codes(&replies).join(" "), wanted, "{input}");
            assert!(messages.is_empty());
        }
    }
}

#[test]
fn a_text_that_is_refused_is_refused_to_each_recipient() {
    let start = "LHLO x\r\nMAIL FROM:<>\r\nRCPT TO:<a@here>\r\nRCPT TO:<b@here>\r\n";
    let long = "x".repeat(98);
    for (text, wanted) in [
        (format!("DATA\r\n{long}\r\nx\r\n.\r\n"), "354 552 552"),
        (format!("BDAT 101 LAST\r\n{long}\r\nx"), "552 552"),
        (format!("BDAT 98\r\n{long}BDAT 3\r\nabcBDAT 0 LAST\r\n"), "250 552 552 552"),
    ] {
        let input = format!("{start}{text}MAIL FROM:<>\r\nRCPT TO:<a@here>\r\nDATA\r\n.\r\n");
        for cut in [1, 7, 1000] {
            let (replies, messages) = play(session(), input.as_bytes(), cut);
            let all = format!("220 250 250 250 250 {wanted} 250 250 354 250");
            assert_eq!(codes(&replies).join(" "), all, "{text}");
            assert_eq!(messages, [b""]);
        }
    }
    let limits = Limits { message_size: 10_000, recipients: 2, errors: 5 };
    let input = format!("{start}DATA\r\n{}\r\n.\r\n", "Received: x\r\n".repeat(101));
    let session = Session::new(Dialect::Lmtp, "here", "here", limits, false);
    let (replies, messages) = play(session, input.as_bytes(), 50);
    assert_eq!(replies.matches("554 5.4.6").count(), 2);
    assert!(messages.is_empty());
}

#[test]
fn where_there_is_no_room_data_has_one_reply_and_the_last_chunk_one_for_each_recipient() {
    let start = "LHLO x\r\nMAIL FROM:<>\r\nRCPT TO:<a@here>\r\nRCPT TO:<b@here>\r\n";
    for (text, wanted) in [
        ("DATA\r\n", "452"),
        ("BDAT 3 LAST\r\nabc", "452 452"),
        ("BDAT 3\r\nabcBDAT 0\r\nBDAT 2 LAST\r\nde", "452 452 452 452"),
        ("BDAT 3\r\nabcRSET\r\n", "452 250"),
    ] {
        let input =
            format!("{start}{text}MAIL FROM:<>\r\nRCPT TO:<c@here>\r\nBDAT 2 LAST\r\nokQUIT\r\n");
        for cut in [1, 3, 1000] {
            // Only the first time.
            let mut answers = std::iter::once(full()).chain(std::iter::repeat_with(|| Ok(())));
            let open = || answers.next().unwrap();
            let (replies, messages) = play_with(session(), input.as_bytes(), cut, open);
            let all = format!("220 250 250 250 250 {wanted} 250 250 250 221");
            assert_eq!(codes(&replies).join(" "), all, "{text}");
            assert_eq!(messages, [b"ok\r\n"]);
        }
    }
}

#[test]
fn what_the_parameters_say_is_in_the_transaction() {
    let mut session = session();
    let input = "LHLO x\r\nMAIL FROM:<jos\u{e9}@b> SMTPUTF8 BODY=8BITMIME RET=HDRS ENVID=QQ+20314159 \
        SIZE=50\r\nRCPT TO:<\u{fc}@here> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;Bob+2Bx@c\r\n\
        RCPT TO:<b@here>\r\n";
    let mut rest = input.as_bytes();
    while let Action::CheckRecipient(_) = session.step(&mut rest) {
        session.recipient(Verdict::Accept);
    }
    assert_eq!(session.protocol(), "UTF8LMTP");
    let transaction = session.transaction().unwrap();
    assert_eq!(transaction.sender.as_ref().unwrap().to_string(), "jos\u{e9}@b");
    assert!(transaction.body == Body::EightBitMime && transaction.utf8);
    assert_eq!(transaction.ret, Some(Ret::Headers));
    assert_eq!(transaction.envelope_id.as_ref().unwrap().as_str(), "QQ 314159");
    let [first, second] = transaction.recipients.as_slice() else { panic!("not two") };
    assert_eq!(first.address.to_string(), "\u{fc}@here");
    assert_eq!(first.notify, Some(Notify { success: true, failure: false, delay: true }));
    let original = first.original.as_ref().unwrap();
    assert_eq!((original.kind(), original.address()), ("rfc822", "Bob+x@c"));
    assert_eq!((second.notify, second.original.as_ref()), (None, None));
    // The next one begins afresh.
    let mut rest = &b"RSET\r\nMAIL FROM:<>\r\n"[..];
    assert_eq!(session.step(&mut rest), Action::Read);
    let transaction = session.transaction().unwrap();
    assert!(!transaction.utf8 && transaction.ret.is_none() && transaction.envelope_id.is_none());
    assert_eq!(session.protocol(), "LMTP");
}

#[test]
fn utf8_addresses_need_the_parameter() {
    let input = "LHLO x\r\nMAIL FROM:<\u{e9}@b>\r\nMAIL FROM:<a@b>\r\nRCPT TO:<\u{e9}@here>\r\n\
        RSET\r\nMAIL FROM:<\u{e9}@b> SMTPUTF8\r\nRCPT TO:<\u{e9}@here>\r\n\
        RCPT TO:<a@\u{85}here>\r\nRCPT TO:<a@there>\r\nRCPT TO:<b@here>\r\n";
    for cut in 1..input.len() {
        let (replies, _) = play(session(), input.as_bytes(), cut);
        let wanted = "220 250 553 250 553 250 250 250 501 554 250";
        assert_eq!(codes(&replies).join(" "), wanted, "cut {cut}");
        assert_eq!(replies.matches("553 5.6.7 ").count(), 2);
        assert!(replies.is_ascii());
    }
}

#[test]
fn bad_parameters_leave_the_transaction_as_it_was() {
    let input = b"LHLO x\r\nMAIL FROM:<> RET=ALL\r\nRCPT TO:<a@here>\r\nMAIL FROM:<> RET=FULL\r\n\
        RCPT TO:<a@here> NOTIFY=NEVER,DELAY\r\nRCPT TO:<a@here> ORCPT=rfc822;a+0D\r\n\
        RCPT TO:<a@here> AUTH=<>\r\nRCPT TO:<b@here> NOTIFY=NEVER\r\nDATA\r\n.\r\n";
    let (replies, _) = play(session(), input, 1000);
    let wanted = "220 250 501 503 250 501 501 555 250 354 250";
    assert_eq!(codes(&replies).join(" "), wanted);
}

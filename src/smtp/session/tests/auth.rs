use super::*;
use crate::sasl::{Answer, Facts, Keys, Question, Secret, scram};
use base64ct::{Base64, Encoding};

/// A session that lets clients log in, and has the word of EHLO.
fn session(without_tls: bool, required: bool) -> Session {
    let mut session = lenient(Dialect::Smtp);
    let facts = Facts { scram: vec![scram::Hash::Sha256], ..Facts::default() };
    session.offer_login(Login { without_tls, required, facts });
    session
}

/// Says a line; what is answered. `hunt` with `secret` may log in.
fn say(session: &mut Session, line: &str) -> String {
    session.output.clear();
    let line = format!("{line}\r\n");
    let mut input = line.as_bytes();
    loop {
        match session.step(&mut input) {
            Action::Authenticate(_, question) => session.authenticate(match question {
                Question::Password { user, password: Secret(password) } => {
                    match (user.as_str(), password.as_slice()) {
                        ("hunt", b"secret") => Answer::Accepted,
                        ("later", _) => Answer::Unavailable,
                        _ => Answer::Refused,
                    }
                }
                Question::Salt { user, hash } => {
                    let keys = Keys::stand_in(b"x", &user, hash, None);
                    Answer::Salt(keys.salt("ours".into()))
                }
                Question::Proof(_) | Question::Proven(_) => Answer::Refused,
            }),
            Action::StartTls => session.start_tls(Ok(())),
            Action::Claim(_) => session.claimed(),
            Action::CheckRecipient(_) => session.recipient(Verdict::Accept),
            Action::Read | Action::Close => {
                return String::from_utf8(session.output.clone()).unwrap();
            }
            other => panic!("{other:?}"),
        }
    }
}

fn plain(user: &str, password: &str) -> String {
    Base64::encode_string(format!("\0{user}\0{password}").as_bytes())
}

#[track_caller]
fn expect(session: &mut Session, line: &str, wanted: &str) {
    let reply = say(session, line);
    assert!(reply.starts_with(wanted), "{line}: {reply}");
}

#[test]
fn auth_is_announced_where_it_may_be_used() {
    let announced = "250 AUTH SCRAM-SHA-256 PLAIN LOGIN\r\n";
    assert!(say(&mut session(true, false), "EHLO x").ends_with(announced));
    let mut session = session(false, false);
    session.offer_tls();
    assert!(!say(&mut session, "EHLO x").contains("AUTH"));
    expect(&mut session, "AUTH PLAIN", "538 5.7.11 ");
    expect(&mut session, &format!("AUTH SCRAM-SHA-256 {}", plain("hunt", "secret")), "538 ");
    expect(&mut session, "STARTTLS", "220 ");
    assert!(say(&mut session, "EHLO x").ends_with(announced));
    // What names the connection makes PLUS possible.
    let data = b"connection".to_vec();
    session.bind(vec![crate::sasl::Binding { name: "tls-exporter", data }], None);
    assert!(say(&mut session, "EHLO x").contains("AUTH SCRAM-SHA-256-PLUS SCRAM-SHA-256 "));
    expect(&mut session, "AUTH EXTERNAL =", "504 5.5.4 ");
    // And a certificate EXTERNAL.
    session.bind(Vec::new(), Some("hunt".into()));
    assert!(say(&mut session, "EHLO x").contains("AUTH EXTERNAL SCRAM-SHA-256 "));
    expect(&mut session, &format!("AUTH PLAIN {}", plain("hunt", "secret")), "235 2.7.0 ");
    assert_eq!((session.protocol(), session.user()), ("ESMTPSA", Some("hunt")));
    // It is not that of whom the client speaks for.
    let mut session = self::session(true, false);
    session.offer_xclient();
    session.bind(Vec::new(), Some("hunt".into()));
    assert!(say(&mut session, "EHLO x").contains("EXTERNAL"));
    expect(&mut session, "XCLIENT ADDR=192.0.2.1", "220 ");
    assert!(!say(&mut session, "EHLO x").contains("EXTERNAL"));
    let mut none = lenient(Dialect::Smtp);
    assert!(!say(&mut none, "EHLO x").contains("AUTH"));
    expect(&mut none, "AUTH PLAIN", "503 5.5.1 ");
    expect(&mut none, "MAIL FROM:<a@b> AUTH=<>", "555 ");
}

#[test]
fn a_client_logs_in_once_and_outside_a_transaction() {
    let mut session = session(true, false);
    expect(&mut session, "AUTH PLAIN =", "503 5.5.1 Error: send EHLO");
    expect(&mut session, "HELO x", "250 ");
    expect(&mut session, "AUTH PLAIN =", "503 5.5.1 Error: send EHLO");
    expect(&mut session, "EHLO x", "250-");
    expect(&mut session, "MAIL FROM:<a@b> AUTH=a+3Db", "250 ");
    expect(&mut session, "AUTH PLAIN", "503 5.5.1 Error: MAIL");
    let mut session = self::session(true, false);
    expect(&mut session, "EHLO x", "250-");
    expect(&mut session, "auth plain", "334 \r\n");
    expect(&mut session, &plain("hunt", "secret"), "235 2.7.0 ");
    assert_eq!((session.protocol(), session.user()), ("ESMTPA", Some("hunt")));
    expect(&mut session, "AUTH PLAIN", "503 5.5.1 Error: already");
    // EHLO and RSET forget no login; TLS does.
    expect(&mut session, "RSET", "250 ");
    expect(&mut session, "EHLO x", "250-");
    assert_eq!(session.user(), Some("hunt"));
    session.offer_tls();
    expect(&mut session, "STARTTLS", "220 ");
    assert_eq!(session.user(), None);
}

#[test]
fn an_exchange_that_goes_wrong_has_the_code_of_its_kind() {
    let long = "x".repeat(2100);
    for (lines, code) in [
        (&["AUTH CRAM-MD5"][..], "504 5.5.4 "),
        (&["AUTH EXTERNAL ="], "504 5.5.4 "),
        (&["AUTH SCRAM-SHA-256-PLUS"], "504 5.5.4 "),
        (&["AUTH PLAIN ="], "501 5.5.2 "),
        (&["AUTH PLAIN", "*"], "501 5.7.0 "),
        (&["AUTH LOGIN", "*"], "501 5.7.0 "),
        (&["AUTH PLAIN", "no base64"], "501 5.5.2 "),
        (&["AUTH PLAIN", ""], "501 5.5.2 "),
        (&["AUTH PLAIN", &long], "500 5.5.6 "),
        (&["AUTH LOGIN", "aHVudA==", "eA=="], "535 5.7.8 "),
        (&["AUTH LOGIN bGF0ZXI=", "eA=="], "454 4.7.0 "),
        (&["AUTH SCRAM-SHA-256 biwsbj11c2VyLHI9YWJj", "*"], "501 5.7.0 "),
    ] {
        let mut session = session(true, false);
        expect(&mut session, "EHLO x", "250-");
        let (last, first) = lines.split_last().unwrap();
        for line in first {
            expect(&mut session, line, "334 ");
        }
        expect(&mut session, last, code);
        assert_eq!(session.user(), None);
        // The next line is a command again.
        expect(&mut session, "NOOP", "250 ");
    }
}

#[test]
fn three_failures_end_the_session() {
    let mut session = session(true, false);
    expect(&mut session, "EHLO x", "250-");
    let wrong = format!("AUTH PLAIN {}", plain("hunt", "wrong"));
    expect(&mut session, &wrong, "535 5.7.8 ");
    expect(&mut session, &wrong, "535 5.7.8 ");
    assert!(say(&mut session, &wrong).contains("\r\n421 4.7.0 "));
    assert_eq!(session.step(&mut &b"NOOP\r\n"[..]), Action::Close);
}

#[test]
fn where_a_login_is_required_nothing_else_is_done_before_it() {
    let mut session = session(true, true);
    expect(&mut session, "EHLO x", "250-");
    for line in ["MAIL FROM:<a@b>", "VRFY a", "EXPN a"] {
        expect(&mut session, line, "530 5.7.0 ");
    }
    for line in ["NOOP", "RSET"] {
        expect(&mut session, line, "250 ");
    }
    expect(&mut session, &format!("AUTH PLAIN {}", plain("hunt", "secret")), "235 ");
    expect(&mut session, "MAIL FROM:<a@b>", "250 ");
}

#[test]
fn a_chunk_before_a_login_is_refused_and_its_bytes_are_no_commands() {
    let mut session = Session::new(Dialect::Smtp, "here", "here", LIMITS, true);
    session.offer_login(Login { without_tls: true, required: true, facts: Facts::default() });
    say(&mut session, "EHLO x");
    let replies = say(&mut session, "BDAT 8 LAST\r\nFOO\r\nBARNOOP");
    assert_eq!(codes(&replies), ["530", "250"], "{replies}");
    assert_eq!(codes(&say(&mut session, "BDAT 0\r\nNOOP")), ["530", "250"]);
}

#[test]
fn a_password_sent_before_its_turn_ends_a_strict_session() {
    for input in ["AUTH PLAIN\r\nAGh1bnQAc2VjcmV0\r\n", "AUTH LOGIN\r\naHVudA==\r\neA==\r\n"] {
        let mut session = Session::new(Dialect::Smtp, "here", "here", LIMITS, true);
        session.offer_login(Login { without_tls: true, required: false, facts: Facts::default() });
        say(&mut session, "EHLO x");
        session.output.clear();
        let mut input = input.as_bytes();
        assert_eq!(session.step(&mut input), Action::Close);
        assert!(String::from_utf8_lossy(&session.output).starts_with("503 5.5.0 "));
    }
}

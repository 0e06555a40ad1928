//! Transcripts of the state before login.

use base64ct::{Base64, Encoding};

use super::{Action, Reason, Session};
use crate::sasl::{self, Answer, Keys, Mechanism, Question, Secret, Terms, Tls, scram};

/// A session whose only password is `hunt`'s, as the client sees it: all that was sent, and what
/// came last.
struct Client {
    session: Session,
    heard: String,
    end: Option<Action>,
    asked: Vec<Question>,
}

fn terms(tls: Tls, plaintext_allowed: bool) -> Terms {
    let sasl = sasl::Facts::default();
    Terms { hostname: "mx.smkwlab.net".into(), tls, plaintext_allowed, sasl }
}

impl Client {
    fn connect(terms: Terms) -> Self {
        let mut client = Self {
            session: Session::new(terms),
            heard: String::new(),
            end: None,
            asked: Vec::new(),
        };
        let greeting = client.say("");
        assert!(greeting.starts_with("* OK [CAPABILITY IMAP4rev1 "), "{greeting}");
        client
    }

    fn local() -> Self {
        Self::connect(terms(Tls::Unknown, true))
    }

    /// Says something; what was heard since the last time.
    fn say(&mut self, bytes: impl AsRef<[u8]>) -> String {
        self.session.push(bytes.as_ref());
        self.hear()
    }

    fn hear(&mut self) -> String {
        while let Some(action) = self.session.next() {
            match action {
                Action::Send(bytes) => self.heard += &String::from_utf8(bytes).unwrap(),
                Action::Authenticate(_, question) => {
                    assert!(self.session.next().is_none(), "nothing happens before the answer");
                    self.asked.push(question.clone());
                    self.session.answer(answer(&question));
                }
                end => {
                    assert!(self.end.is_none(), "{end:?}");
                    self.end = Some(end);
                }
            }
        }
        std::mem::take(&mut self.heard)
    }

    fn logged_in(&self) -> (&str, Mechanism, &str, &[u8]) {
        match &self.end {
            Some(Action::LoggedIn { user, mechanism, tag, leftover }) => {
                (user, *mechanism, tag, leftover)
            }
            other => panic!("{other:?}"),
        }
    }
}

fn answer(question: &Question) -> Answer {
    match question {
        Question::Password { user, password: Secret(password) } => {
            match (user.as_str(), password.as_slice()) {
                ("hunt", b"Watts?Watt?") => Answer::Accepted,
                ("later", _) => Answer::Unavailable,
                _ => Answer::Refused,
            }
        }
        Question::Salt { .. } | Question::Proof(_) => Answer::Unavailable,
        Question::Proven(is_own) => {
            if *is_own {
                Answer::Accepted
            } else {
                Answer::Refused
            }
        }
    }
}

fn base64(text: &str) -> String {
    Base64::encode_string(text.as_bytes())
}

const WRONG: &str = "NO [AUTHENTICATIONFAILED] wrong name or password\r\n";

#[test]
fn the_lecture_logs_in() {
    let mut client = Client::local();
    assert_eq!(client.say("a001 login hunt Watts?Watt?\r\n"), "");
    assert_eq!(client.logged_in(), ("hunt", Mechanism::Login, "a001", &b""[..]));
    assert_eq!(client.say("a002 NOOP\r\n"), "", "it is over");
}

#[test]
fn names_and_passwords_may_be_literals_that_are_asked_for() {
    let mut client = Client::local();
    assert_eq!(client.say("A001 LOGIN {4}\r\n"), "+ go on\r\n");
    assert_eq!(client.say("hunt {11}\r\n"), "+ go on\r\n");
    assert_eq!(client.say("Watts?Watt?\r\nA002 SELECT INBOX\r\n"), "");
    assert_eq!(
        client.logged_in(),
        ("hunt", Mechanism::Login, "A001", &b"A002 SELECT INBOX\r\n"[..])
    );

    let mut client = Client::local();
    assert_eq!(client.say("A001 LOGIN {4+}\r\nhunt {11+}\r\nWatts?Watt?\r\n"), "");
    assert_eq!(client.logged_in().0, "hunt");
}

#[test]
fn a_command_is_understood_whatever_the_reads_are() {
    let mut client = Client::local();
    for byte in "a NOOP\r\nb LOGIN {4+}\r\nhunt \"Watts?Watt?\"\r".bytes() {
        client.say([byte]);
    }
    assert!(client.asked.is_empty());
    client.say("\n");
    assert_eq!(client.logged_in().2, "b");
}

#[test]
fn what_is_pipelined_behind_the_login_is_handed_over_unread() {
    let mut client = Client::local();
    let behind = "c LIST \"\" *\r\nFOO\r\nBAR\r\nBAZ\r\nd SELECT {5}\r\nIN";
    client.say(format!("a CAPABILITY\r\nb LOGIN hunt Watts?Watt?\r\n{behind}"));
    assert_eq!(client.logged_in().3, behind.as_bytes());
}

#[test]
fn mechanisms_go_on_for_as_long_as_they_need() {
    let plain = base64("\0hunt\0Watts?Watt?");
    let mut client = Client::local();
    assert_eq!(client.say(format!("a AUTHENTICATE PLAIN {plain}\r\n")), "");
    assert_eq!(client.logged_in(), ("hunt", Mechanism::Plain, "a", &b""[..]));

    let mut client = Client::local();
    assert_eq!(client.say("a authenticate plain\r\n"), "+ \r\n");
    assert_eq!(client.say(format!("{plain}\r\nb NOOP\r\n")), "");
    assert_eq!(client.logged_in(), ("hunt", Mechanism::Plain, "a", &b"b NOOP\r\n"[..]));

    let mut client = Client::local();
    assert_eq!(client.say("a AUTHENTICATE LOGIN\r\n"), format!("+ {}\r\n", base64("Username:")));
    let challenge = client.say(format!("{}\r\n", base64("hunt")));
    assert_eq!(challenge, format!("+ {}\r\n", base64("Password:")));
    assert_eq!(client.say(format!("{}\r\n", base64("Watts?Watt?"))), "");
    assert_eq!(client.logged_in().1, Mechanism::Login);
}

#[test]
fn scram_is_offered_where_there_are_keys_and_asks_for_them() {
    let sasl = sasl::Facts { scram: vec![scram::Hash::Sha256], ..sasl::Facts::default() };
    let mut session = Session::new(Terms { sasl, ..terms(Tls::Unknown, true) });
    let greeting = session.next();
    assert!(format!("{greeting:?}").contains("Send"), "{greeting:?}");
    let first = base64("n,,n=user,r=rOprNGfwEbeRWgbNEkqO");
    session.push(format!("a AUTHENTICATE SCRAM-SHA-256 {first}\r\n").as_bytes());
    let hash = scram::Hash::Sha256;
    let question = Question::Salt { user: "user".into(), hash };
    assert_eq!(session.next(), Some(Action::Authenticate(Mechanism::ScramSha256, question)));
    // RFC 7677 section 3.
    let salt = Base64::decode_vec("W22ZaJ0SNY7soEsUEjb6gQ==").unwrap();
    let rounds = std::num::NonZeroU32::new(4096).unwrap();
    let keys = Keys::derive(hash, rounds, &salt, b"pencil");
    let ours = "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
    session.answer(Answer::Salt(keys.salt(ours.into())));
    let wanted = base64(
        "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096",
    );
    assert_eq!(session.next(), Some(Action::Send(format!("+ {wanted}\r\n").into())));
    let last = base64(
        "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=",
    );
    session.push(format!("{last}\r\n").as_bytes());
    let Some(Action::Authenticate(_, Question::Proof(proof))) = session.next() else { panic!() };
    session.answer(Answer::Signature(keys.check(&proof, ours).unwrap()));
    let wanted = base64("v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=");
    assert_eq!(session.next(), Some(Action::Send(format!("+ {wanted}\r\n").into())));
    session.push(b"\r\n");
    let Some(Action::LoggedIn { user, .. }) = session.next() else { panic!() };
    assert_eq!(user, "user");
}

#[test]
fn an_exchange_can_be_cancelled_and_goes_wrong_in_words() {
    let mut client = Client::local();
    assert_eq!(
        client.say("a AUTHENTICATE PLAIN\r\n*\r\n"),
        "+ \r\na BAD authentication cancelled\r\n"
    );
    assert_eq!(client.say("b NOOP\r\n"), "b OK nothing done\r\n");
    let heard = client.say("c AUTHENTICATE PLAIN\r\nnonsense!\r\n");
    assert_eq!(heard, "+ \r\nc BAD base64 is wanted\r\n");
    let heard = client.say(format!("d AUTHENTICATE PLAIN {}\r\n", base64("x")));
    assert_eq!(heard, "d BAD a response of this mechanism is wanted\r\n");
    assert_eq!(client.end, None);
    let heard = client.say(format!("e AUTHENTICATE PLAIN\r\n{}\r\n", "x".repeat(3000)));
    assert!(heard.starts_with("+ \r\ne BAD a shorter response is wanted\r\n* BYE"), "{heard}");
    assert_eq!(client.end, Some(Action::Close(Reason::BadCommands)));
}

#[test]
fn mechanisms_that_are_not_there_are_refused() {
    let mut client = Client::local();
    for name in ["GSSAPI", "SCRAM-SHA-256", "EXTERNAL"] {
        let heard = client.say(format!("a AUTHENTICATE {name}\r\n"));
        assert_eq!(heard, "a NO [CANNOT] there is no such mechanism here\r\n");
    }
    assert_eq!(client.end, None, "clients try");
}

#[test]
fn a_wrong_password_and_an_unknown_user_sound_the_same_and_the_third_ends() {
    let mut client = Client::local();
    assert_eq!(client.say("a LOGIN hunt x\r\n"), format!("a {WRONG}"));
    assert_eq!(client.say("b LOGIN nobody x\r\n"), format!("b {WRONG}"));
    assert_eq!(client.end, None);
    let heard = client.say("c LOGIN \"\" \"\"\r\nd NOOP\r\n");
    assert_eq!(heard, format!("c {WRONG}* BYE too many failures\r\n"));
    assert_eq!(client.end, Some(Action::Close(Reason::Failures)));
    assert_eq!(client.asked.len(), 2, "nobody has no name");
}

#[test]
fn trouble_with_the_password_file_is_temporary_and_no_failure() {
    let mut client = Client::local();
    for _ in 0..5 {
        let heard = client.say("a LOGIN later x\r\n");
        assert!(heard.starts_with("a NO [UNAVAILABLE] "), "{heard}");
    }
    assert_eq!(client.end, None);
}

#[test]
fn without_encryption_nobody_logs_in_unless_it_is_allowed() {
    let mut client = Client::connect(terms(Tls::Offered, false));
    let heard = client.say("a CAPABILITY\r\n");
    assert!(heard.contains(" STARTTLS LOGINDISABLED\r\n"), "{heard}");
    assert!(!heard.contains("AUTH="), "{heard}");
    for command in ["LOGIN hunt Watts?Watt?", "AUTHENTICATE PLAIN", "AUTHENTICATE PLAIN ="] {
        let heard = client.say(format!("b {command}\r\n"));
        assert!(heard.starts_with("b NO [PRIVACYREQUIRED] "), "{heard}");
    }
    assert!(client.asked.is_empty() && client.end.is_none());
}

#[test]
fn tls_begins_and_what_was_said_before_is_forgotten() {
    let identity = Some("hunt".to_owned());
    let mut client = Client::connect(terms(Tls::Offered, false));
    client.say("a LOGIN x y\r\n");
    assert_eq!(client.say("b STARTTLS\r\n"), "b OK begin TLS now\r\n");
    assert_eq!(client.end.take(), Some(Action::StartTls));
    client.session.encrypted(Vec::new(), identity.clone());
    let heard = client.say("c CAPABILITY\r\n");
    assert!(heard.contains(" AUTH=EXTERNAL AUTH=PLAIN AUTH=LOGIN\r\n"), "{heard}");
    assert!(!heard.contains("STARTTLS") && !heard.contains("LOGINDISABLED"), "{heard}");
    assert_eq!(client.say("d STARTTLS\r\n"), "d BAD TLS is on already\r\n");
    assert_eq!(client.say("e AUTHENTICATE EXTERNAL =\r\n"), "");
    assert_eq!(client.logged_in(), ("hunt", Mechanism::External, "e", &b""[..]));

    // It was on from the start.
    let mut session = Session::new(terms(Tls::On, false));
    session.encrypted(Vec::new(), identity);
    let greeting = session.next();
    assert!(matches!(greeting, Some(Action::Send(bytes)) if bytes.ends_with(b"ready\r\n")));

    let mut client = Client::local();
    assert_eq!(client.say("a STARTTLS\r\n"), "a BAD TLS is not offered here\r\n");
}

#[test]
fn input_behind_starttls_ends_the_session() {
    let bye = "* BYE input came before TLS\r\n";
    for behind in ["b LOGIN a b\r\n", "b", "\r\n"] {
        let mut client = Client::connect(terms(Tls::Offered, true));
        assert_eq!(client.say(format!("a STARTTLS\r\n{behind}")), bye);
        assert_eq!(client.end, Some(Action::Close(Reason::Injection)));
    }
    let mut session = Session::new(terms(Tls::Offered, true));
    session.push(b"a STARTTLS\r\n");
    assert!(matches!(session.next(), Some(Action::Send(_))), "the greeting");
    assert!(matches!(session.next(), Some(Action::Send(_))));
    session.push(b"b");
    assert_eq!(session.next(), Some(Action::Send(bye.into())));
    assert_eq!(session.next(), Some(Action::Close(Reason::Injection)));
    session.encrypted(Vec::new(), None);
    session.push(b"a NOOP\r\n");
    assert_eq!(session.next(), None);
}

#[test]
fn what_needs_no_login_is_answered() {
    let mut client = Client::local();
    let heard = client.say("a CAPABILITY\r\n");
    for word in ["IMAP4rev1", "IMAP4rev2", "SASL-IR", "LITERAL+", "ID", "AUTH=PLAIN"] {
        assert!(heard.contains(&format!(" {word} ")), "{word}: {heard}");
    }
    assert!(heard.starts_with("* CAPABILITY ") && heard.contains("\r\na OK "), "{heard}");
    let heard = client.say("b ID (\"name\" \"x\")\r\n");
    assert!(heard.starts_with("* ID (\"name\" \"Hikyaku\")\r\nb OK "), "{heard}");
    assert_eq!(client.say("c noop\n"), "c OK nothing done\r\n");
    assert_eq!(client.say("d LOGOUT\r\ne NOOP\r\n"), "* BYE bye\r\nd OK logged out\r\n");
    assert_eq!(client.end, Some(Action::Close(Reason::Logout)));
}

#[test]
fn three_bad_commands_end_the_session() {
    let mut client = Client::local();
    assert_eq!(client.say("GET / HTTP/1.1\r\n"), "GET BAD unknown command\r\n");
    assert_eq!(client.say("a SELECT {5}\r\n"), "a BAD log in first\r\n");
    assert_eq!(client.end, None);
    let heard = client.say("\r\n");
    assert_eq!(heard, "* BAD a tag and a command is wanted\r\n* BYE too many bad commands\r\n");
    assert_eq!(client.end, Some(Action::Close(Reason::BadCommands)));
}

#[test]
fn a_literal_of_a_command_that_is_refused_is_no_command() {
    let mut client = Client::local();
    let heard = client.say("a SELECT {10+}\r\nb LOGOUT\r\n\r\nc NOOP\r\n");
    assert_eq!(heard, "a BAD log in first\r\nc OK nothing done\r\n");
    let long = "x".repeat(5000);
    let heard = client.say(format!("d LOGIN {long} {{10+}}\r\ne LOGOUT\r\n\r\nf NOOP\r\n"));
    assert_eq!(heard, "d BAD a shorter command is wanted\r\nf OK nothing done\r\n");
    let heard = client.say("g LOGIN {5000}\r\n");
    assert!(heard.starts_with("g BAD a shorter literal is wanted\r\n* BYE"), "{heard}");
}

#[test]
fn input_and_commands_before_login_are_bounded() {
    let mut client = Client::local();
    client.say(vec![b'x'; 8 * 1024 + 1]);
    assert_eq!(client.end, Some(Action::Close(Reason::TooMuch)));

    for announced in ["a LOGIN {4097+}\r\n", "a FOO {1000000000000+}\r\n"] {
        let mut client = Client::local();
        let heard = client.say(announced);
        assert_eq!(heard, "* BYE too much at once\r\n");
        assert_eq!(client.end, Some(Action::Close(Reason::TooMuch)));
    }

    let mut client = Client::local();
    for _ in 0..51 {
        client.say("a NOOP\r\n");
    }
    assert_eq!(client.end, Some(Action::Close(Reason::TooMuch)));

    // Challenges are commands, too.
    let mut client = Client::local();
    for _ in 0..26 {
        client.say("a AUTHENTICATE PLAIN\r\n*\r\n");
    }
    assert_eq!(client.end, Some(Action::Close(Reason::TooMuch)));
}

//! Transcripts of the AUTHORIZATION state.

use base64ct::{Base64, Encoding};

use super::{Action, Reason, Session};
use crate::sasl::{self, Answer, Binding, Keys, Mechanism, Question, Secret, Terms, Tls, scram};

/// A session whose only password is `hunt`'s, as the client sees it: all that was sent, and what
/// came last.
struct Client {
    session: Session,
    heard: String,
    end: Option<Action>,
    asked: Vec<(String, Vec<u8>)>,
}

fn terms(tls: Tls, plaintext_allowed: bool) -> Terms {
    let sasl = sasl::Facts::default();
    Terms { hostname: "mx.smkwlab.net".into(), tls, plaintext_allowed, sasl }
}

impl Client {
    fn connect(plaintext_allowed: bool) -> Self {
        Self::with(terms(Tls::Unknown, plaintext_allowed))
    }

    fn with(terms: Terms) -> Self {
        let mut client = Self {
            session: Session::new(terms),
            heard: String::new(),
            end: None,
            asked: Vec::new(),
        };
        client.say("");
        client
    }

    /// Says something; what was heard since the last time.
    fn say(&mut self, bytes: impl AsRef<[u8]>) -> String {
        self.session.push(bytes.as_ref());
        while let Some(action) = self.session.next() {
            match action {
                Action::Send(bytes) => self.heard += &String::from_utf8(bytes).unwrap(),
                Action::Authenticate(_, question) => {
                    assert!(self.session.next().is_none(), "nothing happens before the answer");
                    let Question::Password { user, password: Secret(password) } = question else {
                        panic!("{question:?}");
                    };
                    let answer = match (user.as_str(), password.as_slice()) {
                        ("hunt", b"Watts?Watt?") => Answer::Accepted,
                        ("later", _) => Answer::Unavailable,
                        _ => Answer::Refused,
                    };
                    self.asked.push((user, password));
                    self.session.answer(answer);
                }
                end => self.end = Some(end),
            }
        }
        std::mem::take(&mut self.heard)
    }
}

fn base64(text: &str) -> String {
    Base64::encode_string(text.as_bytes())
}

#[test]
fn the_lecture_logs_in() {
    let mut client = Client::connect(true);
    assert_eq!(client.say("user hunt\r\n"), "+OK now the password\r\n");
    assert_eq!(client.say("pass Watts?Watt?\r\n"), "");
    assert_eq!(client.end, Some(Action::LoggedIn { leftover: Vec::new() }));
}

#[test]
fn what_is_pipelined_behind_the_password_is_handed_over_unread() {
    let mut client = Client::connect(true);
    let behind = "STAT\r\nFOO\r\nBAR\r\nBAZ\r\nRETR ";
    client.say(format!("CAPA\r\nUSER hunt\r\nPASS Watts?Watt?\r\n{behind}"));
    let leftover = behind.as_bytes().to_vec();
    assert_eq!(client.end, Some(Action::LoggedIn { leftover }));
    assert_eq!(client.say("QUIT\r\n"), "", "it is over");
}

#[test]
fn a_command_is_understood_whatever_the_reads_are() {
    let mut client = Client::connect(true);
    for byte in "USER hunt\r\nPASS Watts?Watt?\r".bytes() {
        client.say([byte]);
    }
    assert!(client.asked.is_empty());
    client.say("\n");
    assert_eq!(client.asked, [("hunt".to_owned(), b"Watts?Watt?".to_vec())]);
}

#[test]
fn greeting_comes_first_and_quit_ends() {
    let mut session = Session::new(terms(Tls::Unknown, true));
    let greeting = b"+OK mx.smkwlab.net POP3 server ready\r\n".to_vec();
    assert_eq!(session.next(), Some(Action::Send(greeting)));
    assert_eq!(session.next(), None);
    session.push(b"quit\nSTAT\r\n");
    assert_eq!(session.next(), Some(Action::Send(b"+OK bye\r\n".to_vec())));
    assert_eq!(session.next(), Some(Action::Close(Reason::Quit)));
    assert_eq!(session.next(), None);
}

#[test]
fn a_wrong_password_and_an_unknown_user_sound_the_same_and_the_third_ends() {
    let mut client = Client::connect(true);
    let wrong = "-ERR [AUTH] wrong name or password\r\n";
    for user in ["hunt", "nobody"] {
        assert_eq!(client.say(format!("USER {user}\r\n")), "+OK now the password\r\n");
        assert_eq!(client.say("PASS x\r\n"), wrong);
        assert_eq!(client.end, None);
    }
    assert_eq!(
        client.say("USER hunt\r\nPASS y\r\nUSER hunt\r\n"),
        format!("+OK now the password\r\n{wrong}")
    );
    assert_eq!(client.end, Some(Action::Close(Reason::Failures)));
}

#[test]
fn trouble_with_the_password_file_is_temporary_and_no_failure() {
    let mut client = Client::connect(true);
    for _ in 0..4 {
        let heard = client.say("USER later\r\nPASS x\r\n");
        assert!(heard.contains("-ERR [SYS/TEMP]"), "{heard}");
    }
    assert_eq!(client.end, None);
}

#[test]
fn each_password_wants_its_name_first() {
    let mut client = Client::connect(true);
    assert_eq!(client.say("PASS x\r\n"), "-ERR USER comes first\r\n");
    client.say("USER hunt\r\nPASS x\r\n");
    assert_eq!(client.say("PASS Watts?Watt?\r\n"), "-ERR USER comes first\r\n");
}

#[test]
fn three_bad_commands_end_the_session() {
    let mut client = Client::connect(true);
    assert_eq!(client.say("GET / HTTP/1.1\r\n"), "-ERR unknown command\r\n");
    assert_eq!(client.say("STAT\r\n"), "-ERR log in first\r\n");
    assert_eq!(client.end, None);
    client.say(format!("{}\r\n", "x".repeat(10_000 - 2_000)));
    assert_eq!(client.end, Some(Action::Close(Reason::BadCommands)));
}

#[test]
fn without_permission_no_password_is_taken_and_capa_has_no_user() {
    let mut client = Client::connect(false);
    let heard = client.say("CAPA\r\nUSER hunt\r\nPASS Watts?Watt?\r\n");
    assert!(!heard.contains("USER\r\n"), "{heard}");
    assert_eq!(heard.matches("-ERR [AUTH]").count(), 2, "{heard}");
    assert!(!heard.contains("SASL"), "{heard}");
    let heard = client.say(format!("AUTH PLAIN {}\r\nAUTH\r\n", base64("\0hunt\0Watts?Watt?")));
    assert!(heard.starts_with("-ERR [AUTH]") && heard.ends_with("+OK mechanisms\r\n.\r\n"));
    assert!(client.asked.is_empty());
}

#[test]
fn capa_names_what_is_there() {
    let heard = Client::connect(true).say("CAPA\r\n");
    assert!(heard.starts_with("+OK ") && heard.ends_with("\r\n.\r\n"), "{heard}");
    for line in
        ["USER", "SASL PLAIN LOGIN", "TOP", "UIDL", "RESP-CODES", "AUTH-RESP-CODE", "PIPELINING"]
    {
        assert!(heard.contains(&format!("\r\n{line}\r\n")), "{line}");
    }
}

#[test]
fn input_and_commands_before_login_are_bounded() {
    let mut client = Client::connect(true);
    client.say(vec![b'x'; 8 * 1024 + 1]);
    assert_eq!(client.end, Some(Action::Close(Reason::TooMuch)));

    let mut client = Client::connect(true);
    for _ in 0..51 {
        client.say("USER hunt\r\n");
    }
    assert_eq!(client.end, Some(Action::Close(Reason::TooMuch)));

    let mut client = Client::connect(true);
    let heard = client.say(format!("USER {}\r\n", "x".repeat(65)));
    assert!(heard.starts_with("-ERR a name"), "{heard}");
    client.say("USER hunt\r\n");
    let heard = client.say(format!("PASS {}\r\n", "x".repeat(257)));
    assert!(heard.starts_with("-ERR a password"), "{heard}");
    assert!(client.asked.is_empty());
}

#[test]
fn plain_and_login_log_in_by_auth() {
    let logged_in = Some(Action::LoggedIn { leftover: Vec::new() });
    let plain = base64("\0hunt\0Watts?Watt?");
    let mut client = Client::connect(true);
    assert_eq!(client.say(format!("AUTH PLAIN {plain}\r\n")), "");
    assert_eq!(client.end, logged_in);

    // RFC 5034 section 4: the client waits for an empty challenge.
    let mut client = Client::connect(true);
    assert_eq!(client.say("auth plain\r\n"), "+ \r\n");
    assert_eq!(client.say(format!("{plain}\r\nSTAT\r\n")), "");
    assert_eq!(client.end, Some(Action::LoggedIn { leftover: b"STAT\r\n".to_vec() }));

    let mut client = Client::connect(true);
    assert_eq!(client.say("AUTH LOGIN\r\n"), format!("+ {}\r\n", base64("Username:")));
    let heard = client.say(format!("{}\r\n", base64("hunt")));
    assert_eq!(heard, format!("+ {}\r\n", base64("Password:")));
    client.say(format!("{}\r\n", base64("Watts?Watt?")));
    assert_eq!(client.end, logged_in);
}

#[test]
fn scram_proves_both_sides() {
    // RFC 7677 section 3.
    let sasl = sasl::Facts { scram: vec![scram::Hash::Sha256], ..sasl::Facts::default() };
    let mut session = Session::new(Terms { sasl, ..terms(Tls::Unknown, true) });
    session.next();
    let first = base64("n,,n=user,r=rOprNGfwEbeRWgbNEkqO");
    session.push(format!("AUTH SCRAM-SHA-256 {first}\r\n").as_bytes());
    let hash = scram::Hash::Sha256;
    let question = Question::Salt { user: "user".into(), hash };
    assert_eq!(session.next(), Some(Action::Authenticate(Mechanism::ScramSha256, question)));
    let salt = Base64::decode_vec("W22ZaJ0SNY7soEsUEjb6gQ==").unwrap();
    let keys = Keys::derive(hash, std::num::NonZeroU32::new(4096).unwrap(), &salt, b"pencil");
    let ours = "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
    session.answer(Answer::Salt(keys.salt(ours.into())));
    assert!(matches!(session.next(), Some(Action::Send(_))));
    let last = "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
                p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";
    session.push(format!("{}\r\n", base64(last)).as_bytes());
    let Some(Action::Authenticate(_, Question::Proof(proof))) = session.next() else { panic!() };
    session.answer(Answer::Signature(keys.check(&proof, ours).unwrap()));
    let wanted = base64("v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=");
    assert_eq!(session.next(), Some(Action::Send(format!("+ {wanted}\r\n").into())));
    session.push(b"\r\n");
    assert_eq!(session.next(), Some(Action::LoggedIn { leftover: Vec::new() }));
}

#[test]
fn an_exchange_can_be_cancelled_and_goes_wrong_in_words() {
    let mut client = Client::connect(true);
    let heard = client.say("AUTH PLAIN\r\n*\r\n");
    assert_eq!(heard, "+ \r\n-ERR authentication cancelled\r\n");
    assert_eq!(client.say("AUTH CRAM-MD5\r\n"), "-ERR there is no such mechanism here\r\n");
    assert_eq!(client.say("AUTH EXTERNAL =\r\n"), "-ERR there is no such mechanism here\r\n");
    assert_eq!(client.say("AUTH PLAIN nonsense!\r\n"), "-ERR base64 is wanted\r\n");
    assert_eq!(client.end, None);
    let heard = client.say(format!("AUTH PLAIN {}\r\n", base64("x")));
    assert!(heard.starts_with("-ERR that is no response"), "{heard}");
    assert_eq!(client.end, Some(Action::Close(Reason::BadCommands)));

    let mut client = Client::connect(true);
    let wrong = base64("\0hunt\0wrong");
    for _ in 0..3 {
        let heard = client.say(format!("AUTH PLAIN {wrong}\r\n"));
        assert_eq!(heard, "-ERR [AUTH] wrong name or password\r\n");
    }
    assert_eq!(client.end, Some(Action::Close(Reason::Failures)));
}

#[test]
fn stls_lets_passwords_be_taken_and_forgets_the_name() {
    let mut client = Client::with(terms(Tls::Offered, true));
    assert!(client.say("CAPA\r\n").contains("\r\nSTLS\r\n"));
    client.say("USER hunt\r\n");
    assert_eq!(client.say("STLS\r\n"), "+OK begin TLS now\r\n");
    assert_eq!(client.end.take(), Some(Action::StartTls));
    let data = b"connection".to_vec();
    client.session.encrypted(vec![Binding { name: "tls-exporter", data }]);
    assert_eq!(client.say("PASS Watts?Watt?\r\n"), "-ERR USER comes first\r\n");
    assert!(!client.say("CAPA\r\n").contains("STLS"));
    assert_eq!(client.say("STLS\r\n"), "-ERR TLS is on already\r\n");
    client.say("USER hunt\r\nPASS Watts?Watt?\r\n");
    assert_eq!(client.end, Some(Action::LoggedIn { leftover: Vec::new() }));

    let mut client = Client::with(terms(Tls::Offered, false));
    assert!(client.say("USER hunt\r\n").starts_with("-ERR [AUTH]"));
    assert_eq!(Client::connect(true).say("STLS\r\n"), "-ERR not offered here\r\n");
}

#[test]
fn what_comes_behind_stls_in_the_clear_ends_the_session() {
    let mut client = Client::with(terms(Tls::Offered, false));
    assert_eq!(client.say("STLS\r\nUSER hunt\r\n"), "-ERR input came before TLS\r\n");
    assert_eq!(client.end, Some(Action::Close(Reason::Injection)));
    // Also where it comes a moment later.
    let mut client = Client::with(terms(Tls::Offered, false));
    client.session.push(b"STLS\r\n");
    assert!(matches!(client.session.next(), Some(Action::Send(_))));
    client.session.push(b"U");
    assert_eq!(client.say(""), "-ERR input came before TLS\r\n");
    assert_eq!(client.end, Some(Action::Close(Reason::Injection)));
}

//! Transcripts of the AUTHORIZATION state.

use super::{Action, Answer, Facts, Reason, Session};

/// A session whose only password is `hunt`'s, as the client sees it: all that was sent, and what
/// came last.
struct Client {
    session: Session,
    heard: String,
    end: Option<Action>,
    asked: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Client {
    fn connect(plaintext_allowed: bool) -> Self {
        let facts = Facts { hostname: "mx.smkwlab.net".into(), plaintext_allowed };
        let mut client = Self {
            session: Session::new(facts),
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
                Action::Authenticate { user, password } => {
                    assert!(self.session.next().is_none(), "nothing happens before the answer");
                    let answer = match (user.as_slice(), password.0.as_slice()) {
                        (b"hunt", b"Watts?Watt?") => Answer::Accepted,
                        (b"later", _) => Answer::Unavailable,
                        _ => Answer::Refused,
                    };
                    self.asked.push((user, password.0));
                    self.session.answer(answer);
                }
                end => self.end = Some(end),
            }
        }
        std::mem::take(&mut self.heard)
    }
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
    assert_eq!(client.asked, [(b"hunt".to_vec(), b"Watts?Watt?".to_vec())]);
}

#[test]
fn greeting_comes_first_and_quit_ends() {
    let facts = Facts { hostname: "mx.smkwlab.net".into(), plaintext_allowed: true };
    let mut session = Session::new(facts);
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
    assert!(client.asked.is_empty());
}

#[test]
fn capa_names_what_is_there() {
    let heard = Client::connect(true).say("CAPA\r\n");
    assert!(heard.starts_with("+OK ") && heard.ends_with("\r\n.\r\n"), "{heard}");
    for line in ["USER", "TOP", "UIDL", "RESP-CODES", "AUTH-RESP-CODE", "PIPELINING"] {
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

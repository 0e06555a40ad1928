//! The examples of the RFCs, each rule good and bad, and what is too much.

use super::*;

mod mailboxes;
mod messages;

const UTF8: Dialect = Dialect { utf8: true };

fn parse(text: impl AsRef<[u8]>) -> Result<Command, Error> {
    let tagged = super::parse(&[b"a1 ", text.as_ref()].concat(), Dialect::default());
    tagged.map(|tagged| tagged.command).map_err(|failure| failure.error)
}

#[track_caller]
fn wrong(texts: &[&str]) {
    for text in texts {
        let found = parse(text);
        assert!(matches!(found, Err(Error::Wanted(_))), "{text:?}: {found:?}");
    }
}

fn set(ranges: &[(u32, u32)]) -> SequenceSet {
    let number = |number| if number == 0 { Number::Largest } else { Number::Is(number) };
    SequenceSet::Ranges(ranges.iter().map(|(a, b)| (number(*a), number(*b))).collect())
}

#[test]
fn a_command_has_a_tag_and_a_name() {
    for text in ["A001 NOOP", "1 noop", "a.b]c!~ NoOp", "- NOOP   "] {
        let tagged = super::parse(text.as_bytes(), Dialect::default()).unwrap();
        assert_eq!(tagged.command, Command::Noop);
        assert_eq!(tagged.tag, text.split(' ').next().unwrap());
    }
    for (text, tag, error) in [
        ("", None, Error::Wanted("a tag and a command")),
        (" NOOP", None, Error::Wanted("a tag and a command")),
        ("+ NOOP", None, Error::Wanted("a tag and a command")),
        ("a+ NOOP", None, Error::Wanted("a tag and a command")),
        ("* NOOP", None, Error::Wanted("a tag and a command")),
        ("a\u{e4} NOOP", None, Error::Wanted("a tag and a command")),
        ("a", Some("a"), Error::Wanted("a command")),
        ("a ", Some("a"), Error::Unknown),
        ("a  NOOP", Some("a"), Error::Unknown),
        ("a NOOPS", Some("a"), Error::Unknown),
        ("a UID NOOP", Some("a"), Error::Unknown),
        ("a UID", Some("a"), Error::Wanted("a space and an argument")),
        ("a NOOP x", Some("a"), Error::Wanted("the end of the command")),
        ("a NOOP\0", Some("a"), Error::Wanted("the end of the command")),
        ("GET / HTTP/1.1", Some("GET"), Error::Unknown),
    ] {
        let failure = super::parse(text.as_bytes(), Dialect::default()).unwrap_err();
        assert_eq!(failure, Failure { tag: tag.map(str::to_owned), error }, "{text}");
    }
    assert_eq!(tag("a".repeat(256).as_bytes()), None);
    assert_eq!(tag(b"a1 x"), Some("a1".into()));
    assert_eq!(tag(b"a1(x"), None);
}

#[test]
fn commands_without_arguments() {
    for (text, command) in [
        ("CAPABILITY", Command::Capability),
        ("LOGOUT", Command::Logout),
        ("STARTTLS", Command::StartTls),
        ("NAMESPACE", Command::Namespace),
        ("IDLE", Command::Idle),
        ("CHECK", Command::Check),
        ("CLOSE", Command::Close),
        ("UNSELECT", Command::Unselect),
        ("EXPUNGE", Command::Expunge(None)),
    ] {
        assert_eq!(parse(text).as_ref(), Ok(&command));
        assert_eq!(parse(text.to_lowercase()), Ok(command));
        wrong(&[&format!("{text} 1"), &format!("{text}\r")]);
    }
}

#[test]
fn names_and_passwords_are_strings_of_any_kind() {
    let login = |user: &[u8], password: &[u8]| {
        Ok(Command::Login { user: user.into(), password: Secret(password.into()) })
    };
    assert_eq!(parse("LOGIN SMITH SESAME"), login(b"SMITH", b"SESAME"));
    assert_eq!(
        parse("LOGIN {11}\r\nFRED FOOBAR {7}\r\nfat man"),
        login(b"FRED FOOBAR", b"fat man")
    );
    assert_eq!(parse("login {1+}\r\n) {0+}\r\n"), login(b")", b""));
    assert_eq!(parse(r#"LOGIN "a\"b" "c\\d (*""#), login(b"a\"b", b"c\\d (*"));
    assert_eq!(parse(b"LOGIN x] \"\xe4\""), login(b"x]", b"\xe4"));
    assert_eq!(parse("LOGIN NIL \"\""), login(b"NIL", b""));
    assert_eq!(parse("LOGIN {3}\r\n"), Err(Error::More));
    assert_eq!(parse("LOGIN x {3}\r\nab"), Err(Error::More));
    wrong(&[
        "LOGIN",
        "LOGIN ",
        "LOGIN a",
        "LOGIN a ",
        "LOGIN  a b",
        "LOGIN a b c",
        "LOGIN a \"b",
        "LOGIN a \"b\\c\"",
        "LOGIN a \"b\\",
        "LOGIN a \"b\0\"",
        "LOGIN a \"b\rc\"",
        "LOGIN a b*",
        "LOGIN a \u{e4}",
        "LOGIN a {1}x",
        "LOGIN a {x}\r\n",
        "LOGIN a {1}\r\n\0",
        "LOGIN a ~{1}\r\nb",
        "LOGIN a {-1}\r\n",
        "LOGIN a {99999999999999999999}\r\n",
    ]);
    let shown = format!("{:?}", parse("LOGIN a secret"));
    assert!(!shown.contains("secret"), "{shown}");
}

#[test]
fn authenticate_may_have_an_initial_response() {
    let authenticate = |mechanism: &str, initial: Option<&[u8]>| {
        let initial = initial.map(|bytes| Secret(bytes.to_vec()));
        Ok(Command::Authenticate { mechanism: mechanism.into(), initial })
    };
    assert_eq!(parse("AUTHENTICATE KERBEROS_V4"), authenticate("KERBEROS_V4", None));
    assert_eq!(
        parse("AUTHENTICATE plain dGVzdAB0ZXN0AHRlc3Q="),
        authenticate("PLAIN", Some(b"test\0test\0test"))
    );
    assert_eq!(parse("AUTHENTICATE EXTERNAL ="), authenticate("EXTERNAL", Some(b"")));
    assert_eq!(parse("AUTHENTICATE PLAIN "), authenticate("PLAIN", None));
    wrong(&[
        "AUTHENTICATE",
        "AUTHENTICATE \"PLAIN\"",
        "AUTHENTICATE PLAIN dGVzdAB0ZXN0AHRlc3Q",
        "AUTHENTICATE PLAIN ==",
        "AUTHENTICATE PLAIN dGVz dA==",
    ]);
}

#[test]
fn before_login_other_commands_are_not_looked_at() {
    let before = |text: &str| {
        parse_before_login(text.as_bytes()).map(|t| t.command).map_err(|failure| failure.error)
    };
    assert_eq!(before("a NOOP"), Ok(Command::Noop));
    assert!(before("a LOGIN b c").is_ok());
    for text in ["a SELECT INBOX", "a select", "a UID FETCH 1:* (FLAGS)", "a APPEND {3}\r\n"] {
        assert_eq!(before(text), Err(Error::NotYet), "{text}");
    }
    assert_eq!(before("a XYZZY"), Err(Error::Unknown));
    assert_eq!(before("a LOGIN"), Err(Error::Wanted("a space and an argument")));
}

#[test]
fn id_is_pairs_or_nothing() {
    assert_eq!(parse("ID NIL"), Ok(Command::Id(vec![])));
    assert_eq!(parse("ID ()"), Ok(Command::Id(vec![])));
    assert_eq!(
        parse(r#"ID ("name" "sodr" "version" "19.34" "vendor" NIL)"#),
        Ok(Command::Id(vec![
            (b"name".into(), Some(b"sodr".into())),
            (b"version".into(), Some(b"19.34".into())),
            (b"vendor".into(), None),
        ]))
    );
    wrong(&["ID", "ID (\"name\")", "ID (name x)", "ID (\"a\" \"b\"", "ID (\"a\" \"b\" )"]);
    wrong(&[&format!("ID (\"{}\" NIL)", "x".repeat(31))]);
    wrong(&[&format!("ID (\"x\" \"{}\")", "x".repeat(1025))]);
    let many = |n| format!("ID ({})", vec!["\"a\" NIL"; n].join(" "));
    assert!(parse(many(30)).is_ok());
    assert_eq!(parse(many(31)), Err(Error::TooMany("fields of ID")));
}

#[test]
fn enable_names_capabilities() {
    let names = vec!["CONDSTORE".to_owned(), "X-GOOD-IDEA".to_owned()];
    assert_eq!(parse("ENABLE CONDSTORE x-good-idea"), Ok(Command::Enable(names)));
    wrong(&["ENABLE", "ENABLE ", "ENABLE (A)"]);
    let many = format!("ENABLE{}", " A".repeat(51));
    assert_eq!(parse(many), Err(Error::TooMany("capabilities")));
}

#[test]
fn sets_are_ranges_of_numbers() {
    let expunge = |text: &str| match parse(format!("UID EXPUNGE {text}")) {
        Ok(Command::Expunge(Some(set))) => Ok(set),
        Ok(other) => panic!("{other:?}"),
        Err(error) => Err(error),
    };
    assert_eq!(expunge("3000:3002"), Ok(set(&[(3000, 3002)])));
    let long = expunge("2,4:7,9,12:*,*,*:4,4294967295").unwrap();
    assert_eq!(long.to_string(), "2,4:7,9,12:*,*,*:4,4294967295");
    let ranges: Vec<_> = long.ranges(15).collect();
    assert_eq!(ranges, [2..=2, 4..=7, 9..=9, 12..=15, 15..=15, 4..=15, u32::MAX..=u32::MAX]);
    assert_eq!(expunge("5:2").unwrap().ranges(1).collect::<Vec<_>>(), [2..=5]);
    assert_eq!(expunge("$"), Ok(SequenceSet::Saved));
    for text in [
        "",
        "0",
        "1:",
        ":1",
        "1,",
        ",1",
        "1,,2",
        "1:2:3",
        "4294967296",
        "-1",
        "+1",
        "$,1",
        "01",
        "1 2",
        "a",
    ] {
        assert!(matches!(expunge(text), Err(Error::Wanted(_))), "{text}");
    }
    let many = |n| vec!["1"; n].join(",");
    assert!(expunge(&many(MAX_RANGES)).is_ok());
    assert_eq!(expunge(&many(MAX_RANGES + 1)), Err(Error::TooMany("ranges in a set")));
    assert_eq!(parse("EXPUNGE 1"), Err(Error::Wanted("the end of the command")));
}

#[test]
fn messages_are_copied_and_moved() {
    let two = || (set(&[(2, 4)]), "MEETING".to_owned());
    let (set, mailbox) = two();
    assert_eq!(parse("COPY 2:4 MEETING"), Ok(Command::Copy { uid: false, set, mailbox }));
    let (set, mailbox) = two();
    assert_eq!(parse("UID MOVE 2:4 MEETING"), Ok(Command::Move { uid: true, set, mailbox }));
    wrong(&["COPY 2:4", "MOVE a b", "UID COPY 1 b c"]);
}

#[test]
fn append_is_read_up_to_its_message() {
    let append = |text: &str| {
        append(text.as_bytes(), Dialect::default())
            .map(|result| result.map_err(|failure| failure.error))
    };
    let message = Appended { flags: vec![Flag::Seen], date: None, size: 310, binary: false };
    let to = AppendTo { tag: "A003".into(), mailbox: "saved-messages".into(), message };
    assert_eq!(append("A003 APPEND saved-messages (\\Seen) {310}\r\n"), Some(Ok(to.clone())));
    assert_eq!(append("A003 append saved-messages (\\Seen) {310+}\r\n"), Some(Ok(to)));
    let dated = |text: &str| match append(&format!("a APPEND \"in box\" {text} ~{{3}}\r\n")) {
        Some(Ok(AppendTo { message: Appended { date: Some(date), binary: true, .. }, .. })) => {
            Some((date.at, date.zone))
        }
        Some(Err(Error::Wanted(_))) => None,
        other => panic!("{other:?}"),
    };
    assert_eq!(dated("\" 7-Feb-1994 21:52:25 -0800\""), Some((760_686_745, -28_800)));
    assert_eq!(dated("() \"07-Feb-1994 21:52:25 +0530\""), Some((760_638_145, 19_800)));
    assert_eq!(dated("\"1-Jan-1970 00:00:00 +0000\""), Some((0, 0)));
    for bad in [
        "\"1-Jan-1970 00:00:00\"",
        "\"1-Jan-1970 24:00:00 +0000\"",
        "\"1-Jan-1970 00:60:00 +0000\"",
        "\"1-Jan-1970 00:00:00 +0060\"",
        "\"1-Jan-1970 00:00:00 +2400\"",
        "\"1-Jan-1970 00:00:00 GMT\"",
        "\"31-Feb-1970 00:00:00 +0000\"",
        "\"1-Jan-1970  00:00:00 +0000",
        "\"\"",
    ] {
        assert_eq!(dated(bad), None, "{bad}");
    }
    // The mailbox is a literal itself.
    assert_eq!(append("a APPEND {5}\r\n"), Some(Err(Error::More)));
    assert!(matches!(append("a APPEND {1}\r\nb {5}\r\n"), Some(Ok(_))));
    assert_eq!(append("a APPEND &x {5}\r\n"), Some(Err(Error::Name)));
    for bad in ["a APPEND b", "a APPEND b \"x\"", "a APPEND b () () {1}\r\n", "a APPEND b {1}\r\nx"]
    {
        assert!(matches!(append(bad), Some(Err(Error::Wanted(_)))), "{bad}");
    }
    assert_eq!(append("a NOOP {5}\r\n"), None);
    assert_eq!(append("{5}\r\n"), None);
    let more = append_more(b" (\\Draft x) {7+}\r\n").unwrap();
    assert_eq!(more.size, 7);
    assert!(append_more(b"").is_err() && append_more(b" x").is_err());
}

/// Commands that use every rule.
const SAMPLES: [&str; 24] = [
    "a LOGIN {4}\r\nfred \"x\\\\y\"",
    "a AUTHENTICATE PLAIN dGVzdAB0ZXN0AHRlc3Q=",
    "a ID (\"name\" \"x\" \"y\" NIL)",
    "a ENABLE IMAP4rev2 CONDSTORE",
    "a SELECT &U,BTFw- (QRESYNC (1 2 3,4:5 (6 7)) CONDSTORE)",
    "a CREATE x (USE (\\Drafts \\Sent))",
    "a RENAME \"a b\" {1}\r\nx",
    "a LIST (SUBSCRIBED RECURSIVEMATCH) \"\" (% \"*\") RETURN (CHILDREN STATUS (SIZE UIDNEXT))",
    "a LSUB \"\" *",
    "a STATUS INBOX (MESSAGES UNSEEN)",
    "a UID EXPUNGE 1,3:*,$",
    "a SEARCH RETURN (MIN SAVE) CHARSET UTF-8 OR (TEXT {2}\r\nxy NOT SEEN) SINCE \"1-Feb-1994\"",
    "a UID SEARCH HEADER x \"\" KEYWORD $a MODSEQ \"x\" all 1 SENTON 1-Jan-2000 UID 1:*",
    "a FETCH 1:* (FLAGS BODY.PEEK[1.2.HEADER.FIELDS.NOT (a \"b\")]<0.10> BINARY.SIZE[1]) (CHANGEDSINCE 1 VANISHED)",
    "a FETCH $ FULL",
    "a UID FETCH 1 BINARY.PEEK[1.2]<3.4>",
    "a STORE 1 (UNCHANGEDSINCE 5) +FLAGS.SILENT (\\Seen $x \\Recent)",
    "a STORE 1:2 -FLAGS \\Seen \\Deleted",
    "a UID COPY 5:1 x",
    "a MOVE 1 \"INBOX\"",
    "a APPEND x (\\Seen) \" 7-Feb-1994 21:52:25 -0800\" {5}\r\n",
    "a APPEND {1}\r\nx ~{5+}\r\n",
    "a UNSELECT ",
    "a NOOP",
];

#[test]
fn the_beginning_of_a_command_is_none_or_another_but_never_trouble() {
    for sample in SAMPLES {
        for length in 0..sample.len() {
            let text = &sample.as_bytes()[..length];
            let _ = super::parse(text, UTF8);
            let _ = append(text, UTF8);
            let _ = parse_before_login(text);
        }
    }
}

#[test]
fn twenty_thousand_broken_commands_are_no_trouble() {
    let mut seed = 5_u64;
    let mut dice = |below: usize| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        usize::try_from(seed >> 33).unwrap() % below
    };
    let pieces = [
        "(", ")", " ", "\"", "{3}\r\n", "\\", "*", "%", "$", "1:*", "[", "]", "\0", "\r", "\u{e4}",
        "NIL",
    ];
    let mut understood = 0;
    for _ in 0..20_000 {
        let mut text = SAMPLES[dice(SAMPLES.len())].as_bytes().to_vec();
        for _ in 0..=dice(3) {
            let at = dice(text.len() + 1);
            match dice(4) {
                0 => drop(text.splice(at..at, pieces[dice(pieces.len())].bytes())),
                1 if at < text.len() => drop(text.remove(at)),
                2 => {
                    let other = SAMPLES[dice(SAMPLES.len())].as_bytes();
                    text.truncate(at);
                    text.extend_from_slice(&other[dice(other.len())..]);
                }
                _ if at < text.len() => text[at] = u8::try_from(dice(256)).unwrap(),
                _ => {}
            }
        }
        for dialect in [Dialect::default(), UTF8] {
            let result = super::parse(&text, dialect);
            understood += usize::from(result.is_ok());
            if let Err(failure) = result {
                let mut out = Vec::new();
                crate::imap::reply::failure(&failure, &mut out);
                assert!(
                    out.ends_with(b"\r\n") && memchr::memchr(b'\n', &out) == Some(out.len() - 1)
                );
            }
            let _ = append(&text, dialect);
        }
        let _ = parse_before_login(&text);
    }
    // Not all were broken, and many were.
    assert!((500..39_000).contains(&understood), "{understood}");
}

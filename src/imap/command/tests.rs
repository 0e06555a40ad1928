//! The examples of the RFCs, each rule good and bad, and what is too much.

use jiff::civil::date;

use super::*;

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
fn names_of_mailboxes_are_decoded() {
    let name = |text: &str| match parse(format!("DELETE {text}")) {
        Ok(Command::Delete(name)) => Ok(name),
        Ok(other) => panic!("{other:?}"),
        Err(error) => Err(error),
    };
    assert_eq!(name("blurdybloop"), Ok("blurdybloop".into()));
    assert_eq!(name("inbox"), Ok("INBOX".into()));
    assert_eq!(name("\"InBox\""), Ok("INBOX".into()));
    assert_eq!(name("{5}\r\nInbox"), Ok("INBOX".into()));
    assert_eq!(name("inbox/x"), Ok("inbox/x".into()));
    assert_eq!(name("\"a b\""), Ok("a b".into()));
    assert_eq!(name("&U,BTFw-"), Ok("\u{53f0}\u{5317}".into()));
    for text in ["a&b", "&AEE-", "\"\u{e4}\"", "{2}\r\n\u{e4}", "\"a\tb\""] {
        assert_eq!(name(text), Err(Error::Name), "{text}");
    }
    wrong(&["DELETE", "DELETE a%", "DELETE a b", "DELETE \u{e4}", "DELETE a\tb"]);

    let utf8 = |text: &[u8]| {
        let text = [b"a DELETE ", text].concat();
        super::parse(&text, UTF8).map(|t| t.command).map_err(|failure| failure.error)
    };
    assert_eq!(utf8("\"\u{e4}\"".as_bytes()), Ok(Command::Delete("\u{e4}".into())));
    assert_eq!(utf8(b"&U,BTFw-"), Ok(Command::Delete("&U,BTFw-".into())));
    assert_eq!(utf8(b"\"\xe4\""), Err(Error::Name));
    assert_eq!(utf8("\"\u{85}\"".as_bytes()), Err(Error::Name));
}

#[test]
fn mailboxes_are_made_renamed_and_subscribed() {
    assert_eq!(parse("CREATE owatagusiam/"), Ok(Command::Create("owatagusiam/".into(), vec![])));
    assert_eq!(parse("CREATE a "), Ok(Command::Create("a".into(), vec![])));
    assert_eq!(
        parse(r"CREATE MyDrafts (USE (\Drafts \sent))"),
        Ok(Command::Create("MyDrafts".into(), vec![r"\Drafts".into(), r"\sent".into()]))
    );
    assert_eq!(parse("CREATE a (USE ())"), Ok(Command::Create("a".into(), vec![])));
    wrong(&["CREATE a ()", "CREATE a (USE)", "CREATE a (USE (Drafts))", "CREATE a (FOO (a))"]);
    assert_eq!(
        parse("RENAME blurdybloop sarasoop"),
        Ok(Command::Rename { from: "blurdybloop".into(), to: "sarasoop".into() })
    );
    wrong(&["RENAME a", "RENAME a b c"]);
    assert_eq!(parse("SUBSCRIBE #news.a"), Ok(Command::Subscribe("#news.a".into())));
    assert_eq!(parse("UNSUBSCRIBE b"), Ok(Command::Unsubscribe("b".into())));
}

#[test]
fn select_may_bring_what_is_known() {
    let none = Parameters::default();
    assert_eq!(parse("SELECT INBOX"), Ok(Command::Select("INBOX".into(), none.clone())));
    assert_eq!(parse("EXAMINE a "), Ok(Command::Examine("a".into(), none.clone())));
    let condstore = Parameters { condstore: true, ..none };
    assert_eq!(parse("SELECT a (CONDSTORE)"), Ok(Command::Select("a".into(), condstore)));
    let resync = |text: &str| match parse(format!("SELECT INBOX (QRESYNC ({text}))")) {
        Ok(Command::Select(_, parameters)) => parameters.resync.unwrap(),
        other => panic!("{other:?}"),
    };
    let known = Resync {
        uid_validity: 67_890_007,
        modseq: 20_050_715_194_045_000,
        known: None,
        matches: None,
    };
    assert_eq!(resync("67890007 20050715194045000"), known);
    let with_uids = Resync { known: Some(set(&[(41, 41), (43, 211)])), ..known.clone() };
    assert_eq!(resync("67890007 20050715194045000 41,43:211"), with_uids);
    let matches = Some((set(&[(1, 1), (5, 5)]), set(&[(10, 10), (15, 15)])));
    assert_eq!(
        resync("67890007 20050715194045000 41,43:211 (1,5 10,15)"),
        Resync { matches: matches.clone(), ..with_uids }
    );
    assert_eq!(resync("67890007 20050715194045000 (1,5 10,15)"), Resync { matches, ..known });
    wrong(&[
        "SELECT a ()",
        "SELECT a (FOO)",
        "SELECT a (QRESYNC)",
        "SELECT a (QRESYNC (0 1))",
        "SELECT a (QRESYNC (1 1 1:*))",
        "SELECT a (QRESYNC (1 1 $))",
        "SELECT a (QRESYNC (1 1 1 (1)))",
        "SELECT a (QRESYNC (1 1 (1 1) 1))",
    ]);
}

#[test]
fn list_has_an_old_form_and_a_new_one() {
    use SelectOption::{RecursiveMatch, Remote, Subscribed};
    let list = |text: &str| match parse(format!("LIST {text}")) {
        Ok(Command::List(list)) => Ok(list),
        Ok(other) => panic!("{other:?}"),
        Err(error) => Err(error),
    };
    let old = |reference: &str, pattern: &str| List {
        reference: reference.into(),
        patterns: vec![pattern.into()],
        ..List::default()
    };
    assert_eq!(list("\"\" \"\""), Ok(old("", "")));
    assert_eq!(list("~/Mail/ %"), Ok(old("~/Mail/", "%")));
    assert_eq!(list("\"\" \"*\" "), Ok(old("", "*")));
    assert_eq!(list("\"\" a]*"), Ok(old("", "a]*")));
    assert_eq!(list("\"\" &U,BTFw-/%"), Ok(old("", "\u{53f0}\u{5317}/%")));
    let new = |select: &[SelectOption]| List { select: Some(select.into()), ..old("", "*") };
    assert_eq!(list("() \"\" *"), Ok(new(&[])));
    assert_eq!(list("(SUBSCRIBED) \"\" *"), Ok(new(&[Subscribed])));
    assert_eq!(
        list("(remote recursivematch subscribed) \"\" *"),
        Ok(new(&[Remote, RecursiveMatch, Subscribed]))
    );
    assert_eq!(
        list("\"\" (INBOX Drafts Sent/%)"),
        Ok(List { patterns: ["INBOX", "Drafts", "Sent/%"].map(str::to_owned).into(), ..new(&[]) })
    );
    let returns = vec![
        ReturnOption::Children,
        ReturnOption::Status(vec![StatusItem::Messages, StatusItem::Unseen]),
        ReturnOption::SpecialUse,
        ReturnOption::Subscribed,
    ];
    assert_eq!(
        list("\"\" * RETURN (CHILDREN STATUS (MESSAGES UNSEEN) SPECIAL-USE SUBSCRIBED)"),
        Ok(List { returns, ..new(&[]) })
    );
    assert_eq!(list("\"\" * RETURN ()"), Ok(new(&[])));
    wrong(&[
        "LIST",
        "LIST \"\"",
        "LIST \"\" ()",
        "LIST \"\" *x(",
        "LIST (FOO) \"\" *",
        "LIST (RECURSIVEMATCH) \"\" *",
        "LIST (RECURSIVEMATCH REMOTE) \"\" *",
        "LIST \"\" * RETURN",
        "LIST \"\" * RETURN (STATUS)",
        "LIST \"\" * RETURN (STATUS ())",
        "LIST \"\" * RETURN (FOO)",
        "LIST \"\" * FOO",
        "LIST \"\" * RETURN () x",
    ]);
    let many = |n| format!("\"\" ({})", vec!["a"; n].join(" "));
    assert!(list(&many(MAX_PATTERNS)).is_ok());
    assert_eq!(list(&many(MAX_PATTERNS + 1)), Err(Error::TooMany("patterns")));
    assert_eq!(
        parse("LSUB \"#news.\" \"comp.mail.*\""),
        Ok(Command::Lsub { reference: "#news.".into(), pattern: "comp.mail.*".into() })
    );
    wrong(&["LSUB \"\"", "LSUB \"\" * RETURN ()"]);
}

#[test]
fn status_asks_for_items() {
    use StatusItem::{
        Deleted, HighestModSeq, Messages, Recent, Size, UidNext, UidValidity, Unseen,
    };
    let all = vec![UidNext, Messages, Recent, UidValidity, Unseen, Deleted, Size, HighestModSeq];
    assert_eq!(
        parse("STATUS a (UIDNEXT MESSAGES RECENT UIDVALIDITY UNSEEN DELETED SIZE highestmodseq)"),
        Ok(Command::Status("a".into(), all))
    );
    wrong(&["STATUS a", "STATUS a ()", "STATUS a MESSAGES", "STATUS a (FOO)", "STATUS a (SIZE)x"]);
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

fn items(text: &str) -> Result<Vec<FetchItem>, Error> {
    match parse(format!("FETCH 1 {text}")) {
        Ok(Command::Fetch { fetch, .. }) => Ok(fetch.items),
        Ok(other) => panic!("{other:?}"),
        Err(error) => Err(error),
    }
}

#[test]
fn fetch_asks_for_items() {
    use FetchItem::*;
    assert_eq!(items("FAST"), Ok(vec![Flags, InternalDate, Size]));
    assert_eq!(items("all"), Ok(vec![Flags, InternalDate, Size, Envelope]));
    assert_eq!(items("Full"), Ok(vec![Flags, InternalDate, Size, Envelope, Body]));
    assert_eq!(items("BODYSTRUCTURE"), Ok(vec![BodyStructure]));
    assert_eq!(
        items("(UID RFC822.SIZE RFC822.HEADER RFC822.TEXT RFC822 MODSEQ BODY)"),
        Ok(vec![Uid, Size, Rfc822Header, Rfc822Text, Rfc822, ModSeq, Body])
    );
    wrong(&[
        "FETCH 1",
        "FETCH 1 ()",
        "FETCH 1 (ALL)",
        "FETCH 1 FLAGS UID",
        "FETCH 1 (FLAGS  UID)",
        "FETCH 1 (FLAGS",
        "FETCH 1 RFC822.PEEK",
        "FETCH 1 BODY.PEEK",
        "FETCH FLAGS",
    ]);
    let many = |n| format!("({})", vec!["UID"; n].join(" "));
    assert!(items(&many(1000)).is_ok());
    assert_eq!(items(&many(1001)), Err(Error::TooMany("items of FETCH")));
}

#[test]
fn fetch_asks_for_sections_of_messages() {
    let section = |part: &[u32], text| Section { part: part.into(), text };
    let body = |peek, section, partial| Ok(vec![FetchItem::Section { peek, section, partial }]);
    let fields = |not, names: &[&str]| {
        let names = names.iter().map(|name| name.as_bytes().to_vec()).collect();
        Some(SectionText::Fields { not, names })
    };
    assert_eq!(items("BODY[]"), body(false, section(&[], None), None));
    assert_eq!(items("body.peek[1]"), body(true, section(&[1], None), None));
    assert_eq!(
        items("BODY[]<0.2048>"),
        body(false, section(&[], None), Some(Partial { start: 0, length: 2048 }))
    );
    let header = Some(SectionText::Header);
    assert_eq!(items("BODY[HEADER]"), body(false, section(&[], header.clone()), None));
    assert_eq!(items("BODY[3.HEADER]"), body(false, section(&[3], header), None));
    assert_eq!(items("BODY[4.2.2.1]"), body(false, section(&[4, 2, 2, 1], None), None));
    let mime = Some(SectionText::Mime);
    assert_eq!(items("BODY[4.1.MIME]"), body(false, section(&[4, 1], mime), None));
    assert_eq!(items("BODY[TEXT]"), body(false, section(&[], Some(SectionText::Text)), None));
    assert_eq!(
        items("(BODY.PEEK[HEADER.FIELDS (DATE \"FROM\" {2}\r\nto)])"),
        body(true, section(&[], fields(false, &["DATE", "FROM", "to"])), None)
    );
    assert_eq!(
        items("BODY[2.HEADER.FIELDS.NOT (X)]<5.1>"),
        body(false, section(&[2], fields(true, &["X"])), Some(Partial { start: 5, length: 1 }))
    );
    wrong(&[
        "FETCH 1 BODY[",
        "FETCH 1 BODY[MIME]",
        "FETCH 1 BODY[0]",
        "FETCH 1 BODY[1.]",
        "FETCH 1 BODY[1..2]",
        "FETCH 1 BODY[1.0]",
        "FETCH 1 BODY[.1]",
        "FETCH 1 BODY[HEADER.1]",
        "FETCH 1 BODY[1HEADER]",
        "FETCH 1 BODY[HEADER.FIELDS]",
        "FETCH 1 BODY[HEADER.FIELDS ()]",
        "FETCH 1 BODY[HEADER.FIELDS(A)]",
        "FETCH 1 BODY[FOO]",
        "FETCH 1 BODY[]<1>",
        "FETCH 1 BODY[]<1.0>",
        "FETCH 1 BODY[]<.5>",
        "FETCH 1 BODY[]<0.5",
        "FETCH 1 BODY []",
        "FETCH 1 BODY<0.5>",
    ]);
    let deep = |n| format!("BODY[{}]", vec!["1"; n].join("."));
    assert!(items(&deep(100)).is_ok());
    assert_eq!(items(&deep(101)), Err(Error::TooMany("numbers of parts")));
    let many = |n| format!("BODY[HEADER.FIELDS ({})]", vec!["a"; n].join(" "));
    assert!(items(&many(1000)).is_ok());
    assert_eq!(items(&many(1001)), Err(Error::TooMany("fields")));
}

#[test]
fn fetch_asks_for_decoded_parts() {
    let part = vec![1, 2];
    assert_eq!(
        items("BINARY[1.2]<3.4>"),
        Ok(vec![FetchItem::Binary {
            peek: false,
            part: part.clone(),
            partial: Some(Partial { start: 3, length: 4 })
        }])
    );
    assert_eq!(
        items("(BINARY.PEEK[] BINARY.SIZE[1.2])"),
        Ok(vec![
            FetchItem::Binary { peek: true, part: vec![], partial: None },
            FetchItem::BinarySize(part)
        ])
    );
    wrong(&[
        "FETCH 1 BINARY",
        "FETCH 1 BINARY[1.]",
        "FETCH 1 BINARY[TEXT]",
        "FETCH 1 BINARY.SIZE[1]<0.1>",
    ]);
}

#[test]
fn fetch_has_modifiers() {
    let fetch = |text: &str| match parse(format!("UID FETCH 1:* (FLAGS) {text}")) {
        Ok(Command::Fetch { uid: true, fetch }) => (fetch.changed_since, fetch.vanished),
        other => panic!("{other:?}"),
    };
    assert_eq!(fetch(""), (None, false));
    assert_eq!(fetch("(CHANGEDSINCE 12345)"), (Some(12345), false));
    assert_eq!(fetch("(CHANGEDSINCE 12345 VANISHED)"), (Some(12345), true));
    wrong(&[
        "FETCH 1 FLAGS ()",
        "FETCH 1 FLAGS (VANISHED)",
        "FETCH 1 FLAGS (CHANGEDSINCE)",
        "FETCH 1 FLAGS (CHANGEDSINCE 9223372036854775808)",
        "FETCH 1 FLAGS (FOO)",
    ]);
}

#[test]
fn store_changes_flags() {
    let store = |text: &str| match parse(format!("STORE 2:4 {text}")) {
        Ok(Command::Store { uid: false, store }) => Ok(store),
        Ok(other) => panic!("{other:?}"),
        Err(error) => Err(error),
    };
    let wanted = Store {
        set: set(&[(2, 4)]),
        action: StoreAction::Add,
        silent: false,
        flags: vec![Flag::Deleted],
        unchanged_since: None,
    };
    assert_eq!(store(r"+FLAGS (\Deleted)").as_ref(), Ok(&wanted));
    assert_eq!(store(r"+FLAGS \Deleted").as_ref(), Ok(&wanted));
    let some = vec![Flag::Seen, Flag::Keyword("$MDNSent".into()), Flag::Draft];
    let silent = Store { silent: true, action: StoreAction::Remove, flags: some, ..wanted.clone() };
    assert_eq!(store(r"-flags.silent \seen $MDNSent \Recent \DRAFT ").as_ref(), Ok(&silent));
    let replace = Store { action: StoreAction::Replace, flags: vec![], ..wanted };
    assert_eq!(store("FLAGS ()").as_ref(), Ok(&replace));
    assert_eq!(
        store("(UNCHANGEDSINCE 320162338) FLAGS ()"),
        Ok(Store { unchanged_since: Some(320_162_338), ..replace })
    );
    wrong(&[
        "STORE 1 FLAGS",
        r"STORE 1 FLAGS \Foo",
        r"STORE 1 FLAGS (\Seen",
        r"STORE 1 FLAGS (\)",
        r"STORE 1 ++FLAGS \Seen",
        r"STORE 1 FLAGS. \Seen",
        r"STORE 1 () FLAGS \Seen",
        "STORE 1 FLAGS \"a\"",
        "STORE 1 FLAGS a*",
    ]);
    let many = |n| format!("FLAGS ({})", vec!["a"; n].join(" "));
    assert!(store(&many(MAX_FLAGS)).is_ok());
    assert_eq!(store(&many(MAX_FLAGS + 1)), Err(Error::TooMany("flags")));
    let bare = format!("FLAGS {}", vec!["a"; MAX_FLAGS + 1].join(" "));
    assert_eq!(store(&bare), Err(Error::TooMany("flags")));
}

fn search(text: &str) -> Result<Search, Error> {
    match parse(format!("SEARCH {text}")) {
        Ok(Command::Search { search, .. }) => Ok(search),
        Ok(other) => panic!("{other:?}"),
        Err(error) => Err(error),
    }
}

#[test]
fn searches_have_keys() {
    let keys = |text: &str| search(text).unwrap().keys;
    let header = |field: &str, text: &str| Key::Header { field: field.into(), text: text.into() };
    assert_eq!(
        keys("FLAGGED SINCE 1-Feb-1994 NOT FROM \"Smith\""),
        [
            Key::Has(Flag::Flagged),
            Key::Date(Moment::Arrived, Relation::Since, date(1994, 2, 1)),
            Key::Not(Box::new(header("From", "Smith"))),
        ]
    );
    assert_eq!(
        keys("TEXT \"string not in mailbox\""),
        [Key::Text(b"string not in mailbox".into())]
    );
    assert_eq!(keys("all "), [Key::All]);
    assert_eq!(
        keys("OR UNSEEN (KEYWORD $a LARGER 5) 2,4:* UID 1:7"),
        [
            Key::Or(
                Box::new(Key::HasNot(Flag::Seen)),
                Box::new(Key::And(vec![Key::Has(Flag::Keyword("$a".into())), Key::Larger(5)]))
            ),
            Key::Numbers(set(&[(2, 2), (4, 0)])),
            Key::Uids(set(&[(1, 7)])),
        ]
    );
    assert_eq!(
        keys("HEADER {4}\r\nX-To \"\" BCC a CC b TO c SUBJECT d BODY e"),
        [
            header("X-To", ""),
            header("Bcc", "a"),
            header("Cc", "b"),
            header("To", "c"),
            header("Subject", "d"),
            Key::Body(b"e".into()),
        ]
    );
    assert_eq!(
        keys(
            "SENTBEFORE \"31-Dec-2020\" SENTON 29-feb-2004 SENTSINCE 01-JAN-0001 BEFORE 1-Jan-2000 ON 1-Jan-2000"
        ),
        [
            Key::Date(Moment::Sent, Relation::Before, date(2020, 12, 31)),
            Key::Date(Moment::Sent, Relation::On, date(2004, 2, 29)),
            Key::Date(Moment::Sent, Relation::Since, date(1, 1, 1)),
            Key::Date(Moment::Arrived, Relation::Before, date(2000, 1, 1)),
            Key::Date(Moment::Arrived, Relation::On, date(2000, 1, 1)),
        ]
    );
    assert_eq!(
        keys(
            "NEW OLD RECENT ANSWERED DELETED DRAFT SEEN UNANSWERED UNDELETED UNDRAFT UNFLAGGED UNKEYWORD x SMALLER 9 $"
        ),
        [
            Key::New,
            Key::Old,
            Key::Recent,
            Key::Has(Flag::Answered),
            Key::Has(Flag::Deleted),
            Key::Has(Flag::Draft),
            Key::Has(Flag::Seen),
            Key::HasNot(Flag::Answered),
            Key::HasNot(Flag::Deleted),
            Key::HasNot(Flag::Draft),
            Key::HasNot(Flag::Flagged),
            Key::HasNot(Flag::Keyword("x".into())),
            Key::Smaller(9),
            Key::Numbers(SequenceSet::Saved),
        ]
    );
    let modseq = "MODSEQ \"/flags/\\\\draft\" all 620162338 MODSEQ 7";
    assert_eq!(keys(modseq), [Key::ModSeq(620_162_338), Key::ModSeq(7)]);
    wrong(&[
        "SEARCH",
        "SEARCH ",
        "SEARCH FOO",
        "SEARCH NOT",
        "SEARCH OR ALL",
        "SEARCH ()",
        "SEARCH (ALL",
        "SEARCH ALL)",
        "SEARCH SINCE 1994-02-01",
        "SEARCH SINCE 30-Feb-1994",
        "SEARCH SINCE \"1-Feb-1994",
        "SEARCH SINCE 1-Feb-94",
        "SEARCH SINCE 001-Feb-1994",
        "SEARCH KEYWORD \"a\"",
        "SEARCH LARGER -1",
        "SEARCH HEADER x",
        "SEARCH FROM",
        "SEARCH MODSEQ \"a\" some 1",
        "SEARCH 0",
    ]);
}

#[test]
fn searches_say_what_they_return_and_in_which_charset() {
    let all = |returns: Option<&[Return]>, charset: Option<&[u8]>| {
        let (returns, charset) = (returns.map(<[_]>::to_vec), charset.map(<[_]>::to_vec));
        Ok(Search { returns, charset, keys: vec![Key::All] })
    };
    assert_eq!(search("ALL"), all(None, None));
    assert_eq!(search("CHARSET UTF-8 ALL"), all(None, Some(b"UTF-8")));
    assert_eq!(search("CHARSET \"us-ascii\" ALL"), all(None, Some(b"us-ascii")));
    assert_eq!(search("RETURN () ALL"), all(Some(&[]), None));
    assert_eq!(
        search("return (MIN MAX COUNT SAVE ALL) charset utf-8 ALL"),
        all(
            Some(&[Return::Min, Return::Max, Return::Count, Return::Save, Return::All]),
            Some(b"utf-8")
        )
    );
    wrong(&[
        "SEARCH RETURN (MIN)",
        "SEARCH RETURN MIN ALL",
        "SEARCH RETURN (FOO) ALL",
        "SEARCH RETURN (MIN)ALL",
        "SEARCH CHARSET UTF-8",
        "SEARCH CHARSET UTF-8 RETURN () ALL",
    ]);
    assert_eq!(
        search("CHARSET UTF-8 TEXT {6}\r\n\u{4e0b}\u{5ddd}").unwrap().keys,
        [Key::Text("\u{4e0b}\u{5ddd}".into())]
    );
}

#[test]
fn searches_are_bounded() {
    let deep = |n: usize| format!("{}ALL", "NOT ".repeat(n));
    assert!(search(&deep(MAX_DEPTH - 1)).is_ok());
    assert_eq!(search(&deep(MAX_DEPTH)), Err(Error::TooMany("keys within each other")));
    let deep = format!("{}ALL{}", "(".repeat(20_000), ")".repeat(20_000));
    assert_eq!(search(&deep), Err(Error::TooMany("keys within each other")));
    let many = |n| vec!["ALL"; n].join(" ");
    assert!(search(&many(MAX_KEYS)).is_ok());
    assert_eq!(search(&many(MAX_KEYS + 1)), Err(Error::TooMany("search keys")));
    assert_eq!(search(&format!("({})", many(MAX_KEYS))), Err(Error::TooMany("search keys")));
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

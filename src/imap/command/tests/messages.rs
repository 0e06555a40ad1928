//! FETCH, STORE and SEARCH.

use jiff::civil::date;

use super::*;

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
            Key::Or(vec![
                Key::HasNot(Flag::Seen),
                Key::And(vec![Key::Has(Flag::Keyword("$a".into())), Key::Larger(5)])
            ]),
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
fn a_chain_of_or_is_one_key() {
    let numbers: Vec<String> = (1..=500).map(|n| n.to_string()).collect();
    let right = format!("OR {} {}", numbers[..499].join(" OR "), numbers[499]);
    let left = "OR ".repeat(499) + &numbers.join(" ");
    let found = search(&right).unwrap().keys;
    assert_eq!(search(&left).unwrap().keys, found);
    let [Key::Or(keys)] = &found[..] else { panic!("{found:?}") };
    let number = |n| Key::Numbers(set(&[(n, n)]));
    assert_eq!(*keys, (1..=500).map(number).collect::<Vec<_>>());
    assert_eq!(search("OR OR 1 2 OR 3 (4)").unwrap().keys, {
        let four = Key::And(vec![number(4)]);
        [Key::Or(vec![number(1), number(2), number(3), four])]
    });
    assert_eq!(search(&format!("OR ALL {left}")), Err(Error::TooMany("search keys")));
}

#[test]
fn searches_are_bounded() {
    let deep = |n: usize| format!("{}ALL", "NOT ".repeat(n));
    assert!(search(&deep(MAX_DEPTH)).is_ok());
    assert_eq!(search(&deep(MAX_DEPTH + 1)), Err(Error::TooMany("keys within each other")));
    let deep = |n| format!("{}ALL{}", "(".repeat(n), ")".repeat(n));
    assert!(search(&deep(MAX_DEPTH)).is_ok());
    assert_eq!(search(&deep(20_000)), Err(Error::TooMany("keys within each other")));
    let many = |n| vec!["ALL"; n].join(" ");
    assert!(search(&many(MAX_KEYS)).is_ok());
    assert_eq!(search(&many(MAX_KEYS + 1)), Err(Error::TooMany("search keys")));
    assert_eq!(search(&format!("({})", many(MAX_KEYS))), Err(Error::TooMany("search keys")));
}

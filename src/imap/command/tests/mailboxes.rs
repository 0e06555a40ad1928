//! Commands about mailboxes.

use super::*;

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
        crate::imap::command::parse(&text, UTF8).map(|t| t.command).map_err(|failure| failure.error)
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

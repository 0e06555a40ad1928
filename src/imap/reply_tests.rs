//! Answers as the RFCs have them.

use super::*;
use crate::imap::command::{Error, Failure};

fn text(write: impl FnOnce(&mut Vec<u8>)) -> String {
    let mut out = Vec::new();
    write(&mut out);
    String::from_utf8(out).unwrap()
}

#[test]
fn words_need_no_quotes_and_others_have_them() {
    let astring = |word: &str| text(|out| astring(word.as_bytes(), out));
    for word in ["a", "INBOX/a]b", "[Gmail]", "~/x", "#news", "&U,BTFw-", "+", "$a"] {
        assert_eq!(astring(word), word);
    }
    assert_eq!(astring(""), "\"\"");
    for word in ["a b", "a(", "a%", "*", "{1}", "nil", "NIL", ")"] {
        assert_eq!(astring(word), format!("\"{word}\""));
    }
    assert_eq!(astring("a\"b\\c"), "\"a\\\"b\\\\c\"");
    assert_eq!(astring("\u{e4}"), "{2}\r\n\u{e4}");
    assert_eq!(text(|out| nstring(None, out)), "NIL");
    assert_eq!(text(|out| nstring(Some(b"NIL"), out)), "\"NIL\"");
    assert_eq!(text(|out| literal8(5_u64, out)), "~{5}\r\n");
}

#[test]
fn names_of_mailboxes_are_told_as_the_client_reads_them() {
    let name = |name: &str, utf8| text(|out| mailbox(name, utf8, out));
    assert_eq!(name("Entw\u{fc}rfe", false), "Entw&APw-rfe");
    assert_eq!(name("Entw\u{fc}rfe \"", false), "\"Entw&APw-rfe \\\"\"");
    assert_eq!(name("Entw\u{fc}rfe", true), "\"Entw\u{fc}rfe\"");
    assert_eq!(name("\u{fc}\"\\", true), "\"\u{fc}\\\"\\\\\"");
    assert_eq!(name("a&b", false), "a&-b");
    assert_eq!(name("a&b", true), "a&b");
    assert_eq!(name("\u{fc}\r\n", true), "{4}\r\n\u{fc}\r\n");
}

#[test]
fn dates_are_those_of_their_zones() {
    let date = |at, zone| text(|out| date_time(at, zone, out));
    assert_eq!(date(837_596_665, -7 * 3600), "\"17-Jul-1996 02:44:25 -0700\"");
    assert_eq!(date(0, 0), "\" 1-Jan-1970 00:00:00 +0000\"");
    assert_eq!(date(-1, 19_800), "\" 1-Jan-1970 05:29:59 +0530\"");
    assert_eq!(date(0, -1800), "\"31-Dec-1969 23:30:00 -0030\"");
    assert_eq!(date(i64::MIN, i32::MIN), "\" 1-Jan-0001 00:00:00 -2359\"");
    assert_eq!(date(i64::MAX, i32::MAX), "\"30-Dec-9999 22:00:00 +2359\"");
}

#[test]
fn dates_are_read_back() {
    for at in [0, 837_596_665, -62_000_000_000, 253_000_000_000] {
        for zone in [0, 19_800, -28_800, 86_340, -86_340] {
            let date = text(|out| date_time(at, zone, out));
            let command = format!("a APPEND b {date} {{1}}\r\n");
            let dialect = crate::imap::command::Dialect::default();
            let read = crate::imap::command::append(command.as_bytes(), dialect).unwrap().unwrap();
            let read = read.message.date.unwrap();
            assert_eq!((read.at, read.zone), (at, zone), "{date}");
        }
    }
}

#[test]
fn status_lines_say_how_it_went() {
    let line = |tag, condition, code: Option<Code>, said: &str| {
        text(|out| status(tag, condition, code.as_ref(), said, out))
    };
    let word = |word| Some(Code::Word(word));
    assert_eq!(line(Some("a1"), Condition::Ok, None, "done"), "a1 OK done\r\n");
    assert_eq!(
        line(Some("a1"), Condition::Ok, word(Word::ReadWrite), "SELECT completed"),
        "a1 OK [READ-WRITE] SELECT completed\r\n"
    );
    assert_eq!(
        line(Some("B283"), Condition::No, word(Word::TryCreate), "no"),
        "B283 NO [TRYCREATE] no\r\n"
    );
    assert_eq!(
        line(None, Condition::Bye, word(Word::Unavailable), "x"),
        "* BYE [UNAVAILABLE] x\r\n"
    );
    assert_eq!(
        line(None, Condition::Ok, Some(Code::UidNext(4392)), "x"),
        "* OK [UIDNEXT 4392] x\r\n"
    );
    assert_eq!(
        line(None, Condition::Ok, Some(Code::UidValidity(3_857_529_045)), "x"),
        "* OK [UIDVALIDITY 3857529045] x\r\n"
    );
    let flags = ["\\Deleted", "\\Seen", "\\*"].map(str::to_owned).into();
    assert_eq!(
        line(None, Condition::Ok, Some(Code::PermanentFlags(flags)), "Limited"),
        "* OK [PERMANENTFLAGS (\\Deleted \\Seen \\*)] Limited\r\n"
    );
    let appended = Code::AppendUid { uid_validity: 38505, uids: "3955".into() };
    assert_eq!(
        line(Some("A003"), Condition::Ok, Some(appended), "x"),
        "A003 OK [APPENDUID 38505 3955] x\r\n"
    );
    let copied = Code::CopyUid {
        uid_validity: 38505,
        from: set_text([304..=304, 319..=320]),
        to: set_text([3956..=3958]),
    };
    assert_eq!(
        line(Some("A004"), Condition::Ok, Some(copied), "Done"),
        "A004 OK [COPYUID 38505 304,319:320 3956:3958] Done\r\n"
    );
    assert_eq!(
        line(None, Condition::Ok, Some(Code::HighestModSeq(715_194_045_007)), "x"),
        "* OK [HIGHESTMODSEQ 715194045007] x\r\n"
    );
    assert_eq!(
        line(Some("d"), Condition::Ok, Some(Code::Modified("7,9".into())), "x"),
        "d OK [MODIFIED 7,9] x\r\n"
    );
    assert_eq!(
        line(None, Condition::No, Some(Code::BadCharset(vec![])), "x"),
        "* NO [BADCHARSET] x\r\n"
    );
    assert_eq!(
        line(None, Condition::No, Some(Code::BadCharset(vec!["UTF-8", "US-ASCII"])), "x"),
        "* NO [BADCHARSET (UTF-8 US-ASCII)] x\r\n"
    );
    assert_eq!(line(None, Condition::Ok, Some(Code::Unseen(8)), "x"), "* OK [UNSEEN 8] x\r\n");
    // What others said ends no line, and is no code.
    assert_eq!(line(Some("a"), Condition::No, None, "a\r\nb \u{e4}"), "a NO a??b &AOQ-\r\n");
    assert_eq!(line(Some("a"), Condition::No, None, "[ALERT] x"), "a NO ALERT] x\r\n");
    assert_eq!(line(Some("a"), Condition::No, None, "["), "a NO -\r\n");
    // A name stands there as in LIST.
    let told = |utf8| {
        text(|out| status_in(utf8, Some("a"), Condition::No, None, "no R&D/\u{e4}\u{85}", out))
    };
    assert_eq!(told(false), "a NO no R&-D/&AOQ-?\r\n");
    assert_eq!(told(true), "a NO no R&D/\u{e4}?\r\n");
}

#[test]
fn failures_are_told_to_whom_they_concern() {
    let line = |tag: Option<&str>, error| {
        let told = Failure { tag: tag.map(str::to_owned), error };
        text(|out| failure(&told, out))
    };
    assert_eq!(line(None, Error::Unknown), "* BAD unknown command\r\n");
    assert_eq!(line(Some("a"), Error::Wanted("an atom")), "a BAD an atom is wanted\r\n");
    assert_eq!(line(Some("a"), Error::TooMany("flags")), "a NO [LIMIT] too many flags\r\n");
    assert_eq!(line(Some("a"), Error::Name), "a NO [CANNOT] a mailbox can't have such a name\r\n");
}

#[test]
fn mailboxes_are_listed() {
    let line = |line: &ListLine, utf8| text(|out| list_line(line, utf8, out));
    let plain = ListLine { delimiter: Some('/'), name: "blurdybloop", ..ListLine::default() };
    assert_eq!(line(&plain, false), "* LIST () \"/\" blurdybloop\r\n");
    let noselect = ListLine {
        attributes: vec!["\\Noselect", "\\HasChildren"],
        name: "~/Mail/foo",
        ..plain.clone()
    };
    assert_eq!(line(&noselect, false), "* LIST (\\Noselect \\HasChildren) \"/\" ~/Mail/foo\r\n");
    let flat = ListLine { delimiter: None, name: "INBOX", ..plain.clone() };
    assert_eq!(line(&flat, false), "* LIST () NIL INBOX\r\n");
    let lsub =
        ListLine { lsub: true, delimiter: Some('\\'), name: "\u{fc}", ..ListLine::default() };
    assert_eq!(line(&lsub, false), "* LSUB () \"\\\\\" &APw-\r\n");
    assert_eq!(line(&lsub, true), "* LSUB () \"\\\\\" \"\u{fc}\"\r\n");
    let found = ListLine { child_info: vec!["SUBSCRIBED"], name: "Foo", ..plain.clone() };
    assert_eq!(line(&found, false), "* LIST () \"/\" Foo (\"CHILDINFO\" (\"SUBSCRIBED\"))\r\n");
    let renamed = ListLine {
        old_name: Some("a b"),
        name: "NewMailbox",
        child_info: vec!["SUBSCRIBED", "SPECIAL-USE"],
        ..plain
    };
    assert_eq!(
        line(&renamed, false),
        "* LIST () \"/\" NewMailbox (\"CHILDINFO\" (\"SUBSCRIBED\" \"SPECIAL-USE\") \
         \"OLDNAME\" (\"a b\"))\r\n"
    );
    assert_eq!(
        text(|out| status_line(
            "blurdybloop",
            &[(StatusItem::Messages, 231), (StatusItem::UidNext, 44292)],
            false,
            out
        )),
        "* STATUS blurdybloop (MESSAGES 231 UIDNEXT 44292)\r\n"
    );
    assert_eq!(text(|out| namespace('/', out)), "* NAMESPACE ((\"\" \"/\")) NIL NIL\r\n");
}

#[test]
fn searches_are_answered_in_either_way() {
    assert_eq!(text(|out| search([2, 84, 882], None, out)), "* SEARCH 2 84 882\r\n");
    assert_eq!(text(|out| search([], None, out)), "* SEARCH\r\n");
    assert_eq!(
        text(|out| search([2, 5], Some(917_162_500), out)),
        "* SEARCH 2 5 (MODSEQ 917162500)\r\n"
    );
    let none = Esearch { tag: "A301", uid: true, ..Esearch::default() };
    assert_eq!(text(|out| esearch(&none, out)), "* ESEARCH (TAG \"A301\") UID\r\n");
    let all = Esearch { all: Some(vec![17..=17, 900..=901]), ..none.clone() };
    assert_eq!(text(|out| esearch(&all, out)), "* ESEARCH (TAG \"A301\") UID ALL 17,900:901\r\n");
    let some = Esearch {
        tag: "a\"",
        uid: false,
        min: Some(2),
        max: Some(47),
        count: Some(25),
        all: Some(vec![]),
        modseq: Some(9),
    };
    assert_eq!(
        text(|out| esearch(&some, out)),
        "* ESEARCH (TAG \"a\\\"\") MIN 2 MAX 47 COUNT 25 MODSEQ 9\r\n"
    );
}

#[test]
fn messages_are_told_of() {
    assert_eq!(text(|out| numbered(172, "EXISTS", out)), "* 172 EXISTS\r\n");
    assert_eq!(text(|out| words("ENABLED IMAP4rev2", out)), "* ENABLED IMAP4rev2\r\n");
    assert_eq!(text(|out| flags_line(["\\Seen", "$a"], out)), "* FLAGS (\\Seen $a)\r\n");
    assert_eq!(
        text(|out| vanished(true, [41..=41, 43..=116], out)),
        "* VANISHED (EARLIER) 41,43:116\r\n"
    );
    assert_eq!(text(|out| id(&[], out)), "* ID NIL\r\n");
    assert_eq!(text(|out| continuation("", out)), "+ \r\n");
    let line = text(|out| {
        let mut line = FetchLine::begin(12, out);
        line.flags(["\\Seen"], out);
        line.internal_date(837_596_665, -25_200, out);
        line.number(&FetchItem::Size, 4286, out);
        line.number(&FetchItem::Uid, 7, out);
        line.modseq(624_140_003, out);
        line.end(out);
    });
    assert_eq!(
        line,
        "* 12 FETCH (FLAGS (\\Seen) INTERNALDATE \"17-Jul-1996 02:44:25 -0700\" RFC822.SIZE 4286 \
         UID 7 MODSEQ (624140003))\r\n"
    );
    assert!(
        is_flag("\\Seen") && is_flag("$a") && !is_flag("") && !is_flag("\\") && !is_flag("a b")
    );
}

#[test]
fn items_are_called_as_they_were_asked_for() {
    use crate::imap::command::{Command, Dialect, parse};
    for (asked, told) in [
        ("ENVELOPE", "ENVELOPE"),
        ("BODY", "BODY"),
        ("BODYSTRUCTURE", "BODYSTRUCTURE"),
        ("RFC822", "RFC822"),
        ("RFC822.HEADER", "RFC822.HEADER"),
        ("RFC822.TEXT", "RFC822.TEXT"),
        ("BODY[]", "BODY[]"),
        ("BODY.PEEK[TEXT]", "BODY[TEXT]"),
        ("BODY[1.2.MIME]", "BODY[1.2.MIME]"),
        ("BODY[4.HEADER]<5.7>", "BODY[4.HEADER]<5>"),
        ("BODY[3]<0.10>", "BODY[3]<0>"),
        (
            "BODY.PEEK[HEADER.FIELDS (\"Date\" x \"a b\" {1}\r\nc)]",
            "BODY[HEADER.FIELDS (Date x \"a b\" c)]",
        ),
        ("BODY[1.HEADER.FIELDS.NOT (A)]", "BODY[1.HEADER.FIELDS.NOT (A)]"),
        ("BINARY.PEEK[1.2]<3.4>", "BINARY[1.2]<3>"),
        ("BINARY[]", "BINARY[]"),
        ("BINARY.SIZE[2]", "BINARY.SIZE[2]"),
    ] {
        let command = format!("a FETCH 1 {asked}");
        let Ok(Command::Fetch { fetch, .. }) =
            parse(command.as_bytes(), Dialect::default()).map(|tagged| tagged.command)
        else {
            panic!("{asked}");
        };
        assert_eq!(text(|out| item_name(&fetch.items[0], out)), told);
    }
}

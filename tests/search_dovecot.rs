//! SEARCH beside Dovecot's: each program finds the messages that clients are used to have found.

#![allow(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests and their helpers fail by panicking"
)]

mod messages;
mod support;

use std::collections::BTreeSet;
use std::fmt::Write;

use hikyaku::imap::command::{Command, Dialect, parse};
use hikyaku::mailbox::{Store, Structures, UidSet, open};
use hikyaku::server::imap::search::{Context, prepare};
use messages::{MESSAGES, wire};
use support::dovecot;
use support::site::Site;
use support::{maildir, need};

/// Besides those with hard structures: what is hard about their texts.
const TEXTS: &[(&str, &[u8])] = &[
    ("lecture", b"From: Toshihiko SHIMOKAWA / \x1b$B2<@n=SI'\x1b(B <toshi@tenbin.org>\nDate: Mon, 21 Jun 2004 03:15:20 +0900 (JST)\nContent-Type: text/plain; charset=ISO-2022-JP\nContent-Transfer-Encoding: 7bit\nContent-Disposition: inline\n\n\x1b$B$3$s$K$A$O!#$3$l$O%F%9%H$N%a%$%k$G$9!#2<@n\x1b(B\n"),
    ("sjis", b"Subject: =?Shift_JIS?B?ibqQ7A==?=\nContent-Type: text/plain; charset=Shift_JIS\n\n\x89\xba\x90\xec\n"),
    ("euc", b"Subject: =?EUC-JP?Q?=B2=BC=C0=EE?=\nContent-Type: text/plain; charset=EUC-JP\nContent-Transfer-Encoding: quoted-printable\n\n=B2=BC=\n=C0=EE\n"),
    ("utf8", b"Subject: =?utf-8?b?5LiL?= =?utf-8?b?5bed?=\nContent-Type: text/plain; charset=UTF-8\nContent-Transfer-Encoding: base64\n\n5LiL5bed\n"),
    ("utf8_divided", b"Subject: =?utf-8?b?5LiL5Q==?=\n =?utf-8?b?t50=?=\nContent-Type: text/plain; charset=UTF-8\nContent-Transfer-Encoding: base64\n\n5LiL\n5bed\n"),
    ("latin1", b"Subject: =?iso-8859-1?q?Gr=FCn?=\nContent-Type: text/plain; charset=iso-8859-1\n\ngr\xfcn STRASSE\n"),
    ("sharp", "Subject: Straße\nContent-Type: text/plain; charset=utf-8\n\nStraße\n".as_bytes()),
    ("width", "Subject: ＡＢＣ ﾃｽﾄ\nContent-Type: text/plain; charset=utf-8\n\nＡＢＣ ﾃｽﾄ ｶﾞ\n".as_bytes()),
    ("accents", "Subject: CAFÉ\nContent-Type: text/plain; charset=utf-8\n\nCafe\u{301}\n".as_bytes()),
    ("unnamed", b"Subject: \x1b$B2<@n\x1b(B\n\n\x1b$B2<@n\x1b(B\n"),
    ("unnamed_eight_bit", b"Subject: gr\xfcn\n\ngr\xfcn\n"),
    ("unknown_charset", b"Subject: =?x-none?q?word?=\nContent-Type: text/plain; charset=x-none\n\nword gr\xc3\xbcn\n"),
    ("html", b"Content-Type: text/html; charset=utf-8\n\n<p class=word>te<b>x</b>t &uuml;</p>\n"),
    ("attachment", b"Content-Type: multipart/mixed; boundary=b\n\n--b\nContent-Type: application/octet-stream; name=word.bin\nContent-Disposition: attachment; filename=word.bin\n\nhidden\n--b\nContent-Type: text/plain; name=\"notes.txt\"\nContent-Disposition: attachment\n\nshown\n--b--\n"),
    ("dates", b"Date: Mon, 21 Jun 2004 23:15:20 -0900\nFrom: =?utf-8?q?J=C3=BCrgen?= <j@b.org>\nCc: \"Hunt, B.\" <hunt@b.org>\n\nx\n"),
    ("dates_east", b"Date: Tue, 22 Jun 2004 00:15:20 +1400\nBcc: a@b.org\nReply-To: c@d.org\n\nx\n"),
    ("words", b"Subject: =?utf-8?b?5LiL?=\n =?utf-8?b?5bed?= tail\nTo: \"=?utf-8?q?quot=C3=A9d?=\" <a@b.org>\nFrom: x (=?utf-8?q?par=C3=A9n?=) <a@b.org>\n\nx\n"),
    ("raw_utf8", b"Subject: gr\xc3\xbc\xc3\x9fe\n\nbody gr\xc3\xbc\xc3\x9fe\n"),
    ("half_width", b"Subject: STRASSE \xef\xbc\xa1\xef\xbc\xa2\nContent-Type: text/plain; charset=utf-8\n\nStra\xc3\x9fe \xef\xbd\xb6\xef\xbe\x9e\n"),
    ("unknown_encoding", b"Content-Type: text/plain\nContent-Transfer-Encoding: x-none\n\nword\n"),
    ("json", b"Content-Type: application/json\n\nword\n"),
    ("line_ends", b"Subject: x\n\none\ntwo  three\n"),
    ("date_short", b"Date: 21 Jun 04 03:15 JST\n\nx\n"),
    ("date_small", b"Date: mon, 21 jun 2004 23:15:20 -0100\n\nx\n"),
    ("date_comments", b"Date: (w) Mon, 21 (x) Jun (y)\n 2004 23:59:59 -1200 (z)\n\nx\n"),
    ("date_leap", b"Date: Mon, 21 Jun 2004 23:59:60 +0000\n\nx\n"),
    ("date_without_time", b"Date: 21 Jun 2004\n\nx\n"),
    ("date_twice", b"Date: Mon, 21 Jun 2004 12:00:00 +0000\nDate: Tue, 22 Jun 2004 12:00:00 +0000\n\nx\n"),
    ("report", b"Content-Type: multipart/report; report-type=delivery-status; boundary=b\n\n--b\n\nfailed\n--b\nContent-Type: message/delivery-status\n\nDiagnostic-Code: smtp; word\n--b\nContent-Type: message/rfc822\n\nSubject: =?utf-8?q?embedded=20subject?=\n\nembedded text\n--b--\n"),
];

/// What is searched for.
const PROGRAMS: &[&str] = &[
    "ALL",
    "SEEN",
    "UNSEEN",
    "ANSWERED",
    "UNDELETED",
    "KEYWORD $Forwarded",
    "UNKEYWORD $Forwarded",
    "1:10",
    "120:*",
    "999:*",
    "UID 5,7:9",
    "UID 999:*",
    "NOT 1:100",
    "LARGER 200",
    "SMALLER 20",
    "NOT LARGER 100 NOT SMALLER 50",
    "SINCE 1-Jan-2004",
    "BEFORE 1-Jan-2004",
    "SENTON 21-Jun-2004",
    "SENTON 22-Jun-2004",
    "SENTBEFORE 22-Jun-2004",
    "SENTSINCE 22-Jun-2004",
    "FROM a@b.org",
    "FROM \"\"",
    "FROM jürgen",
    "FROM shimokawa",
    "FROM 下川",
    "TO c@d.org",
    "TO hunt",
    "TO \"A Group\"",
    "CC hunt",
    "CC \"\"",
    "BCC b.org",
    "SUBJECT \"\"",
    "SUBJECT x",
    "SUBJECT one",
    "SUBJECT \"one two\"",
    "SUBJECT 下川",
    "SUBJECT grün",
    "SUBJECT GRÜN",
    "SUBJECT word",
    "SUBJECT two SUBJECT one",
    "HEADER Message-ID \"\"",
    "HEADER Message-ID <a",
    "HEADER Content-Type multipart",
    "HEADER X-None \"\"",
    "NOT HEADER Subject \"\"",
    "HEADER Reply-To d.org",
    "BODY hello",
    "BODY HELLO",
    "BODY \"\"",
    "BODY one",
    "BODY two",
    "BODY 下川",
    "BODY テスト",
    "BODY grün",
    "BODY GRÜN",
    "BODY word",
    "BODY hidden",
    "BODY shown",
    "BODY preamble",
    "BODY epilogue",
    "BODY failed",
    "BODY embedded",
    "BODY \"embedded subject\"",
    "BODY \"Status:\"",
    "BODY text",
    "BODY \"<b>x\"",
    "BODY signature",
    "TEXT hello",
    "TEXT \"Subject: x\"",
    "TEXT \"embedded subject\"",
    "TEXT notes.txt",
    "TEXT word.bin",
    "TEXT boundary",
    "TEXT 下川",
    "TEXT \"one two\"",
    "TEXT \"text/plain\"",
    "TEXT \"there\"",
    "OR BODY hello SUBJECT x",
    "OR (SUBJECT x BODY hello) (FROM a@b.org NOT BODY hello)",
    "NOT (SUBJECT x BODY hello)",
    "NOT OR SUBJECT x BODY hello",
    "SEEN BODY hello 1:50",
    "BODY straße",
    "BODY abc",
    "BODY ﾃｽﾄ",
    "BODY CAFÉ",
    "SUBJECT \"下川 TAIL\"",
    "SUBJECT 下",
    "SUBJECT grüße",
    "SUBJECT ab",
    "SUBJECT ａｂ",
    "FROM parén",
    "TO quotéd",
    "HEADER Content-Type boundary",
    "HEADER content-type \"charset=utf-8\"",
    "BODY \"one two\"",
    "BODY \"two three\"",
    "BODY \"two  three\"",
    "TEXT preamble",
    "TEXT field",
    "BODY field",
    "TEXT hidden",
    "BODY inner",
    "TEXT inner",
    "BODY page",
    "TEXT ünner",
    "BODY \"テストのメイル\"",
    "BODY ガ",
    "BODY grüße",
    "BODY STRASSE",
    "NOT TEXT x",
    "TEXT \"\"",
    "BODY \"one two\" NOT TEXT hello",
    "OR (BODY one NOT BODY two) (TEXT hello SUBJECT inner)",
    "NOT OR BODY one TEXT subject",
    "UID 3:*",
    "2:5,*",
    "OR 1:10 NOT 5:*",
    "TEXT \"x\ty\"",
];

/// Why we find what Dovecot does not, and the other way round: the messages that are meant, or, where
/// none is named, those without a date.
const DIFFERENCES: &[(&str, &[&str], &str)] = &[
    ("999:*", &["report"], "the last one is in it (RFC 9051 section 9, seq-range)"),
    ("SENTBEFORE 22-Jun-2004", &[], "what has no date was not sent before a day"),
    ("SENTON 21-Jun-2004", &["date_without_time"], "a date without a time is a day all the same"),
    ("FROM jürgen", &["eight_bit_header"], WINDOWS),
    ("FROM 下川", &["lecture"], ESCAPES),
    ("TO c@d.org", &["semicolons"], "a field is searched as it stands, and not its addresses"),
    ("SUBJECT 下川", &["utf8_divided"], "a character may be divided between encoded words"),
    ("SUBJECT 下川", &["unnamed"], ESCAPES),
    ("SUBJECT 下", &["unnamed"], ESCAPES),
    ("SUBJECT grün", &["unnamed_eight_bit"], WINDOWS),
    ("SUBJECT GRÜN", &["unnamed_eight_bit"], WINDOWS),
    ("SUBJECT grüße", &["eight_bit_header"], WINDOWS),
    ("FROM parén", &["words"], "words in comments are words, too"),
    ("SUBJECT word", &["unknown_charset"], "words in an unknown charset are what they look like"),
    ("BODY 下川", &["unnamed"], ESCAPES),
    ("BODY grün", &["unnamed_eight_bit"], WINDOWS),
    ("BODY GRÜN", &["unnamed_eight_bit"], WINDOWS),
    ("BODY straße", &["latin1"], SHARP),
    ("BODY STRASSE", &["sharp", "half_width"], SHARP),
    ("TEXT \"Subject: x\"", &["blank_before_colon"], "a field's name has no blank behind it"),
    ("TEXT 下川", &["unnamed"], ESCAPES),
    ("TEXT \"one two\"", &["folded_blank", "folds"], "where a field was folded there is one blank"),
    ("NOT TEXT x", &["type_empty", "type_semicolon", "type_slash"], NO_TYPE),
    ("NOT TEXT x", &["encoding_empty"], "an encoding that is empty is none"),
    ("NOT OR BODY one TEXT subject", &["digest_empty_type"], NO_TYPE),
];
const WINDOWS: &str = "octets of no known charset are those of windows-1252";
const ESCAPES: &str = "an escape tells ISO-2022-JP where nobody else does";
const SHARP: &str = "case is folded as Unicode says, and ß is ss";
const NO_TYPE: &str = "what is no type is what a missing one is (RFC 2045 section 5.2)";

#[test]
fn searches_find_what_dovecot_finds() {
    if !need("dovecot") || !need("doveadm") {
        return;
    }
    let all: Vec<(&str, &[u8])> = MESSAGES.iter().chain(TEXTS).copied().collect();
    let site = Site::new();
    let (mut imap, _) =
        dovecot::on_maildir(&site, "hunt", all.iter().map(|(_, message)| wire(message)));
    let place = maildir::place(site.path(), all.iter().map(|(_, message)| wire(message)));
    let mut structures = Structures::open(&place);
    let mut store = open(place).unwrap();
    let mut wrong = String::new();
    let mut seen = BTreeSet::new();
    for program in PROGRAMS {
        // Dovecot takes strings other than ASCII only where their charset is named.
        let search = format!("SEARCH CHARSET UTF-8 {}", literals(program));
        let ours = ours(store.as_mut(), &mut structures, &search);
        let theirs: BTreeSet<u32> = match imap.command(&search) {
            Ok(answers) => answers
                .iter()
                .filter_map(|answer| answer.text.strip_prefix("* SEARCH"))
                .flat_map(|numbers| numbers.split_whitespace().map(|n| n.parse().unwrap()))
                .collect(),
            Err(why) => panic!("{program}: {why}"),
        };
        for number in ours.symmetric_difference(&theirs) {
            let name = all[usize::try_from(*number).unwrap() - 1].0;
            let known = DIFFERENCES
                .iter()
                .position(|(known, names, _)| known == program && is_meant(names, name));
            if let Some(at) = known {
                seen.insert((at, name));
                continue;
            }
            let who = if ours.contains(number) { "ours" } else { "theirs" };
            writeln!(wrong, "{program}: {name}: only {who}").unwrap();
        }
    }
    imap.log_out();
    for (at, (program, names, why)) in DIFFERENCES.iter().enumerate() {
        for name in names.iter().filter(|name| !seen.contains(&(at, **name))) {
            writeln!(wrong, "{program}: {name}: no difference ({why})").unwrap();
        }
    }
    assert!(wrong.is_empty(), "\n{wrong}");
}

/// Whether a difference is one of this message.
fn is_meant(names: &[&str], name: &str) -> bool {
    names.contains(&name) || (names.is_empty() && !DATED.contains(&name))
}

/// The messages with dates.
const DATED: [&str; 10] = [
    "date",
    "lecture",
    "dates",
    "dates_east",
    "date_short",
    "date_small",
    "date_comments",
    "date_leap",
    "date_without_time",
    "date_twice",
];

/// The program with its strings as they may stand in a command: words that are not ASCII quoted.
fn literals(program: &str) -> String {
    let quoted = |word: &str| {
        if word.is_ascii() || word.contains('"') { word.to_owned() } else { format!("\"{word}\"") }
    };
    program.split(' ').map(quoted).collect::<Vec<_>>().join(" ")
}

fn ours(store: &mut dyn Store, structures: &mut Structures, search: &str) -> BTreeSet<u32> {
    let command = format!("a {search}");
    let Ok(Command::Search { search, .. }) =
        parse(command.as_bytes(), Dialect::default()).map(|tagged| tagged.command)
    else {
        panic!("{search}");
    };
    let uids: Vec<u32> = store.messages().unwrap().iter().map(|message| message.uid).collect();
    let context = Context {
        largest_number: u32::try_from(uids.len()).unwrap(),
        largest_uid: *uids.last().unwrap(),
        saved: &UidSet::new(),
    };
    let program = prepare(&search, &context).unwrap();
    let mut found = BTreeSet::new();
    for (number, uid) in (1..).zip(uids) {
        if program.matches(store, structures, number, uid, false).unwrap() {
            found.insert(number);
        }
    }
    found
}

//! `local-deliver` as users have it called: by fetchmail, getmail, formail, procmail, maildrop, and
//! by their own `.forward`.
//!
//! As root that is `hunt`, by the name that the host knows, and no word says so; else it is whoever
//! runs the tests, for `hunt`.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests and their helpers fail by panicking"
)]

mod support;

use std::fs;
use std::process::Command;

use support::handover::{QUOTA, message, nearly_full};
use support::host::run_by;
use support::mbox;
use support::run::{Ran, run};
use support::site::Site;
use support::{find, is_root, need, need_account};

/// Messages, small ones, and from whom each came.
fn messages() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("toshi@example.org", message("dots", b".\n..\n.a dot\n...\n\n.\n")),
        ("", message("eight", b"Gr\xfc\xdfe \xe3\x81\x93\xe3\x82\x93 \xff\n")),
        (
            "o'brien&co@example.org",
            message("from", b"From here on\n\nFrom a@b.org Mon Jun 21 03:15:20 2004\n>From x\n\n"),
        ),
        ("-x@example.org", message("empty", b"")),
        ("a=b+c@example.org", message("long", &[&[b'x'; 998][..], b"\n\n\n\n"].concat())),
    ]
}

/// Gives a user all of them.
fn fill(site: &Site, user: &str) {
    for (sender, message) in messages() {
        site.local_deliver(user, sender, &message).expect(0);
    }
}

/// The words that call us, and whom for where that is not the caller.
fn words(site: &Site, more: &[&str]) -> Vec<String> {
    let mut words = site.agent_words().to_vec();
    words.extend(more.iter().map(|word| (*word).to_owned()));
    if !is_root() {
        words.extend(["-d", "hunt"].map(str::to_owned));
    }
    words
}

/// The same for a shell.
fn line(site: &Site, more: &[&str]) -> String {
    let words = words(site, more);
    words.iter().map(|word| format!("'{word}'")).collect::<Vec<_>>().join(" ")
}

/// Runs a command as `hunt`.
fn by_hunt(site: &Site, words: &[&str], input: &[u8]) -> Ran {
    let mut command = Command::new(find(words[0]).unwrap_or_else(|| words[0].into()));
    command.args(&words[1..]).env("LC_ALL", "C");
    run(&mut run_by(site, "hunt", &command), input)
}

/// What clients see of the messages, when each has been delivered to `hunt` a second time by a
/// program that tells senders so.
fn delivered_again(source: &[Vec<u8>], as_it_tells: fn(&str) -> String) -> Vec<Vec<u8>> {
    assert_eq!(source.len(), messages().len());
    let again = source.iter().zip(messages()).map(|(message, (sender, _))| {
        let trace = format!("Return-Path: <{sender}>\n");
        let rest = message.strip_prefix(trace.as_bytes()).unwrap();
        let trace = format!("Return-Path: <{}>\n", as_it_tells(sender));
        [trace.as_bytes(), b"Delivered-To: hunt@smkwlab.net\n", rest].concat()
    });
    again.collect()
}

#[track_caller]
fn are_same(found: &[Vec<u8>], wanted: &[Vec<u8>]) {
    let text = |messages: &[Vec<u8>]| {
        messages.iter().map(|message| message.escape_ascii().to_string()).collect::<Vec<_>>()
    };
    assert_eq!(text(found), text(wanted));
}

/// What a program fetches from the mailbox of `toshi` and hands over to us arrives byte for byte,
/// and stays on the server where we put it off.
fn fetches(as_it_tells: fn(&str) -> String, with: impl Fn(&Site, u16) -> Box<dyn Fn() -> Ran>) {
    let site = Site::plan()
        .set("", "log", "\"syslog\"")
        .set("mailbox", "quota", QUOTA)
        .set("mailbox", "over_quota", "\"wait\"")
        .build();
    let (_popd, address) = site.serve("popd");
    fill(&site, "toshi");
    let source = site.fetched("toshi");
    let fetch = with(&site, address.port());
    site.fill("hunt", nearly_full().as_bytes());
    let ran = fetch();
    assert_eq!(site.messages("hunt").len(), 1, "{ran}");
    are_same(&site.fetched("toshi"), &source);
    site.fill("hunt", b"");
    let ran = fetch().expect(0);
    are_same(&site.fetched("hunt"), &delivered_again(&source, as_it_tells));
    assert_eq!(site.fetched("toshi").len(), 0, "{ran}");
}

#[test]
fn what_fetchmail_hands_over_arrives_byte_for_byte_or_stays_on_the_server() {
    if !need("fetchmail") || !need_account() {
        return;
    }
    // It puts %F into single quotes.
    fetches(
        |sender| sender.replace('\'', "_"),
        |site, port| {
            let mda = line(site, &["-f"]).replace("'-f'", "-f %F");
            let rc = site.write_home(
            "hunt",
            ".fetchmailrc",
            &format!(
                "set invisible\npoll 127.0.0.1 service {port} protocol pop3\n    username \"toshi\" \
                 password \"tenbin\" sslproto \"\" no rewrite fetchall\n    mda \"{mda}\"\n"
            ),
        );
            let mut command = Command::new("fetchmail");
            command.args(["--nosyslog", "--nodetach", "-v", "-f"]).arg(&rc).env("LC_ALL", "C");
            command.env("FETCHMAILHOME", site.home("hunt"));
            let command = run_by(site, "hunt", &command);
            Box::new(move || run(&mut support::site::behind(&["env"], &command), b""))
        },
    );
}

/// getmail with this destination.
fn getmail(site: &Site, port: u16, words: &[String], more: &str) -> Box<dyn Fn() -> Ran> {
    let arguments: Vec<String> = words[1..].iter().map(|word| format!("\"{word}\"")).collect();
    let rc = site.write_home(
        "hunt",
        "getmailrc",
        &format!(
            "[retriever]\ntype = SimplePOP3Retriever\nserver = 127.0.0.1\nport = {port}\n\
             username = toshi\npassword = tenbin\n\
             [destination]\ntype = MDA_external\npath = {}\narguments = ({},)\n{more}\
             [options]\ndelete = true\ndelivered_to = false\nreceived = false\n",
            words[0],
            arguments.join(", ")
        ),
    );
    let mut command = Command::new("getmail");
    command.arg("--getmaildir").arg(site.home("hunt")).arg("--rcfile").arg(&rc).env("LC_ALL", "C");
    let command = run_by(site, "hunt", &command);
    Box::new(move || run(&mut support::site::behind(&["env"], &command), b""))
}

#[test]
fn what_getmail_hands_over_arrives_byte_for_byte_or_stays_on_the_server() {
    if !need("getmail") || !need_account() {
        return;
    }
    fetches(str::to_owned, |site, port| {
        getmail(site, port, &words(site, &["-f", "%(sender)"]), "")
    });
}

#[test]
fn what_getmail_hands_over_with_a_from_line_names_its_sender_itself() {
    if !need("getmail") || !need_account() {
        return;
    }
    fetches(str::to_owned, |site, port| {
        getmail(site, port, &words(site, &[]), "unixfrom = true\n")
    });
}

/// The lines that an mbox of ours quotes stay quoted: formail hands over what is in the file, and
/// who reads a message cannot know whether a `>` before `From ` was its writer's. Nothing else of
/// a message is another one for clients.
#[test]
fn formail_splits_an_mbox_of_ours_and_each_message_is_delivered_again() {
    if !need("formail") || !need_account() {
        return;
    }
    let site = Site::new();
    fill(&site, "hunt");
    let (old, before) = (site.spool("hunt"), site.fetched("hunt"));
    assert!(String::from_utf8_lossy(&old).contains("\nX-Mbox-Quoted: "));
    let quoted = |message: &Vec<u8>| -> Vec<u8> {
        let text = message.split_inclusive(|b| *b == b'\n').map(|line| {
            let is_from =
                line[line.iter().take_while(|b| **b == b'>').count()..].starts_with(b"From ");
            [if is_from { b">" } else { &b""[..] }, line].concat()
        });
        text.collect::<Vec<_>>().concat()
    };
    let wanted: Vec<Vec<u8>> = delivered_again(&before, str::to_owned).iter().map(quoted).collect();
    site.fill("hunt", b"");
    let script = format!("formail -s {}", line(&site, &[]));
    by_hunt(&site, &["sh", "-ec", &script], &old).expect(0);
    are_same(&site.fetched("hunt"), &wanted);
    // And into a folder.
    site.fill("hunt", b"");
    let script = format!("formail -s {}", line(&site, &["-m", "archive/2004"]));
    by_hunt(&site, &["sh", "-ec", &script], &old).expect(0);
    assert_eq!(site.spool("hunt"), b"");
    let folder = fs::read(site.home("hunt").join("mail/archive.sbd/2004")).unwrap();
    site.fill("hunt", &folder);
    are_same(&site.fetched("hunt"), &wanted);
}

/// The one message in a folder of `hunt`.
#[track_caller]
fn in_folder(site: &Site, folder: &str) -> mbox::Message {
    let text = fs::read(site.home("hunt").join("mail").join(folder)).unwrap();
    let mut messages = mbox::parse(&text);
    assert_eq!(messages.len(), 1);
    assert_eq!(site.messages("hunt").len(), 0);
    messages.remove(0)
}

#[test]
fn a_recipe_of_procmail_puts_mail_into_a_folder() {
    if !need("procmail") || !need_account() {
        return;
    }
    let site = Site::new();
    let text = format!(
        "SHELL=/bin/sh\nDEFAULT=/dev/null\nLOGFILE=/dev/null\n:0 w\n* ^Subject: from\n| {}\n",
        line(&site, &["-m", "x"])
    );
    let rc = site.write_home("hunt", "procmailrc", &text);
    let (sender, message) = &messages()[2];
    by_hunt(&site, &["procmail", "-f", sender, "-m", rc.to_str().unwrap()], message).expect(0);
    let found = in_folder(&site, "x");
    assert_eq!(found.fields("Return-Path"), [format!("<{sender}>")]);
    assert!(message.ends_with(found.text().as_bytes()));
}

#[test]
fn a_filter_of_maildrop_puts_mail_into_a_folder() {
    if !need("maildrop") || !need_account() {
        return;
    }
    let site = Site::new();
    // Whatever the login shell of whoever runs the tests is.
    let text =
        format!("SHELL=\"/bin/sh\"\nto \"| {} -f \\\"$FROM\\\"\"\n", line(&site, &["-m", "x"]));
    let rc = site.write_home("hunt", "mailfilter", &text);
    let (sender, message) = &messages()[2];
    by_hunt(&site, &["maildrop", "-f", sender, rc.to_str().unwrap()], message).expect(0);
    let found = in_folder(&site, "x");
    assert_eq!(found.fields("Return-Path"), [format!("<{sender}>")]);
    assert!(message.ends_with(found.text().as_bytes()));
}

#[test]
fn a_forward_that_calls_us_puts_mail_into_a_folder_and_never_runs_for_ever() {
    if !need_account() {
        return;
    }
    let site = Site::new();
    let (sender, message) = &messages()[2];
    site.write_home("hunt", ".forward", &format!("\"|exec {}\"\n", line(&site, &["-m", "x"])));
    let words = words(&site, &["-f", sender]);
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let deliver = || by_hunt(&site, &words, message);
    deliver().expect(0);
    let found = in_folder(&site, "x");
    assert_eq!(found.fields("Return-Path"), [format!("<{sender}>")]);
    // Without a folder it calls itself, until the message has been delivered too often.
    site.write_home("hunt", ".forward", &format!("\"|exec {}\"\n", line(&site, &[])));
    let ran = deliver();
    assert_eq!(ran.code(), Some(65), "{ran}");
    assert_eq!(site.messages("hunt").len(), 0);
}

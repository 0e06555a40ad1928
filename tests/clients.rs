//! Debian's mail programs as they come: what they send arrives, and what we store they can read.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests and their helpers fail by panicking"
)]

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;

use support::run::run;
use support::site::{Site, must};
use support::{mbox, mutt, need, need_account};

const NONE: [&str; 0] = [];

/// Messages that are hard for an mbox: From_ lines, no last line end, none at all, 8 bits, CR.
const MESSAGES: [&[u8]; 5] = [
    b"Subject: plain\n\nHello.\n",
    b"Subject: from lines\n\nFrom x Mon Jun 21 03:15:20 2004\n\nFrom here\n>From there\n",
    b"Subject: no text\n\n",
    b"Subject: eight\nContent-Type: text/plain; charset=utf-8\n\n\xe3\x81\x93\xe3\x82\x93\n",
    b"Subject: long\n\nline\n\n\n\nFrom a@b Mon Jun 21 03:15:20 2004\nSubject: inner\n\ninner\n\n",
];

const SUBJECTS: [&str; 5] = ["plain", "from lines", "no text", "eight", "long"];

/// A site where `hunt` has all of these messages, delivered by our own delivery agent.
fn delivered() -> Site {
    let site = Site::new();
    for message in MESSAGES {
        site.local_deliver("hunt", "toshi@example.org", message).expect(0);
    }
    site
}

#[test]
fn swaks_sends() {
    if !need("swaks") {
        return;
    }
    let site = Site::new();
    let (_server, address) = site.serve("smtpd");
    for pipelined in [false, true] {
        let mut command = Command::new("swaks");
        command.args([
            "--server",
            &address.to_string(),
            "--helo",
            "client.example",
            "--from",
            "toshi@is.kyusan-u.ac.jp",
            "--to",
            "hunt@smkwlab.net,bob@smkwlab.net",
            "--header",
            "Subject: from swaks",
            "--body",
            "Hello.\n.\nFrom swaks\n",
        ]);
        if pipelined {
            command.arg("--pipeline");
        }
        must(&mut command);
    }
    site.mta_queue(&NONE).expect(0);
    for user in ["hunt", "bob"] {
        let messages = site.messages(user);
        assert_eq!(messages.len(), 2, "{user}");
        assert_eq!(messages[0].field("Subject"), Some("from swaks"));
        assert!(messages[0].text().contains("Hello.\n.\nFrom swaks\n"));
    }
}

#[test]
fn curl_sends_and_fetches() {
    if !need("curl") {
        return;
    }
    let site = Site::new();
    let (_smtpd, address) = site.serve("smtpd");
    let message = b"From: toshi@example.org\r\nSubject: from curl\r\n\r\nHello.\r\n.\r\n..\r\n";
    let mut command = Command::new("curl");
    command
        .args(["-sS", "-T", "-", "--mail-from", "toshi@example.org"])
        .args(["--mail-rcpt", "hunt@smkwlab.net"])
        .arg(format!("smtp://{address}/client.example"));
    run(&mut command, message).expect(0);
    site.mta_queue(&NONE).expect(0);
    let (_popd, address) = site.serve("popd");
    let mut command = Command::new("curl");
    command.args(["-sS", "-u", "hunt:Watts?Watt?"]);
    command.arg(format!("pop3://{address}/1"));
    let text = must(&mut command);
    assert!(text.ends_with("Subject: from curl\r\n\r\nHello.\r\n.\r\n..\r\n"), "{text}");
    let mut command = Command::new("curl");
    // -I: no text follows the answer.
    command.args(["-sS", "-u", "hunt:Watts?Watt?", "-X", "DELE", "-I"]);
    command.arg(format!("pop3://{address}/1"));
    must(&mut command);
    assert_eq!(site.messages("hunt").len(), 0);
}

#[test]
fn fetchmail_fetches_everything_once() {
    if !need("fetchmail") || !need_account() {
        return;
    }
    let site = delivered();
    let (_server, address) = site.serve("popd");
    let home = site.path().join("fetchmail");
    fs::create_dir(&home).unwrap();
    let output = home.join("output");
    let rc = home.join("fetchmailrc");
    fs::write(
        &rc,
        format!(
            "poll 127.0.0.1 service {} protocol pop3 uidl username \"hunt\" password \
             \"Watts?Watt?\" sslproto \"\" keep mda \"cat >> {}\"\n",
            address.port(),
            output.display()
        ),
    )
    .unwrap();
    fs::set_permissions(&rc, fs::Permissions::from_mode(0o600)).unwrap();
    let fetch = || {
        let mut command = Command::new("fetchmail");
        command
            .env("HOME", &home)
            .env("FETCHMAILHOME", &home)
            .args(["--nosyslog", "--nodetach", "-v", "-f"])
            .arg(&rc);
        run(&mut command, b"")
    };
    fetch().expect(0);
    let first = String::from_utf8_lossy(&fs::read(&output).unwrap()).into_owned();
    for subject in SUBJECTS {
        let line = format!("Subject: {subject}\n");
        assert!(first.contains(&line), "{subject}: {first}");
    }
    // The unique ids are the same the second time: there is nothing new.
    fetch().expect(1);
    assert_eq!(fs::read(&output).unwrap(), first.as_bytes());
}

/// What mutt sees in a mailbox: it copies every message into another one.
fn mutt_copies(site: &Site) -> Vec<mbox::Message> {
    let copy = site.path().join("copy");
    let keys =
        format!("<tag-pattern>.<enter><tag-prefix><copy-message>{}<enter><exit>", copy.display());
    mutt::press(site.path(), &site.inbox("hunt"), &keys);
    mbox::parse(&fs::read(copy).unwrap_or_default())
}

#[test]
fn mutt_reads_what_we_store() {
    if !mutt::possible() {
        return;
    }
    let site = delivered();
    let before = site.spool("hunt");
    let messages = mutt_copies(&site);
    let subjects: Vec<_> = messages.iter().filter_map(|message| message.field("Subject")).collect();
    assert_eq!(subjects, SUBJECTS);
    for (message, original) in messages.iter().zip(MESSAGES) {
        let text = message.text();
        let original = String::from_utf8_lossy(original);
        let (_, body) = original.split_once("\n\n").unwrap();
        assert_eq!(text.trim_end(), body.trim_end());
    }
    assert_eq!(site.spool("hunt"), before, "reading changed nothing");
}

#[test]
fn s_nail_lists_what_we_store() {
    if !need("s-nail") || !need_account() {
        return;
    }
    let site = delivered();
    let mut command = Command::new("s-nail");
    command.args(["-:/", "-R", "-H", "-f"]).arg(site.inbox("hunt"));
    command.env("HOME", site.path());
    let text = run(&mut command, b"").expect(0).text();
    for subject in SUBJECTS {
        assert!(text.contains(subject), "{subject}: {text}");
    }
    assert_eq!(text.lines().count(), SUBJECTS.len(), "{text}");
}

#[test]
fn formail_splits_what_we_store() {
    if !need("formail") {
        return;
    }
    let site = delivered();
    let mut command = Command::new("formail");
    command.args(["-s", "sh", "-c", "grep -c '' >/dev/null; echo message"]);
    let text = run(&mut command, &site.spool("hunt")).expect(0).text();
    assert_eq!(text.lines().count(), SUBJECTS.len(), "{text}");
}

#[test]
fn procmail_hands_over_to_us() {
    if !need("procmail") {
        return;
    }
    let site = Site::new();
    let mut deliver = site.local_deliver_command("hunt", "a@example.org");
    let line: Vec<String> = std::iter::once(deliver.get_program())
        .chain(deliver.get_args())
        .map(|word| format!("'{}'", word.to_str().unwrap()))
        .collect();
    let rc: PathBuf = site.path().join("procmailrc");
    fs::write(
        &rc,
        format!(
            "SHELL=/bin/sh\nHOME={}\nDEFAULT=/dev/null\nLOGFILE=/dev/null\n:0 w\n|{}\n",
            site.home("hunt").display(),
            line.join(" ")
        ),
    )
    .unwrap();
    deliver = Command::new(support::find("procmail").unwrap());
    deliver.arg("-m").arg(&rc);
    site.become_user(&mut deliver, "hunt");
    run(&mut deliver, MESSAGES[1]).expect(0);
    assert_eq!(site.messages("hunt").len(), 1);
}

#[test]
fn fetched_messages_are_those_that_were_delivered() {
    let site = delivered();
    let (_server, address) = site.serve("popd");
    let mut peer = support::peer::Peer::connect(address);
    peer.line();
    peer.pop("USER hunt");
    let answer = peer.pop("PASS Watts?Watt?");
    assert!(answer.starts_with("+OK"), "{answer}");
    for (number, original) in (1..).zip(MESSAGES) {
        assert!(peer.pop(&format!("RETR {number}")).starts_with("+OK"));
        let body = peer.pop_body();
        assert!(
            body.ends_with(original),
            "{} is not {}",
            body.escape_ascii(),
            original.escape_ascii()
        );
    }
}

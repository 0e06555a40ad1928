//! Aliases and virtual users, through the real programs: what a session takes, where it goes, who
//! runs what.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests and their helpers fail by panicking"
)]

mod support;

use std::fmt::Write;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::PathBuf;
use std::time::Instant;

use support::is_root;
use support::outbox::Outbox;
use support::run::run;
use support::site::{Plan, Site};

const NONE: [&str; 0] = [];
const TEXT: &str = "Subject: to all\n\nhello\n";

/// A host with these aliases and virtual users.
fn site(aliases: &str, virtual_users: &str) -> Site {
    let site = plan().build();
    let table = site.path().join("virtual");
    let key = format!("virtual = {:?}", table.to_str().unwrap());
    let text = fs::read_to_string(site.configuration()).unwrap();
    fs::write(site.configuration(), text.replace("[paths]", &format!("[paths]\n{key}"))).unwrap();
    fs::write(site.path().join("aliases"), aliases).unwrap();
    fs::write(&table, virtual_users).unwrap();
    site
}

fn plan() -> Plan {
    Site::plan().set("", "relay_domains", "[\"relay.example\"]")
}

/// Sends to one address from far away, and runs the queue.
#[track_caller]
fn deliver(site: &Site, to: &str) -> String {
    site.submit("far@sender.example", &[to], TEXT);
    site.mta_queue(&NONE).expect(0).stderr
}

/// Who got mail, as `user*count`.
fn got(site: &Site) -> Vec<String> {
    let accounts = Site::accounts();
    let counts = accounts.iter().map(|account| (account.name, site.messages(account.name).len()));
    let some = counts.filter(|(_, count)| *count > 0);
    some.map(|(name, count)| format!("{name}*{count}")).collect()
}

#[track_caller]
fn refused(site: &Site, from: &str, to: &str) -> String {
    let (_server, mut peer) = site.session("smtpd");
    peer.greet();
    peer.command(format!("MAIL FROM:<{from}>"));
    peer.command(format!("RCPT TO:<{to}>"))
}

/// A directory that everybody may write into.
fn open_directory(site: &Site) -> PathBuf {
    let path = site.path().join("open");
    fs::create_dir(&path).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o1777)).unwrap();
    path
}

#[test]
fn a_list_reaches_each_member_once_however_it_is_nested() {
    let aliases =
        "staff: hunt, Toshi@smkwlab.net,\n  team, hunt\n\nteam: alice, staff2\nstaff2: team, bob\n";
    let site = site(aliases, "");
    deliver(&site, "Staff@smkwlab.net");
    assert_eq!(got(&site), ["toshi*1", "hunt*1", "alice*1", "bob*1"]);
    let text = String::from_utf8(site.spool("hunt")).unwrap();
    assert!(text.contains("Return-Path: <far@sender.example>"), "{text}");
    assert!(text.contains("Delivered-To: Staff@smkwlab.net"), "{text}");
    assert_eq!(site.queued(), NONE);
}

#[test]
fn the_owner_of_a_list_is_the_sender_and_hears_of_failures() {
    let aliases = "club: hunt, nobody-here, inner\nowner-club: toshi\n\
                   inner: bob\nowner-inner: alice\n";
    let site = site(aliases, "");
    deliver(&site, "club@smkwlab.net");
    let text = String::from_utf8(site.spool("hunt")).unwrap();
    assert!(text.contains("Return-Path: <owner-club@smkwlab.net>"), "{text}");
    let text = String::from_utf8(site.spool("bob")).unwrap();
    assert!(text.contains("Return-Path: <owner-inner@mx.smkwlab.net>"), "{text}");
    // The report.
    let text = String::from_utf8(site.spool("toshi")).unwrap();
    assert!(text.contains("<nobody-here@mx.smkwlab.net>: "), "{text}");
    assert!(text.contains("(expanded from <club@smkwlab.net>)"), "{text}");
    assert_eq!(got(&site), ["toshi*1", "hunt*1", "bob*1"]);
}

#[test]
fn a_name_inside_its_own_alias_is_the_account_even_where_it_forwards() {
    let site = site("hunt: hunt, toshi\n\\\"x\\\": y\nsecond: \\hunt\n", "");
    site.write_home("hunt", ".forward", "/dev/null\n");
    deliver(&site, "hunt+ext@smkwlab.net");
    assert_eq!(got(&site), ["toshi*1"]);
    fs::remove_file(site.home("hunt").join(".forward")).unwrap();
    deliver(&site, "hunt@smkwlab.net");
    assert_eq!(got(&site), ["toshi*2", "hunt*1"]);
    deliver(&site, "second@smkwlab.net");
    assert_eq!(got(&site), ["toshi*2", "hunt*2"], "\\hunt is not expanded");
}

#[test]
fn a_circle_that_leads_to_nobody_waits_and_names_its_members() {
    let site = site("a: b\nb: c\nc: a\n", "");
    let log = deliver(&site, "a@smkwlab.net");
    assert!(log.contains("dsn=4.3.5") && log.contains("a -> b -> c -> a"), "{log}");
    assert_eq!(site.queued_in("deferred").len(), 1);
    fs::write(site.path().join("aliases"), "a: hunt\n").unwrap();
    site.mta_queue(&["--flush"]).expect(0);
    assert_eq!(got(&site), ["hunt*1"]);
}

#[test]
fn what_a_list_gets_back_from_its_own_member_is_a_loop() {
    let site = site("list: hunt\n", "");
    site.write_home("hunt", ".forward", "list\n");
    let mut text = b"Delivered-To: LIST@smkwlab.net\n".to_vec();
    text.extend_from_slice(TEXT.as_bytes());
    site.submit("toshi@smkwlab.net", &["list@smkwlab.net"], &text);
    let log = site.mta_queue(&NONE).expect(0).stderr;
    assert!(log.contains("dsn=5.4.6"), "{log}");
    assert_eq!(got(&site), ["toshi*1"], "the report");
}

#[test]
fn included_files_have_addresses_and_no_commands() {
    let site = site("", "");
    let (good, bad) = (site.path().join("good"), site.path().join("bad"));
    fs::write(&good, "hunt # the first\nToshi S. <toshi@smkwlab.net>\n").unwrap();
    fs::write(&bad, "hunt\n|touch /tmp/never\n").unwrap();
    let aliases = format!("g: :include:{}, bob\nb: :include:{}\n", good.display(), bad.display());
    fs::write(site.path().join("aliases"), aliases).unwrap();
    deliver(&site, "g@smkwlab.net");
    assert_eq!(got(&site), ["toshi*1", "hunt*1", "bob*1"]);
    let log = deliver(&site, "b@smkwlab.net");
    assert!(log.contains("dsn=4.3.5") && log.contains("/bad: an included file"), "{log}");
    assert_eq!(got(&site), ["toshi*1", "hunt*1", "bob*1"]);
}

#[test]
fn commands_and_files_are_an_unprivileged_accounts_and_keep_no_address_waiting() {
    let site = site("", "");
    let open = open_directory(&site);
    let (uid, mbox) = (open.join("uid"), open.join("mbox"));
    let aliases = format!(
        "prog: \"|id -u >{uid}; cat >>{open}/text; echo \\\"$RECIPIENT\\\" >>{open}/text\", {mbox}, hunt\n\
         later: hunt, \"|exit 75\"\nfails: hunt, \"|echo why; exit 1\"\nowner-fails: toshi\n",
        uid = uid.display(),
        open = open.display(),
        mbox = mbox.display(),
    );
    fs::write(site.path().join("aliases"), aliases).unwrap();
    let log = deliver(&site, "prog@smkwlab.net");
    assert!(uid.exists(), "{log}");
    let nobody = nix::unistd::User::from_name("nobody").unwrap().unwrap().uid.as_raw();
    let wanted = if is_root() { nobody } else { nix::unistd::geteuid().as_raw() };
    assert_eq!(fs::read_to_string(&uid).unwrap().trim(), wanted.to_string());
    let text = fs::read_to_string(open.join("text")).expect(&log);
    assert!(text.contains("Subject: to all") && text.ends_with("prog@smkwlab.net\n"), "{text}");
    let kept = fs::read_to_string(&mbox).expect(&log);
    assert!(kept.starts_with("From far@sender.example ") && kept.contains("hello"), "{kept}");
    assert_eq!(fs::metadata(&mbox).unwrap().uid(), wanted);
    assert_eq!(got(&site), ["hunt*1"]);
    // Each has its own fate.
    let log = deliver(&site, "later@smkwlab.net");
    assert!(log.contains("to=<later@smkwlab.net>") && log.contains("dsn=4.3.0"), "{log}");
    assert_eq!(got(&site), ["hunt*2"]);
    site.mta_queue(&["--flush"]).expect(0);
    assert_eq!(got(&site), ["hunt*2"], "it goes on waiting alone");
    deliver(&site, "fails@smkwlab.net");
    assert_eq!(got(&site), ["toshi*1", "hunt*3"]);
    let report = String::from_utf8(site.spool("toshi")).unwrap();
    assert!(
        report.contains("<fails@smkwlab.net>: ") && report.contains("status 1: why"),
        "{report}"
    );
}

#[test]
fn commands_of_an_alias_file_that_others_may_write_are_not_run() {
    let site = site("", "");
    let open = open_directory(&site);
    let aliases = site.path().join("aliases");
    fs::write(&aliases, format!("prog: \"|touch {}/ran\"\n", open.display())).unwrap();
    fs::set_permissions(&aliases, fs::Permissions::from_mode(0o666)).unwrap();
    let log = deliver(&site, "prog@smkwlab.net");
    assert!(log.contains("chmod go-w"), "{log}");
    assert!(!open.join("ran").exists());
    fs::set_permissions(&aliases, fs::Permissions::from_mode(0o644)).unwrap();
    site.mta_queue(&["--flush"]).expect(0);
    assert!(open.join("ran").exists());
}

#[test]
fn an_alias_files_owner_runs_its_commands() {
    if !support::need_root() {
        return;
    }
    let site = site("", "");
    let open = open_directory(&site);
    let aliases = site.path().join("aliases");
    fs::write(&aliases, format!("prog: \"|id -u >{}/uid\"\n", open.display())).unwrap();
    let hunt = Site::account("hunt");
    std::os::unix::fs::chown(&aliases, Some(hunt.uid), Some(hunt.gid)).unwrap();
    deliver(&site, "prog@smkwlab.net");
    assert_eq!(fs::read_to_string(open.join("uid")).unwrap().trim(), hunt.uid.to_string());
}

#[test]
fn nobody_outside_reaches_a_command_or_a_file() {
    let site = site("staff: hunt\n", "");
    for to in [
        "\"|id\"@smkwlab.net",
        "\"/etc/passwd\"@smkwlab.net",
        "\":include:/etc/passwd\"@smkwlab.net",
    ] {
        assert!(refused(&site, "far@sender.example", to).starts_with("550 5.1.1 "), "{to}");
    }
    assert!(run(site.command("local-deliver").arg("--alias"), b"").code() != Some(0) || !is_root());
}

#[test]
fn virtual_users_have_their_domain_their_catch_all_and_their_extension() {
    let table = "v.example anything\nsales@v.example hunt@smkwlab.net, toshi\n\
                 @all.example bob@smkwlab.net\nall.example yes\nalias.example yes\n\
                 @alias.example @smkwlab.net\n";
    let site = site("", table);
    assert!(refused(&site, "x@y.example", "nobody@v.example").starts_with("550 5.1.1 "));
    deliver(&site, "Sales+lists@V.example");
    assert_eq!(got(&site), ["toshi*1", "hunt*1"]);
    let text = String::from_utf8(site.spool("hunt")).unwrap();
    assert!(text.contains("Delivered-To: hunt+lists@smkwlab.net"), "{text}");
    deliver(&site, "whoever@all.example");
    assert_eq!(got(&site), ["toshi*1", "hunt*1", "bob*1"]);
    deliver(&site, "alice@alias.example");
    assert_eq!(got(&site), ["toshi*1", "hunt*1", "alice*1", "bob*1"]);
    // RFC 5321 section 4.5.1.
    fs::write(site.path().join("aliases"), "postmaster: example\n").unwrap();
    deliver(&site, "postmaster@v.example");
    deliver(&site, "MAILER-DAEMON@smkwlab.net");
    assert_eq!(site.messages("example").len(), 2);
}

#[test]
fn a_session_is_told_who_is_known_and_who_may_relay() {
    let site = site("staff: hunt\n\"a b\": hunt\n", "v.example -\nme@v.example hunt\n");
    let config = fs::read_to_string(site.configuration()).unwrap();
    let config = config + "\n[smtp]\nrelay_networks = []\n";
    fs::write(site.configuration(), config).unwrap();
    for (to, code) in [
        ("hunt@smkwlab.net", "250"),
        ("STAFF@smkwlab.net", "250"),
        ("\"A b\"@smkwlab.net", "250"),
        ("staff+x@smkwlab.net", "250"),
        ("nobody@smkwlab.net", "550"),
        ("me@v.example", "250"),
        ("you@v.example", "550"),
        ("postmaster@v.example", "250"),
        ("who@relay.example", "250"),
        ("who@elsewhere.example", "554"),
    ] {
        let reply = refused(&site, "far@sender.example", to);
        assert!(reply.starts_with(code), "{to}: {reply}");
    }
    // What can't be read now is not unknown.
    let aliases = site.path().join("aliases");
    fs::remove_file(&aliases).unwrap();
    fs::create_dir(&aliases).unwrap();
    let reply = refused(&site, "far@sender.example", "who@smkwlab.net");
    assert!(reply.starts_with("451 4.3.0 "), "{reply}");
}

#[test]
fn newaliases_helps_and_forgetting_it_costs_no_mail() {
    let site = site("staff: hunt\nlonger:\ttoshi, alice\n", "");
    let ran = run(site.command("sendmail").arg("-bi"), b"");
    let line = format!(
        "{}: 2 aliases, longest 12 bytes, 27 bytes total\n",
        site.path().join("aliases").display()
    );
    assert!(ran.expect(0).text().starts_with(&line), "{line}");
    assert!(site.path().join("aliases.index").exists());
    deliver(&site, "staff@smkwlab.net");
    assert_eq!(got(&site), ["hunt*1"]);
    fs::write(site.path().join("aliases"), "other: bob\nstaff: toshi\n").unwrap();
    deliver(&site, "staff@smkwlab.net");
    assert_eq!(got(&site), ["toshi*1", "hunt*1"], "the file counts");
    deliver(&site, "other@smkwlab.net");
    assert_eq!(got(&site), ["toshi*1", "hunt*1", "bob*1"]);
    fs::write(site.path().join("aliases"), "good: hunt\nno colon\n").unwrap();
    let ran = run(site.command("sendmail").arg("-bi"), b"");
    let said = ran.expect(65).stderr;
    assert!(said.contains("aliases:2: has no colon; an alias is written"), "{said}");
    let check = run(site.command("mailctl").arg("check"), b"");
    assert!(check.stderr.contains("aliases:2: has no colon"), "{check}");
    // A wrong line is nobody's mail but its own.
    deliver(&site, "good@smkwlab.net");
    assert_eq!(got(&site), ["toshi*1", "hunt*2", "bob*1"]);
}

#[test]
fn explain_tells_the_way_step_by_step() {
    let aliases = "list: hunt+x, toshi, far@other.example, \"|cmd\"\nowner-list: toshi\n";
    let site = site(aliases, "v.example -\nl@v.example list\nm@v.example n@v.example\n");
    site.write_home("hunt", ".forward", "toshi\n");
    let explain = |address: &str, code| {
        let mut command = site.command("mailctl");
        run(command.args(["explain", address]), b"").expect(code).text()
    };
    let text = explain("l@v.example", 0);
    for part in [
        "virtual:2: virtual user l@v.example: list",
        "aliases:1: alias list: hunt+x, toshi, far@other.example, \"|cmd\"",
        "from <owner-list@mx.smkwlab.net>",
        "hunt+x@mx.smkwlab.net: account hunt (uid",
        ".forward says otherwise",
        "mail/toshi",
        "far@other.example: sent on to the hosts of other.example, by MX",
        "command \"cmd\"",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(explain("nobody", 67).contains("there is no such account"));
    assert!(explain("x@v.example", 67).contains("refused"));
    assert!(explain("m@v.example", 0).contains("n@v.example: there is no such virtual user"));
    assert!(explain("x@relay.example", 0).contains("a relay domain"));
}

#[test]
fn a_lookup_among_a_hundred_thousand_is_as_fast_as_among_ten() {
    let mut text = String::new();
    for number in 0..100_000 {
        writeln!(text, "name{number}: user{number}@elsewhere.example").unwrap();
    }
    text.push_str("last: hunt\n");
    let site = site(&text, "");
    let started = Instant::now();
    run(site.command("sendmail").arg("-bi"), b"").expect(0);
    support::note(&format!("newaliases of 100,000: {:?}", started.elapsed()));
    deliver(&site, "last@smkwlab.net");
    assert_eq!(got(&site), ["hunt*1"]);
}

/// What a sender asks for goes with the message to the one who stands behind an alias; a group is
/// told of once, and a list is where the message arrives (RFC 3461 section 5.2.7).
#[test]
fn who_wants_a_receipt_gets_one_for_each_address_that_was_written_to() {
    let outbox = Outbox::new();
    let site = outbox.plan(plan()).build();
    let aliases = "one: hunt\nrun: \"|cat >/dev/null\"\nteam: bob, alice, nobody-here\n\
                   club: bob, alice, nobody-here\nowner-club: alice\n";
    fs::write(site.path().join("aliases"), aliases).unwrap();
    let (server, address) = site.serve("smtpd");
    let mut client = support::peer::Peer::connect(address);
    client.greet();
    for (list, wish) in [
        ("one", "SUCCESS"),
        ("run", "SUCCESS"),
        ("team", "SUCCESS,FAILURE"),
        ("team", "SUCCESS"),
        ("club", "SUCCESS,FAILURE"),
    ] {
        client.command(format!("MAIL FROM:<toshi@smkwlab.net> RET=HDRS ENVID={list}-1"));
        client.command(format!("RCPT TO:<{list}@smkwlab.net> NOTIFY={wish}"));
        client.command("DATA");
        client.send(b"Subject: x\r\n\r\ntext\r\n.\r\n");
        assert!(client.reply().starts_with("250 "), "{}", client.dialogue());
    }
    drop(server);
    for _ in 0..3 {
        site.mta_queue(&["--flush"]).expect(0);
    }
    assert_eq!(site.queued(), NONE);
    let facts = |report: &str| {
        let field = |name: &str| {
            let found = report.lines().find_map(|line| line.trim_end().strip_prefix(name));
            found.unwrap_or("none").trim().to_owned()
        };
        let names = ["Original-Envelope-Id:", "Original-Recipient:", "Final-Recipient:", "Action:"];
        names.map(field).join(" ").replace("rfc822; ", "").replace("@smkwlab.net", "")
    };
    let ours = site.messages("toshi").into_iter();
    let ours = ours.map(|message| String::from_utf8(message.body).unwrap());
    let agents = outbox.sent().into_iter().map(|sent| sent.message);
    let mut told: Vec<String> = ours.chain(agents).map(|report| facts(&report)).collect();
    told.sort();
    let wanted = [
        "club-1 none club delivered",
        "one-1 one hunt@mx.smkwlab.net delivered",
        "run-1 run run delivered",
        "team-1 none team expanded",
        "team-1 none team expanded",
        "team-1 team nobody-here@mx.smkwlab.net failed",
    ];
    assert_eq!(told, wanted);
    // Its owner hears of the list's own failure, in no sender's terms.
    let owned = String::from_utf8(site.spool("alice")).unwrap();
    assert!(owned.contains("(expanded from <club@smkwlab.net>)"), "{owned}");
    assert!(!owned.contains("club-1"), "{owned}");
}

//! AUTH in smtpd (RFC 4954) with real clients, app passwords, and `mailctl user`.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests and their helpers fail by panicking"
)]

mod support;

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use base64ct::{Base64, Encoding};
use nix::pty::openpty;
use nix::sys::termios::{LocalFlags, tcgetattr};
use support::peer::Peer;
use support::run::{Ran, Server, run};
use support::scram;
use support::site::{Site, queue_id};
use support::{need, wait_until};

/// A host where nobody may relay but who has logged in.
fn host() -> (Site, Server, SocketAddr) {
    let plan = Site::plan().set("smtp", "auth", "true").set("smtp", "relay_networks", "[]");
    let site = plan.build();
    let (server, address) = site.serve("smtpd");
    (site, server, address)
}

fn greeted(address: SocketAddr) -> Peer {
    let mut peer = Peer::connect(address);
    assert!(peer.reply().starts_with("220 "));
    assert!(peer.command("EHLO client.example").starts_with("250-"));
    peer
}

fn plain(user: &str, password: &str) -> String {
    format!("AUTH PLAIN {}", Base64::encode_string(format!("\0{user}\0{password}").as_bytes()))
}

fn mailctl(site: &Site, words: &[&str], input: &str) -> Ran {
    run(site.command("mailctl").args(words), input.as_bytes())
}

#[test]
fn who_has_logged_in_may_relay_and_the_message_says_so() {
    let (site, server, address) = host();
    let mut peer = greeted(address);
    assert!(peer.command("MAIL FROM:<hunt@smkwlab.net>").starts_with("250 "));
    assert!(peer.command("RCPT TO:<a@example.org>").starts_with("554 5.7.1 "));
    assert!(peer.command("RSET").starts_with("250 "));
    assert_eq!(peer.command(plain("hunt", "Watts?Watt?")), "235 2.7.0 Authentication successful");
    let reply = peer.mail("hunt@smkwlab.net", &["a@example.org"], b"Subject: x\n\nx\n");
    let id = queue_id(&reply);
    let entry = fs::read(site.queue().join("incoming").join(&id)).unwrap();
    assert!(String::from_utf8_lossy(&entry).contains(&format!("with ESMTPA id {id}")));
    let log = server.wait_for_log(&format!("{id}: "));
    assert!(log.contains(" proto=ESMTPA auth=hunt status=accepted"), "{log}");
}

#[test]
fn a_failure_takes_its_time_is_logged_for_fail2ban_and_the_third_is_the_last() {
    let (_site, server, address) = host();
    let mut peer = greeted(address);
    for (user, seconds) in [("hunt", 2), ("nobody", 4), ("hunt", 6)] {
        let begin = Instant::now();
        assert!(peer.command(plain(user, "wrong")).starts_with("535 5.7.8 "));
        assert!(begin.elapsed() >= Duration::from_secs(seconds));
    }
    assert!(peer.rest().starts_with("421 4.7.0 "));
    let words = "warning: localhost[127.0.0.1]: SASL PLAIN authentication failed: ";
    let log = server.wait_for_log(&format!("{words}authentication failure, sasl_username=nobody"));
    assert_eq!(log.matches(words).count(), 3, "{log}");
}

#[test]
fn swaks_logs_in_by_the_forms_it_knows() {
    if !need("swaks") {
        return;
    }
    let (_site, server, address) = host();
    let server_word = address.to_string();
    for form in ["PLAIN", "LOGIN"] {
        let mut command = Command::new("swaks");
        command.args([
            "--server",
            &server_word,
            "--from",
            "hunt@smkwlab.net",
            "--to",
            "a@example.org",
        ]);
        command.args(["--auth", form, "--auth-user", "hunt", "--auth-password", "Watts?Watt?"]);
        run(&mut command, b"").expect(0);
    }
    drop(server);
}

#[test]
fn python_and_curl_log_in() {
    let (site, _server, address) = host();
    let message = site.path().join("message");
    fs::write(&message, "Subject: x\r\n\r\nx\r\n").unwrap();
    if need("curl") {
        let mut command = Command::new("curl");
        command.args([
            "-sS",
            &format!("smtp://{address}/client.example"),
            "-u",
            "hunt:Watts?Watt?",
        ]);
        command.args(["--mail-from", "hunt@smkwlab.net", "--mail-rcpt", "a@example.org", "-T"]);
        run(command.arg(&message), b"").expect(0);
    }
    if need("python3") {
        let script = "import smtplib, sys\n\
            s = smtplib.SMTP('127.0.0.1', int(sys.argv[1]))\n\
            s.login('hunt', 'Watts?Watt?')\n\
            s.sendmail('hunt@smkwlab.net', ['a@example.org'], 'Subject: x\\r\\n\\r\\nx\\r\\n')\n\
            s.quit()\n";
        let mut command = Command::new("python3");
        run(command.args(["-c", script, &address.port().to_string()]), b"").expect(0);
    }
}

#[test]
fn an_app_password_works_in_its_scope_until_it_is_deleted() {
    let (site, _server, address) = host();
    let words = ["user", "app-password", "add", "hunt", "phone", "--scope", "smtp"];
    let password = mailctl(&site, &words, "").expect(0).text().trim().to_owned();
    assert!(!fs::read_to_string(site.path().join("app-passwords")).unwrap().contains(&password));
    let mut peer = greeted(address);
    assert!(peer.command(plain("hunt", &password)).starts_with("235 "));
    let words = ["user", "app-password", "add", "hunt", "old", "--expires", "2001-01-01"];
    let old = mailctl(&site, &words, "").expect(0).text().trim().to_owned();
    let list = mailctl(&site, &["user", "app-password", "list", "hunt"], "").expect(0).text();
    assert!(
        list.contains("hunt:phone:smtp:\nhunt:old:smtp,imap,pop:2001-01-01:expired\n"),
        "{list}"
    );
    assert!(greeted(address).command(plain("hunt", &old)).starts_with("535 "));
    assert!(greeted(address).command(plain("bob", &password)).starts_with("535 "));
    mailctl(&site, &["user", "app-password", "del", "hunt", "phone"], "").expect(0);
    assert!(greeted(address).command(plain("hunt", &password)).starts_with("535 "));
}

#[test]
fn popd_takes_app_passwords_for_pop_until_their_day() {
    let site = Site::new();
    let (server, address) = site.serve("popd");
    let make = |label: &str, more: &[&str]| {
        let words = [&["user", "app-password", "add", "hunt", label], more].concat();
        mailctl(&site, &words, "").expect(0).text().trim().to_owned()
    };
    let logs_in = |user: &str, password: &str| {
        let mut peer = Peer::connect(address);
        assert!(peer.line().starts_with("+OK"));
        assert!(peer.pop(&format!("USER {user}")).starts_with("+OK"));
        let answer = peer.pop(&format!("PASS {password}"));
        peer.pop("QUIT");
        answer.starts_with("+OK")
    };
    let phone = make("phone", &["--scope", "pop,imap", "--expires", "9999-01-01"]);
    assert!(logs_in("hunt", &phone) && logs_in("hunt", "Watts?Watt?"));
    assert!(!logs_in("hunt", &make("sender", &["--scope", "smtp"])));
    assert!(!logs_in("hunt", &make("old", &["--scope", "pop", "--expires", "2001-01-01"])));
    assert!(!logs_in("bob", &phone) && !logs_in("nobody", &phone));
    mailctl(&site, &["user", "app-password", "del", "hunt", "phone"], "").expect(0);
    assert!(!logs_in("hunt", &phone));
    assert!(!server.log().contains(&phone));
}

/// `mailctl user passwd bob` at a pseudo-terminal, where these are the answers to what it asks; its
/// exit status and all that was on the screen.
fn at_a_terminal(site: &Site, answers: &[&str]) -> (Option<i32>, String) {
    let pty = openpty(None, None).unwrap();
    let mut command = site.command("mailctl");
    command.args(["user", "passwd", "bob"]);
    let terminal = || Stdio::from(pty.slave.try_clone().unwrap());
    let mut child =
        command.stdin(terminal()).stdout(terminal()).stderr(terminal()).spawn().unwrap();
    let mut keyboard = File::from(pty.master.try_clone().unwrap());
    let (mut screen, glass) = (File::from(pty.master), Arc::new(Mutex::new(Vec::new())));
    let reader = std::thread::spawn({
        let glass = Arc::clone(&glass);
        move || {
            let mut chunk = [0; 1024];
            // After the last program has gone it is an error.
            while let Ok(length @ 1..) = screen.read(&mut chunk) {
                glass.lock().unwrap().extend_from_slice(&chunk[..length]);
            }
        }
    });
    let shown = || String::from_utf8_lossy(&glass.lock().unwrap()).into_owned();
    let echoes = || tcgetattr(&pty.slave).unwrap().local_flags.contains(LocalFlags::ECHO);
    for (number, answer) in (1..).zip(answers) {
        // Where it asks, the terminal shows nothing any more.
        wait_until("a question", || {
            (shown().matches(": ").count() == number && !echoes()).then_some(())
        });
        keyboard.write_all(format!("{answer}\n").as_bytes()).unwrap();
    }
    let status = child.wait().unwrap();
    assert!(echoes(), "the terminal is as it was");
    drop(command);
    drop(pty.slave);
    reader.join().unwrap();
    (status.code(), shown())
}

#[test]
fn mailctl_asks_for_a_password_at_the_terminal_and_shows_it_to_nobody() {
    let (site, _server, address) = host();
    let (status, screen) = at_a_terminal(&site, &["first secret", "first secret"]);
    assert_eq!((status, screen.as_str()), (Some(0), "New password: \r\nThe same again: \r\n"));
    assert!(greeted(address).command(plain("bob", "first secret")).starts_with("235 "));
    let (status, screen) = at_a_terminal(&site, &["second secret", "2nd secret"]);
    assert_eq!(status, Some(65));
    assert!(!screen.contains("secret") && screen.contains("nothing is changed"), "{screen}");
    // ^C leaves the terminal as it was, too.
    let (status, screen) = at_a_terminal(&site, &["\x03"]);
    assert_eq!(status, Some(65), "{screen}");
    assert!(greeted(address).command(plain("bob", "first secret")).starts_with("235 "));
}

#[test]
fn mailctl_keeps_the_users_file_and_scram_is_offered_where_keys_are() {
    let (site, _server, address) = host();
    let offers = |address| {
        let mut peer = Peer::connect(address);
        peer.reply();
        peer.command("EHLO client.example")
    };
    assert!(!offers(address).contains("SCRAM"));
    let account = Site::account("bob");
    let (uid, gid) = (account.uid.to_string(), account.gid.to_string());
    let add = ["user", "add", "new", "--uid", &uid, "--gid", &gid, "--scheme", "scram-sha-256"];
    mailctl(&site, &add, "first\n").expect(0);
    mailctl(&site, &add, "first\n").expect(65);
    mailctl(&site, &["user", "add", "a/b"], "x\n").expect(64);
    assert!(offers(address).contains("AUTH SCRAM-SHA-256 PLAIN LOGIN"));
    assert!(greeted(address).command(plain("new", "first")).starts_with("235 "));
    mailctl(&site, &["user", "passwd", "new"], "second\n").expect(0);
    assert!(greeted(address).command(plain("new", "second")).starts_with("235 "));
    assert!(greeted(address).command(plain("new", "first")).starts_with("535 "));
    mailctl(&site, &["user", "passwd", "new"], "\n").expect(65);
    mailctl(&site, &["user", "del", "new"], "").expect(0);
    mailctl(&site, &["user", "del", "new"], "").expect(67);
    assert!(!mailctl(&site, &["user", "list"], "").expect(0).text().contains("new\t"));
}

#[test]
fn a_new_user_gets_mail_at_once_and_a_deleted_one_no_more() {
    let (site, _server, address) = host();
    let account = Site::account("bob");
    let (uid, gid) = (account.uid.to_string(), account.gid.to_string());
    let reply = || {
        let mut peer = greeted(address);
        assert!(peer.command("MAIL FROM:<hunt@smkwlab.net>").starts_with("250 "));
        peer.command("RCPT TO:<new@smkwlab.net>")
    };
    assert!(reply().starts_with("550 5.1.1 "));
    let add = ["user", "add", "new", "--uid", &uid, "--gid", &gid];
    mailctl(&site, &add, "first\n").expect(0);
    // Twice: the second time the answer is known.
    assert!(reply().starts_with("250 "));
    assert!(reply().starts_with("250 "));
    mailctl(&site, &["user", "del", "new"], "").expect(0);
    // A policy process does not follow upon another one within a second.
    let asked = Instant::now();
    wait_until("the user to be unknown", || reply().starts_with("550 5.1.1 ").then_some(()));
    assert!(asked.elapsed() < Duration::from_secs(5), "{:?}", asked.elapsed());
}

/// Python's standard library has what a client of SCRAM needs.
#[test]
fn scram_convinces_both_sides_and_an_unknown_name_fails_at_the_end() {
    if !need("python3") {
        return;
    }
    let (site, server, address) = host();
    let account = Site::account("bob");
    let (uid, gid) = (account.uid.to_string(), account.gid.to_string());
    let add = ["user", "add", "new", "--uid", &uid, "--gid", &gid, "--scheme", "scram-sha-256"];
    mailctl(&site, &add, "pencil\n").expect(0);
    for (user, password, wanted) in
        [("new", "pencil", "235"), ("new", "Pencil", "535"), ("nobody", "pencil", "535")]
    {
        let said = scram::python(address.port(), user, password, None);
        assert_eq!(said, wanted, "{user}");
    }
    server.wait_for_log(
        "SASL login authentication failed: authentication failure, sasl_username=nobody, \
         method=SCRAM-SHA-256",
    );
}

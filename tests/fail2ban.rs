//! Failed logins as fail2ban reads them: its own filters, by the jails of our sample, on lines that our
//! programs have written.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests and their helpers fail by panicking"
)]

mod support;

use std::fs;
use std::net::Ipv4Addr;
use std::process::Command;

use base64ct::{Base64, Encoding};
use support::dns::Dns;
use support::need;
use support::peer::Peer;
use support::run::run;
use support::site::Site;
use support::tls::{Pair, VERSIONS};

/// Names that would like to ban somebody else, or to hide who has typed them.
const NAMES: [&str; 7] = [
    "hunt",
    "nobody",
    "x]: authentication failed from [1.2.3.4]",
    "x> rip=1.2.3.4",
    "x>, method=PLAIN, rip=1.2.3.4, session=<y>",
    "warning: a[1.2.3.4]: SASL PLAIN authentication failed: x",
    "[::ffff:1.2.3.4]",
];

/// The filter of a jail in the sample.
fn filter(jail: &str) -> String {
    let sample = concat!(env!("CARGO_MANIFEST_DIR"), "/etc/fail2ban.conf");
    let text = fs::read_to_string(sample).unwrap();
    let (_, section) = text.split_once(&format!("[{jail}]\n")).unwrap();
    let line = section.lines().find_map(|line| line.strip_prefix("filter = ")).unwrap();
    line.to_owned()
}

/// The addresses that fail2ban takes from these lines, which a syslog daemon has put into a file.
fn banned(jail: &str, log: &str) -> Vec<String> {
    let file = tempfile::NamedTempFile::new().unwrap();
    let line = |line: &str| format!("Nov 26 10:00:00 mx {line}\n");
    fs::write(file.path(), log.lines().map(line).collect::<String>()).unwrap();
    let mut command = Command::new("fail2ban-regex");
    command.args(["-o", "ip"]).arg(file.path()).arg(filter(jail));
    run(&mut command, b"").text().lines().map(str::to_owned).collect()
}

#[test]
fn the_filter_for_postfix_finds_who_fails_at_smtpd_and_nobody_else() {
    if !need("fail2ban-regex") {
        return;
    }
    let dns = Dns::start();
    let plan = Site::plan()
        .set("smtp", "auth", "true")
        .set("smtp", "proxies", "[\"127.0.0.9\"]")
        .set("auth", "plaintext_without_tls", "true")
        .set("dns", "servers", &format!("[\"{}\"]", dns.address()));
    let site = plan.build();
    let (server, address) = site.serve("smtpd");
    let client = |from: &str, hello: &str| {
        let mut peer = Peer::connect_from(Ipv4Addr::new(127, 0, 0, 9), address);
        let family =
            if from.contains(':') { "TCP6 2001:db8::7 ::1" } else { "TCP4 192.0.2.77 127.0.0.1" };
        peer.send(format!("PROXY {family} 4711 25\r\n"));
        assert!(peer.reply().starts_with("220 "));
        peer.command(hello);
        peer
    };
    let encoded = |text: &str| Base64::encode_string(text.as_bytes());
    std::thread::scope(|scope| {
        for name in NAMES {
            scope.spawn(move || {
                let mut peer = client("192.0.2.77", "EHLO client.example");
                let said =
                    peer.command(format!("AUTH PLAIN {}", encoded(&format!("\0{name}\0wrong"))));
                assert!(said.starts_with("535 "), "{name}: {said}");
            });
        }
        scope.spawn(move || {
            let mut peer = client("2001:db8::7", "EHLO client.example");
            assert!(peer.command(format!("AUTH LOGIN {}", encoded("hunt"))).starts_with("334 "));
            assert!(peer.command(encoded("wrong")).starts_with("535 "));
            let right = encoded("\0hunt\0Watts?Watt?");
            assert!(peer.command(format!("AUTH PLAIN {right}")).starts_with("235 "));
        });
    });
    // Whatever else gets into the log.
    let mut peer = client("192.0.2.77", "EHLO a[1.2.3.4]:SASL");
    peer.command(
        "MAIL FROM:<\"warning: a[1.2.3.4]: SASL PLAIN authentication failed: \"@b.example>",
    );
    assert!(peer.command("RCPT TO:<nobody@smkwlab.net>").starts_with("550 "));
    server.wait_for_log("NOQUEUE: reject: RCPT from ");
    let mut found = banned("hikyaku-smtpd", &server.log());
    found.sort();
    let mut wanted = vec!["192.0.2.77"; NAMES.len()];
    wanted.push("2001:db8::7");
    assert_eq!(found, wanted, "{}", server.log());
}

/// SCRAM, too: a guess is the first line of its exchange and a proof that is wrong.
#[test]
fn the_filter_finds_who_fails_by_scram() {
    if !need("fail2ban-regex") {
        return;
    }
    let site = Site::plan().set("smtp", "auth", "true").build();
    let account = Site::account("bob");
    let (uid, gid) = (account.uid.to_string(), account.gid.to_string());
    let add = ["user", "add", "new", "--uid", &uid, "--gid", &gid, "--scheme", "scram-sha-256"];
    run(site.command("mailctl").args(add), b"pencil\n").expect(0);
    let (server, address) = site.serve("smtpd");
    let mut peer = Peer::connect_from(Ipv4Addr::new(127, 0, 0, 3), address);
    peer.greet();
    let encoded = |text: &str| Base64::encode_string(text.as_bytes());
    let first = format!("AUTH SCRAM-SHA-256 {}", encoded("n,,n=new,r=abcdefgh"));
    let challenge = peer.command(first);
    let challenge = Base64::decode_vec(challenge.strip_prefix("334 ").unwrap()).unwrap();
    let challenge = String::from_utf8(challenge).unwrap();
    let (nonce, _) = challenge.split_once(',').unwrap();
    let proof = Base64::encode_string(&[0; 32]);
    assert!(peer.command(encoded(&format!("c=biws,{nonce},p={proof}"))).starts_with("535 "));
    let log = server.wait_for_log("sasl_username=new, method=SCRAM-SHA-256");
    assert_eq!(banned("hikyaku-smtpd", &log), ["127.0.0.3"], "{log}");
}

#[test]
fn the_filter_for_dovecot_finds_who_fails_at_popd_and_nobody_else() {
    if !need("fail2ban-regex") {
        return;
    }
    let site = Site::new();
    let (server, address) = site.serve("popd");
    std::thread::scope(|scope| {
        for name in NAMES {
            scope.spawn(move || {
                let mut peer = Peer::connect_from(Ipv4Addr::new(127, 0, 0, 2), address);
                assert!(peer.line().starts_with("+OK"));
                assert!(peer.pop(&format!("USER {name}")).starts_with("+OK"), "{name}");
                assert!(peer.pop("PASS wrong").starts_with("-ERR [AUTH]"), "{name}");
            });
        }
        scope.spawn(move || {
            let mut peer = Peer::connect_from(Ipv4Addr::new(127, 0, 0, 3), address);
            peer.line();
            peer.pop("USER hunt");
            assert!(peer.pop("PASS Watts?Watt?").starts_with("+OK"));
            peer.pop("QUIT");
        });
    });
    server.wait_for_log("Disconnected: user=<hunt>");
    let log = server.log();
    assert_eq!(banned("hikyaku-popd", &log), vec!["127.0.0.2"; NAMES.len()], "{log}");
}

#[test]
fn the_filter_for_dovecot_finds_who_fails_at_imapd_and_nobody_else() {
    if !need("fail2ban-regex") {
        return;
    }
    let pair = Pair::new();
    let plan = pair.plan_for("imap.tls", Site::plan());
    let site = plan.set("imap", "proxies", "[\"127.0.0.9\"]").build();
    let (server, address) = site.serve("imapd");
    std::thread::scope(|scope| {
        for name in NAMES {
            scope.spawn(move || {
                let mut peer = Peer::connect_from(Ipv4Addr::new(127, 0, 0, 2), address);
                assert!(peer.line().starts_with("* OK"));
                let answer = peer.imap(&format!("a LOGIN \"{name}\" wrong"));
                assert!(answer.starts_with("a NO [AUTHENTICATIONFAILED]"), "{name}: {answer}");
            });
        }
        scope.spawn(move || {
            let mut peer = Peer::connect_from(Ipv4Addr::new(127, 0, 0, 9), address);
            peer.send("PROXY TCP6 2001:db8::7 ::1 4711 143\r\n");
            // Not that of the load balancer, which is on this host.
            assert!(peer.line().contains("LOGINDISABLED"));
        });
        scope.spawn(move || {
            let mut peer = Peer::connect_from(Ipv4Addr::new(127, 0, 0, 9), address);
            peer.send("PROXY TCP4 127.0.0.77 127.0.0.1 4711 143\r\n");
            peer.line();
            assert!(peer.imap("a LOGIN hunt wrong").starts_with("a NO "));
            assert!(peer.imap("b LOGIN hunt Watts?Watt?").starts_with("b OK "));
            peer.imap("c LOGOUT");
        });
        scope.spawn(|| {
            let mut peer = Peer::connect_from(Ipv4Addr::new(127, 0, 0, 5), address);
            peer.line();
            assert!(peer.imap("a STARTTLS").starts_with("a OK"));
            peer.start_tls(pair.client(VERSIONS)).unwrap();
            assert!(peer.imap("b LOGIN hunt wrong").starts_with("b NO "));
        });
    });
    let log = server.wait_for_log("status=accepted");
    let mut found = banned("hikyaku-imapd", &log);
    found.sort();
    let mut wanted = vec!["127.0.0.2"; NAMES.len()];
    wanted.extend(["127.0.0.5", "127.0.0.77"]);
    assert_eq!(found, wanted, "{log}");
}

//! STARTTLS in smtpd (RFC 3207): what is offered, what is forgotten, and what attacks come to
//! nothing.

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
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use support::need;
use support::peer::{Heard, Peer};
use support::run::{Server, run};
use support::site::{HOST, Site, must, queue_id};
use support::tls::{Pair, VERSIONS};

const TEXT: &[u8] = b"Subject: secret\n\nHello.\n";
const TO: &[&str] = &["hunt@smkwlab.net"];

/// A host that offers TLS.
struct Host {
    pair: Pair,
    site: Site,
    server: Server,
    address: SocketAddr,
}

impl Host {
    fn new() -> Self {
        let pair = Pair::new();
        let site = pair.plan(Site::plan()).build();
        let (server, address) = site.serve("smtpd");
        Self { pair, site, server, address }
    }

    /// A client that has been told to begin TLS.
    #[track_caller]
    fn ready(&self) -> Peer {
        let mut peer = Peer::connect(self.address);
        peer.greet();
        assert_eq!(peer.command("STARTTLS"), "220 2.0.0 Ready to start TLS");
        peer
    }

    /// A client under TLS.
    #[track_caller]
    fn secured(&self) -> Peer {
        let mut peer = self.ready();
        peer.start_tls(self.pair.client(VERSIONS)).unwrap();
        peer
    }

    /// That a session like any other is served.
    #[track_caller]
    fn lives(&self) {
        let mut peer = self.secured();
        assert!(peer.command("EHLO client.example").starts_with("250-"));
        assert!(peer.mail("a@example.org", TO, TEXT).starts_with("250 2.0.0 "));
        assert!(peer.command("QUIT").starts_with("221 "));
    }
}

#[test]
fn a_message_comes_by_either_version_and_is_marked_so() {
    let host = Host::new();
    let agreed = [
        ("TLSv1.3", "TLS_AES_256_GCM_SHA384"),
        ("TLSv1.2", "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384"),
    ];
    for (version, (name, cipher)) in VERSIONS.iter().zip(agreed) {
        let mut peer = Peer::connect(host.address);
        assert!(peer.reply().starts_with("220 "));
        let offers = peer.command("EHLO client.example");
        assert!(offers.lines().any(|line| line == "250-STARTTLS"), "{offers}");
        assert!(peer.command("STARTTLS").starts_with("220 2.0.0 "));
        peer.start_tls(host.pair.client(&[version])).unwrap();
        let offers = peer.command("EHLO client.example");
        assert!(offers.starts_with("250-") && !offers.contains("STARTTLS"), "{offers}");
        let reply = peer.mail("a@example.org", TO, TEXT);
        assert!(reply.starts_with("250 2.0.0 "), "{reply}");
        assert!(peer.command("QUIT").starts_with("221 "));
        assert_eq!(peer.hear(), Heard::Closed(Vec::new()));
        let id = queue_id(&reply);
        let entry = fs::read(host.site.queue().join("incoming").join(&id)).unwrap();
        let entry = String::from_utf8_lossy(&entry).into_owned();
        assert!(entry.contains(&format!("with ESMTPS id {id}")), "{entry}");
        let log = host.server.wait_for_log(&format!("{id}: "));
        let line = log.lines().find(|line| line.contains(&id)).unwrap();
        let tls = format!(" proto=ESMTPS tls={name} cipher={cipher} status=accepted");
        assert!(line.contains(&tls), "{line}");
    }
    // In the clear nothing of it is said.
    let id = Site::send(host.address, "a@example.org", TO, "Subject: x\n\nx\n");
    let log = host.server.wait_for_log(&format!("{id}: "));
    let line = log.lines().find(|line| line.contains(&id)).unwrap();
    assert!(line.contains(" proto=ESMTP status=accepted"), "{line}");
}

#[test]
fn what_was_said_in_the_clear_is_forgotten() {
    let host = Host::new();
    let mut peer = Peer::connect(host.address);
    peer.greet();
    assert!(peer.command("MAIL FROM:<a@example.org>").starts_with("250 "));
    assert!(peer.command("RCPT TO:<hunt@smkwlab.net>").starts_with("250 "));
    assert!(peer.command("STARTTLS").starts_with("220 "));
    peer.start_tls(host.pair.client(VERSIONS)).unwrap();
    assert!(peer.command("RCPT TO:<bob@smkwlab.net>").starts_with("503 "));
    assert!(peer.command("DATA").starts_with("503 "));
    let reply = peer.command("MAIL FROM:<a@example.org>");
    assert!(reply.starts_with("503 "), "EHLO is wanted again: {reply}");
    assert!(peer.command("STARTTLS").starts_with("503 "));
    assert!(peer.command("EHLO other.example").starts_with("250-"));
    assert!(peer.mail("a@example.org", TO, TEXT).starts_with("250 2.0.0 "));
    host.server.wait_for_log(" helo=<other.example> ");
}

#[test]
fn starttls_takes_no_parameter() {
    let host = Host::new();
    let mut peer = Peer::connect(host.address);
    peer.greet();
    assert!(peer.command("STARTTLS now").starts_with("501 5.5.4 "));
    assert!(peer.mail("a@example.org", TO, TEXT).starts_with("250 2.0.0 "));
}

#[test]
fn commands_injected_behind_starttls_are_never_obeyed() {
    let host = Host::new();
    // In the packet of STARTTLS: the session ends.
    let mut peer = Peer::connect(host.address);
    peer.greet();
    peer.send("STARTTLS\r\nMAIL FROM:<evil@example.org>\r\nRCPT TO:<hunt@smkwlab.net>\r\n");
    let rest = peer.rest();
    assert!(rest.starts_with("503 5.5.0 ") && !rest.contains("220 "), "{rest}");
    // A ClientHello is no better there.
    let mut peer = Peer::connect(host.address);
    peer.greet();
    let mut early = b"STARTTLS\r\n".to_vec();
    host.pair.client(VERSIONS).write_tls(&mut early).unwrap();
    peer.send(early);
    assert!(peer.rest().starts_with("503 5.5.0 "));
    // Behind the reply: it is taken for TLS, and is none.
    let mut peer = host.ready();
    peer.send("EHLO evil.example\r\nMAIL FROM:<evil@example.org>\r\n");
    let Heard::Closed(rest) = peer.hear() else { panic!("a line in the clear") };
    assert!(!rest.windows(4).any(|bytes| bytes == b"250 "), "{}", rest.escape_ascii());
    host.server.wait_for_log("NOQUEUE: TLS handshake with localhost[127.0.0.1] failed: ");
    assert!(!host.server.log().contains("evil"), "{}", host.server.log());
    host.lives();
}

#[test]
fn a_handshake_that_stops_holds_up_nobody_and_is_one_line_of_the_log() {
    let host = Host::new();
    let mut hello = Vec::new();
    host.pair.client(VERSIONS).write_tls(&mut hello).unwrap();
    let mut silent = host.ready();
    silent.send(&hello[..hello.len() / 2]);
    host.lives();
    silent.half_close();
    let log = host.server.wait_for_log("NOQUEUE: TLS handshake with localhost[127.0.0.1] failed: ");
    assert_eq!(log.matches("TLS handshake").count(), 1, "{log}");
    assert_eq!(log.lines().count(), 2, "one failure and one message: {log}");
    // A client that does not trust the certificate says so.
    let other = Pair::new();
    let mut peer = host.ready();
    assert!(peer.start_tls(other.client(VERSIONS)).is_err());
    host.server.wait_for_log("received fatal alert");
    host.lives();
}

#[test]
fn a_session_may_end_with_a_word_of_tls_or_without() {
    let host = Host::new();
    for polite in [true, false] {
        let mut peer = host.secured();
        peer.command("EHLO client.example");
        assert!(peer.mail("a@example.org", TO, TEXT).starts_with("250 2.0.0 "));
        if polite {
            peer.half_close();
            assert_eq!(peer.hear(), Heard::Closed(Vec::new()));
        }
    }
    // In the middle of a message nothing is taken.
    let mut peer = host.secured();
    peer.command("EHLO client.example");
    peer.command("MAIL FROM:<a@example.org>");
    peer.command("RCPT TO:<hunt@smkwlab.net>");
    peer.command("DATA");
    peer.send("Subject: half\r\n\r\nhalf\r\n");
    drop(peer);
    let (status, log) = host.server.stop();
    assert_eq!(status.code(), Some(0), "{log}");
    assert!(!log.contains("ended by") && !log.contains("failed"), "{log}");
    assert_eq!(host.site.queued_in("incoming").len(), 2);
}

#[test]
fn a_large_message_comes_through_in_pieces_of_any_size() {
    let host = Host::new();
    let mut text = String::from("Subject: large\n\n");
    for number in 0..300_000 {
        writeln!(text, "line {number} of a message").unwrap();
    }
    let mut peer = host.secured();
    peer.command("EHLO client.example");
    let reply = peer.mail("a@example.org", TO, text.as_bytes());
    assert!(reply.starts_with("250 2.0.0 "), "{reply}");
    // Records of one byte.
    peer.command("MAIL FROM:<a@example.org>");
    peer.command("RCPT TO:<hunt@smkwlab.net>");
    peer.command("DATA");
    let small = b"Subject: small\r\n\r\nHello.\r\n.\r\n";
    assert!(peer.dribble(small, 1, std::time::Duration::ZERO));
    assert!(peer.reply().starts_with("250 2.0.0 "));
    host.site.mta_queue(&[] as &[&str]).expect(0);
    let messages = host.site.messages("hunt");
    assert!(text.ends_with(&messages[0].text()) && messages[0].text().len() > 6_000_000);
    assert_eq!(messages[1].field("Subject"), Some("small"));
}

#[test]
fn a_renewed_certificate_is_used_without_a_restart() {
    let host = Host::new();
    host.lives();
    let mut old = host.ready();
    let trusting_the_old = host.pair.client(VERSIONS);
    host.pair.renew();
    // A client trusts only the one of its time: the new client the new one.
    host.lives();
    // Who had come before has what there was then.
    old.start_tls(trusting_the_old).unwrap();
    assert!(old.command("EHLO client.example").starts_with("250-"));
}

#[test]
fn a_client_comes_back_with_a_ticket_to_another_session() {
    let host = Host::new();
    for version in VERSIONS {
        let settings = host.pair.settings(&[version]);
        let resumed = |number| {
            let mut peer = host.ready();
            peer.start_tls(host.pair.comes(&settings)).unwrap();
            let reply = peer.mail("a@example.org", TO, TEXT);
            assert!(reply.starts_with("503 "), "what was said in the clear is forgotten: {reply}");
            assert!(peer.command("EHLO client.example").starts_with("250-"));
            assert!(peer.mail("a@example.org", TO, TEXT).starts_with("250 2.0.0 "), "{number}");
            assert!(peer.command("QUIT").starts_with("221 "));
            peer.is_resumed()
        };
        assert_eq!([resumed(1), resumed(2), resumed(3)], [false, true, true], "{version:?}");
    }
    // A ticket of another listening parent opens nothing, and TLS begins anew.
    let settings = host.pair.settings(VERSIONS);
    let other = host.pair.plan(Site::plan()).build();
    let (_server, address) = other.serve("smtpd");
    for (address, resumed) in [(host.address, false), (address, false), (address, true)] {
        let mut peer = Peer::connect(address);
        peer.greet();
        assert!(peer.command("STARTTLS").starts_with("220 "));
        peer.start_tls(host.pair.comes(&settings)).unwrap();
        assert!(peer.command("EHLO client.example").starts_with("250-"));
        assert_eq!(peer.is_resumed(), resumed);
    }
}

#[test]
fn the_certificate_is_that_of_the_name_which_the_client_asks_for() {
    let (first, second) = (Pair::of(HOST), Pair::of("mail.other.example"));
    let list = |files: [PathBuf; 2]| format!("{:?}", files.map(|file| file.display().to_string()));
    let site = Site::plan()
        .set("smtp.tls", "certificate", &list([first.certificate(), second.certificate()]))
        .set("smtp.tls", "key", &list([first.key(), second.key()]))
        .build();
    let (server, address) = site.serve("smtpd");
    let shakes_hands = |pair: &Pair| {
        let mut peer = Peer::connect(address);
        peer.greet();
        let ready = peer.command("STARTTLS").starts_with("220 ");
        ready && peer.start_tls(pair.client(VERSIONS)).is_ok()
    };
    assert!(shakes_hands(&first) && shakes_hands(&second));
    // Who asks for a name that no certificate has gets the first one, and may take it or not.
    let stranger = Pair::of("stranger.example");
    assert!(!shakes_hands(&stranger));
    let mut peer = Peer::connect(address);
    peer.greet();
    assert!(peer.command("STARTTLS").starts_with("220 "));
    peer.start_tls(first.unnamed_client()).unwrap();
    // One that breaks costs the others nothing.
    fs::copy(stranger.key(), second.key()).unwrap();
    assert!(shakes_hands(&first) && !shakes_hands(&second));
    server.wait_for_log("is not the key of the first certificate in ");
    second.renew();
    fs::write(first.certificate(), "").unwrap();
    assert!(shakes_hands(&second));
    // Both must be right at the start.
    let ran = run(site.command("smtpd").args(["--listen", "127.0.0.1:0"]), b"").expect(78);
    assert!(ran.stderr.contains("has no certificate"), "{ran}");
}

#[test]
fn a_pair_that_breaks_while_running_is_said_and_mail_goes_on() {
    let host = Host::new();
    host.lives();
    fs::copy(Pair::new().key(), host.pair.key()).unwrap();
    let mut peer = Peer::connect(host.address);
    peer.greet();
    assert_eq!(peer.command("STARTTLS"), "454 4.7.0 TLS not available now");
    assert!(peer.mail("a@example.org", TO, TEXT).starts_with("250 2.0.0 "));
    host.server.wait_for_log("is not the key of the first certificate in ");
    // A file that is gone leaves what was there: half a renewal.
    host.pair.renew();
    host.lives();
    fs::remove_file(host.pair.key()).unwrap();
    host.lives();
    host.lives();
    assert_eq!(host.server.log().matches("can't be read").count(), 1, "{}", host.server.log());
}

/// What smtpd and `mailctl check` say of these files; both must refuse them, in one line.
#[track_caller]
fn refused(certificate: &Path, key: &Path, said: &str) {
    let quoted = |path: &Path| format!("{:?}", path.to_str().unwrap());
    let site = Site::plan()
        .set("smtp.tls", "certificate", &quoted(certificate))
        .set("smtp.tls", "key", &quoted(key))
        .build();
    let ran = run(site.command("smtpd").args(["--listen", "127.0.0.1:0"]), b"").expect(78);
    assert!(ran.stderr.contains(said), "{ran}");
    assert_eq!(ran.stderr.lines().count(), 1, "{ran}");
    let ran = run(site.command("mailctl").arg("check"), b"").expect(78);
    assert!(ran.stderr.contains(said), "{ran}");
    // One session: TLS is not to be had, mail is.
    let (_server, mut peer) = site.session("smtpd");
    peer.greet();
    assert!(peer.command("STARTTLS").starts_with("454 4.7.0 "));
    assert!(peer.mail("a@example.org", TO, TEXT).starts_with("250 2.0.0 "));
}

#[test]
fn a_pair_that_will_not_do_is_refused_at_the_start_with_its_file() {
    let (pair, other) = (Pair::new(), Pair::new());
    let (certificate, key) = (pair.certificate(), pair.key());
    refused(&certificate, &other.key(), "is not the key of the first certificate in");
    refused(&key, &key, &format!("{}: has no certificate", key.display()));
    refused(&certificate, &certificate, &format!("{}: has no private key", certificate.display()));
    let missing = pair.certificate().with_file_name("missing");
    refused(&missing, &key, &format!("{}: can't be read", missing.display()));
    refused(Path::new("/dev/zero"), &key, "/dev/zero: a PEM file of at most");
    let broken = pair.certificate().with_file_name("broken");
    fs::write(&broken, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").unwrap();
    refused(&broken, &key, &format!("{}: ", broken.display()));
}

#[test]
fn a_pair_that_will_do_is_praised() {
    let pair = Pair::new();
    let site = pair.plan(Site::plan()).build();
    let ran = run(site.command("mailctl").arg("check"), b"");
    assert!(!ran.stderr.contains("tls"), "{ran}");
}

#[test]
fn one_session_of_inetd_offers_tls_as_well() {
    let pair = Pair::new();
    let site = pair.plan(Site::plan()).build();
    let (server, mut peer) = site.session("smtpd");
    peer.greet();
    assert!(peer.command("STARTTLS").starts_with("220 "));
    peer.start_tls(pair.client(VERSIONS)).unwrap();
    peer.command("EHLO client.example");
    assert!(peer.mail("a@example.org", TO, TEXT).starts_with("250 2.0.0 "));
    peer.command("QUIT");
    server.wait_for_log(" proto=ESMTPS tls=TLSv1.3 ");
    let (status, log) = server.join();
    assert_eq!(status.code(), Some(0), "{log}");
    // A pipe or a terminal is this host.
    let (_server, mut peer) = Site::local_session_of(site.command("smtpd"));
    peer.greet();
    assert!(peer.command("STARTTLS").starts_with("502 "));
}

#[test]
fn openssl_takes_keys_of_every_kind() {
    if !need("openssl") {
        return;
    }
    for kind in [
        &["-newkey", "rsa:2048"][..],
        &["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-384"],
        &["-newkey", "ed25519"],
    ] {
        let pair = Pair::new();
        let mut command = Command::new("openssl");
        command.args(["req", "-x509", "-nodes", "-days", "2", "-subj", "/CN=mx"]).args(kind);
        command.args(["-addext", &format!("subjectAltName=DNS:{HOST}")]);
        command.arg("-keyout").arg(pair.key()).arg("-out").arg(pair.certificate());
        must(&mut command);
        let site = pair.plan(Site::plan()).build();
        let (server, address) = site.serve("smtpd");
        let mut command = Command::new("openssl");
        command
            .args(["s_client", "-quiet", "-crlf", "-starttls", "smtp", "-verify_return_error"])
            .args(["-verify_hostname", HOST, "-connect", &address.to_string(), "-CAfile"])
            .arg(pair.certificate());
        let ran = run(&mut command, b"QUIT\n");
        assert!(ran.text().contains("221 2.0.0 Bye"), "{kind:?} {ran}\n{}", server.log());
    }
}

#[test]
fn swaks_sends_by_tls() {
    if !need("swaks") {
        return;
    }
    let host = Host::new();
    for version in ["tlsv1_2", "tlsv1_3"] {
        let mut command = Command::new("swaks");
        command.args(["--server", &host.address.to_string(), "--helo", "client.example", "--tls"]);
        command.args(["--tls-protocol", version, "--tls-verify", "--tls-ca-path"]);
        command.arg(host.pair.certificate());
        command.args(["--from", "toshi@is.kyusan-u.ac.jp", "--to", TO[0], "--body", "Hello.\n.\n"]);
        must(&mut command);
    }
    host.site.mta_queue(&[] as &[&str]).expect(0);
    let messages = host.site.messages("hunt");
    assert_eq!(messages.len(), 2);
    assert!(messages[0].field("Received").unwrap().contains("with ESMTPS "));
}

#[test]
fn python_sends_by_tls() {
    if !need("python3") {
        return;
    }
    let host = Host::new();
    let script = "import smtplib, ssl, sys\n\
        host, port, ca, name = sys.argv[1:]\n\
        context = ssl.create_default_context(cafile=ca)\n\
        client = smtplib.SMTP()\n\
        client.connect(host, int(port))\n\
        client._host = name\n\
        client.starttls(context=context)\n\
        client.sendmail('a@example.org', ['hunt@smkwlab.net'], 'Subject: p\\r\\n\\r\\n.\\r\\nx\\r\\n')\n\
        client.quit()\n";
    let mut command = Command::new("python3");
    command.args(["-c", script, &host.address.ip().to_string(), &host.address.port().to_string()]);
    must(command.arg(host.pair.certificate()).arg(HOST));
    host.server.wait_for_log(" proto=ESMTPS tls=TLSv1.3 cipher=");
}

#[test]
fn the_key_need_not_be_readable_by_the_sessions_account() {
    if !support::need_root() {
        return;
    }
    let host = Host::new();
    fs::set_permissions(host.pair.key(), fs::Permissions::from_mode(0o600)).unwrap();
    host.lives();
}

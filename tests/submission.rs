//! The services submission and submissions (RFC 6409, RFC 8314): TLS, a login, and messages that
//! are their user's own and whole.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests and their helpers fail by panicking"
)]

mod support;

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Command, Stdio};

use base64ct::{Base64, Encoding};
use support::dns::Dns;
use support::need;
use support::peer::{Heard, Peer};
use support::run::{Server, run};
use support::site::{Plan, Site, queue_id};
use support::tls::{Pair, VERSIONS};

/// A load balancer, by which a client comes from anywhere.
const BALANCER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 9);
const PASSWORD: &str = "Watts?Watt?";

struct Host {
    /// Nobody has a name, and nobody waits for one.
    _dns: Dns,
    pair: Pair,
    site: Site,
    server: Server,
    address: SocketAddr,
}

impl Host {
    fn new(word: &str) -> Self {
        Self::with(word, Site::plan())
    }

    fn with(word: &str, plan: Plan) -> Self {
        let pair = Pair::new();
        let dns = Dns::start();
        let plan = plan.set("smtp", "proxies", "[\"127.0.0.9\"]");
        let plan = plan.set("dns", "servers", &format!("[\"{}\"]", dns.address()));
        let site = pair.plan(plan).build();
        fs::write(site.path().join("aliases"), "sales: hunt, toshi\nothers: toshi\n").unwrap();
        let (server, address) = site.serve_word("smtpd", word);
        Self { _dns: dns, pair, site, server, address }
    }

    /// A client from elsewhere.
    fn client(&self) -> Peer {
        let mut peer = Peer::connect_from(BALANCER, self.address);
        peer.send("PROXY TCP4 192.0.2.77 127.0.0.1 4711 587\r\n");
        peer
    }

    /// The same under TLS, logged in.
    fn user(&self) -> Peer {
        let mut peer = self.client();
        peer.greet();
        assert!(peer.command("STARTTLS").starts_with("220 "));
        peer.start_tls(self.pair.client(VERSIONS)).unwrap();
        assert!(peer.command("EHLO client.example").starts_with("250"));
        assert!(peer.command(login("hunt", PASSWORD)).starts_with("235 "));
        peer
    }

    /// The header of what became of a message that was taken.
    #[track_caller]
    fn header(&self, reply: &str) -> Vec<String> {
        assert!(reply.starts_with("250 2.0.0 "), "{reply}");
        let entry = fs::read(self.site.queue().join("incoming").join(queue_id(reply))).unwrap();
        let text = String::from_utf8(entry).unwrap();
        let (_, text) = text.split_once("Received: ").unwrap();
        let (header, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(body.starts_with("body\r\n"), "{body:?}");
        let mut lines: Vec<String> = Vec::new();
        for line in header.split("\r\n") {
            match lines.last_mut() {
                Some(last) if line.starts_with([' ', '\t']) => last.push_str(line),
                _ => lines.push(line.to_owned()),
            }
        }
        lines.split_off(1)
    }
}

fn login(user: &str, password: &str) -> String {
    format!("AUTH PLAIN {}", Base64::encode_string(format!("\0{user}\0{password}").as_bytes()))
}

/// What is said to a message with this header from this sender.
fn send(peer: &mut Peer, from: &str, header: &str) -> String {
    assert!(peer.command(format!("MAIL FROM:<{from}>")).starts_with("250 "), "{}", peer.dialogue());
    let said = peer.command("RCPT TO:<a@example.org>");
    if !said.starts_with("250 ") {
        peer.command("RSET");
        return said;
    }
    peer.command("DATA");
    peer.command(format!("{header}\r\nbody\r\n."))
}

#[test]
fn nothing_goes_without_tls_and_a_login() {
    let host = Host::new("submission");
    let mut peer = host.client();
    assert!(peer.reply().starts_with("220 "));
    let hello = peer.command("EHLO client.example");
    assert!(hello.contains("STARTTLS") && !hello.contains("AUTH"), "{hello}");
    for command in ["MAIL FROM:<hunt@smkwlab.net>", "VRFY hunt", "RCPT TO:<a@b>", "DATA"] {
        assert_eq!(peer.command(command), "530 5.7.0 Error: send STARTTLS first", "{command}");
    }
    assert!(peer.command(login("hunt", PASSWORD)).starts_with("538 5.7.11 "));
    assert!(peer.command("STARTTLS").starts_with("220 "));
    peer.start_tls(host.pair.client(VERSIONS)).unwrap();
    assert!(peer.command("EHLO client.example").contains("AUTH PLAIN LOGIN"));
    let said = peer.command("MAIL FROM:<hunt@smkwlab.net>");
    assert_eq!(said, "530 5.7.0 Error: authentication required");
    assert!(peer.command(login("hunt", PASSWORD)).starts_with("235 "));
    let reply = send(&mut peer, "hunt@smkwlab.net", "Subject: x\r\n");
    let id = queue_id(&reply);
    host.server.wait_for_log(&format!("{id}: client="));
    assert!(host.server.log().contains(
        "proto=ESMTPSA tls=TLSv1.3 cipher=TLS_AES_256_GCM_SHA384 auth=hunt status=accepted"
    ));
    // This host itself may leave TLS out, as everywhere, and no more: relay_networks has it.
    let mut peer = Peer::connect(host.address);
    peer.greet();
    assert!(peer.command("MAIL FROM:<hunt@smkwlab.net>").starts_with("530 5.7.0 "));
    assert!(peer.command(login("hunt", PASSWORD)).starts_with("235 "));
    assert!(peer.command("MAIL FROM:<hunt@smkwlab.net>").starts_with("250 "));
}

#[test]
fn submissions_is_tls_from_the_first_byte_on() {
    let host = Host::with("submissions", Site::plan().set("smtp", "greet_delay", "\"1s\""));
    let mut peer = host.client();
    peer.start_tls(host.pair.client(VERSIONS)).unwrap();
    assert!(peer.reply().starts_with("220 "));
    let hello = peer.command("EHLO client.example");
    assert!(!hello.contains("STARTTLS") && hello.contains("AUTH PLAIN LOGIN"), "{hello}");
    assert!(peer.command("STARTTLS").starts_with("530 ") || peer.dialogue().contains("503 "));
    assert!(peer.command(login("hunt", PASSWORD)).starts_with("235 "));
    assert!(send(&mut peer, "hunt@smkwlab.net", "").starts_with("250 2.0.0 "));
    // One that speaks in the clear hears nothing that it could take for a greeting.
    let mut peer = host.client();
    peer.send("EHLO client.example\r\n");
    match peer.hear() {
        Heard::Closed(bytes) => assert!(!bytes.starts_with(b"220"), "{bytes:?}"),
        other => panic!("{other:?}"),
    }
    host.server.wait_for_log("TLS handshake with unknown[192.0.2.77] failed: ");
}

#[test]
fn a_header_is_completed_and_bcc_is_taken_out() {
    let host = Host::new("submission");
    let mut peer = host.user();
    let reply = send(&mut peer, "hunt@smkwlab.net", "Subject: x\r\nBcc: secret@example.org\r\n");
    let header = host.header(&reply);
    let id = queue_id(&reply);
    assert_eq!(header[..2], ["Subject: x", "From: hunt@smkwlab.net"]);
    assert!(header[2].starts_with("Date: "), "{header:?}");
    assert_eq!(header[3], format!("Message-ID: <{id}@mx.smkwlab.net>"));
    assert_eq!(header.len(), 4, "{header:?}");
    let whole = "From: hunt@smkwlab.net\r\nDate: d\r\nMessage-Id: <m@x>\r\nSubject: a\r\n b\r\n";
    let header = host.header(&send(&mut peer, "hunt@smkwlab.net", whole));
    assert_eq!(header, ["From: hunt@smkwlab.net", "Date: d", "Message-Id: <m@x>", "Subject: a b"]);
    // A receipt has no sender.
    let header = host.header(&send(&mut peer, "", "Date: d\r\nMessage-ID: m\r\n"));
    assert_eq!(header, ["Date: d", "Message-ID: m", "From: hunt@mx.smkwlab.net"]);
    // In pieces, as chunks.
    peer.command("MAIL FROM:<hunt@smkwlab.net>");
    peer.command("RCPT TO:<a@example.org>");
    for piece in ["From: hun", "t@smkwlab.net\r", "\nDate: d\r\nMessage-ID: m\r\n\r", "\nbo"] {
        peer.send(format!("BDAT {}\r\n{piece}", piece.len()));
        assert!(peer.reply().starts_with("250 "));
    }
    peer.send("BDAT 4 LAST\r\ndy\r\n");
    let header = host.header(&peer.reply());
    assert_eq!(header, ["From: hunt@smkwlab.net", "Date: d", "Message-ID: m"]);
}

#[test]
fn sender_and_from_belong_to_the_user() {
    let host = Host::new("submission");
    let mut peer = host.user();
    let mut says = |wanted: &str, sender: &str, from: &str| {
        let header = format!("{from}\r\nDate: d\r\nMessage-ID: m\r\n");
        let said = send(&mut peer, sender, &header);
        assert!(said.starts_with(wanted), "{sender} {from}: {said}");
        said
    };
    let hunt = "hunt@smkwlab.net";
    for own in [hunt, "HUNT@mx.smkwlab.net", "hunt+shop@smkwlab.net", "sales@smkwlab.net"] {
        says("250 ", own, &format!("From: Toshi <{own}>"));
    }
    for other in
        ["toshi@smkwlab.net", "hunt@example.org", "others@smkwlab.net", "hunter@smkwlab.net"]
    {
        let wanted = format!("553 5.7.1 <{other}> is no address of user hunt");
        says(&wanted, other, "From: hunt@smkwlab.net");
        let wanted = format!("550 5.7.1 From: <{other}> is no address of user hunt");
        says(&wanted, hunt, &format!("From: {other}"));
    }
    says("550 5.6.0 ", hunt, "From: hunt@smkwlab.net\r\nFrom: toshi@smkwlab.net");
    says("550 5.6.0 ", hunt, "From: hunt@smkwlab.net\r\nFROM : toshi@smkwlab.net");
    says("550 5.6.0 ", hunt, "From: hunt@smkwlab.net <toshi@smkwlab.net");
    let long = format!("X: {}\r\n", "x".repeat(900)).repeat(1200);
    says("552 5.3.4 ", hunt, &format!("{long}From: hunt@smkwlab.net"));
    let mut header = |from: &str| host.header(&says("250 ", hunt, from)).split_off(1);
    // Of several authors one has sent it.
    assert_eq!(
        header("From: toshi@smkwlab.net, sales@smkwlab.net"),
        ["Date: d", "Message-ID: m", "Sender: sales@smkwlab.net"]
    );
    assert_eq!(
        header("From: hunt@smkwlab.net\r\nSender: president@example.org"),
        ["Date: d", "Message-ID: m", "Sender: hunt@smkwlab.net"]
    );
    assert_eq!(
        header("From: hunt@smkwlab.net\r\nSender: sales@smkwlab.net"),
        ["Sender: sales@smkwlab.net", "Date: d", "Message-ID: m"]
    );
    host.server.wait_for_log(
        "NOQUEUE: reject: END-OF-MESSAGE from unknown[192.0.2.77]: 550 5.7.1 From: <hunt@example.org> \
         is no address of user hunt; from=<hunt@smkwlab.net> to=<a@example.org> proto=ESMTPSA \
         helo=<client.example> auth=hunt",
    );
}

#[test]
fn where_that_is_wanted_users_write_under_any_name() {
    let plan = Site::plan().set("smtp", "senders_must_be_own", "false");
    let host = Host::with("submission", plan);
    let mut peer = host.user();
    let header = "From: toshi@smkwlab.net\r\nDate: d\r\nMessage-ID: m\r\n";
    let header = host.header(&send(&mut peer, "president@example.org", header));
    assert_eq!(header, ["From: toshi@smkwlab.net", "Date: d", "Message-ID: m"]);
}

#[test]
fn a_service_for_users_needs_a_certificate() {
    let site = Site::new();
    for word in ["submission", "submissions"] {
        let mut command = site.command("smtpd");
        let ran = run(command.args(["--service", word, "--listen", "127.0.0.1:0"]), b"");
        let ran = ran.expect(78);
        let wanted = format!("service {word} needs TLS: set certificate and key in [smtp.tls]");
        assert!(ran.stderr.contains(&wanted), "{ran}");
    }
}

#[test]
fn real_clients_hand_mail_in() {
    for (word, protocol) in [("submission", "smtp"), ("submissions", "smtps")] {
        let host = Host::new(word);
        let port = host.address.port();
        let message = host.site.path().join("message");
        fs::write(&message, "From: hunt@smkwlab.net\r\n\r\nbody\r\n").unwrap();
        if need("swaks") {
            let mut command = Command::new("swaks");
            command.args(["--server", "127.0.0.1", "--port", &port.to_string()]);
            command.arg(if word == "submission" { "--tls" } else { "--tls-on-connect" });
            command.args(["--auth", "PLAIN", "--auth-user", "hunt", "--auth-password", PASSWORD]);
            command.args(["--from", "hunt@smkwlab.net", "--to", "a@example.org"]);
            run(&mut command, b"").expect(0);
        }
        if need("curl") {
            let mut command = Command::new("curl");
            command.args([
                "-sS",
                "--ssl-reqd",
                "--cacert",
                host.pair.certificate().to_str().unwrap(),
            ]);
            command.args(["--resolve", &format!("mx.smkwlab.net:{port}:127.0.0.1")]);
            command.args(["-u", &format!("hunt:{PASSWORD}")]);
            command.arg(format!("{protocol}://mx.smkwlab.net:{port}/client.example"));
            command.args(["--mail-from", "hunt@smkwlab.net", "--mail-rcpt", "a@example.org", "-T"]);
            run(command.arg(&message), b"").expect(0);
        }
        if need("python3") {
            let start = if word == "submission" { "SMTP" } else { "SMTP_SSL" };
            let context = if word == "submission" { "" } else { ", context=c" };
            let tls = if word == "submission" { "s.starttls(context=c)\n" } else { "" };
            let script = format!(
                "import smtplib, ssl, sys, email.message\n\
                 c = ssl.create_default_context(cafile=sys.argv[2])\n\
                 c.check_hostname = False\n\
                 s = smtplib.{start}('127.0.0.1', int(sys.argv[1]){context})\n{tls}\
                 s.login('hunt', '{PASSWORD}')\n\
                 m = email.message.EmailMessage()\n\
                 m['From'] = 'hunt@smkwlab.net'\nm['To'] = 'a@example.org'\n\
                 m.set_content('body')\ns.send_message(m)\ns.quit()\n"
            );
            let mut command = Command::new("python3");
            command.args(["-c", &script, &port.to_string()]).arg(host.pair.certificate());
            run(command.stdout(Stdio::null()), b"").expect(0);
        }
    }
}

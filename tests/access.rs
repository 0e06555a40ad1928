//! Logins at popd and imapd, in the clear and under TLS, by every mechanism; and the relay that stands
//! between a client under TLS and its session.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests and their helpers fail by panicking"
)]

mod support;

use std::fs;
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Command, Stdio};
use std::time::Duration;

use base64ct::{Base64, Encoding};
use rustls::version::{TLS12, TLS13};
use support::peer::{Heard, Peer};
use support::run::{Server, run};
use support::site::{Plan, Site, must};
use support::tls::{Pair, VERSIONS};
use support::{need, scram, wait_until};

/// An address of this machine that is not loopback to anybody but by what a load balancer says.
const ELSEWHERE: &str = "PROXY TCP4 192.0.2.77 127.0.0.1 4711 143\r\n";
const BALANCER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 9);

/// A host with TLS for both, the load balancer, and mail.
struct Host {
    pair: Pair,
    site: Site,
}

impl Host {
    fn new() -> Self {
        Self::of(Site::plan())
    }

    fn of(plan: Plan) -> Self {
        let pair = Pair::new();
        let plan = pair.plan_for("pop3.tls", pair.plan_for("imap.tls", plan));
        let plan = plan.set("pop3", "proxies", "[\"127.0.0.9\"]");
        let site = plan.set("imap", "proxies", "[\"127.0.0.9\"]").build();
        support::reference::fill(&site, 2);
        Self { pair, site }
    }

    /// Adds a user `new` with the password `pencil` who has SCRAM keys.
    fn with_scram(self) -> Self {
        let account = Site::account("bob");
        let (uid, gid) = (account.uid.to_string(), account.gid.to_string());
        let add = ["user", "add", "new", "--uid", &uid, "--gid", &gid, "--scheme", "scram-sha-256"];
        run(self.site.command("mailctl").args(add), b"pencil\n").expect(0);
        self
    }

    fn serve(&self, protocol: Protocol) -> (Server, SocketAddr) {
        self.site.serve(protocol.program())
    }

    fn serve_encrypted(&self, protocol: Protocol) -> (Server, SocketAddr) {
        self.site.serve_word(protocol.program(), protocol.encrypted())
    }

    /// A client under TLS, from the first byte on.
    fn encrypted(&self, protocol: Protocol, address: SocketAddr) -> Peer {
        let mut peer = Peer::connect(address);
        peer.start_tls(self.pair.client(VERSIONS)).unwrap();
        protocol.greeted(peer)
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Protocol {
    Pop,
    Imap,
}

use Protocol::{Imap, Pop};

impl Protocol {
    const BOTH: [Self; 2] = [Pop, Imap];

    fn program(self) -> &'static str {
        if self == Pop { "popd" } else { "imapd" }
    }

    fn encrypted(self) -> &'static str {
        if self == Pop { "pop3s" } else { "imaps" }
    }

    #[track_caller]
    fn greeted(self, mut peer: Peer) -> Peer {
        let greeting = peer.line();
        assert!(greeting.starts_with(if self == Pop { "+OK " } else { "* OK " }), "{greeting}");
        peer
    }

    /// What there is, a line each.
    fn offers(self, peer: &mut Peer) -> Vec<String> {
        if self == Pop {
            assert!(peer.pop("CAPA").starts_with("+OK"));
            let lines = String::from_utf8(peer.pop_body()).unwrap();
            let sasl = |line: &str| match line.strip_prefix("SASL ") {
                Some(names) => names.split(' ').map(|name| format!("AUTH={name}")).collect(),
                None => vec![line.replace("STLS", "STARTTLS")],
            };
            return lines.lines().flat_map(sasl).collect();
        }
        let said = peer.imap("c CAPABILITY");
        let line = said.lines().next().unwrap().strip_prefix("* CAPABILITY ").unwrap().to_owned();
        line.split(' ').map(str::to_owned).collect()
    }

    fn start_tls(self, peer: &mut Peer) -> String {
        if self == Pop { peer.pop("STLS") } else { peer.imap("s STARTTLS") }
    }

    /// By the oldest command; whether it was accepted.
    fn log_in(self, peer: &mut Peer, user: &str, password: &str) -> bool {
        if self == Pop {
            let said = peer.pop(&format!("USER {user}"));
            return said.starts_with("+OK")
                && peer.pop(&format!("PASS {password}")).starts_with('+');
        }
        peer.imap(&format!("a LOGIN {user} \"{password}\"")).contains("a OK ")
    }

    /// Begins an exchange; what comes back is a challenge, or whether it was accepted.
    fn auth(self, peer: &mut Peer, mechanism: &str, initial: Option<&str>) -> Result<String, bool> {
        let initial = initial.map(|text| format!(" {text}")).unwrap_or_default();
        if self == Pop {
            heard(&peer.pop(&format!("AUTH {mechanism}{initial}")))
        } else {
            heard(&peer.imap(&format!("a AUTHENTICATE {mechanism}{initial}")))
        }
    }

    /// That the session of the user is there.
    #[track_caller]
    fn is_served(self, mut peer: Peer) {
        if self == Pop {
            assert!(peer.pop("STAT").starts_with("+OK "));
            assert!(peer.pop("QUIT").starts_with("+OK"));
        } else {
            assert!(peer.imap("n NOOP").contains("n OK"));
            assert!(peer.imap("q LOGOUT").contains("q OK"));
        }
        assert_eq!(peer.hear(), Heard::Closed(Vec::new()));
    }
}

/// What the client says in an exchange; a challenge, or whether it was accepted.
fn respond(peer: &mut Peer, text: &str) -> Result<String, bool> {
    peer.send(format!("{text}\r\n"));
    heard(&peer.line())
}

fn heard(said: &str) -> Result<String, bool> {
    match said.trim_end().strip_prefix("+ ") {
        Some(challenge) => Ok(challenge.to_owned()),
        None if said.trim_end() == "+" => Ok(String::new()),
        None => Err(said.starts_with("+OK") || said.starts_with("a OK")),
    }
}

fn base64(text: &str) -> String {
    Base64::encode_string(text.as_bytes())
}

#[test]
fn every_mechanism_logs_in_under_tls_and_over_loopback() {
    let host = Host::new().with_scram();
    for protocol in Protocol::BOTH {
        let (server, clear) = host.serve(protocol);
        let (_encrypted, tls) = host.serve_encrypted(protocol);
        let begun = |mut peer: Peer| {
            assert!(protocol.start_tls(&mut peer).contains("begin TLS"));
            peer.start_tls(host.pair.client(&[&TLS12])).unwrap();
            peer
        };
        let clients: [&dyn Fn() -> Peer; 3] = [
            &|| protocol.greeted(Peer::connect(clear)),
            &|| begun(protocol.greeted(Peer::connect(clear))),
            &|| host.encrypted(protocol, tls),
        ];
        for (number, client) in clients.iter().enumerate() {
            let offers = protocol.offers(&mut client());
            let has = |word: &str| offers.iter().any(|offer| offer == word);
            for mechanism in ["PLAIN", "LOGIN", "SCRAM-SHA-256"] {
                assert!(has(&format!("AUTH={mechanism}")), "{offers:?}");
            }
            assert_eq!(has("STARTTLS"), number == 0, "{offers:?}");
            assert_eq!(has("AUTH=SCRAM-SHA-256-PLUS"), number > 0, "{offers:?}");
            assert!(!has("AUTH=EXTERNAL"), "{offers:?}");

            let mut peer = client();
            assert!(protocol.log_in(&mut peer, "hunt", "Watts?Watt?"));
            protocol.is_served(peer);

            let mut peer = client();
            let plain = base64("\0hunt\0Watts?Watt?");
            assert_eq!(protocol.auth(&mut peer, "PLAIN", Some(&plain)), Err(true));
            protocol.is_served(peer);

            let mut peer = client();
            assert_eq!(protocol.auth(&mut peer, "plain", None), Ok(String::new()));
            assert_eq!(respond(&mut peer, &plain), Err(true));
            protocol.is_served(peer);

            let mut peer = client();
            assert_eq!(protocol.auth(&mut peer, "LOGIN", None), Ok(base64("Username:")));
            assert_eq!(respond(&mut peer, &base64("hunt")), Ok(base64("Password:")));
            assert_eq!(respond(&mut peer, &base64("Watts?Watt?")), Err(true));
            protocol.is_served(peer);

            assert_eq!(by_scram(protocol, &mut client(), "SCRAM-SHA-256", "wrong"), Err(false));
            let mut peer = client();
            assert_eq!(by_scram(protocol, &mut peer, "SCRAM-SHA-256", "pencil"), Err(true));
            protocol.is_served(peer);
        }
        let mut peer = host.encrypted(protocol, tls);
        assert_eq!(by_scram(protocol, &mut peer, "SCRAM-SHA-256-PLUS", "pencil"), Err(true));
        protocol.is_served(peer);
        let log = server.wait_for_log("method=SCRAM-SHA-256, rip=127.0.0.1, status=accepted");
        assert!(log.contains("Login: user=<new>, "), "{log}");
        assert!(!log.contains("pencil") && !log.contains("Watts"), "{log}");
    }
}

#[test]
fn the_log_says_by_which_version_of_tls_a_client_has_come() {
    let host = Host::new();
    for protocol in Protocol::BOTH {
        for (versions, said) in
            [(None, ""), (Some(&TLS12), ", tls=TLSv1.2"), (Some(&TLS13), ", tls=TLSv1.3")]
        {
            let (server, address) = host.serve(protocol);
            let mut peer = protocol.greeted(Peer::connect(address));
            if let Some(version) = versions {
                assert!(protocol.start_tls(&mut peer).contains("begin TLS"));
                peer.start_tls(host.pair.client(&[version])).unwrap();
            }
            let plain = |password: &str| base64(&format!("\0hunt\0{password}"));
            assert_eq!(protocol.auth(&mut peer, "PLAIN", Some(&plain("wrong"))), Err(false));
            assert_eq!(protocol.auth(&mut peer, "PLAIN", Some(&plain("Watts?Watt?"))), Err(true));
            protocol.is_served(peer);
            let rip = format!("rip=127.0.0.1{said},");
            let log = server.wait_for_log("Disconnected: ");
            for line in [
                format!("attempts): user=<hunt>, method=PLAIN, {rip} status=refused\n"),
                format!("Login: user=<hunt>, method=PLAIN, {rip} status=accepted\n"),
                format!("Disconnected: user=<hunt>, {rip} "),
            ] {
                assert!(log.contains(&line), "{line}\n{log}");
            }
        }
    }
}

/// The last answer of an exchange by SCRAM, of the user `new`.
fn by_scram(
    protocol: Protocol,
    peer: &mut Peer,
    mechanism: &str,
    password: &str,
) -> Result<String, bool> {
    let exported = if mechanism.ends_with("PLUS") { peer.exported() } else { Vec::new() };
    let flag = if mechanism.ends_with("PLUS") { "p=tls-exporter" } else { "n" };
    let mut client = scram::Client::new(password, flag, &exported);
    let challenge = protocol.auth(peer, mechanism, Some(&client.first()))?;
    let last = client.last(&challenge);
    let said = respond(peer, &last)?;
    client.believes(&said);
    respond(peer, "")
}

#[test]
fn passwords_of_other_hosts_are_taken_under_tls_only() {
    let host = Host::new();
    for protocol in Protocol::BOTH {
        let (server, address) = host.serve(protocol);
        let from_elsewhere = || {
            let mut peer = Peer::connect_from(BALANCER, address);
            peer.send(ELSEWHERE);
            protocol.greeted(peer)
        };
        let mut peer = from_elsewhere();
        let offers = protocol.offers(&mut peer);
        assert!(offers.iter().any(|offer| offer == "STARTTLS"), "{offers:?}");
        assert!(!offers.iter().any(|offer| offer.starts_with("AUTH=") || offer == "USER"));
        assert!(!protocol.log_in(&mut peer, "hunt", "Watts?Watt?"));
        let plain = base64("\0hunt\0Watts?Watt?");
        assert_eq!(protocol.auth(&mut peer, "PLAIN", Some(&plain)), Err(false));
        protocol.start_tls(&mut peer);
        peer.start_tls(host.pair.client(VERSIONS)).unwrap();
        assert!(protocol.log_in(&mut peer, "hunt", "Watts?Watt?"));
        protocol.is_served(peer);
        server.wait_for_log("rip=192.0.2.77, tls=TLSv1.3, status=accepted");
    }
    let host = Host::of(Site::plan().set("auth", "plaintext_without_tls", "true"));
    for protocol in Protocol::BOTH {
        let (_server, address) = host.serve(protocol);
        let mut peer = Peer::connect_from(BALANCER, address);
        peer.send(ELSEWHERE);
        let mut peer = protocol.greeted(peer);
        assert!(protocol.log_in(&mut peer, "hunt", "Watts?Watt?"));
    }
}

#[test]
fn what_comes_before_the_handshake_ends_the_session() {
    let host = Host::new();
    for protocol in Protocol::BOTH {
        let (_server, address) = host.serve(protocol);
        let (command, injected) =
            if protocol == Pop { ("STLS", "CAPA") } else { ("s STARTTLS", "x CAPABILITY") };
        for text in [
            format!("{command}\r\n{injected}\r\n"),
            format!("{command}\r\n{injected}"),
            format!("{command}\r\n\r\n"),
            format!("{command}\r\nx"),
        ] {
            let mut peer = protocol.greeted(Peer::connect(address));
            peer.send(&text);
            let said = peer.rest();
            assert!(said.contains("input came before TLS"), "{text:?}: {said}");
            assert!(!said.contains("CAPABILITY IMAP4rev1") && !said.contains("UIDL"), "{said}");
        }
        // A name that was said in the clear is forgotten.
        if protocol == Pop {
            let mut peer = protocol.greeted(Peer::connect(address));
            peer.pop("USER hunt");
            protocol.start_tls(&mut peer);
            peer.start_tls(host.pair.client(VERSIONS)).unwrap();
            assert!(peer.pop("PASS Watts?Watt?").starts_with("-ERR USER comes first"));
        }
    }
}

#[test]
fn a_handshake_that_fails_is_told_in_the_log_and_ends_the_session() {
    let host = Host::new();
    for protocol in Protocol::BOTH {
        let (server, address) = host.serve_encrypted(protocol);
        let mut peer = Peer::connect(address);
        peer.send("GET / HTTP/1.1\r\n\r\n");
        peer.rest();
        server.wait_for_log("Disconnected: rip=127.0.0.1, TLS handshake failed: ");
        drop(Peer::connect(address));
        // Who does not trust the certificate.
        let mut peer = Peer::connect(address);
        assert!(peer.start_tls(Pair::new().client(VERSIONS)).is_err());
        protocol.is_served({
            let mut peer = host.encrypted(protocol, address);
            assert!(protocol.log_in(&mut peer, "hunt", "Watts?Watt?"));
            peer
        });
        assert!(!server.log().contains("before its time"), "{}", server.log());
    }
}

#[test]
fn a_ticket_is_good_at_the_next_session_and_a_renewed_certificate_used() {
    let host = Host::new();
    let (_server, address) = host.serve_encrypted(Imap);
    let settings = host.pair.settings(&[&TLS13]);
    for resumed in [false, true] {
        let mut peer = Peer::connect(address);
        peer.start_tls(host.pair.comes(&settings)).unwrap();
        let mut peer = Imap.greeted(peer);
        assert_eq!(peer.is_resumed(), resumed);
        assert!(Imap.log_in(&mut peer, "hunt", "Watts?Watt?"));
        Imap.is_served(peer);
    }
    host.pair.renew();
    Imap.is_served({
        let mut peer = host.encrypted(Imap, address);
        assert!(Imap.log_in(&mut peer, "hunt", "Watts?Watt?"));
        peer
    });
}

#[test]
fn a_service_with_tls_needs_a_certificate_that_is_one() {
    let site = Site::new();
    for (name, word, section) in [("popd", "pop3s", "pop3.tls"), ("imapd", "imaps", "imap.tls")] {
        let ran = run(site.command(name).args(["-l", "127.0.0.1:0", "-s", word]), b"").expect(78);
        let wanted = format!("service {word} needs TLS: set certificate and key in [{section}]");
        assert!(ran.stderr.contains(&wanted), "{ran}");
        run(site.command(name).args(["-s", "smtp"]), b"").expect(64);
    }
    let host = Host::new();
    fs::write(host.pair.key(), "no key\n").unwrap();
    for (name, section) in [("popd", "pop3.tls"), ("imapd", "imap.tls")] {
        let ran = run(host.site.command(name).args(["-l", "127.0.0.1:0"]), b"").expect(78);
        assert!(ran.stderr.contains(&format!("[{section}] ")), "{ran}");
        assert!(ran.stderr.contains("has no private key"), "{ran}");
    }
    let ran = run(host.site.command("mailctl").arg("check"), b"");
    for section in ["pop3.tls", "imap.tls"] {
        assert!(ran.stderr.contains(&format!("[{section}] ")), "{ran}");
    }
}

#[test]
fn imapd_takes_app_passwords_for_imap() {
    let host = Host::new();
    let (server, address) = host.serve(Imap);
    let make = |label: &str, scope: &str| {
        let words = ["user", "app-password", "add", "hunt", label, "--scope", scope];
        run(host.site.command("mailctl").args(words), b"").expect(0).text().trim().to_owned()
    };
    let logs_in =
        |password: &str| Imap.log_in(&mut Imap.greeted(Peer::connect(address)), "hunt", password);
    let (phone, sender) = (make("phone", "imap"), make("sender", "smtp,pop"));
    assert!(logs_in(&phone));
    assert!(!logs_in(&sender));
    assert!(!server.log().contains(&phone));
}

#[test]
fn three_wrong_passwords_end_a_session_of_imap_slowly() {
    let host = Host::new();
    let (server, address) = host.serve(Imap);
    let mut peer = Imap.greeted(Peer::connect(address));
    let begun = std::time::Instant::now();
    for _ in 0..2 {
        assert!(peer.imap("a LOGIN hunt wrong").contains("a NO [AUTHENTICATIONFAILED]"));
    }
    assert!(begun.elapsed() >= Duration::from_secs(6));
    peer.send("b LOGIN nobody wrong\r\nc NOOP\r\n");
    let said = peer.rest();
    assert!(said.contains("b NO ") && said.contains("* BYE") && !said.contains("c OK"), "{said}");
    let log = server.wait_for_log("Aborted login (auth failed, 3 attempts): user=<nobody>, ");
    assert!(log.contains("method=LOGIN, rip=127.0.0.1, status=refused"), "{log}");
}

#[test]
fn what_is_pipelined_behind_a_login_is_served_with_and_without_tls() {
    let host = Host::new();
    for protocol in Protocol::BOTH {
        let (_clear, clear) = host.serve(protocol);
        let (_encrypted, tls) = host.serve_encrypted(protocol);
        for mut peer in [protocol.greeted(Peer::connect(clear)), host.encrypted(protocol, tls)] {
            if protocol == Pop {
                peer.send("USER hunt\r\nPASS Watts?Watt?\r\nSTAT\r\nNOOP\r\nQUIT\r\n");
                assert_eq!(peer.rest().matches("+OK").count(), 5);
            } else {
                peer.send("a LOGIN hunt Watts?Watt?\r\nb NOOP\r\nc LOGOUT\r\n");
                let said = peer.rest();
                assert!(["a OK", "b OK", "c OK"].iter().all(|word| said.contains(word)), "{said}");
            }
        }
    }
}

/// The relay of a server's only session.
#[track_caller]
fn relay(server: &Server) -> i32 {
    wait_until("a relay", || match (&server.sessions()[..], &server.monitors()[..]) {
        ([relay], [_]) => Some(*relay),
        _ => None,
    })
}

#[test]
fn a_relay_ends_with_either_side() {
    let host = Host::new();
    for protocol in Protocol::BOTH {
        let (server, address) = host.serve_encrypted(protocol);
        let logged_in = || {
            let mut peer = host.encrypted(protocol, address);
            assert!(protocol.log_in(&mut peer, "hunt", "Watts?Watt?"));
            relay(&server);
            peer
        };
        let closed: [fn(Peer); 3] = [
            drop,
            |peer| peer.reset(),
            |mut peer| {
                peer.half_close();
                assert_eq!(peer.hear(), Heard::Closed(Vec::new()));
            },
        ];
        for close in closed {
            close(logged_in());
            server.wait_until_quiet();
        }
        // The session dies: the client hears the end.
        let mut peer = logged_in();
        kill(server.monitors()[0]);
        assert_eq!(peer.hear(), Heard::Closed(Vec::new()));
        server.wait_until_quiet();
        // The relay does: so does the session.
        let peer = logged_in();
        kill(relay(&server));
        server.wait_until_quiet();
        drop(peer);
    }
}

fn kill(pid: i32) {
    let pid = nix::unistd::Pid::from_raw(pid);
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
}

/// A body of many megabytes, whole, to a client that takes its time.
#[test]
fn a_relay_carries_a_large_message_in_little_memory() {
    let host = Host::new();
    let line = "0123456789abcdef".repeat(4);
    let text = format!("{line}\n").repeat(400_000);
    let message = format!("From a@b.example Mon Jun 21 03:15:20 2004\nSubject: large\n\n{text}\n");
    host.site.fill("hunt", message.as_bytes());
    let (server, address) = host.serve_encrypted(Pop);
    let mut peer = host.encrypted(Pop, address);
    assert!(Pop.log_in(&mut peer, "hunt", "Watts?Watt?"));
    let relay = relay(&server);
    let before = private(relay);
    peer.send("RETR 1\r\n");
    // Long enough for the relay to be full.
    std::thread::sleep(Duration::from_millis(500));
    let full = private(relay);
    assert!(peer.line().starts_with("+OK "));
    let body = peer.pop_body();
    assert_eq!(body.len(), "Subject: large\n\n".len() + text.len());
    assert!(body.ends_with(text.as_bytes()));
    let after = private(relay);
    assert!(full.max(after) < before + 512, "{before}, {full}, {after} KiB");
    Pop.is_served(peer);
}

/// What a process has in memory of its own, in KiB.
fn private(pid: i32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
    let kib = |field: &str| {
        let line = text.lines().find(|line| line.starts_with(field)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap()
    };
    kib("Private_Dirty:") + kib("Private_Clean:")
}

/// It waits, and costs nothing.
#[test]
fn an_idle_relay_is_small_and_asleep() {
    let host = Host::new();
    let (server, address) = host.serve_encrypted(Imap);
    let mut peer = host.encrypted(Imap, address);
    assert!(Imap.log_in(&mut peer, "hunt", "Watts?Watt?"));
    let relay = relay(&server);
    std::thread::sleep(Duration::from_millis(200));
    let switches = || {
        let status = fs::read_to_string(format!("/proc/{relay}/status")).unwrap();
        let line = status.lines().find(|line| line.starts_with("voluntary_ctxt_switches")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap()
    };
    let before = switches();
    std::thread::sleep(Duration::from_millis(1500));
    assert_eq!(switches(), before, "it was not woken");
    let private = private(relay);
    support::note(&format!("an idle relay has {private} KiB of its own"));
    assert!(private < 700, "{private} KiB");
    Imap.is_served(peer);
}

/// A session of inetd's has its relay, too.
#[test]
fn one_session_alone_begins_tls_and_is_relayed() {
    let host = Host::new();
    for protocol in Protocol::BOTH {
        for word in [None, Some(protocol.encrypted())] {
            let mut command = host.site.command(protocol.program());
            command.args(word.map(|word| ["--service", word]).iter().flatten());
            let (server, peer) = Site::session_of(command);
            let mut peer = if word.is_some() { peer } else { protocol.greeted(peer) };
            if word.is_none() {
                assert!(protocol.start_tls(&mut peer).contains("begin TLS"));
            }
            peer.start_tls(host.pair.client(VERSIONS)).unwrap();
            let mut peer = if word.is_some() { protocol.greeted(peer) } else { peer };
            assert!(protocol.log_in(&mut peer, "hunt", "Watts?Watt?"));
            protocol.is_served(peer);
            let (status, log) = server.join();
            assert_eq!(status.code(), Some(0), "{log}");
        }
    }
}

#[test]
fn curl_and_python_come_by_tls() {
    if !need("curl") || !need("python3") {
        return;
    }
    let host = Host::new();
    let (_popd, pop) = host.serve(Pop);
    let (_popds, pops) = host.serve_encrypted(Pop);
    let (_imapd, imap) = host.serve(Imap);
    let (_imapds, imaps) = host.serve_encrypted(Imap);
    let authority = host.pair.certificate();
    let name = support::site::HOST;
    for (scheme, address) in [("pop3s", pops), ("pop3", pop)] {
        let mut command = Command::new("curl");
        command.args(["-sS", "--ssl-reqd", "-u", "hunt:Watts?Watt?", "--cacert"]).arg(&authority);
        command.arg("--resolve").arg(format!("{name}:{}:127.0.0.1", address.port()));
        command.arg(format!("{scheme}://{name}:{}/1", address.port()));
        let text = must(&mut command);
        assert!(text.contains("Subject: "), "{text}");
    }
    let script = r#"
import imaplib, poplib, ssl, sys
pop, pops, imap, imaps = map(int, sys.argv[2:])
context = ssl.create_default_context(cafile=sys.argv[1])
context.check_hostname = False
first = poplib.POP3("127.0.0.1", pop)
first.stls(context)
second = poplib.POP3_SSL("127.0.0.1", pops, context=context)
for session in [first, second]:
    session.user("hunt")
    session.pass_("Watts?Watt?")
    assert session.stat()[0] == 2
    assert b"Subject: " in b"\n".join(session.retr(1)[1])
    session.quit()
first = imaplib.IMAP4("127.0.0.1", imap)
first.starttls(context)
second = imaplib.IMAP4_SSL("127.0.0.1", imaps, ssl_context=context)
third = imaplib.IMAP4_SSL("127.0.0.1", imaps, ssl_context=context)
first.login("hunt", "Watts?Watt?")
second.authenticate("PLAIN", lambda _: b"\0hunt\0Watts?Watt?")
third.authenticate("LOGIN", lambda asked: {b"Username:": b"hunt", b"Password:": b"Watts?Watt?"}[asked])
for session in [first, second, third]:
    session.noop()
    session.logout()
"#;
    let mut command = Command::new("python3");
    command.args(["-c", script]).arg(&authority);
    for address in [pop, pops, imap, imaps] {
        command.arg(address.port().to_string());
    }
    must(&mut command);
}

#[test]
fn openssl_comes_by_both_ways() {
    if !need("openssl") {
        return;
    }
    let host = Host::new();
    for (protocol, starttls, words) in [
        (Pop, "pop3", "USER hunt\r\nPASS Watts?Watt?\r\nQUIT\r\n"),
        (Imap, "imap", "a LOGIN hunt Watts?Watt?\r\nb LOGOUT\r\n"),
    ] {
        let (_clear, clear) = host.serve(protocol);
        let (_encrypted, tls) = host.serve_encrypted(protocol);
        for (address, more) in [(clear, &["-starttls", starttls][..]), (tls, &[])] {
            let mut command = Command::new("openssl");
            command.args(["s_client", "-quiet", "-verify_return_error", "-CAfile"]);
            command.arg(host.pair.certificate()).args(["-connect", &address.to_string()]);
            command.args(more).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
            let mut child = command.spawn().unwrap();
            let mut input = child.stdin.take().unwrap();
            input.write_all(words.as_bytes()).unwrap();
            let output = child.wait_with_output().unwrap();
            drop(input);
            let said = String::from_utf8_lossy(&output.stdout);
            assert!(said.contains("bye"), "{said}");
        }
    }
}

#[test]
fn many_clients_at_once_all_have_their_session_and_leave_nothing() {
    let host = Host::new();
    for protocol in Protocol::BOTH {
        let (server, address) = host.serve_encrypted(protocol);
        std::thread::scope(|scope| {
            for _ in 0..40 {
                scope.spawn(|| {
                    let mut peer = host.encrypted(protocol, address);
                    assert!(protocol.log_in(&mut peer, "hunt", "Watts?Watt?"));
                    protocol.is_served(peer);
                });
            }
        });
        server.wait_until_quiet();
        // The places are free again: 50 are an address's.
        let held: Vec<Peer> = (0..50).map(|_| host.encrypted(protocol, address)).collect();
        assert_eq!(server.sessions().len(), held.len());
        drop(held);
        server.wait_until_quiet();
        let log = server.log();
        assert_eq!(log.matches("status=accepted").count(), 40, "{log}");
    }
}

/// Sessions outlive their listener, relays as well.
#[test]
fn a_listener_that_ends_leaves_its_sessions() {
    let host = Host::new();
    for protocol in Protocol::BOTH {
        let (server, address) = host.serve_encrypted(protocol);
        let waiting = host.encrypted(protocol, address);
        let mut working = host.encrypted(protocol, address);
        assert!(protocol.log_in(&mut working, "hunt", "Watts?Watt?"));
        server.signal(nix::sys::signal::Signal::SIGTERM);
        wait_until("nobody to listen", || {
            std::net::TcpStream::connect(address).is_err().then_some(())
        });
        protocol.is_served(working);
        let mut waiting = waiting;
        assert!(protocol.log_in(&mut waiting, "hunt", "Watts?Watt?"));
        protocol.is_served(waiting);
        let (status, log) = server.join();
        assert_eq!(status.code(), Some(0), "{log}");
    }
}

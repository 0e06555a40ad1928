//! What smtpd calls its clients: the name that DNS vouches for both ways, and nothing else; and
//! that mail does not depend on it.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests and their helpers fail by panicking"
)]

mod support;

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::process::Command;
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use support::dns::{Dns, Trouble};
use support::peer::Peer;
use support::run::Server;
use support::site::{Plan, Site, must, queue_id};
use support::{find, need, need_root, wait_until};

const CLIENT: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
const REVERSE: &str = "2.2.0.192.in-addr.arpa";
const TEXT: &[u8] = b"Subject: x\n\nx\n";

/// Puts this test, with all that it starts, into a network of its own, whose loopback interface has
/// more addresses: all of 127.0.0.0/8 is this host to a resolver, whatever DNS says.
fn own_network() -> bool {
    if !need_root() || !need("ip") {
        return false;
    }
    unshare(CloneFlags::CLONE_NEWNET).unwrap();
    for arguments in [
        "link set lo up",
        "address add 192.0.2.2/32 dev lo",
        "address add 2001:db8::2/128 dev lo nodad",
    ] {
        must(Command::new(find("ip").unwrap()).args(arguments.split(' ')));
    }
    true
}

/// A host, and the name server that it asks.
struct Host {
    dns: Dns,
    site: Site,
    server: Server,
    address: SocketAddr,
}

impl Host {
    fn new() -> Self {
        let (dns, site) = (Dns::start(), Site::plan());
        let site = asking(site, &dns).build();
        let (server, address) = site.serve("smtpd");
        Self { dns, site, server, address }
    }

    /// A client of another address.
    #[track_caller]
    fn client(&self) -> Peer {
        let mut peer = Peer::connect_from(CLIENT, self.address);
        peer.greet();
        peer
    }

    /// What a client is called in its Received field and in its line of the log.
    #[track_caller]
    fn called(&self) -> String {
        let mut peer = self.client();
        let reply = peer.mail("a@example.org", &["hunt@smkwlab.net"], TEXT);
        // Where nobody can say whether there is such a recipient, the mail comes again.
        if reply.starts_with("451 4.3.0 ") {
            return "put off".into();
        }
        assert!(reply.starts_with("250 2.0.0 "), "{reply}");
        let id = queue_id(&reply);
        let name = received(&self.site, &id);
        let log = self.server.wait_for_log(&format!("{id}: "));
        assert!(log.contains(&format!("{id}: client={name}[192.0.2.2] ")), "{name} {log}");
        name
    }
}

fn asking(plan: Plan, dns: &Dns) -> Plan {
    plan.set("dns", "servers", &format!("[\"{}\"]", dns.address()))
}

/// The client's name in the Received field of a message that waits.
#[track_caller]
fn received(site: &Site, id: &str) -> String {
    let entry = fs::read(site.queue().join("incoming").join(id)).unwrap();
    let entry = String::from_utf8_lossy(&entry).into_owned();
    let (_, field) = entry.split_once("Received: from client.example (").unwrap();
    let (name, rest) = field.split_once(" [").unwrap();
    assert!(rest.starts_with("192.0.2.2])\r\n"), "{field}");
    name.to_owned()
}

#[test]
fn a_client_has_the_name_that_leads_back_to_it() {
    if !own_network() {
        return;
    }
    let host = Host::new();
    host.dns.host("hawks.example", "192.0.2.2");
    assert_eq!(host.called(), "hawks.example");
    let mut peer = host.client();
    peer.command("MAIL FROM:<a@example.org>");
    assert!(peer.command("RCPT TO:<nobody@smkwlab.net>").starts_with("550 "));
    host.server.wait_for_log("reject: RCPT from hawks.example[192.0.2.2]: 550 ");
}

#[test]
fn a_name_that_is_only_claimed_is_unknown() {
    if !own_network() {
        return;
    }
    let host = Host::new();
    // None at all.
    assert_eq!(host.called(), "unknown");
}

#[test]
fn a_name_that_leads_elsewhere_is_unknown() {
    if !own_network() {
        return;
    }
    let host = Host::new();
    host.dns.set(&format!("{REVERSE} PTR mx.bank.example"));
    host.dns.set("mx.bank.example A 192.0.2.9");
    assert_eq!(host.called(), "unknown");
}

#[test]
fn a_client_by_ipv6_has_its_name_as_well() {
    if !own_network() {
        return;
    }
    let (dns, plan) = (Dns::start(), Site::plan());
    let site = asking(plan, &dns).build();
    // "8.b.d.0.1.0.0.2", and what the zeroes between stand for.
    let zeroes = "0.".repeat(23);
    dns.set(&format!("2.{zeroes}8.b.d.0.1.0.0.2.ip6.arpa PTR hawks.example"));
    dns.set("hawks.example AAAA 2001:db8::2");
    let listener = TcpListener::bind("[::]:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = site.serve_on("smtpd", listener);
    let mut peer = Peer::connect(SocketAddr::new("2001:db8::2".parse().unwrap(), port));
    peer.greet();
    let reply = peer.mail("a@example.org", &["hunt@smkwlab.net"], TEXT);
    assert!(reply.starts_with("250 2.0.0 "), "{reply}");
    server.wait_for_log(": client=hawks.example[2001:db8::2] ");
}

#[test]
fn of_several_names_one_that_leads_back_is_taken() {
    if !own_network() {
        return;
    }
    let host = Host::new();
    host.dns.set(&format!("{REVERSE} PTR mx.bank.example"));
    host.dns.host("hawks.example", "192.0.2.2");
    assert_eq!(host.called(), "hawks.example");
}

#[test]
fn a_name_that_could_be_taken_for_something_else_is_unknown() {
    if !own_network() {
        return;
    }
    for hostile in ["192.0.2.1", "a\\nb.example", "a\\x00.example", "x)\\x20(y.example", "\\xe9.jp"]
    {
        let host = Host::new();
        host.dns.set(&format!("{REVERSE} PTR {hostile}"));
        host.dns.set(&format!("{hostile} A 192.0.2.2"));
        assert_eq!(host.called(), "unknown", "{hostile}");
        assert!(host.dns.asked(REVERSE, "PTR") > 0);
    }
}

#[test]
fn a_silent_name_server_delays_no_reply_but_the_one_that_needs_the_name() {
    if !own_network() {
        return;
    }
    let host = Host::new();
    host.dns.fail_everywhere(Trouble::Silent);
    let began = Instant::now();
    let mut peer = host.client();
    assert!(peer.command("MAIL FROM:<a@example.org>").starts_with("250 "));
    assert!(peer.command("RCPT TO:<hunt@smkwlab.net>").starts_with("250 "));
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
    assert!(peer.command("DATA").starts_with("354 "));
    // Once for a session, and then it is unknown for good.
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
    peer.send(support::peer::stuffed(TEXT));
    let reply = peer.reply();
    assert!(reply.starts_with("250 2.0.0 "), "{reply}");
    assert_eq!(received(&host.site, &queue_id(&reply)), "unknown");
}

#[test]
fn clients_of_this_host_have_their_name_without_a_question() {
    if !own_network() {
        return;
    }
    let host = Host::new();
    let id = Site::send(host.address, "a@example.org", &["hunt@smkwlab.net"], "Subject: x\n\nx\n");
    host.server.wait_for_log(&format!("{id}: client=localhost[127.0.0.1] "));
    wait_until("the session to end", || host.server.sessions().is_empty().then_some(()));
    assert_eq!(host.dns.asked_at_all(), 0);
}

#[test]
fn a_resolver_that_was_killed_is_started_again_for_the_next_client() {
    if !own_network() {
        return;
    }
    let host = Host::new();
    host.dns.host("hawks.example", "192.0.2.2");
    assert_eq!(host.called(), "hawks.example");
    for _ in 0..2 {
        let resolver = wait_until("the resolver", || host.server.policy());
        kill(Pid::from_raw(resolver), Signal::SIGKILL).unwrap();
        wait_until("its end to be seen", || (host.server.policy() != Some(resolver)).then_some(()));
        // Soon mail and name are back.
        wait_until("a name", || (host.called() == "hawks.example").then_some(()));
    }
    host.server.wait_for_log("the policy process ended by Killed(9)");
}

#[test]
fn a_resolver_that_hangs_puts_mail_off() {
    if !own_network() {
        return;
    }
    let host = Host::new();
    host.dns.host("hawks.example", "192.0.2.2");
    assert_eq!(host.called(), "hawks.example");
    let resolver = wait_until("the resolver", || host.server.policy());
    kill(Pid::from_raw(resolver), Signal::SIGSTOP).unwrap();
    assert_eq!(host.called(), "put off");
    host.server.wait_for_log("looking up hunt@smkwlab.net: the policy process does not answer");
    kill(Pid::from_raw(resolver), Signal::SIGCONT).unwrap();
    assert_eq!(host.called(), "hawks.example");
}

#[test]
fn one_resolver_serves_all_sessions_and_ends_with_the_listener() {
    if !own_network() {
        return;
    }
    let host = Host::new();
    host.dns.host("hawks.example", "192.0.2.2");
    let mut peers: Vec<Peer> = (0..40).map(|_| Peer::connect_from(CLIENT, host.address)).collect();
    for peer in &mut peers {
        peer.greet();
    }
    for peer in &mut peers {
        let reply = peer.mail("a@example.org", &["hunt@smkwlab.net"], TEXT);
        assert_eq!(received(&host.site, &queue_id(&reply)), "hawks.example");
    }
    let resolver = wait_until("the resolver", || host.server.policy());
    drop(peers);
    wait_until("the sessions to end", || host.server.sessions().is_empty().then_some(()));
    let (status, log) = host.server.stop();
    assert_eq!(status.code(), Some(0), "{log}");
    let gone = || !fs::exists(format!("/proc/{resolver}")).unwrap();
    wait_until("the resolver to end", || gone().then_some(()));
}

#[test]
fn a_resolv_conf_that_has_changed_is_read_again() {
    if !own_network() {
        return;
    }
    let site = Site::plan().set("dns", "servers", "[]").build();
    let settings = site.path().join("resolv.conf");
    fs::write(&settings, "nameserver 192.0.2.53\n").unwrap();
    unshare(CloneFlags::CLONE_NEWNS).unwrap();
    must(Command::new("mount").args(["--make-rprivate", "/"]));
    must(Command::new("mount").arg("--bind").arg(&settings).arg("/etc/resolv.conf"));
    let (server, address) = site.serve("smtpd");
    let host = Host { dns: Dns::start(), site, server, address };
    drop(host.client());
    let first = wait_until("the resolver", || host.server.policy());
    fs::write(&settings, "nameserver 192.0.2.54\n").unwrap();
    let second = wait_until("another resolver", || {
        drop(host.client());
        host.server.policy().filter(|pid| *pid != first)
    });
    let gone = || !fs::exists(format!("/proc/{first}")).unwrap();
    wait_until("the first resolver to end", || gone().then_some(()));
    drop(host.client());
    assert!(host.server.policy() == Some(second), "nothing has changed since");
}

/// A host that asks two lists, and what it says to a recipient.
fn listing(dns: &Dns, plan: Plan) -> (Site, Server, SocketAddr) {
    let site = asking(plan, dns).set("smtp", "dnsbl", "[\"bl.example\", \"xbl.example\"]").build();
    let (server, address) = site.serve("smtpd");
    (site, server, address)
}

fn rcpt(client: Ipv4Addr, address: SocketAddr) -> String {
    let mut peer = Peer::connect_from(client, address);
    peer.greet();
    assert!(peer.command("MAIL FROM:<a@example.org>").starts_with("250 "));
    peer.command("RCPT TO:<hunt@smkwlab.net>")
}

#[test]
fn a_client_that_a_list_names_is_refused_in_the_lists_words() {
    if !own_network() {
        return;
    }
    let dns = Dns::start();
    dns.set("2.2.0.192.xbl.example A 127.0.0.4");
    dns.set("2.2.0.192.xbl.example TXT https://xbl.example/?192.0.2.2");
    // A list that has gone, whose domain somebody else has now, lists nobody.
    dns.set("2.2.0.192.bl.example A 203.0.113.80");
    let (_site, server, address) = listing(&dns, Site::plan());
    let said = "554 5.7.1 Service unavailable; client [192.0.2.2] blocked using xbl.example; \
                https://xbl.example/?192.0.2.2";
    assert_eq!(rcpt(CLIENT, address), said);
    server.wait_for_log("NOQUEUE: reject: RCPT from unknown[192.0.2.2]: 554 5.7.1 Service ");
    // Who may relay is not looked up.
    assert!(rcpt(Ipv4Addr::LOCALHOST, address).starts_with("250 "));
    assert_eq!(dns.asked("1.0.0.127.xbl.example", "A"), 0);
    let (_site, _server, address) =
        listing(&dns, Site::plan().set("smtp", "relay_networks", "[\"192.0.2.0/24\"]"));
    assert!(rcpt(CLIENT, address).starts_with("250 "));
}

#[test]
fn a_list_that_does_not_answer_lists_nobody() {
    if !own_network() {
        return;
    }
    let dns = Dns::start();
    dns.fail("2.2.0.192.xbl.example", Trouble::Silent);
    let (_site, _server, address) = listing(&dns, Site::plan());
    let began = Instant::now();
    assert!(rcpt(CLIENT, address).starts_with("250 "));
    assert!(began.elapsed() < Duration::from_secs(9), "{:?}", began.elapsed());
    // Nor does one that is silent hide what another one says.
    dns.set("2.2.0.192.bl.example A 127.0.0.2");
    let began = Instant::now();
    assert!(rcpt(CLIENT, address).starts_with("554 5.7.1 "));
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
}

#[test]
fn one_session_of_inetd_has_the_name_as_well() {
    if !own_network() {
        return;
    }
    for silent in [false, true] {
        let dns = Dns::start();
        dns.host("hawks.example", "192.0.2.2");
        if silent {
            dns.fail_everywhere(Trouble::Silent);
        }
        let site = asking(Site::plan(), &dns).build();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut peer = Peer::connect_from(CLIENT, listener.local_addr().unwrap());
        let (accepted, _) = listener.accept().unwrap();
        let output = accepted.try_clone().unwrap();
        let mut command = site.command("smtpd");
        command.stdin(OwnedFd::from(accepted)).stdout(OwnedFd::from(output));
        let server = Server::start(&mut command);
        drop(command);
        peer.greet();
        if silent {
            // Nobody has asked for the name yet, and the connection ends at once all the same.
            let began = Instant::now();
            assert!(peer.command("QUIT").starts_with("221 "));
            assert_eq!(peer.rest(), "");
            assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
        } else {
            let reply = peer.mail("a@example.org", &["hunt@smkwlab.net"], TEXT);
            assert_eq!(received(&site, &queue_id(&reply)), "hawks.example");
            peer.command("QUIT");
        }
        let (status, log) = server.join();
        assert_eq!(status.code(), Some(0), "{log}");
    }
}

#[test]
fn without_an_account_for_it_the_queues_owner_asks() {
    if !own_network() {
        return;
    }
    let dns = Dns::start();
    dns.host("hawks.example", "192.0.2.2");
    let site = asking(Site::plan(), &dns).set("users", "login", "\"hikyaku-nobody\"").build();
    let (server, address) = site.serve("smtpd");
    let host = Host { dns, site, server, address };
    assert_eq!(host.called(), "hawks.example");
    host.server.wait_for_log("there is no account hikyaku-nobody; make it ");
}

//! What smtpd makes of clients that it does not trust, and of those who speak for others.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests and their helpers fail by panicking"
)]

mod support;

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use support::dns::Dns;
use support::peer::{Heard, Peer};
use support::run::Server;
use support::site::{Plan, Site};

/// One who may not relay.
const STRANGER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
const BALANCER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 9);

/// A host at which only this host itself may relay.
fn plan() -> Plan {
    Site::plan().set("smtp", "relay_networks", "[\"127.0.0.1\"]")
}

/// With a name server that knows nobody, so that nobody waits for a name.
fn serve(plan: Plan) -> ((Site, Dns), Server, SocketAddr) {
    let dns = Dns::start();
    let site = plan.set("dns", "servers", &format!("[\"{}\"]", dns.address())).build();
    let (server, address) = site.serve("smtpd");
    ((site, dns), server, address)
}

#[test]
fn a_stranger_waits_for_the_greeting_and_is_sent_away_where_it_does_not() {
    let (_site, _server, address) = serve(plan().set("smtp", "greet_delay", "\"1s\""));
    let began = Instant::now();
    let mut peer = Peer::connect_from(STRANGER, address);
    assert!(peer.reply().starts_with("220 "));
    assert!(began.elapsed() >= Duration::from_secs(1), "{:?}", began.elapsed());
    let began = Instant::now();
    let mut peer = Peer::connect_from(STRANGER, address);
    peer.send("EHLO client.example\r\n");
    assert!(peer.reply().starts_with("554 5.5.0 "));
    assert_eq!(peer.hear(), Heard::Closed(Vec::new()));
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    let began = Instant::now();
    let mut peer = Peer::connect(address);
    assert!(peer.reply().starts_with("220 "));
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
}

#[test]
fn so_many_sessions_begin_in_a_minute() {
    let (_site, server, address) = serve(plan().set("smtp", "max_connections_per_minute", "2"));
    for _ in 0..2 {
        let mut peer = Peer::connect_from(STRANGER, address);
        assert!(peer.reply().starts_with("220 "));
        assert!(peer.command("QUIT").starts_with("221 "));
    }
    let mut peer = Peer::connect_from(STRANGER, address);
    assert!(peer.line().starts_with("421 4.3.2 "));
    server.wait_for_log("too many connections, client=[127.0.0.2] turned away");
    let mut peer = Peer::connect(address);
    assert!(peer.reply().starts_with("220 "));
}

#[test]
fn a_session_ends_in_time_however_busy_it_is() {
    let (_site, _server, address) = serve(plan().set("smtp", "session_time_limit", "\"2s\""));
    for drip in ["NOOP\r\n", "N"] {
        let began = Instant::now();
        let mut peer = Peer::connect_from(STRANGER, address);
        peer.greet();
        let mut said = String::new();
        while !said.starts_with("421 ") {
            assert!(began.elapsed() < Duration::from_secs(10), "{drip:?}: {said}");
            peer.send(drip);
            std::thread::sleep(Duration::from_millis(100));
            if drip.ends_with('\n') || began.elapsed() > Duration::from_secs(2) {
                said = peer.reply();
            }
        }
        assert_eq!(said, "421 4.4.2 Error: timeout exceeded");
        assert!(began.elapsed() >= Duration::from_secs(2), "{:?}", began.elapsed());
    }
}

#[test]
fn each_error_beyond_some_costs_a_stranger_more_time() {
    let (_site, _server, address) = serve(plan());
    let errors = |mut peer: Peer| {
        peer.greet();
        let mut times = Vec::new();
        for _ in 0..13 {
            let began = Instant::now();
            assert!(peer.command("WHAT").starts_with("500 "));
            times.push(began.elapsed());
        }
        times
    };
    let times = errors(Peer::connect_from(STRANGER, address));
    for (over, time) in times[10..].iter().enumerate() {
        let wanted = Duration::from_millis(200) * u32::try_from(over + 1).unwrap();
        assert!(*time >= wanted, "{times:?}");
    }
    let began = Instant::now();
    errors(Peer::connect(address));
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
}

/// A client behind the balancer, which says this of it first.
fn behind(address: SocketAddr, header: &[u8]) -> Peer {
    let mut peer = Peer::connect_from(BALANCER, address);
    peer.send(header);
    peer
}

/// What it hears when it wants to send to another host.
fn relay(peer: &mut Peer) -> String {
    peer.greet();
    assert!(peer.command("MAIL FROM:<a@example.org>").starts_with("250 "));
    peer.command("RCPT TO:<b@example.net>")
}

/// Version 2, of TCP over IPv4.
fn version2(command: u8, client: [u8; 4]) -> Vec<u8> {
    let head = [0x20 | command, 0x11, 0, 12];
    [b"\r\n\r\n\0\r\nQUIT\n", &head[..], &client, &[127, 0, 0, 1, 1, 2, 0, 25]].concat()
}

#[test]
fn a_balancers_client_has_the_address_and_the_rights_that_it_is_said_to_have() {
    let (_site, server, address) = serve(plan().set("smtp", "proxies", "[\"127.0.0.9\"]"));
    let text = b"PROXY TCP4 192.0.2.77 127.0.0.1 4711 25\r\n";
    for header in [&text[..], &version2(1, [192, 0, 2, 77])] {
        assert!(relay(&mut behind(address, header)).starts_with("554 5.7.1 "));
    }
    let log = server.wait_for_log("from unknown[192.0.2.77]: 554 5.7.1");
    assert!(!log.contains("127.0.0.9"), "{log}");
    let text = b"PROXY TCP4 127.0.0.1 127.0.0.1 4711 25\r\n";
    for header in [&text[..], &version2(1, [127, 0, 0, 1])] {
        assert!(relay(&mut behind(address, header)).starts_with("250 "));
    }
    // In pieces.
    let mut peer = Peer::connect_from(BALANCER, address);
    peer.dribble(text, 5, Duration::from_millis(5));
    assert!(relay(&mut peer).starts_with("250 "));
    // Who is not known has no rights, and the balancer its own.
    assert!(relay(&mut behind(address, b"PROXY UNKNOWN\r\n")).starts_with("554 5.7.1 "));
    server.wait_for_log("from unknown[0.0.0.0]: 554 5.7.1");
    assert!(relay(&mut behind(address, &version2(0, [127, 0, 0, 1]))).starts_with("554 5.7.1 "));
    server.wait_for_log("from unknown[127.0.0.9]: 554 5.7.1");
    // What stands behind the header is the client's, who has not been greeted.
    let mut peer = behind(address, &[&text[..], b"EHLO x\r\n"].concat());
    assert!(peer.reply().starts_with("554 5.5.0 "));
}

#[test]
fn nobody_speaks_for_others_who_may_not_and_a_balancer_does_nothing_else() {
    let plan = plan().set("smtp", "proxies", "[\"127.0.0.9\"]");
    let (_site, server, address) = serve(plan.set("smtp", "max_connections_per_ip", "2"));
    let mut peer = Peer::connect_from(STRANGER, address);
    assert!(peer.reply().starts_with("220 "));
    peer.send("PROXY TCP4 127.0.0.1 127.0.0.1 4711 25\r\n");
    assert!(peer.reply().starts_with("500 5.5.2 "));
    for wrong in [&b"EHLO client.example\r\n"[..], b"PROXY TCP4 x y 1 2\r\n"] {
        assert_eq!(behind(address, wrong).hear(), Heard::Closed(Vec::new()));
        server.wait_for_log("load balancer [127.0.0.9] sends no PROXY header; it is among");
    }
    let mut many: Vec<Peer> = (0..5).map(|_| behind(address, b"PROXY UNKNOWN\r\n")).collect();
    for peer in &mut many {
        assert!(peer.reply().starts_with("220 "));
    }
}

//! Many clients of smtpd at once, and clients that take up room and say little: slow ones, ones that
//! do not listen, and ones that begin TLS and stop.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests and their helpers fail by panicking"
)]

mod support;

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{setsockopt, sockopt};
use nix::unistd::Pid;
use rustls::ClientConnection;

use support::peer::{Heard, Peer};
use support::processes;
use support::run::Server;
use support::site::{Plan, Site};
use support::tls::{Pair, VERSIONS};
use support::{PATIENCE, is_root, wait_until};

/// So many clients come at once.
const CROWD: usize = 2000;

/// From so many sides.
const HANDS: usize = 8;

/// The memory that a session may have to itself, in KiB, as these programs are built for tests.
const MOST_MEMORY: u64 = 300;

const FROM: &str = "a@example.org";
const TO: &[&str] = &["toshi@smkwlab.net"];
const TEXT: &[u8] = b"Subject: x\n\nx\n";

/// A host with so many places.
fn plan(places: usize) -> Plan {
    let places = places.to_string();
    let plan = Site::plan().in_memory().set("smtp", "max_connections", &places);
    plan.set("smtp", "max_connections_per_ip", &places)
}

/// Lets this process have the descriptors of a crowd.
fn need_descriptors() -> bool {
    let wanted = (2 * CROWD + 100) as u64;
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    if hard < wanted {
        return support::skip(&format!("needs {wanted} descriptors, and may have {hard}"));
    }
    setrlimit(Resource::RLIMIT_NOFILE, soft.max(wanted), hard).unwrap();
    true
}

/// Does the same with each, some at a time; what comes of it is in their order.
fn with_each<T: Send, U: Send>(mut all: Vec<T>, work: impl Fn(T) -> U + Sync) -> Vec<U> {
    let some = all.len().div_ceil(HANDS).max(1);
    std::thread::scope(|scope| {
        let mut hands = Vec::new();
        while !all.is_empty() {
            let part: Vec<T> = all.drain(..some.min(all.len())).collect();
            let work = &work;
            hands.push(scope.spawn(move || part.into_iter().map(work).collect::<Vec<U>>()));
        }
        hands.into_iter().flat_map(|hand| hand.join().unwrap()).collect()
    })
}

/// Clients none of which waits for another one, or for a word.
fn crowd(address: SocketAddr, count: usize) -> Vec<Peer> {
    with_each((0..count).collect(), |_| Peer::connect(address))
}

/// A message by each of these clients, which stay.
fn each_sends(peers: Vec<Peer>) -> Vec<Peer> {
    with_each(peers, |mut peer| {
        let reply = peer.mail(FROM, TO, TEXT);
        assert!(reply.starts_with("250 2.0.0 "), "{reply}");
        peer
    })
}

/// Waits until no session is left; the time that this took.
#[track_caller]
fn quiet(server: &Server) {
    wait_until("the sessions to end", || server.sessions().is_empty().then_some(()));
}

/// What a server has open where nobody is there: each process's descriptors.
fn open(server: &Server) -> Vec<(i32, usize)> {
    processes::of(server).into_iter().map(|pid| (pid, processes::links(pid).len())).collect()
}

/// That a server is as it was before the crowd came: the same processes, with no more open. (When
/// it was looked at, a line to a session that had just ended may have been open still.)
#[track_caller]
fn is_as_before(server: &Server, before: &[(i32, usize)]) {
    quiet(server);
    wait_until("descriptors and processes to be given back", || {
        let now = open(server);
        let is_no_more =
            |(now, before): (&(i32, usize), &(i32, usize))| now.0 == before.0 && now.1 <= before.1;
        (now.len() == before.len() && now.iter().zip(before).all(is_no_more)).then_some(())
    });
    assert_eq!(processes::zombies(server), []);
}

/// A server, whose processes have all been started.
fn serve(site: &Site) -> (Server, SocketAddr) {
    // With what descriptors a daemon usually has, whatever we have for the clients.
    let few = ["sh", "-c", "ulimit -S -n 1024 && exec \"$@\"", "sh"];
    let (server, address) = site.listen_behind(&few, "smtpd");
    // Whoever looked whether it listens may have a place still.
    wait_until("a greeting", || Peer::connect(address).line().starts_with("220 ").then_some(()));
    quiet(&server);
    (server, address)
}

#[test]
fn a_crowd_within_the_limits_is_served_at_once_and_leaves_no_trace() {
    if !need_descriptors() {
        return;
    }
    let site = plan(CROWD).build();
    let (server, address) = serve(&site);
    let before = open(&server);
    let peers = with_each(crowd(address, CROWD), |mut peer| {
        peer.greet();
        peer
    });
    let peers = each_sends(peers);
    assert_eq!(site.queued_in("incoming").len(), CROWD);
    with_each(peers, |mut peer| assert!(peer.command("QUIT").starts_with("221 ")));
    is_as_before(&server, &before);
    let log = server.log();
    assert_eq!(log.matches(" status=accepted").count(), CROWD);
    assert_eq!(log.lines().count(), CROWD, "nothing else is said");
}

#[test]
fn of_a_crowd_beyond_the_limit_those_within_are_served_and_the_others_told_so() {
    const PLACES: usize = 200;
    if !need_descriptors() {
        return;
    }
    let site = plan(PLACES).build();
    let (server, address) = serve(&site);
    let before = open(&server);
    let heard = with_each(crowd(address, CROWD), |mut peer| {
        let said = peer.reply();
        (peer, said)
    });
    let (within, beyond): (Vec<_>, Vec<_>) =
        heard.into_iter().partition(|(_, said)| said.starts_with("220 "));
    assert_eq!((within.len(), beyond.len()), (PLACES, CROWD - PLACES));
    for (mut peer, said) in beyond {
        assert!(said.starts_with("421 4.3.2 "), "{said}");
        assert_eq!(peer.hear(), Heard::Closed(Vec::new()));
    }
    let within = within.into_iter().map(|(mut peer, _)| {
        assert!(peer.command("EHLO client.example").starts_with("250-"));
        peer
    });
    let within = each_sends(within.collect());
    assert_eq!(site.queued_in("incoming").len(), PLACES);
    drop(within);
    is_as_before(&server, &before);
    // All places are free again.
    let again = with_each(crowd(address, PLACES), |mut peer| {
        peer.greet();
        peer
    });
    drop(again);
    is_as_before(&server, &before);
}

#[test]
fn a_place_is_free_as_soon_as_its_session_is_over_whoever_is_told_first() {
    let site = plan(1).build();
    let (server, address) = site.serve("smtpd");
    let mut peer = Peer::connect(address);
    peer.greet();
    // When the listener looks again, all of this has happened.
    server.signal(Signal::SIGSTOP);
    peer.mail(FROM, &["a@elsewhere.example"], TEXT);
    drop(peer);
    quiet(&server);
    let mut next = Peer::connect(address);
    server.signal(Signal::SIGCONT);
    next.greet();
}

#[test]
fn as_many_as_the_system_lets_wait_until_they_are_accepted() {
    let allowed = fs::read_to_string("/proc/sys/net/core/somaxconn").unwrap();
    let allowed: usize = allowed.trim().parse().unwrap();
    if !need_descriptors() || allowed < 1000 && !support::skip("needs net.core.somaxconn of 1000") {
        return;
    }
    let site = plan(1000).build();
    let (server, address) = serve(&site);
    // A listener that is busy with something else.
    server.signal(Signal::SIGSTOP);
    let peers = with_each((0..1000).collect(), |_| {
        let limit = Duration::from_millis(900);
        Peer::new(TcpStream::connect_timeout(&address, limit).expect("a place to wait in"))
    });
    server.signal(Signal::SIGCONT);
    with_each(peers, |mut peer| peer.greet());
    quiet(&server);
}

#[test]
fn a_policy_process_that_falls_behind_puts_no_mail_off() {
    let site = plan(1000).build();
    let (server, address) = serve(&site);
    let policy = server.policy().unwrap();
    // More than there is room for on the way to it.
    kill(Pid::from_raw(policy), Signal::SIGSTOP).unwrap();
    let peers = crowd(address, 600);
    std::thread::sleep(Duration::from_secs(1));
    kill(Pid::from_raw(policy), Signal::SIGCONT).unwrap();
    let peers = with_each(peers, |mut peer| {
        peer.greet();
        peer
    });
    drop(each_sends(peers));
    quiet(&server);
}

#[test]
fn slow_clients_cost_little_hold_up_nobody_and_have_to_go() {
    const SLOW: usize = 100;
    let site = plan(SLOW + 1).set("smtp", "session_time_limit", "\"4s\"").build();
    let (server, address) = serve(&site);
    let looks = is_root() || support::skip("the memory of a session is root's to see");
    let before = looks.then(|| processes::memory(&processes::of(&server)));
    let began = Instant::now();
    let peers =
        with_each(crowd(address, SLOW).into_iter().enumerate().collect(), |(number, mut peer)| {
            peer.greet();
            // In the middle of a command, or of a message.
            if number % 2 == 0 {
                peer.send(format!("MAIL FROM:<{FROM}>\r\nRCPT TO:<{}>\r\nDATA\r\n", TO[0]));
                let replies = [peer.reply(), peer.reply(), peer.reply()];
                assert!(replies[2].starts_with("354 "), "{replies:?}");
            }
            peer
        });
    let mut dripping = peers;
    while began.elapsed() < Duration::from_secs(2) {
        for peer in &mut dripping {
            assert!(peer.send("x"));
        }
        std::thread::sleep(Duration::from_millis(200));
    }
    if let Some(before) = before {
        let all = processes::memory(&processes::of(&server));
        let each = all.saturating_sub(before) / SLOW as u64;
        support::note(&format!("a slow client costs {each} KiB"));
        assert!(each < MOST_MEMORY, "{each} KiB a session");
    }
    let mut usual = Peer::connect(address);
    usual.greet();
    assert!(usual.mail(FROM, TO, TEXT).starts_with("250 2.0.0 "));
    while began.elapsed() < Duration::from_secs(5) {
        for peer in &mut dripping {
            peer.send("x");
        }
        std::thread::sleep(Duration::from_millis(200));
    }
    with_each(dripping, |mut peer| {
        let said = peer.rest();
        assert!(said.is_empty() || said == "421 4.4.2 Error: timeout exceeded\n", "{said}");
    });
    quiet(&server);
    assert!(began.elapsed() < PATIENCE, "{:?}", began.elapsed());
    assert_eq!(site.queued_in("incoming").len(), 1);
}

#[test]
fn a_command_has_its_time_however_it_trickles_in_and_the_next_one_has_it_again() {
    let plan = plan(10).set("smtp", "command_time_limit", "\"1s\"");
    let site = plan.set("smtp", "max_message_size", "65536").build();
    let (_server, address) = serve(&site);
    let mut peer = Peer::connect(address);
    peer.greet();
    for _ in 0..3 {
        peer.dribble(b"NOOP", 1, Duration::from_millis(150));
        assert!(peer.command("").starts_with("250 "));
    }
    let began = Instant::now();
    while began.elapsed() < Duration::from_millis(1500) && peer.send("N") {
        std::thread::sleep(Duration::from_millis(100));
    }
    assert_eq!(peer.rest(), "421 4.4.2 Error: timeout exceeded\n");
    let elapsed = began.elapsed();
    assert!(elapsed >= Duration::from_secs(1) && elapsed < Duration::from_secs(3), "{elapsed:?}");
    // In the middle of a message it is silence that counts.
    let mut peer = Peer::connect(address);
    peer.greet();
    for command in [&format!("MAIL FROM:<{FROM}>"), &format!("RCPT TO:<{}>", TO[0]), "DATA"] {
        assert!(peer.command(command).starts_with(['2', '3']));
    }
    for _ in 0..6 {
        assert!(peer.send("Subject: x\r\n"));
        std::thread::sleep(Duration::from_millis(300));
    }
    assert!(peer.command("\r\n.").starts_with("250 2.0.0 "));
    // Of one that is refused already as well: its sender has to hear why.
    for command in [&format!("MAIL FROM:<{FROM}>"), &format!("RCPT TO:<{}>", TO[0]), "DATA"] {
        assert!(peer.command(command).starts_with(['2', '3']));
    }
    assert!(peer.send(b"Too large.\r\n".repeat(6000)));
    for _ in 0..6 {
        assert!(peer.send("x\r\n"));
        std::thread::sleep(Duration::from_millis(300));
    }
    assert!(peer.command(".").starts_with("552 5.3.4 "));
}

#[test]
fn who_is_turned_away_is_let_go_whatever_others_ask_at_that_moment() {
    const BUSY: usize = 4;
    let site = plan(BUSY + 1).build();
    let (server, address) = serve(&site);
    let (over, began) = (AtomicBool::new(false), Instant::now());
    std::thread::scope(|scope| {
        // Lines of the log, between which the listener does not look at what sessions want.
        for mut busy in crowd(address, BUSY) {
            busy.greet();
            let over = &over;
            scope.spawn(move || {
                // Not for ever, where the test fails.
                while !over.load(Ordering::Relaxed) && began.elapsed() < PATIENCE {
                    busy.mail(FROM, TO, TEXT);
                }
            });
        }
        for _ in 0..10 {
            let mut other = wait_until("a place", || {
                let mut peer = Peer::connect(address);
                peer.line().starts_with("220 ").then_some(peer)
            });
            other.command("EHLO client.example");
            other.command(format!("MAIL FROM:<{FROM}>"));
            std::thread::sleep(Duration::from_millis(10));
            server.signal(Signal::SIGSTOP);
            // A question, and one client too many.
            other.send("RCPT TO:<nobody@smkwlab.net>\r\n");
            std::thread::sleep(Duration::from_millis(20));
            let mut third = Peer::connect(address);
            server.signal(Signal::SIGCONT);
            let said = third.rest();
            assert!(said.starts_with("421 "), "{said}");
            assert!(other.reply().starts_with("550 "));
        }
        over.store(true, Ordering::Relaxed);
    });
}

#[test]
fn who_takes_no_reply_has_to_go_in_time() {
    let site = plan(1).set("smtp", "session_time_limit", "\"2s\"").build();
    let (server, address) = serve(&site);
    let began = Instant::now();
    let mut stream = TcpStream::connect(address).unwrap();
    setsockopt(&stream, sockopt::RcvBuf, &4096).unwrap();
    stream.set_write_timeout(Some(Duration::from_millis(300))).unwrap();
    hears(&mut stream, "220 ");
    stream.write_all(b"EHLO client.example\r\n").unwrap();
    hears(&mut stream, "250 ");
    // Until nobody takes any more.
    let commands = b"NOOP\r\n".repeat(1000);
    while stream.write_all(&commands).is_ok() {}
    wait_until("the session to end", || {
        // A byte now and then changes nothing.
        let _ = stream.set_read_timeout(Some(Duration::from_millis(100)));
        let _ = stream.read(&mut [0]);
        server.sessions().is_empty().then_some(())
    });
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    let mut peer = Peer::connect(address);
    peer.greet();
}

/// Reads until a line begins with this.
#[track_caller]
fn hears(stream: &mut TcpStream, wanted: &str) {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut said = String::new();
    let is_last = |said: &str| said.lines().last().is_some_and(|line| line.starts_with(wanted));
    while !said.ends_with('\n') || !is_last(&said) {
        let mut byte = [0];
        assert_eq!(stream.read(&mut byte).unwrap(), 1, "{said}");
        said.push(char::from(byte[0]));
    }
}

/// A client that may begin TLS.
fn before_tls(address: SocketAddr, service: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
    if service != "submissions" {
        hears(&mut stream, "220 ");
        stream.write_all(b"EHLO client.example\r\n").unwrap();
        hears(&mut stream, "250 ");
        stream.write_all(b"STARTTLS\r\n").unwrap();
        hears(&mut stream, "220 ");
    }
    stream
}

/// Shakes hands as far as this flight of the client's, of which it sends this part: so many
/// quarters.
fn stop_in(stream: &mut TcpStream, mut client: ClientConnection, flight: usize, quarters: usize) {
    for number in 0..=flight {
        while !client.wants_write() {
            assert!(client.is_handshaking(), "there is no flight {flight}");
            client.read_tls(stream).unwrap();
            client.process_new_packets().unwrap();
        }
        let mut bytes = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut bytes).unwrap();
        }
        let sent = if number < flight { bytes.len() } else { bytes.len() * quarters / 4 };
        stream.write_all(&bytes[..sent]).unwrap();
    }
}

#[test]
fn a_handshake_that_stops_anywhere_holds_its_place_no_longer_than_a_session() {
    // The hello, and what ends the handshake on the client's side.
    let stops = [(0, 0), (0, 1), (0, 3), (0, 4), (1, 0), (1, 1), (1, 3)];
    let places = VERSIONS.len() * stops.len();
    let pair = Pair::new();
    for service in ["smtp", "submissions"] {
        let site = pair.plan(plan(places).set("smtp", "session_time_limit", "\"3s\"")).build();
        let (server, address) = site.serve_word("smtpd", service);
        let began = Instant::now();
        let mut stopped = Vec::new();
        for version in VERSIONS {
            for (flight, quarters) in stops {
                let mut stream = before_tls(address, service);
                stop_in(&mut stream, pair.client(&[*version]), flight, quarters);
                stopped.push(stream);
            }
        }
        assert!(Peer::connect(address).line().starts_with("421 "), "all places are taken");
        quiet(&server);
        let elapsed = began.elapsed();
        assert!((3..15).contains(&elapsed.as_secs()), "{service}: {elapsed:?}");
        let failed = "TLS handshake with localhost[127.0.0.1] failed: ";
        wait_until("the log to tell of each", || {
            (server.log().matches(failed).count() == places).then_some(())
        });
        drop(stopped);
        // And the next client is served.
        let mut stream = before_tls(address, service);
        let mut client = pair.client(VERSIONS);
        while client.is_handshaking() {
            client.complete_io(&mut stream).unwrap();
        }
    }
}

/// As `openssl s_time` does: there was a handshake, and nothing failed.
#[test]
fn a_client_that_goes_at_once_behind_a_handshake_has_had_one() {
    let pair = Pair::new();
    let site = pair.plan(plan(30)).build();
    for service in ["smtp", "submissions"] {
        let (server, address) = site.serve_word("smtpd", service);
        for version in VERSIONS {
            for _ in 0..10 {
                let mut stream = before_tls(address, service);
                let mut client = pair.client(&[*version]);
                while client.is_handshaking() {
                    client.complete_io(&mut stream).unwrap();
                }
                let reset = nix::libc::linger { l_onoff: 1, l_linger: 0 };
                setsockopt(&stream, sockopt::Linger, &reset).unwrap();
            }
        }
        quiet(&server);
        assert!(!server.log().contains("handshake"), "{}", server.log());
    }
}

#[test]
fn what_is_no_handshake_ends_at_once() {
    let pair = Pair::new();
    let mut dice = support::Dice::new(11);
    let mut hello = Vec::new();
    pair.client(VERSIONS).write_tls(&mut hello).unwrap();
    let noise: Vec<u8> = (0..1000).map(|_| u8::try_from(dice.below(256)).unwrap()).collect();
    let mut changed = hello.clone();
    changed[9..60].reverse();
    // A hello of 16 MiB, in records that say so.
    let part = [&[22, 3, 1, 0x40, 0][..], &[0; 0x4000]].concat();
    let mut endless = part.repeat(64);
    endless[5..9].copy_from_slice(&[1, 0xff, 0xff, 0xff]);
    let garbage = [
        noise.clone(),
        b"GET / HTTP/1.1\r\nHost: mx\r\n\r\n".to_vec(),
        changed,
        [hello.clone(), noise].concat(),
        [hello.clone(), hello].concat(),
        vec![21, 3, 1, 0, 2, 2, 40],
        vec![22, 3, 1, 0xff, 0xff, 1],
        endless,
    ];
    for service in ["smtp", "submissions"] {
        let site = pair.plan(plan(1)).build();
        let (server, address) = site.serve_word("smtpd", service);
        for (number, bytes) in garbage.iter().enumerate() {
            let mut stream = before_tls(address, service);
            // It may be gone before it has heard all of it.
            let _ = stream.write_all(bytes);
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            let mut said = Vec::new();
            let end = stream.read_to_end(&mut said);
            let is_gone = end.as_ref().is_ok_and(|_| true)
                || end.is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionReset);
            assert!(is_gone, "{service}: {number}");
            // There is one place, and it is free again.
            quiet(&server);
        }
        assert!(!server.log().contains("panicked"), "{}", server.log());
    }
}

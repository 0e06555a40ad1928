//! Much mail for many hosts, of which many are dead: the living get theirs at once, and what the
//! dead should have waits.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests and their helpers fail by panicking"
)]

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::process::Stdio;
use std::time::{Duration, Instant};

use support::exchange::{Act, Exchange, Script, Step};
use support::network::{Network, is_silent};
use support::peer::{Peer, stuffed};
use support::run::{Server, run};
use support::site::{Site, behind};
use support::{PATIENCE, entry, note};

const SENDER: &str = "toshi@smkwlab.net";

/// How one of the domains fares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// Its exchange takes mail.
    Living,
    /// Its exchange refuses connections.
    Refused,
    /// Its exchange swallows them.
    Swallowed,
    /// Its exchange accepts connections and never says a word.
    Mute,
}

fn fate(domain: usize) -> Fate {
    match domain % 9 {
        1 => Fate::Refused,
        4 => Fate::Swallowed,
        7 => Fate::Mute,
        _ => Fate::Living,
    }
}

/// Hosts of each kind, so that no one of them is known as the only one that is dead.
fn host(domain: usize) -> u8 {
    let within = u8::try_from(domain / 9 % 5).unwrap();
    within
        + match fate(domain) {
            Fate::Living => 10,
            Fate::Refused => 15,
            Fate::Swallowed => 20,
            Fate::Mute => 25,
        }
}

/// Puts messages into the queue over one connection.
fn submit_all(address: SocketAddr, recipients: &[String]) {
    let mut peer = Peer::connect(address);
    peer.greet();
    let text = stuffed(b"Subject: one of many\n\nHello.\n");
    for recipient in recipients {
        peer.send(format!("MAIL FROM:<{SENDER}>\r\nRCPT TO:<{recipient}>\r\nDATA\r\n"));
        for wanted in ["250 ", "250 ", "354 "] {
            let reply = peer.reply();
            assert!(reply.starts_with(wanted), "{recipient}: {reply}");
        }
        peer.send(&text);
        let reply = peer.reply();
        assert!(reply.starts_with("250 "), "{recipient}: {reply}");
    }
    peer.command("QUIT");
}

/// How many messages each recipient got.
fn received(exchanges: &[Exchange]) -> BTreeMap<String, usize> {
    let mut all = BTreeMap::new();
    for message in exchanges.iter().flat_map(Exchange::messages) {
        for recipient in message.recipients {
            *all.entry(recipient).or_default() += 1;
        }
    }
    all
}

/// Who waits in a directory of the queue.
fn waiting(site: &Site, directory: &str) -> Vec<String> {
    let directory = site.queue().join(directory);
    let mut all = Vec::new();
    for file in fs::read_dir(directory).unwrap() {
        all.extend(entry::read(&file.unwrap().path()).unwrap().recipients);
    }
    all
}

/// A runner with as many open files as a login gets, or a service: 1024.
fn watch(site: &Site) -> Server {
    let mut command = site.command("mta-queue");
    command.arg("--watch");
    let usual = ["/bin/sh", "-c", "ulimit -S -n 1024; exec \"$@\"", "sh"];
    let mut command = behind(&usual, &command);
    command.stdin(Stdio::null()).stdout(Stdio::null());
    Server::start(&mut command)
}

#[test]
fn few_descriptors_make_a_runner_slower_and_lose_nothing() {
    const DOMAINS: usize = 300;
    let network = Network::new();
    let exchange = network.exchange(10, Script::polite());
    let to: Vec<String> = (0..DOMAINS).map(|domain| format!("a@d{domain}.test")).collect();
    for domain in 0..DOMAINS {
        network.dns.set(&format!("d{domain}.test A 127.0.0.10"));
    }
    let site = network.plan().in_memory().build();
    let (_smtpd, address) = site.serve("smtpd");
    submit_all(address, &to);
    let all: Vec<&str> = to.iter().map(String::as_str).collect();
    Site::send(address, SENDER, &all, "Subject: one for all\n\nHello.\n");
    let few = ["/bin/sh", "-c", "ulimit -n 150; exec \"$@\"", "sh"];
    let mut flushed = site.command("mta-queue");
    flushed.arg("--flush");
    for _ in 0..10 {
        let ran = run(&mut behind(&few, &flushed), b"").expect(0);
        assert!(!ran.stderr.contains("broke off"), "{ran}");
        if site.queued().is_empty() {
            break;
        }
    }
    assert_eq!(site.queued(), [""; 0]);
    let received = received(&[exchange]);
    assert_eq!(received.len(), DOMAINS);
    assert!(received.values().all(|count| *count == 2));
}

#[test]
fn the_living_get_their_mail_while_the_dead_wait() {
    const MESSAGES: usize = 5000;
    const DOMAINS: usize = 500;
    let network = Network::new();
    let _swallowing: Vec<_> = (20..25).map(|host| network.blackhole(host)).collect();
    let mute = || Script::polite().at(Step::Connect, Act::Silence);
    let mute: Vec<Exchange> = (25..30).map(|host| network.exchange(host, mute())).collect();
    let living: Vec<Exchange> =
        (10..15).map(|host| network.exchange(host, Script::polite())).collect();
    for domain in 0..DOMAINS {
        network.dns.set(&format!("d{domain}.test MX 10 mx.d{domain}.test"));
        network.dns.set(&format!("mx.d{domain}.test A 127.0.0.{}", host(domain)));
    }
    let site = network.plan().in_memory().set("queue", "retry", "[\"1h\"]").build();
    let (_smtpd, address) = site.serve("smtpd");
    let recipients: Vec<String> =
        (0..MESSAGES).map(|number| format!("user{number}@d{}.test", number % DOMAINS)).collect();
    std::thread::scope(|scope| {
        for part in recipients.chunks(MESSAGES / 4) {
            scope.spawn(move || submit_all(address, part));
        }
    });
    assert_eq!(site.queued_in("incoming").len(), MESSAGES);
    assert!(is_silent(network.address(20)));

    let started = Instant::now();
    let runner = watch(&site);
    let alive = |recipient: &&String| {
        let number: usize = recipient[4..recipient.find('@').unwrap()].parse().unwrap();
        fate(number % DOMAINS) == Fate::Living
    };
    let (alive, dead): (Vec<&String>, Vec<&String>) = recipients.iter().partition(alive);
    let mut count = 0;
    while count < alive.len() {
        std::thread::sleep(Duration::from_millis(50));
        count = living.iter().map(Exchange::count).sum();
        let time = started.elapsed();
        assert!(time < PATIENCE, "{count} of {} in {time:?}", alive.len());
    }
    let time = started.elapsed();
    note(&format!(
        "{count} messages to living hosts among {} to dead ones: {time:.1?}",
        dead.len()
    ));
    assert!(mute.iter().any(|exchange| !exchange.sessions().is_empty()), "nobody was called");

    // Killed now, it leaves every message somewhere, and each of the living had it once.
    drop(runner);
    let received = received(&living);
    assert!(alive.iter().all(|&recipient| received.get(recipient) == Some(&1)));
    assert_eq!(received.len(), alive.len());
    let mut left: Vec<String> =
        ["incoming", "work", "deferred"].iter().flat_map(|place| waiting(&site, place)).collect();
    left.retain(|recipient| dead.contains(&recipient));
    left.sort();
    let mut dead: Vec<String> = dead.into_iter().cloned().collect();
    dead.sort();
    assert_eq!(left, dead, "what waits is what the dead should have");
    assert_eq!(site.messages("toshi").len(), 0, "nothing came back");
    assert_eq!(site.queued_in("corrupt").len() + site.queued_in("hold").len(), 0);
    let refused = waiting(&site, "deferred");
    assert!(!refused.is_empty());
}

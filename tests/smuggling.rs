//! Smuggling (CVE-2023-51764 and its family): a text in which something stands that a careless
//! server takes for its end, and behind it a second message, sent in the name of whoever relays it.
//! Whatever that something is and however it comes, it is one message here, and one for whoever we
//! send it to, be they as careless as they like.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests and their helpers fail by panicking"
)]

mod support;

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use support::network::Network;
use support::peer::Peer;
use support::site::Site;
use support::wait_until;

const SECOND: &str = "MAIL FROM:<root@smkwlab.net>\r\nRCPT TO:<hunt@smkwlab.net>\r\nDATA\r\n\
                      Subject: smuggled\r\n\r\nx\r\n.\r\n";

/// What stands before the dot, and what behind it.
const ENDS: [&str; 9] = ["\n", "\r", "\r\n", "\r\r", "\n\n", "\n\r", "\0\r\n", "\r\n\0", "\r\0\n"];

/// Each kind of end but the right one.
fn variants() -> Vec<String> {
    let mut found = Vec::new();
    for before in ENDS {
        for after in ENDS {
            for dot in [".", "\0.", ".\0"] {
                let end = format!("{before}{dot}{after}");
                // Those in which the right one stands really end the text.
                if !format!("x{end}").contains("\r\n.\r\n") {
                    found.push(end);
                }
            }
        }
    }
    found
}

fn text(end: &str) -> Vec<u8> {
    format!("Subject: first\r\n\r\ntext{end}{SECOND}").into_bytes()
}

/// Begins a message, up to its text.
fn begin(address: SocketAddr, to: &str) -> Peer {
    let mut peer = Peer::connect(address);
    peer.greet();
    assert!(peer.command("MAIL FROM:<toshi@smkwlab.net>").starts_with("250 "));
    assert!(peer.command(format!("RCPT TO:<{to}>")).starts_with("250 "));
    peer
}

/// Sends a text by DATA, in two pieces that are cut there, and its right end; the reply to it.
fn by_data(address: SocketAddr, to: &str, end: &str, cut: usize) -> String {
    let mut peer = begin(address, to);
    assert!(peer.command("DATA").starts_with("354 "));
    // The dot in front of the second message's end is doubled, as the relay's client would.
    let text = [&text(end)[..text(end).len() - 3], b"..\r\n.\r\n"].concat();
    let (first, second) = text.split_at(cut.min(text.len()));
    peer.send(first);
    if !second.is_empty() {
        // What is sent in one go would mostly arrive in one.
        std::thread::sleep(Duration::from_millis(1));
        peer.send(second);
    }
    let reply = peer.reply();
    assert!(reply.starts_with("250 2.0.0 ") || reply.starts_with('5'), "{end:?}: {reply}");
    assert!(peer.command("NOOP").starts_with("250 ") || !reply.starts_with("250"), "{end:?}");
    reply
}

/// Sends a text by BDAT, in two chunks.
fn by_chunks(address: SocketAddr, to: &str, end: &str, cut: usize) -> String {
    let mut peer = begin(address, to);
    let text = text(end);
    let (first, second) = text.split_at(cut.min(text.len()));
    peer.send([format!("BDAT {}\r\n", first.len()).as_bytes(), first].concat());
    let reply = peer.reply();
    if !reply.starts_with("250 ") {
        return reply;
    }
    peer.send([format!("BDAT {} LAST\r\n", second.len()).as_bytes(), second].concat());
    let reply = peer.reply();
    assert!(reply.starts_with("250 2.0.0 ") || reply.starts_with('5'), "{end:?}: {reply}");
    assert!(peer.command("NOOP").starts_with("250 ") || !reply.starts_with("250"), "{end:?}");
    reply
}

type Way = fn(SocketAddr, &str, &str, usize) -> String;
const WAYS: [(&str, Way); 2] = [("DATA", by_data), ("BDAT", by_chunks)];

/// Whether each queued message is a first one, and how many there are.
#[track_caller]
fn queued(site: &Site) -> usize {
    let names = site.queued_in("incoming");
    for name in &names {
        let entry = std::fs::read(site.queue().join("incoming").join(name)).unwrap();
        let entry = String::from_utf8_lossy(&entry);
        let (envelope, _) = entry.split_once("Received: ").unwrap();
        assert!(!envelope.contains("root@"), "{entry}");
    }
    names.len()
}

#[test]
fn no_end_but_the_right_one_ends_a_text() {
    let site = Site::plan()
        .set("smtp", "max_connections_per_ip", "100")
        .set("smtp", "max_connections", "100")
        .build();
    let (_server, address) = site.serve("smtpd");
    let mut accepted = 0;
    for end in variants() {
        for (name, way) in WAYS {
            let reply = way(address, "hunt@smkwlab.net", &end, usize::MAX);
            accepted += usize::from(reply.starts_with("250 "));
            assert_eq!(queued(&site), accepted, "{name} {end:?}");
        }
    }
    assert!(accepted > 200, "most of them are mail: {accepted}");
}

#[test]
fn it_makes_no_difference_where_a_text_is_cut() {
    let site = Site::plan()
        .set("smtp", "max_connections_per_ip", "100")
        .set("smtp", "max_connections", "100")
        .build();
    let (_server, address) = site.serve("smtpd");
    let start = text("").len() - SECOND.len();
    let mut accepted = 0;
    for end in ["\n.\n", "\r\n.\n", "\n.\r\n", "\r.\r", "\r\n.\r", "\r.\r\n", "\0\r\n.\0\r\n"] {
        for (name, way) in WAYS {
            // At each place of the false end, and behind the first bytes of what follows.
            for cut in start..=start + end.len() + 2 {
                let reply = way(address, "hunt@smkwlab.net", end, cut);
                accepted += usize::from(reply.starts_with("250 "));
                assert_eq!(queued(&site), accepted, "{name} {end:?} cut at {cut}");
            }
        }
    }
    assert!(accepted > 50, "{accepted}");
}

/// A server that takes nearly everything for the end of a text.
struct Careless {
    texts: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl Careless {
    fn start(listener: TcpListener) -> Self {
        let texts = Arc::default();
        let kept = Arc::clone(&texts);
        // Ends with the process.
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let kept = Arc::clone(&kept);
                std::thread::spawn(move || converse(stream, &kept));
            }
        });
        Self { texts }
    }
}

/// The first end, by the most careless reading: a dot between two of whatever ends lines, with or
/// without NUL beside it.
fn careless_end(bytes: &[u8]) -> Option<usize> {
    let plain: Vec<(usize, u8)> =
        bytes.iter().copied().enumerate().filter(|(_, byte)| *byte != 0).collect();
    let is_end = |byte: u8| matches!(byte, b'\r' | b'\n');
    let at = plain
        .windows(3)
        .find(|three| is_end(three[0].1) && three[1].1 == b'.' && is_end(three[2].1))?;
    let mut end = at[2].0 + 1;
    if at[2].1 == b'\r' && bytes.get(end) == Some(&b'\n') {
        end += 1;
    }
    Some(end)
}

fn converse(mut stream: TcpStream, texts: &Mutex<Vec<Vec<u8>>>) {
    let mut held = Vec::new();
    let mut in_text = false;
    stream.write_all(b"220 careless.test\r\n").unwrap();
    loop {
        let taken = if in_text {
            careless_end(&held)
        } else {
            held.iter().position(|byte| *byte == b'\n').map(|at| at + 1)
        };
        let Some(taken) = taken else {
            let mut buffer = [0; 4096];
            match stream.read(&mut buffer) {
                Ok(length @ 1..) => held.extend_from_slice(&buffer[..length]),
                _ => return,
            }
            continue;
        };
        let piece: Vec<u8> = held.drain(..taken).collect();
        let command = String::from_utf8_lossy(&piece).to_ascii_uppercase();
        let reply = if in_text {
            in_text = false;
            texts.lock().unwrap().push(piece);
            "250 2.0.0 Ok"
        } else if command.starts_with("EHLO") {
            "250-careless.test\r\n250-8BITMIME\r\n250 PIPELINING"
        } else if command.starts_with("DATA") {
            in_text = true;
            "354 go on"
        } else if command.starts_with("QUIT") {
            let _ = stream.write_all(b"221 2.0.0 Bye\r\n");
            let _ = stream.shutdown(Shutdown::Both);
            return;
        } else {
            "250 2.0.0 Ok"
        };
        if stream.write_all(format!("{reply}\r\n").as_bytes()).is_err() {
            return;
        }
    }
}

#[test]
fn a_careless_server_hears_one_message_of_us() {
    let network = Network::new();
    let careless = Careless::start(network.listen(9));
    let site = network
        .plan()
        .set("delivery", "smarthost", &format!("\"127.0.0.9:{}\"", network.port()))
        .set("smtp", "max_connections_per_ip", "100")
        .set("smtp", "max_connections", "100")
        .build();
    let (_server, address) = site.serve("smtpd");
    let mut accepted = 0;
    for end in variants() {
        for (_, way) in WAYS {
            let reply = way(address, "hunt@elsewhere.test", &end, usize::MAX);
            accepted += usize::from(reply.starts_with("250 "));
        }
    }
    let ran = site.mta_queue(&["--flush"]).expect(0);
    assert_eq!(site.queued().len(), 0, "{ran}");
    let texts = careless.texts.lock().unwrap();
    assert_eq!(texts.len(), accepted, "a second message was heard");
    for text in texts.iter() {
        assert!(text.starts_with(b"Received: "), "{}", text.escape_ascii());
        assert!(text.ends_with(b"\r\n.\r\n"), "{}", text.escape_ascii());
    }
}

/// sendmail reads what its caller writes, in which lines end as on this host.
#[test]
fn what_sendmail_is_given_is_one_message_too() {
    let network = Network::new();
    let careless = Careless::start(network.listen(9));
    let site = network
        .plan()
        .set("delivery", "smarthost", &format!("\"127.0.0.9:{}\"", network.port()))
        .build();
    let mut sent = BTreeSet::new();
    for end in ["\r\n.\n", "\r.\r", "\r\n.\r", "\n.\r", "\r.\n", "\n.\r\n", "\n.\n"] {
        let given = text(end);
        site.sendmail("toshi", &["-i", "hunt@elsewhere.test"], &given).expect(0);
        sent.insert(end);
    }
    site.mta_queue(&["--flush"]).expect(0);
    wait_until("all to be sent", || site.queued().is_empty().then_some(()));
    assert_eq!(careless.texts.lock().unwrap().len(), sent.len());
}

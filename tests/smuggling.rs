//! One text is one message, for us and for every server behind us: what only looks like the end of
//! a text ends none, and what stands behind it is never obeyed (CVE-2023-51764 and its family).

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests and their helpers fail by panicking"
)]

mod support;

use std::net::SocketAddr;
use std::time::Duration;

use support::entry::{self, Entry};
use support::exchange::{Exchange, Script};
use support::mta::{Kind, Mta};
use support::network::Network;
use support::peer::Peer;
use support::run::Server;
use support::site::Site;

const NONE: [&str; 0] = [];
const SENDER: &str = "toshi@example.org";
const RECIPIENT: &str = "hunt@smkwlab.net";

/// What some server has taken for the end of a text: a bare CR or LF on one side of the dot or on
/// both, more of them than there should be, and NUL, which some servers drop.
const ENDS: &[&str] = &[
    "\n.\n",
    "\n.\r\n",
    "\n.\r",
    "\r.\r",
    "\r.\r\n",
    "\r.\n",
    "\r\n.\n",
    "\r\n.\r",
    "\r\n.\r\r\n",
    "\r\n\r.\r\n",
    "\r\n\0.\r\n",
    "\r\n\0\0.\r\n",
    "\r\n.\0\r\n",
    "\r\n.\r\0\n",
    "\r\0\n.\r\n",
    "\n\0.\n",
    "\n.\0\n",
];

/// Whatever else might be taken for one: all that stands between two of these.
fn ends() -> Vec<String> {
    const LINE_ENDS: [&str; 9] =
        ["\n", "\r", "\r\n", "\r\r", "\n\n", "\n\r", "\0\r\n", "\r\n\0", "\r\0\n"];
    let mut ends: Vec<String> = ENDS.iter().map(|end| (*end).to_owned()).collect();
    for before in LINE_ENDS {
        for after in LINE_ENDS {
            ends.extend([".", "\0.", ".\0"].map(|dot| format!("{before}{dot}{after}")));
        }
    }
    // Those in which the right one stands do end a text.
    ends.retain(|end| !end.contains("\r\n.\r\n"));
    ends
}

/// What a text may end in without a line end: the server that relays it must not make an end of it
/// too early, nor leave the right one out.
const TAILS: &[&str] =
    &["", "\r", "\n", "\r\n.", "\n.", "\r.", "\r\n.\r", "\r\n\0.", "\r\n.\0", "\r\n\0", "\0"];

/// A text with a false end in it, and behind that a whole second message for bob.
fn smuggling(domain: &str, end: &str) -> String {
    format!(
        "Subject: first\r\n\r\ntext{end}MAIL FROM:<evil@example.org>\r\nRCPT TO:<bob@{domain}>\r\n\
         DATA\r\nSubject: second\r\n\r\nsmuggled\r\n"
    )
}

/// Our smtpd, which has let in so many messages.
struct Inbound {
    site: Site,
    _server: Server,
    address: SocketAddr,
}

impl Inbound {
    fn new() -> Self {
        let site = Site::plan().in_memory().build();
        let (server, address) = site.serve("smtpd");
        Self { site, _server: server, address }
    }

    /// A client that may begin a text.
    fn client(&self) -> Peer {
        let mut peer = Peer::connect(self.address);
        peer.greet();
        peer
    }

    /// That these are the messages there are: each the one that was sent, and for hunt only.
    #[track_caller]
    fn holds(&self, count: usize) -> Vec<Entry> {
        let names = self.site.queued_in("incoming");
        let path = self.site.queue().join("incoming");
        let entries: Vec<Entry> =
            names.iter().map(|name| entry::read(&path.join(name)).unwrap()).collect();
        assert_eq!(entries.len(), count);
        for entry in &entries {
            assert_eq!(entry.sender, SENDER);
            assert_eq!(entry.recipients, [RECIPIENT]);
        }
        entries
    }
}

fn envelope(peer: &mut Peer, recipient: &str) {
    let reply = peer.command(format!("MAIL FROM:<{SENDER}>"));
    assert!(reply.starts_with("250 "), "{reply}");
    let reply = peer.command(format!("RCPT TO:<{recipient}>"));
    assert!(reply.starts_with("250 "), "{}", peer.dialogue());
}

/// Sends one text by DATA, in the pieces given, and gives the reply.
fn data(peer: &mut Peer, recipient: &str, pieces: &[&[u8]]) -> String {
    envelope(peer, recipient);
    assert!(peer.command("DATA").starts_with("354 "));
    for piece in pieces {
        peer.send(piece);
        if pieces.len() > 1 {
            // So that it is read by itself.
            std::thread::sleep(Duration::from_millis(2));
        }
    }
    peer.reply()
}

/// Sends one text by BDAT, each piece a chunk, and gives the last reply.
fn bdat(peer: &mut Peer, recipient: &str, pieces: &[&[u8]]) -> String {
    envelope(peer, recipient);
    let (last, first) = pieces.split_last().unwrap();
    for piece in first {
        peer.send([format!("BDAT {}\r\n", piece.len()).as_bytes(), piece].concat());
        assert!(peer.reply().starts_with("250 "), "{}", peer.dialogue());
    }
    peer.send([format!("BDAT {} LAST\r\n", last.len()).as_bytes(), last].concat());
    peer.reply()
}

/// Every way to cut a text in two, from before the false end to behind it.
fn cuts<'a>(text: &'a [u8], end: &str) -> Vec<Vec<&'a [u8]>> {
    let at = "Subject: first\r\n\r\ntext".len();
    (at..=at + end.len()).map(|cut| vec![&text[..cut], &text[cut..]]).collect()
}

#[test]
fn no_false_end_lets_a_second_message_in_wherever_packets_are_cut() {
    for end in ENDS {
        let inbound = Inbound::new();
        let mut peer = inbound.client();
        let text = smuggling("smkwlab.net", end) + ".\r\n";
        let mut ways: Vec<Vec<&[u8]>> = vec![vec![text.as_bytes()]];
        ways.extend(cuts(text.as_bytes(), end));
        ways.push(text.as_bytes().chunks(1).collect());
        for pieces in &ways {
            let reply = data(&mut peer, RECIPIENT, pieces);
            assert!(reply.starts_with("250 2.0.0 "), "{end:?}: {}", peer.dialogue());
        }
        // No reply but those is on its way.
        assert!(peer.command("QUIT").starts_with("221 "), "{end:?}: {}", peer.dialogue());
        for entry in inbound.holds(ways.len()) {
            let text = String::from_utf8(entry.content).unwrap();
            assert!(text.contains("MAIL FROM:<evil@example.org>\r\n"), "it is text: {text:?}");
            assert!(text.ends_with("\r\nSubject: second\r\n\r\nsmuggled\r\n"), "{text:?}");
            assert!(!text.replace("\r\n", "").contains(['\r', '\n']), "{end:?}: {text:?}");
        }
    }
}

#[test]
fn nothing_that_is_like_an_end_is_one() {
    let inbound = Inbound::new();
    let mut peer = inbound.client();
    let ends = ends();
    for end in &ends {
        let text = smuggling("smkwlab.net", end);
        let reply = data(&mut peer, RECIPIENT, &[(text.clone() + ".\r\n").as_bytes()]);
        assert!(reply.starts_with("250 2.0.0 "), "{end:?}: {reply}");
        let reply = bdat(&mut peer, RECIPIENT, &[text.as_bytes()]);
        assert!(reply.starts_with("250 2.0.0 "), "{end:?}: {reply}");
    }
    assert!(peer.command("QUIT").starts_with("221 "));
    inbound.holds(2 * ends.len());
}

#[test]
fn a_false_end_at_the_beginning_of_a_text_is_none_either() {
    let inbound = Inbound::new();
    let mut peer = inbound.client();
    // The line end of DATA stands before the dot.
    let ends = [".\n", ".\r", ".\r\r\n", ".\0\r\n", "\0.\r\n", "\n.\r\n", "\r.\r\n"];
    for end in ends {
        let text =
            format!("{end}MAIL FROM:<evil@example.org>\r\nRCPT TO:<bob@smkwlab.net>\r\n.\r\n");
        let reply = data(&mut peer, RECIPIENT, &[text.as_bytes()]);
        assert!(reply.starts_with("250 2.0.0 "), "{end:?}: {}", peer.dialogue());
    }
    assert!(peer.command("QUIT").starts_with("221 "), "{}", peer.dialogue());
    inbound.holds(ends.len());
}

#[test]
fn no_end_of_any_kind_ends_a_chunk_wherever_chunks_are_cut() {
    for end in ENDS.iter().chain(&["\r\n.\r\n"]) {
        let inbound = Inbound::new();
        let mut peer = inbound.client();
        let text = smuggling("smkwlab.net", end);
        let mut ways: Vec<Vec<&[u8]>> = vec![vec![text.as_bytes()]];
        ways.extend(cuts(text.as_bytes(), end));
        for pieces in &ways {
            let reply = bdat(&mut peer, RECIPIENT, pieces);
            assert!(reply.starts_with("250 2.0.0 "), "{end:?}: {}", peer.dialogue());
        }
        assert!(peer.command("QUIT").starts_with("221 "), "{end:?}: {}", peer.dialogue());
        for entry in inbound.holds(ways.len()) {
            let text = String::from_utf8(entry.content).unwrap();
            assert!(text.ends_with("\r\nSubject: second\r\n\r\nsmuggled\r\n"), "{text:?}");
            assert!(!text.replace("\r\n", "").contains(['\r', '\n']), "{end:?}: {text:?}");
        }
    }
}

#[test]
fn what_a_refused_chunk_holds_is_never_obeyed() {
    let evil = "RSET\r\nMAIL FROM:<evil@example.org>\r\nRCPT TO:<bob@smkwlab.net>\r\n\
                BDAT 3 LAST\r\nx\r\n";
    let inbound = Inbound::new();
    // Nobody to send it to.
    let mut peer = inbound.client();
    peer.send(format!("BDAT {} LAST\r\n{evil}QUIT\r\n", evil.len()));
    assert!(peer.reply().starts_with("503 "), "{}", peer.dialogue());
    assert!(peer.reply().starts_with("221 "), "{}", peer.dialogue());
    // A size that is none: nobody knows where commands go on, and none is heard any more.
    for size in ["-1", "0x10", "x", "", "1 2"] {
        let mut peer = inbound.client();
        envelope(&mut peer, RECIPIENT);
        peer.send(format!("BDAT {size} LAST\r\n{evil}"));
        let said = peer.rest();
        assert!(said.starts_with("501 5.5.4 ") && said.lines().count() == 1, "{size:?}: {said}");
    }
    // One that is larger than all: everything that comes is the chunk.
    let mut peer = inbound.client();
    envelope(&mut peer, RECIPIENT);
    peer.send(format!("BDAT 99999999999999999999 LAST\r\n{evil}"));
    peer.half_close();
    assert_eq!(peer.rest(), "");
    inbound.holds(0);
}

/// We, and a server that takes the mail of there.test: an odd one.
struct Relay {
    _network: Network,
    exchange: Exchange,
    site: Site,
}

impl Relay {
    fn new() -> Self {
        let network = Network::new();
        network.dns.set("there.test MX 10 mx.there.test");
        network.dns.set("mx.there.test A 127.0.0.3");
        let exchange = network.exchange(3, Script::polite().lenient(ends()));
        let site = network.plan().in_memory().build();
        Self { exchange, site, _network: network }
    }
}

/// Hands in each text by DATA, as one chunk, and by sendmail; how many messages these are.
fn hand_in(site: &Site, domain: &str) -> usize {
    let (_server, mut peer) = site.session("smtpd");
    peer.greet();
    let recipient = format!("hunt@{domain}");
    let tails = TAILS.iter().map(|tail| format!("Subject: tail\r\n\r\ntext{tail}"));
    let ends = ends();
    let mut count = 0;
    for text in ends.iter().map(|end| smuggling(domain, end)).chain(tails) {
        let reply = bdat(&mut peer, &recipient, &[text.as_bytes()]);
        assert!(reply.starts_with("250 2.0.0 "), "{}", peer.dialogue());
        site.sendmail("toshi", &["-i", &recipient], text.as_bytes()).expect(0);
        count += 2;
    }
    for end in &ends {
        let text = smuggling(domain, end) + ".\r\n";
        let reply = data(&mut peer, &recipient, &[text.as_bytes()]);
        assert!(reply.starts_with("250 2.0.0 "), "{}", peer.dialogue());
        count += 1;
    }
    // In a chunk the right end is text, too.
    let text = smuggling(domain, "\r\n.\r\n");
    let reply = bdat(&mut peer, &recipient, &[text.as_bytes()]);
    assert!(reply.starts_with("250 2.0.0 "), "{}", peer.dialogue());
    count + 1
}

#[test]
fn a_lenient_server_behind_us_gets_one_message_of_each() {
    let relay = Relay::new();
    let count = hand_in(&relay.site, "there.test");
    let ran = relay.site.mta_queue(&["--flush"]).expect(0);
    assert_eq!(relay.site.queued(), NONE, "{ran}\n{:?}", relay.exchange.complaints());
    assert_eq!(relay.exchange.complaints(), NONE);
    let messages = relay.exchange.messages();
    for message in &messages {
        assert_eq!(message.recipients, ["hunt@there.test"], "{message:?}");
    }
    assert_eq!(messages.len(), count);
}

/// That the test above can fail: the same server, without us before it.
#[test]
fn a_lenient_server_takes_two_of_whoever_sends_them() {
    for end in ENDS {
        let relay = Relay::new();
        let mut peer = Peer::connect(relay.exchange.address());
        peer.reply();
        peer.command("EHLO client.example");
        envelope(&mut peer, "hunt@there.test");
        assert!(peer.command("DATA").starts_with("354 "));
        peer.send(smuggling("there.test", end) + ".\r\n");
        relay.exchange.wait_for(2);
        assert_eq!(relay.exchange.messages()[1].recipients, ["bob@there.test"], "{end:?}");
    }
}

#[test]
fn postfix_behind_us_gets_one_message_of_each() {
    if !Kind::Postfix.need() {
        return;
    }
    let mta = Mta::start(Kind::Postfix, None);
    let (ip, port) = (mta.address().ip(), mta.address().port());
    let plan = Site::plan().in_memory();
    let site = plan.set("delivery", "smarthost", &format!("\"[{ip}]:{port}\"")).build();
    let count = hand_in(&site, "postfix.test");
    let ran = site.mta_queue(&["--flush"]).expect(0);
    assert_eq!(site.queued(), NONE, "{ran}");
    mta.wait_for_mail("hunt", count);
    mta.wait_until_idle();
    assert_eq!(mta.mail("hunt").len(), count);
    assert_eq!(mta.mail("bob").len(), 0);
}

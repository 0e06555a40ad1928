//! The lecture's hosts: matsukadai.qgpop.net hands a message to hawks.qgpop.net, which finds the
//! mail exchange of smkwlab.net in DNS and sends it there; `example` fetches it by POP3.
//!
//! Once with all of it on loopback addresses, for anybody; and once, with root, on hosts of their
//! own, with the ports, the names and the name server of the real thing.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests and their helpers fail by panicking"
)]

mod support;

use std::net::{Ipv4Addr, SocketAddr};

use support::dns::Trouble;
use support::lan::{Host, Lan};
use support::network::Network;
use support::peer::Peer;
use support::report;
use support::run::{Ran, run};
use support::site::{Plan, Site, queue_id};
use support::{mbox, mutt};

const NONE: [&str; 0] = [];
const MATSUKADAI: &str = "matsukadai.qgpop.net";
const HAWKS: &str = "hawks.qgpop.net";
const MX: &str = "mx.smkwlab.net";
const SENDER: &str = "toshi@qgpop.net";
const RECIPIENT: &str = "example@smkwlab.net";

/// The example of the lecture, in the charset that it has there.
const JAPANESE: &[u8] = b"From: Toshihiko SHIMOKAWA / =?ISO-2022-JP?B?GyRCMjxATj1TSScbKEI=?= \
    <toshi@tenbin.org>\nTo: example@smkwlab.net\n\
    Subject: =?ISO-2022-JP?B?GyRCJUYlOSVIGyhC?=\nMIME-Version: 1.0\n\
    Content-Type: text/plain; charset=ISO-2022-JP\nContent-Transfer-Encoding: 7bit\n\
    Content-Disposition: inline\n\n\
    \x1b$B$3$s$K$A$O!#$3$l$O%F%9%H$N%a%$%k$G$9!#\x1b(B\n";

fn hawks(plan: Plan) -> Site {
    plan.named(HAWKS, &["qgpop.net", HAWKS]).build()
}

fn mx(plan: Plan) -> Site {
    plan.named(MX, &["smkwlab.net", MX]).build()
}

/// matsukadai hands over a message; the queue id that it was told.
#[track_caller]
fn hand_over(mut peer: Peer, to: &str) -> String {
    let greeting = peer.reply();
    assert!(greeting.starts_with(&format!("220 {HAWKS} ")), "{greeting}");
    let reply = peer.command(format!("EHLO {MATSUKADAI}"));
    assert!(reply.starts_with(&format!("250-{HAWKS}")), "{reply}");
    let reply = peer.mail(SENDER, &[to], JAPANESE);
    assert!(reply.starts_with("250 2.0.0 "), "{reply}");
    peer.command("QUIT");
    queue_id(&reply)
}

/// The queue id that the next host gave, from the line that says who took the message.
#[track_caller]
fn id_of_the_next_host(ran: &Ran, own_id: &str) -> String {
    let line =
        ran.stderr.lines().find(|line| line.contains(own_id) && line.contains("status=sent"));
    let line = line.unwrap_or_else(|| panic!("{own_id} was not sent: {ran}"));
    assert!(line.contains(&format!("to=<{RECIPIENT}>")), "{line}");
    assert!(line.contains(&format!("relay={MX}[")), "{line}");
    let (_, rest) = line.split_once("queued as ").unwrap_or_else(|| panic!("no id: {line}"));
    rest.trim_end_matches(')').to_owned()
}

/// Reads the only message of `example` by POP3.
#[track_caller]
fn fetch(mut peer: Peer) -> mbox::Message {
    peer.line();
    peer.pop("user example");
    assert!(peer.pop("pass of the lecture").starts_with("+OK"), "{}", peer.dialogue());
    assert!(peer.pop("stat").starts_with("+OK 1 "), "{}", peer.dialogue());
    assert!(peer.pop("retr 1").starts_with("+OK"));
    let text = peer.pop_body();
    peer.pop("dele 1");
    assert!(peer.pop("quit").starts_with("+OK"));
    assert!(text.ends_with(JAPANESE), "{}", text.escape_ascii());
    let text = [b"From x Mon Jun 21 03:15:20 2004\n", &text[..], b"\n"].concat();
    mbox::parse(&text).remove(0)
}

/// One hop: the name that the address was found to have (not looked at where there is none), and
/// the address.
type Hop<'a> = (Option<&'a str>, &'a str);

/// The path as the two Received fields tell it, newest first.
#[track_caller]
fn assert_path(message: &mbox::Message, hops: [Hop<'_>; 2], ids: [&str; 2]) {
    let fields = message.fields("Received");
    assert_eq!(fields.len(), 2, "{fields:?}");
    let hosts = [(HAWKS, MX), (MATSUKADAI, HAWKS)];
    for (((field, (from, by)), hop), id) in fields.into_iter().zip(hosts).zip(hops).zip(ids) {
        let field = field.replace("\n\t", " ");
        let found = field.split(['(', ' ']).nth(3).unwrap();
        let (name, address) = (hop.0.unwrap_or(found), hop.1);
        let wanted = format!(
            "from {from} ({name} [{address}]) by {by} (Hikyaku) with ESMTP id {id} \
             for <{RECIPIENT}>; "
        );
        let date = field.strip_prefix(&wanted);
        let date = date.unwrap_or_else(|| panic!("{field:?} does not begin with {wanted:?}"));
        assert!(date.ends_with("+0900 (JST)"), "{date}");
    }
    assert_eq!(message.field("Return-Path"), Some("<toshi@qgpop.net>"));
}

/// The report that toshi got at hawks, as a program and as a person with mutt reads it.
#[track_caller]
fn assert_returned(hawks: &Site, to: &str, ran: &Ran) {
    let messages = hawks.messages("toshi");
    assert_eq!(messages.len(), 1, "{ran}");
    let report = report::of_message(&messages[0]);
    assert_eq!((report.action.as_str(), report.status.as_str()), ("failed", "5.1.2"));
    assert_eq!(report.recipient, to);
    assert_eq!(messages[0].field("Return-Path"), Some("<>"));
    if mutt::possible() {
        let shown = mutt::shows(hawks.path(), &hawks.inbox("toshi"));
        for part in [
            "From: Mail Delivery System <MAILER-DAEMON@hawks.qgpop.net>",
            "To: toshi@qgpop.net",
            "could not be delivered",
            &format!("<{to}>:"),
            "Final-Recipient: rfc822;",
            // The header of the returned message, which an encoded word stands in.
            "To: example@smkwlab.net",
            "Content-Type: text/plain; charset=ISO-2022-JP",
        ] {
            assert!(shown.contains(part), "{part:?} in what mutt shows:\n{shown}");
        }
    }
}

mod on_loopback {
    use super::*;

    /// Where the three are.
    const AT_MATSUKADAI: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
    const AT_HAWKS: u8 = 3;
    const AT_MX: u8 = 4;

    fn network() -> Network {
        let network = Network::new();
        network.dns.set("smkwlab.net MX 10 mx.smkwlab.net");
        network.dns.host(MATSUKADAI, "127.0.0.2");
        network.dns.host(HAWKS, "127.0.0.3");
        network.dns.host(MX, "127.0.0.4");
        network
    }

    #[test]
    fn mail_goes_by_way_of_hawks_to_the_exchange_of_its_domain() {
        let network = network();
        let (hawks, mx) = (hawks(network.plan()), mx(network.plan()));
        let _hawks = hawks.serve_on("smtpd", network.listen(AT_HAWKS));
        let _mx = mx.serve_on("smtpd", network.listen(AT_MX));
        let peer = Peer::connect_from(AT_MATSUKADAI, network.address(AT_HAWKS));
        let first = hand_over(peer, RECIPIENT);
        let ran = hawks.mta_queue(&NONE).expect(0);
        assert_eq!(hawks.queued(), NONE, "{ran}");
        let second = id_of_the_next_host(&ran, &first);
        assert_eq!(mx.queued(), [format!("incoming/{second}")]);
        mx.mta_queue(&NONE).expect(0);
        assert_eq!(mx.queued(), NONE);
        let (_popd, address) = mx.serve("popd");
        let message = fetch(Peer::connect(address));
        // What loopback addresses are called nobody asks DNS. The courier's is 127.0.0.1.
        let hops = [(None, "127.0.0.1"), (None, "127.0.0.2")];
        assert_path(&message, hops, [&second, &first]);
    }

    #[test]
    fn while_the_exchange_is_down_hawks_keeps_the_mail() {
        let network = network();
        let (hawks, mx) = (hawks(network.plan()), mx(network.plan()));
        let _hawks = hawks.serve_on("smtpd", network.listen(AT_HAWKS));
        let peer = Peer::connect_from(AT_MATSUKADAI, network.address(AT_HAWKS));
        hand_over(peer, RECIPIENT);
        for _ in 0..2 {
            let ran = hawks.mta_queue(&["--flush"]).expect(0);
            assert_eq!(hawks.queued_in("deferred").len(), 1, "{ran}");
        }
        let _mx = mx.serve_on("smtpd", network.listen(AT_MX));
        hawks.mta_queue(&["--flush"]).expect(0);
        assert_eq!(hawks.queued(), NONE);
        mx.mta_queue(&NONE).expect(0);
        assert_eq!(mx.messages("example").len(), 1);
    }

    #[test]
    fn where_the_domain_is_gone_the_sender_is_told() {
        let network = network();
        network.dns.forget("smkwlab.net");
        let hawks = hawks(network.plan());
        let _hawks = hawks.serve_on("smtpd", network.listen(AT_HAWKS));
        let peer = Peer::connect_from(AT_MATSUKADAI, network.address(AT_HAWKS));
        hand_over(peer, RECIPIENT);
        let ran = hawks.mta_queue(&NONE).expect(0);
        assert_eq!(hawks.queued(), NONE, "{ran}");
        assert_returned(&hawks, RECIPIENT, &ran);
    }

    #[test]
    fn while_dns_is_dead_nothing_comes_back() {
        let network = network();
        network.dns.fail_everywhere(Trouble::ServFail);
        let (hawks, mx) = (hawks(network.plan()), mx(network.plan()));
        let _hawks = hawks.serve_on("smtpd", network.listen(AT_HAWKS));
        let _mx = mx.serve_on("smtpd", network.listen(AT_MX));
        let peer = Peer::connect_from(AT_MATSUKADAI, network.address(AT_HAWKS));
        hand_over(peer, RECIPIENT);
        for _ in 0..3 {
            let ran = hawks.mta_queue(&["--flush"]).expect(0);
            assert_eq!(hawks.queued_in("deferred").len(), 1, "{ran}");
            assert!(ran.stderr.contains("dsn=4.4.3"), "{ran}");
        }
        assert_eq!(hawks.messages("toshi").len(), 0);
        network.dns.mend();
        hawks.mta_queue(&["--flush"]).expect(0);
        assert_eq!(hawks.queued(), NONE);
        assert_eq!(mx.queued_in("incoming").len(), 1);
    }
}

mod on_hosts_of_their_own {
    use super::*;

    const AT_MATSUKADAI: &str = "133.69.130.5";
    const AT_HAWKS: &str = "133.69.130.4";
    const AT_MX: &str = "192.0.2.10";

    fn port(address: &str, port: u16) -> SocketAddr {
        format!("{address}:{port}").parse().unwrap()
    }

    /// As an installed host is configured: resolv.conf, port 25.
    fn plan() -> Plan {
        Site::plan()
            .set("dns", "servers", "[]")
            .set("delivery", "port", "25")
            .set("smtp", "relay_networks", "[\"133.69.130.0/24\"]")
            .set("auth", "plaintext_without_tls", "true")
    }

    fn record(name: &str, address: &str) -> String {
        format!("--host-record={name},{address}")
    }

    fn serve(host: &Host, site: &Site, program: &str, address: SocketAddr) -> support::run::Server {
        let mut command = site.command(program);
        command.args(["--listen", &address.to_string()]);
        host.serve(&command, address)
    }

    fn run_queue(host: &Host, site: &Site) -> Ran {
        let mut command = site.command("mta-queue");
        command.arg("--flush");
        run(&mut host.command(&command), b"").expect(0)
    }

    #[test]
    fn the_path_is_that_of_the_lecture() {
        if !Lan::possible() {
            return;
        }
        let mut lan = Lan::new();
        let mut names = vec![record(MATSUKADAI, AT_MATSUKADAI), record(HAWKS, AT_HAWKS)];
        lan.name(&names);
        let at_matsukadai = lan.host(AT_MATSUKADAI);
        let (at_hawks, at_mx) = (lan.host(AT_HAWKS), lan.host(AT_MX));
        let (hawks, mx) = (hawks(plan()), mx(plan()));
        let smtpd = serve(&at_hawks, &hawks, "smtpd", port(AT_HAWKS, 25));
        let submit = |to: &str| hand_over(Peer::new(at_matsukadai.connect(port(AT_HAWKS, 25))), to);

        // Nobody has heard of the domain: the sender is told.
        submit(RECIPIENT);
        let ran = run_queue(&at_hawks, &hawks);
        assert_eq!(hawks.queued(), NONE, "{ran}");
        assert_returned(&hawks, RECIPIENT, &ran);

        // Its exchange is known, but not up: the mail waits.
        names.push(record(MX, AT_MX));
        names.push("--mx-host=smkwlab.net,mx.smkwlab.net,10".into());
        lan.name(&names);
        let first = submit(RECIPIENT);
        let ran = run_queue(&at_hawks, &hawks);
        assert_eq!(hawks.queued_in("deferred").len(), 1, "{ran}");
        assert!(ran.stderr.contains("dsn=4.4.1"), "{ran}");

        // The exchange is up: the mail goes there.
        let _smtpd = serve(&at_mx, &mx, "smtpd", port(AT_MX, 25));
        let ran = run_queue(&at_hawks, &hawks);
        assert_eq!(hawks.queued(), NONE, "{ran}");
        let second = id_of_the_next_host(&ran, &first);
        run_queue(&at_mx, &mx);
        let _popd = serve(&at_mx, &mx, "popd", port(AT_MX, 110));
        let message = fetch(Peer::new(at_matsukadai.connect(port(AT_MX, 110))));
        let hops = [(Some(HAWKS), AT_HAWKS), (Some(MATSUKADAI), AT_MATSUKADAI)];
        assert_path(&message, hops, [&second, &first]);

        // The name server is dead: nothing goes, and nothing comes back.
        submit(RECIPIENT);
        lan.stop_naming();
        let ran = run_queue(&at_hawks, &hawks);
        assert_eq!(hawks.queued_in("deferred").len(), 1, "{ran}");
        assert!(ran.stderr.contains("dsn=4.4.3"), "{ran}");
        assert_eq!(hawks.messages("toshi").len(), 1, "only the first one");
        drop(smtpd);
    }
}

//! Whom smtpd takes mail from, and for whom: the access table, names, and greylisting.

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
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use support::dns::{Dns, Trouble};
use support::peer::Peer;
use support::run::{Server, run};
use support::site::{Plan, Site};

/// A load balancer, by which a client comes from anywhere.
const BALANCER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 9);

const FAR: &str = "192.0.2.77";

struct Host {
    dns: Dns,
    site: Site,
    server: Server,
    address: SocketAddr,
}

impl Host {
    fn new(plan: Plan, access: &str) -> Self {
        let dns = Dns::start();
        let plan = plan.set("smtp", "relay_networks", "[\"127.0.0.1\", \"10.0.0.0/8\"]");
        let plan = plan.set("smtp", "proxies", "[\"127.0.0.9\"]");
        let site = plan.set("dns", "servers", &format!("[\"{}\"]", dns.address())).build();
        let table = site.path().join("access");
        fs::write(&table, access).unwrap();
        let key = format!("access = {:?}", table.to_str().unwrap());
        let text = fs::read_to_string(site.configuration()).unwrap();
        fs::write(site.configuration(), text.replace("[paths]", &format!("[paths]\n{key}")))
            .unwrap();
        let (server, address) = site.serve("smtpd");
        Self { dns, site, server, address }
    }

    fn client(&self, from: &str) -> Peer {
        let mut peer = Peer::connect_from(BALANCER, self.address);
        let family = if from.contains(':') { ("TCP6", "::1") } else { ("TCP4", "127.0.0.1") };
        peer.send(format!("PROXY {} {from} {} 4711 25\r\n", family.0, family.1));
        peer
    }

    /// What is said to this client's RCPT.
    #[track_caller]
    fn rcpt(&self, client: &str, helo: &str, from: &str, to: &str) -> String {
        let mut peer = self.client(client);
        assert!(peer.reply().starts_with("220 "));
        assert!(peer.command(format!("EHLO {helo}")).starts_with("250"), "{}", peer.dialogue());
        assert!(peer.command(format!("MAIL FROM:<{from}>")).starts_with("250 "));
        peer.command(format!("RCPT TO:<{to}>"))
    }

    #[track_caller]
    fn says(&self, wanted: &str, client: &str, helo: &str, from: &str, to: &str) {
        let said = self.rcpt(client, helo, from, to);
        assert!(said.starts_with(wanted), "{client} {helo} {from} {to}: {said}\n{wanted}");
    }
}

const HUNT: &str = "hunt@smkwlab.net";

#[test]
fn the_access_table_rules_clients_senders_and_recipients() {
    let access = "connect:192.0.2   REJECT not from there\n\
                  connect:192.0.2.25 OK\n\
                  connect:2001:db8:0:7 DEFER\n\
                  Connect:junk.example 554 5.7.1 no junk\n\
                  from:Bulk.example\n  REJECT we have\n  asked you\n\
                  from:good@bulk.example OK\n\
                  from:<> DEFER no reports\n\
                  to:old@smkwlab.net 551 5.1.6 moved\n\
                  to:toshi@ REJECT\n";
    let host = Host::new(Site::plan(), access);
    host.dns.host("a.junk.example", "192.0.3.1");
    let says = |wanted, client, from, to| host.says(wanted, client, "x.example", from, to);
    says("550 5.7.1 client [192.0.2.77]: not from there", FAR, "a@b.example", HUNT);
    says("250 ", "192.0.2.25", "a@b.example", HUNT);
    says("250 ", "192.0.3.77", "a@b.example", HUNT);
    says("450 4.7.1 client [2001:db8:0:7::1]: Access denied", "2001:db8:0:7::1", "a@b.c", HUNT);
    says("554 5.7.1 client [192.0.3.1]: no junk", "192.0.3.1", "a@b.example", HUNT);
    let bulk = "550 5.7.1 <x@a.bulk.example>: we have asked you";
    says(bulk, "192.0.3.77", "x@a.bulk.example", HUNT);
    says("250 ", "192.0.3.77", "good@BULK.example", HUNT);
    says("450 4.7.1 <>: no reports", "192.0.3.77", "", HUNT);
    says("551 5.1.6 <old@smkwlab.net>: moved", "192.0.3.77", "a@b.example", "old@smkwlab.net");
    let toshi = "550 5.7.1 <Toshi+x@smkwlab.net>: Access denied";
    says(toshi, "192.0.3.77", "a@b.example", "Toshi+x@smkwlab.net");
    // Of those whom we know, too; and nobody gains the right to relay.
    says("550 5.7.1 ", "127.0.0.1", "x@bulk.example", "a@elsewhere.example");
    says("250 ", "10.0.0.1", "x@good.example", "a@elsewhere.example");
    says("554 5.7.1 ", "192.0.2.25", "x@good.example", "a@elsewhere.example");
    host.server
        .wait_for_log("reject: RCPT from unknown[192.0.2.77]: 550 5.7.1 client [192.0.2.77]");
}

#[test]
fn a_change_of_a_table_counts_for_the_next_client_and_a_wrong_line_for_its_key_only() {
    let host = Host::new(Site::plan(), "from:b.example REJECT\n");
    host.says("550 5.7.1 ", FAR, "x", "a@b.example", HUNT);
    let table = host.site.path().join("access");
    fs::write(&table, "from:c.example REJECT\nfrom:b.example NONSENSE\n").unwrap();
    // A process that ended is not followed at once by another one.
    std::thread::sleep(Duration::from_millis(1100));
    host.says("550 5.7.1 ", FAR, "x", "a@c.example", HUNT);
    host.says("250 ", FAR, "x", "a@d.example", HUNT);
    host.says("451 4.3.0 ", FAR, "x", "a@b.example", HUNT);
    host.server.wait_for_log("/access:2: OK, REJECT, DEFER or a reply as 550 5.7.1 is wanted");
    let check = run(host.site.command("mailctl").arg("check"), b"");
    assert!(check.to_string().contains("/access:2: OK, REJECT, DEFER"), "{check}");
    fs::write(&table, "from:b.example REJECT\n").unwrap();
    run(host.site.command("sendmail").arg("-bi"), b"").expect(0);
    assert!(host.site.path().join("access.index").exists());
    std::thread::sleep(Duration::from_millis(1100));
    host.says("550 5.7.1 ", FAR, "x", "a@b.example", HUNT);
    fs::remove_file(&table).unwrap();
    std::thread::sleep(Duration::from_millis(1100));
    host.says("250 ", FAR, "x", "a@b.example", HUNT);
}

#[test]
fn a_strangers_helo_is_its_own_name_and_not_ours() {
    let host = Host::new(Site::plan().set("smtp", "helo_check", "\"dns\""), "");
    host.dns.set("mail.example A 192.0.2.77");
    host.dns.set("only-mx.example MX 10 mail.example");
    host.dns.fail("silent.example", Trouble::ServFail);
    let says = |wanted: &str, helo: &str| host.says(wanted, FAR, helo, "a@b.example", HUNT);
    says("250 ", "mail.example");
    says("250 ", "MAIL.example.");
    says("250 ", "only-mx.example");
    says("250 ", "[192.0.2.77]");
    let refused = "Helo command rejected:";
    for (helo, why) in [
        ("[192.0.2.78]", "this is not your address"),
        ("mail", "a full host name is wanted"),
        ("192.0.2.77", "a full host name is wanted"),
        ("mx.smkwlab.net", "this is our name"),
        ("SMKWLAB.net", "this is our name"),
        ("mx.smkwlab.net.", "this is our name"),
        ("192.0.2.77.", "a full host name is wanted"),
        ("nowhere.example", "there is no such host in DNS"),
    ] {
        says(&format!("550 5.7.1 <{helo}>: {refused} {why}"), helo);
    }
    says(
        "450 4.7.1 <silent.example>: Helo command rejected: it can't be looked up now",
        "silent.example",
    );
    host.says("250 ", "10.0.0.1", "mail", "a@b.example", HUNT);
}

#[test]
fn a_silent_name_server_puts_mail_off_and_leaves_the_session_its_policy() {
    let host = Host::new(Site::plan().set("smtp", "helo_check", "\"dns\""), "");
    host.dns.fail_everywhere(Trouble::Silent);
    let mut peer = host.client(FAR);
    peer.reply();
    assert!(peer.command("EHLO mail.example").starts_with("250"), "{}", peer.dialogue());
    assert!(peer.command("MAIL FROM:<a@b.example>").starts_with("250 "));
    let later = "450 4.7.1 <mail.example>: Helo command rejected: it can't be looked up now";
    for _ in 0..2 {
        let said = peer.command(format!("RCPT TO:<{HUNT}>"));
        assert!(said.starts_with(later), "{said}");
    }
    // What needs no lookup is answered as ever.
    assert!(peer.command("RCPT TO:<a@elsewhere.example>").starts_with("554 5.7.1 "));
}

#[test]
fn a_stranger_has_a_name_where_that_is_asked_for() {
    let host = Host::new(
        Site::plan().set("smtp", "require_client_name", "true"),
        "connect:192.0.2.78 OK\n",
    );
    host.dns.host("mail.example", "192.0.2.79");
    let says = |wanted, client| host.says(wanted, client, "x", "a@b.example", HUNT);
    says("450 4.7.25 Client host rejected: [192.0.2.77] has no name", FAR);
    says("250 ", "192.0.2.78");
    says("250 ", "192.0.2.79");
    says("250 ", "10.0.0.1");
}

#[test]
fn a_strangers_first_mail_comes_again() {
    let plan = Site::plan().set("greylist", "delay", "\"2s\"");
    let host = Host::new(plan, "to:bob@smkwlab.net OK\n");
    let says = |wanted, client, from, to| host.says(wanted, client, "x", from, to);
    let later = "451 4.7.1 <hunt@smkwlab.net>: Greylisted, come again in 2 seconds";
    says(later, FAR, "a@b.example", HUNT);
    says("451 4.7.1 ", FAR, "a@b.example", HUNT);
    says("550 5.1.1 ", FAR, "a@b.example", "nobody-here@smkwlab.net");
    says("250 ", FAR, "a@b.example", "bob@smkwlab.net");
    says("250 ", "10.0.0.1", "a@b.example", HUNT);
    says("554 5.7.1 ", FAR, "a@b.example", "a@elsewhere.example");
    std::thread::sleep(Duration::from_secs(2));
    says("250 ", "192.0.2.78", "A@b.example", HUNT);
    says("451 4.7.1 ", FAR, "other@b.example", HUNT);
    // It lasts, and what is over goes.
    drop(host.server);
    let known = fs::metadata(host.site.queue().join("greylist")).unwrap();
    assert!(known.len() > 0);
    host.site.mta_queue(&[""; 0]).expect(0);
    let (server, address) = host.site.serve("smtpd");
    let host = Host { server, address, ..host };
    host.says("250 ", FAR, "x", "a@b.example", HUNT);
}

#[test]
fn vrfy_and_expn_tell_where_that_is_wanted() {
    let plan = Site::plan().set("smtp", "vrfy", "true").set("smtp", "expn", "true");
    let host = Host::new(plan, "");
    let aliases = "list: hunt, Toshi <toshi@smkwlab.net>, \"|cat\", :include:/x\n";
    fs::write(host.site.path().join("aliases"), aliases).unwrap();
    let mut peer = host.client(FAR);
    peer.greet();
    for (command, wanted) in [
        ("VRFY hunt", "250 2.1.5 <hunt@mx.smkwlab.net>"),
        ("VRFY <hunt+x@smkwlab.net>", "250 2.1.5 <hunt+x@smkwlab.net>"),
        ("VRFY list", "250 2.1.5 <list@mx.smkwlab.net>"),
        ("VRFY nobody-here", "550 5.1.1 "),
        ("VRFY a@example.org", "252 2.1.5 "),
        ("VRFY Toshi Shimokawa", "501 5.1.3 "),
        ("EXPN list", "550 5.7.2 Error: lists are not expanded for strangers"),
    ] {
        let said = peer.command(command);
        assert!(said.starts_with(wanted), "{command}: {said}");
    }
    let mut peer = host.client("10.0.0.1");
    assert!(peer.reply().starts_with("220 "));
    assert!(peer.command("EHLO x").contains("EXPN"));
    peer.send("EXPN list\r\n");
    let lines: Vec<String> = (0..4).map(|_| peer.line()).collect();
    let wanted = [
        "250-2.1.5 <hunt@mx.smkwlab.net>",
        "250-2.1.5 <toshi@smkwlab.net>",
        "250-2.1.5 a program",
        "250 2.1.5 further members",
    ];
    assert_eq!(lines, wanted);
    assert!(peer.command("EXPN hunt").starts_with("550 5.1.1 "));
    // A long one is not shown in part.
    let members: Vec<String> =
        (0..400).map(|number| format!("member{number}@example.org")).collect();
    fs::write(host.site.path().join("aliases"), format!("list: {}\n", members.join(","))).unwrap();
    std::thread::sleep(Duration::from_millis(1100));
    let mut peer = host.client("10.0.0.1");
    peer.greet();
    assert!(peer.command("EXPN list").starts_with("452 4.5.3 "), "{}", peer.dialogue());
}

#[test]
fn where_nobody_is_left_who_knows_lists_no_list_is_empty() {
    let plan = Site::plan().set("smtp", "vrfy", "true").set("smtp", "expn", "true");
    let host = Host::new(plan, "");
    fs::write(host.site.path().join("aliases"), "list: hunt, toshi\n").unwrap();
    let mut peer = host.client("10.0.0.1");
    peer.greet();
    assert!(peer.command("EXPN list").contains("250 2.1.5 <toshi@mx.smkwlab.net>"));
    kill(Pid::from_raw(host.server.policy().unwrap()), Signal::SIGKILL).unwrap();
    for command in ["EXPN list", "EXPN list", "VRFY hunt", "VRFY list"] {
        assert!(peer.command(command).starts_with("451 4.3.0 "), "{}", peer.dialogue());
    }
}

#[test]
fn who_may_speaks_for_others_by_xclient() {
    let plan = Site::plan().set("smtp", "xclient", "[\"10.0.0.7\"]");
    let host =
        Host::new(plan.set("smtp", "require_client_name", "true"), "connect:mail.example OK\n");
    let mut peer = host.client("10.0.0.1");
    assert!(peer.reply().starts_with("220 "));
    assert!(!peer.command("EHLO x").contains("XCLIENT"));
    assert!(peer.command("XCLIENT ADDR=192.0.2.1").starts_with("500 "));
    let mut peer = host.client("10.0.0.7");
    assert!(peer.reply().starts_with("220 "));
    assert!(peer.command("EHLO x").contains("XCLIENT NAME ADDR PORT PROTO HELO LOGIN"));
    let relay = |peer: &mut Peer| {
        peer.command("MAIL FROM:<hunt@smkwlab.net>");
        let said = peer.command("RCPT TO:<a@elsewhere.example>");
        assert!(peer.command("RSET").starts_with("250 "));
        said
    };
    assert!(relay(&mut peer).starts_with("250 "));
    let far = "XCLIENT ADDR=192.0.2.1 NAME=mail.example HELO=far.example";
    assert!(peer.command(far).starts_with("220 "));
    assert!(relay(&mut peer).starts_with("554 5.7.1 "));
    host.server.wait_for_log(
        "reject: RCPT from mail.example[192.0.2.1]: 554 5.7.1 <a@elsewhere.example>: Relay access \
         denied; from=<hunt@smkwlab.net> to=<a@elsewhere.example> proto=ESMTP helo=<far.example>",
    );
    // The name counts.
    peer.command("MAIL FROM:<a@b.example>");
    assert!(peer.command(format!("RCPT TO:<{HUNT}>")).starts_with("250 "));
    assert!(peer.command("XCLIENT NAME=[UNAVAILABLE]").starts_with("503 "));
    peer.command("RSET");
    assert!(peer.command("XCLIENT NAME=[UNAVAILABLE]").starts_with("220 "));
    peer.command("EHLO x");
    peer.command("MAIL FROM:<a@b.example>");
    assert!(peer.command(format!("RCPT TO:<{HUNT}>")).starts_with("450 4.7.25 "));
    peer.command("RSET");
    // And a login.
    assert!(peer.command("XCLIENT LOGIN=hunt").starts_with("220 "));
    peer.command("EHLO x");
    assert!(relay(&mut peer).starts_with("250 "));
    let reply = peer.mail("hunt@smkwlab.net", &["a@elsewhere.example"], b"Subject: x\n\nx\n");
    let id = support::site::queue_id(&reply);
    let log = host.server.wait_for_log(&format!("{id}: client=unknown[192.0.2.1]"));
    assert!(log.contains("auth=hunt"), "{log}");
    assert!(peer.command("XCLIENT LOGIN=[UNAVAILABLE]").starts_with("220 "));
    peer.command("EHLO x");
    assert!(relay(&mut peer).starts_with("554 5.7.1 "));
}

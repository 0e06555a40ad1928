//! The name server and the mail exchanges that the tests of mail to other hosts stand on must hold
//! by themselves.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests and their helpers fail by panicking"
)]

mod support;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use trust_dns_resolver::config::{NameServerConfig, ResolverConfig, ResolverOpts};
use trust_dns_resolver::net::runtime::TokioRuntimeProvider;
use trust_dns_resolver::net::{DnsError, NetError};
use trust_dns_resolver::proto::op::ResponseCode;
use trust_dns_resolver::proto::rr::RecordType;

use support::dns::{Dns, Trouble};
use support::exchange::{Act, Exchange, Script, Step, Tls};
use support::lan::Lan;
use support::network::{Network, is_silent};
use support::peer::{Heard, Peer};
use support::site::{Site, must};
use support::wait_until;

/// The data of all answers, as text, or what hindered it.
fn look_up(dns: &Dns, name: &str, kind: RecordType) -> Result<Vec<String>, NetError> {
    let mut server = NameServerConfig::udp_and_tcp(dns.address().ip());
    for connection in &mut server.connections {
        connection.port = dns.address().port();
    }
    let config = ResolverConfig::from_parts(None, Vec::new(), vec![server]);
    let mut options = ResolverOpts::default();
    (options.attempts, options.timeout) = (0, Duration::from_millis(400));
    options.use_hosts_file = trust_dns_resolver::config::ResolveHosts::Never;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let builder = trust_dns_resolver::Resolver::builder_with_config(
            config,
            TokioRuntimeProvider::default(),
        );
        let resolver = builder.with_options(options).build().unwrap();
        let found = resolver.lookup(format!("{name}."), kind).await?;
        Ok(found.answers().iter().map(|record| record.data.to_string()).collect())
    })
}

/// The code of an answer that has no records.
fn negative(found: Result<Vec<String>, NetError>) -> ResponseCode {
    match found {
        Err(NetError::Dns(DnsError::NoRecordsFound(none))) => none.response_code,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_name_server_says_what_it_was_told() {
    let dns = Dns::start();
    dns.set("smkwlab.net MX 10 mx.smkwlab.net.");
    dns.set("smkwlab.net MX 20 spare.smkwlab.net");
    dns.set("alias.test CNAME mx.smkwlab.net");
    dns.set("mx.smkwlab.net AAAA ::1");
    dns.host("mx.smkwlab.net", "192.0.2.4");
    let mut found = look_up(&dns, "smkwlab.net", RecordType::MX).unwrap();
    found.sort();
    assert_eq!(found, ["10 mx.smkwlab.net.", "20 spare.smkwlab.net."]);
    let found = look_up(&dns, "MX.smkwlab.NET", RecordType::A).unwrap();
    assert_eq!(found, ["192.0.2.4"]);
    let found = look_up(&dns, "mx.smkwlab.net", RecordType::AAAA).unwrap();
    assert_eq!(found, ["::1"]);
    let found = look_up(&dns, "alias.test", RecordType::A).unwrap();
    assert_eq!(found, ["mx.smkwlab.net.", "192.0.2.4"]);
    let found = look_up(&dns, "4.2.0.192.in-addr.arpa", RecordType::PTR).unwrap();
    assert_eq!(found, ["mx.smkwlab.net."]);
    let code = negative(look_up(&dns, "mx.smkwlab.net", RecordType::MX));
    assert_eq!(code, ResponseCode::NoError);
    let code = negative(look_up(&dns, "other.test", RecordType::MX));
    assert_eq!(code, ResponseCode::NXDomain);
    assert_eq!(dns.asked("smkwlab.net", "MX"), 1);
    assert_eq!(dns.asked("smkwlab.net", "A"), 0);
    dns.forget("smkwlab.net");
    let code = negative(look_up(&dns, "smkwlab.net", RecordType::MX));
    assert_eq!(code, ResponseCode::NXDomain);
}

#[test]
fn the_name_server_fails_as_it_was_told() {
    let dns = Dns::start();
    dns.set("a.test A 127.0.0.2");
    let ask = |name| look_up(&dns, name, RecordType::A);
    for (trouble, code) in
        [(Trouble::ServFail, ResponseCode::ServFail), (Trouble::Refused, ResponseCode::Refused)]
    {
        dns.fail("a.test", trouble);
        let Err(NetError::Dns(DnsError::ResponseCode(found))) = ask("a.test") else {
            panic!("{trouble:?}: {:?}", ask("a.test"));
        };
        assert_eq!(found, code);
    }
    dns.fail("a.test", Trouble::NxDomain);
    assert_eq!(negative(ask("a.test")), ResponseCode::NXDomain);
    for trouble in [Trouble::Silent, Trouble::Garbage] {
        dns.mend();
        dns.fail_everywhere(trouble);
        let found = ask("a.test");
        assert!(!matches!(found, Ok(_) | Err(NetError::Dns(_))), "{trouble:?}: {found:?}");
    }
    dns.mend();
    assert_eq!(ask("a.test").unwrap(), ["127.0.0.2"]);
}

#[test]
fn what_is_too_long_for_udp_is_had_by_tcp() {
    let dns = Dns::start();
    dns.set("cut.test A 127.0.0.2");
    dns.fail("cut.test", Trouble::Truncated);
    assert_eq!(look_up(&dns, "cut.test", RecordType::A).unwrap(), ["127.0.0.2"]);
    assert_eq!(dns.asked("cut.test", "A"), 2, "by UDP and by TCP");
    for number in 0..200 {
        dns.set(&format!("long.test MX {number} a-rather-long-name-{number}.long.test"));
    }
    assert_eq!(look_up(&dns, "long.test", RecordType::MX).unwrap().len(), 200);
}

#[test]
fn a_polite_exchange_keeps_what_it_is_sent() {
    let network = Network::new();
    let exchange = network.exchange(3, Script::polite().name("mx.test"));
    let mut peer = Peer::connect(exchange.address());
    assert_eq!(peer.reply(), "220 mx.test ESMTP");
    let reply = peer.command("EHLO client.test");
    assert!(reply.starts_with("250-mx.test\n250-PIPELINING\n"), "{reply}");
    for text in ["Subject: one\n folded\n\n.\n..\nx\n", "Subject: two\n\nx\n"] {
        let reply = peer.mail("a@client.test", &["b@test", "c@test"], text.as_bytes());
        assert!(reply.starts_with("250 "), "{reply}");
    }
    assert_eq!(peer.command("QUIT"), "221 2.0.0 Bye");
    drop(peer);
    let messages = exchange.messages();
    assert_eq!(messages.len(), 2);
    assert_eq!(messages[0].sender, "a@client.test");
    assert_eq!(messages[0].recipients, ["b@test", "c@test"]);
    assert_eq!(messages[0].text, b"Subject: one\r\n folded\r\n\r\n.\r\n..\r\nx\r\n");
    assert_eq!(messages[0].field("subject").unwrap(), "one\n folded");
    let sessions = exchange.sessions();
    assert_eq!(sessions.len(), 1);
    assert_eq!(sessions[0].peer.to_string(), "127.0.0.1");
    assert_eq!(sessions[0].count("RCPT"), 4);
    assert_eq!(exchange.most_at_once(), 1);
    assert_eq!(exchange.complaints(), [""; 0]);
}

#[test]
fn an_exchange_does_what_its_script_says() {
    let network = Network::new();
    let script = Script::polite().rule(|turn| match (turn.step, turn.nth) {
        (Step::Rcpt, 0) if turn.line.contains("later") => Act::reply("450 4.2.1 Not now"),
        (Step::End, 0) => Act::reply("250-2.0.0 taken\n250 2.0.0 really"),
        (Step::End, _) => Act::HangUp,
        _ => Act::Polite,
    });
    let exchange = network.exchange(3, script);
    let mut peer = Peer::connect(exchange.address());
    peer.greet();
    assert_eq!(peer.mail("a@test", &["later@test"], b""), "450 4.2.1 Not now");
    let reply = peer.mail("a@test", &["b@test"], b"x\n");
    assert_eq!(reply, "250-2.0.0 taken\n250 2.0.0 really");
    assert_eq!(peer.mail("a@test", &["b@test"], b"x\n"), "");
    assert_eq!(exchange.attempts().len(), 2);
    assert_eq!(exchange.only_message().recipients, ["b@test"]);

    let exchange = network.exchange(4, Script::polite().at(Step::Connect, Act::Silence));
    let mut peer = Peer::connect(exchange.address());
    assert_eq!(peer.hear_within(Duration::from_millis(50)), Heard::Silence);

    let exchange = network.exchange(5, Script::polite().at(Step::Ehlo, Act::Reset));
    let mut stream = TcpStream::connect(exchange.address()).unwrap();
    stream.write_all(b"EHLO x\r\n").unwrap();
    let error = stream.read_to_end(&mut Vec::new()).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);

    let busy = Act::Last("421 4.3.2 Busy".to_owned());
    let after = Act::After(Duration::from_millis(100), Box::new(busy));
    let exchange = network.exchange(6, Script::polite().at(Step::Connect, after));
    let started = Instant::now();
    let mut peer = Peer::connect(exchange.address());
    assert_eq!(peer.rest(), "421 4.3.2 Busy\n");
    assert!(started.elapsed() >= Duration::from_millis(100));

    let exchange =
        network.exchange(7, Script::polite().at(Step::Ehlo, Act::Flood(vec![b'x'; 999])));
    let mut stream = TcpStream::connect(exchange.address()).unwrap();
    stream.write_all(b"EHLO x\r\n").unwrap();
    stream.read_exact(&mut vec![0; 1_000_000]).unwrap();
}

#[test]
fn an_exchange_sees_what_a_client_should_not_do() {
    let network = Network::new();
    let exchange = network.exchange(3, Script::polite().extensions(&["SIZE"]));
    let mut peer = Peer::connect(exchange.address());
    peer.greet();
    peer.command("MAIL FROM:<a@test> SIZE=5");
    assert_eq!(exchange.complaints(), [""; 0]);
    peer.command("MAIL FROM:<a@test> BODY=8BITMIME");
    peer.send("RCPT TO:<a@test>\r\nRCPT TO:<b@test>\r\n");
    peer.reply();
    peer.reply();
    peer.send("NONSENSE\n");
    peer.reply();
    let complaints = exchange.complaints();
    let begins = |number: usize, what: &str| complaints[number].starts_with(what);
    assert!(begins(0, "a parameter that was not offered"), "{complaints:?}");
    assert!(begins(1, "did not wait for the reply"), "{complaints:?}");
    assert!(begins(2, "a command line that ends in LF"), "{complaints:?}");
}

#[test]
fn an_exchange_counts_those_who_are_there_at_once() {
    let network = Network::new();
    let exchange = network.exchange(3, Script::polite());
    let peers: Vec<Peer> = (0..3).map(|_| Peer::connect(exchange.address())).collect();
    wait_until("three connections", || (exchange.most_at_once() == 3).then_some(()));
    for mut peer in peers {
        peer.greet();
        peer.command("QUIT");
    }
    for _ in 0..3 {
        let mut peer = Peer::connect(exchange.address());
        peer.greet();
        peer.command("QUIT");
    }
    assert_eq!(exchange.sessions().len(), 6);
    assert_eq!(exchange.most_at_once(), 3);
}

/// A connection after `220` to STARTTLS, with what stood behind that.
fn after_starttls(exchange: &Exchange) -> (TcpStream, String) {
    let mut stream = TcpStream::connect(exchange.address()).unwrap();
    stream.write_all(b"EHLO client.test\r\n").unwrap();
    let mut heard = Vec::new();
    let mut byte = [0];
    while !heard.ends_with(b"250 STARTTLS\r\n") {
        stream.read_exact(&mut byte).unwrap();
        heard.push(byte[0]);
    }
    stream.write_all(b"STARTTLS\r\n").unwrap();
    let mut chunk = [0; 1024];
    let n = stream.read(&mut chunk).unwrap();
    (stream, String::from_utf8_lossy(&chunk[..n]).into_owned())
}

#[test]
fn an_exchange_speaks_tls_or_fails_at_it() {
    let network = Network::new();
    let mut exchanges = (3..).zip([Tls::SelfSigned, Tls::Injects, Tls::Broken, Tls::HangsUp]);
    let mut next = || {
        let (host, tls) = exchanges.next().unwrap();
        network.exchange(host, Script::polite().tls(tls))
    };

    let exchange = next();
    let (stream, reply) = after_starttls(&exchange);
    assert_eq!(reply, "220 2.0.0 Go\r\n");
    let config =
        ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(RootCertStore::empty())
            .with_no_client_auth();
    let name = ServerName::try_from("exchange.test").unwrap();
    let connection = ClientConnection::new(Arc::new(config), name).unwrap();
    let error = StreamOwned::new(connection, stream).read(&mut [0]).unwrap_err();
    assert!(error.to_string().contains("UnknownIssuer"), "{error}");

    let exchange = next();
    let (_, reply) = after_starttls(&exchange);
    assert!(reply.starts_with("220 2.0.0 Go\r\n250-"), "{reply}");

    let exchange = next();
    let (mut stream, reply) = after_starttls(&exchange);
    assert_eq!(reply, "220 2.0.0 Go\r\n");
    stream.write_all(b"hello").unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    assert!(answer.ends_with(b"no TLS here\r\n"), "{}", answer.escape_ascii());

    let exchange = next();
    let (mut stream, _) = after_starttls(&exchange);
    assert_eq!(stream.read(&mut [0]).unwrap(), 0);
}

#[test]
fn a_host_refuses_is_silent_or_listens() {
    let network = Network::new();
    let other = Network::new();
    assert_ne!(network.port(), other.port());
    let error = TcpStream::connect(network.address(9)).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused);
    let blackhole = network.blackhole(10);
    assert!(is_silent(network.address(10)));
    drop(blackhole);
    let address = network.address(10);
    wait_until("the black hole to go", || (!is_silent(address)).then_some(()));
    let _exchange = network.exchange(11, Script::polite());
    assert!(TcpStream::connect(network.address(11)).is_ok());
}

#[test]
fn hosts_in_namespaces_reach_each_other_and_the_name_server() {
    if !Lan::possible() {
        return;
    }
    let mut lan = Lan::new();
    lan.name(&[
        "--mx-host=smkwlab.net,mx.smkwlab.net,10",
        "--host-record=mx.smkwlab.net,192.0.2.4",
    ]);
    let (one, two) = (lan.host("192.0.2.4"), lan.host("133.69.130.4"));
    // Any server will do, to be reached: it is the addresses that count.
    let smtpd = Site::new();
    let mut command = smtpd.command("smtpd");
    command.args(["--listen", "192.0.2.4:25"]);
    let _server = one.serve(&command, "192.0.2.4:25".parse().unwrap());
    let stream = two.connect("192.0.2.4:25".parse().unwrap());
    assert_eq!(stream.local_addr().unwrap().ip().to_string(), "133.69.130.4");
    let mut command = Command::new("cat");
    command.arg("/etc/resolv.conf");
    assert_eq!(must(&mut two.command(&command)), "nameserver 192.0.2.53\n");
    assert!(TcpStream::connect("192.0.2.53:53").is_err(), "nobody outside sees it");
}

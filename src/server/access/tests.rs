//! Login children that are no longer ours: what a monitor makes of what they say.

use std::os::fd::AsRawFd;
use std::path::Path;

use nix::sys::socket::{Shutdown, shutdown};

use super::monitor::Monitor;
use super::{Protocol, Server};
use crate::auth::Identity;
use crate::config::{Config, Source};
use crate::sasl::Mechanism;
use crate::server::ask::Ask;
use crate::server::record::{Credentials, HandOver, Name};
use crate::server::{imap, pop3};
use crate::sys::channel::Channel;
use crate::sys::jail::Jail;
use crate::sys::{Exit, Log, log};

fn config(place: &Path) -> Config {
    let mut config = Config::default();
    config.users.source = Source::File;
    config.users.file = place.join("users");
    let uid = if Identity::own().uid.is_root() { 1234 } else { Identity::own().uid.as_raw() };
    std::fs::write(&config.users.file, format!("hunt:{{PLAIN}}x:{uid}:{uid}\n")).unwrap();
    config
}

/// How a monitor ends to which a child says these records, one after the other. One that has taken
/// them all ends when the child goes.
fn told(protocol: &'static Protocol, records: &[Vec<u8>]) -> Exit {
    let place = tempfile::tempdir().unwrap();
    let (config, log) = (config(place.path()), Log::open("test", log::Target::Stderr));
    let jail = Jail::prepare().unwrap();
    let server = Server { protocol, config: &config, log: &log, jail, login: None };
    let (line, child) = Channel::pair().unwrap();
    for record in records {
        child.send(record).unwrap();
    }
    shutdown(child.as_raw_fd(), Shutdown::Write).unwrap();
    Monitor::new(&server, Some([192, 0, 2, 1].into())).stay(line, &[], None)
}

fn record(kind: Ask, text: &[u8]) -> Vec<u8> {
    [&[kind as u8], text].concat()
}

fn login(by: Mechanism, kind: u8, text: &[u8]) -> Vec<u8> {
    record(Ask::Login, &[&[by as u8, kind], text].concat())
}

#[test]
fn a_child_that_says_otherwise_is_not_listened_to() {
    let handed = HandOver::default().encode().unwrap();
    let password = |text: &[u8]| {
        let asked = Credentials { user: b"hunt".to_vec(), password: text.to_vec() };
        login(Mechanism::Plain, 0, &asked.encode().unwrap())
    };
    let relayed = HandOver { relays: true, ..HandOver::default() }.encode().unwrap();
    for protocol in [&pop3::PROTOCOL, &imap::PROTOCOL] {
        for records in [
            vec![b"x".to_vec()],
            vec![vec![0xff; 700]],
            vec![vec![0; 9001]],
            vec![record(Ask::User, b"hunt")],
            // Nobody has logged in.
            vec![record(Ask::HandOver, &handed)],
            vec![record(Ask::HandOver, &relayed)],
            vec![password(b"wrong"), record(Ask::HandOver, &handed)],
            // What is handed over has another shape, or nothing beside it.
            vec![password(b"x"), record(Ask::HandOver, &handed)],
            vec![password(b"x"), record(Ask::HandOver, &handed[1..])],
            vec![password(b"x"), password(b"x")],
            // Its word is not enough, of SCRAM nor of certificates.
            vec![login(Mechanism::ScramSha256, 3, &[1])],
            vec![login(Mechanism::External, 3, &[1])],
            vec![login(Mechanism::External, 4, &[10; 32])],
            vec![
                login(Mechanism::ScramSha256, 1, &Name::encode("hunt").unwrap()),
                login(Mechanism::ScramSha256, 3, &[1]),
            ],
            // Only a load balancer speaks for others.
            vec![record(Ask::Client, b"127.0.0.1")],
            // There is no such version.
            vec![record(Ask::Tls, b"TLSv1.3, status=accepted")],
        ] {
            let all = [&records[..], &[record(Ask::End, b"")]].concat();
            assert_eq!(told(protocol, &all), Exit::Protocol, "{records:?}");
        }
        assert_eq!(told(protocol, &[]), Exit::Protocol, "it was killed");
        let end = record(Ask::End, b"");
        assert_eq!(told(protocol, std::slice::from_ref(&end)), Exit::Ok);
        let tls = record(Ask::Tls, b"TLSv1.3");
        assert_eq!(told(protocol, &[tls, password(b"wrong"), end]), Exit::Ok);
    }
}

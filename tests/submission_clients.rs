//! Mail programs as people use them, at the services for users and at port 25: how they encrypt, how
//! they log in, what they are refused, and that what they send is what is queued, byte for byte.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests and their helpers fail by panicking"
)]

mod support;

#[path = "submission_clients/curl.rs"]
mod curl;
#[path = "submission_clients/exchanges.rs"]
mod exchanges;
#[path = "submission_clients/msmtp.rs"]
mod msmtp;
#[path = "submission_clients/python.rs"]
mod python;
#[path = "submission_clients/swaks.rs"]
mod swaks;
#[path = "submission_clients/swaks_from_elsewhere.rs"]
mod swaks_from_elsewhere;

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use support::dns::Dns;
use support::entry::{self, Entry};
use support::run::{Ran, Server, run};
use support::site::{Plan, Site};
use support::tls::Pair;
use support::wait_until;

const PASSWORD: &str = "Watts?Watt?";
const HUNT: &str = "hunt@smkwlab.net";
/// Another name of the host, with a certificate of its own.
const OTHER: &str = "localhost";
/// A load balancer, and a filter: clients that come from there say for whom they speak.
const BALANCER: &str = "127.0.0.9";
const FILTER: &str = "127.0.0.8";

/// With a client from here, mail for other hosts needs a login on each of them.
const SERVICES: [&str; 3] = ["submission", "submissions", "smtp"];

type Rule = (&'static str, fn());

/// What has a wrong password in it, for which a client has to wait.
const REFUSALS: [Rule; 5] = [
    ("swaks", swaks::a_wrong_password_is_refused_and_mechanisms_that_are_not_ours_are_not_offered),
    (
        "swaks, from elsewhere",
        swaks_from_elsewhere::from_elsewhere_nothing_goes_without_tls_and_a_login,
    ),
    ("curl", curl::what_it_may_not_do_it_is_told),
    ("msmtp", msmtp::it_hears_what_it_may_not_do),
    ("python", python::it_tries_one_mechanism_after_the_other_and_says_why_none_helped),
];

/// All of them at once, as they do nothing else for seconds.
#[test]
fn each_hears_what_it_may_not_do() {
    thread::scope(|scope| {
        for (name, rule) in REFUSALS {
            thread::Builder::new().name(name.into()).spawn_scoped(scope, rule).unwrap();
        }
    });
}

/// A host with all that a client can be offered.
struct Host {
    /// Nobody has a name, and nobody waits for one.
    _dns: Dns,
    pair: Pair,
    other: Pair,
    site: Site,
    servers: [(Server, SocketAddr); 3],
    files: AtomicUsize,
}

impl Host {
    fn new() -> Self {
        Self::with(Site::plan())
    }

    fn with(plan: Plan) -> Self {
        let (pair, other, dns) = (Pair::new(), Pair::of(OTHER), Dns::start());
        let list =
            |files: [PathBuf; 2]| format!("{:?}", files.map(|file| file.display().to_string()));
        let plan = plan
            .set("smtp", "auth", "true")
            .set("smtp", "relay_networks", "[]")
            .set("smtp", "proxies", &format!("[{BALANCER:?}]"))
            .set("smtp", "xclient", &format!("[{FILTER:?}]"))
            .set("smtp.tls", "certificate", &list([pair.certificate(), other.certificate()]))
            .set("smtp.tls", "key", &list([pair.key(), other.key()]))
            .set("dns", "servers", &format!("[\"{}\"]", dns.address()));
        let site = plan.build();
        let servers = SERVICES.map(|word| site.serve_word("smtpd", word));
        Self { _dns: dns, pair, other, site, servers, files: AtomicUsize::new(0) }
    }

    /// One where the user also has SCRAM keys, and there is `new`, whose password is the same.
    fn with_scram() -> Self {
        let host = Self::new();
        for (user, scheme) in [("new", "scram-sha-256"), ("old", "scram-sha-1")] {
            let account = Site::account("bob");
            let (uid, gid) = (account.uid.to_string(), account.gid.to_string());
            let words = ["user", "add", user, "--uid", &uid, "--gid", &gid, "--scheme", scheme];
            let input = format!("{PASSWORD}\n");
            run(host.site.command("mailctl").args(words), input.as_bytes()).expect(0);
        }
        host
    }

    fn server(&self, service: &str) -> &(Server, SocketAddr) {
        &self.servers[SERVICES.iter().position(|word| *word == service).unwrap()]
    }

    fn address(&self, service: &str) -> SocketAddr {
        self.server(service).1
    }

    fn port(&self, service: &str) -> String {
        self.address(service).port().to_string()
    }

    /// Writes a new file of the test's own.
    fn file(&self, name: &str, content: &[u8]) -> String {
        let number = self.files.fetch_add(1, Ordering::Relaxed);
        let path = self.site.path().join(format!("{name}.{number}"));
        fs::write(&path, content).unwrap();
        path.to_str().unwrap().to_owned()
    }

    fn certificate(&self) -> String {
        self.pair.certificate().to_str().unwrap().to_owned()
    }

    /// Takes the only message out of the queue, with its id.
    #[track_caller]
    fn take(&self) -> (String, Entry) {
        let names = self.site.queued_in("incoming");
        assert_eq!(names.len(), 1, "{names:?}");
        let path = self.site.queue().join("incoming").join(&names[0]);
        let entry = entry::read(&path).unwrap();
        fs::remove_file(path).unwrap();
        (names[0].clone(), entry)
    }

    /// Takes the only message out of the queue, which must be this one for `a@example.org` from this
    /// user, come by this service; its line of the log.
    #[track_caller]
    fn took(&self, service: &str, user: &str, message: &[u8]) -> String {
        let (id, entry) = self.take();
        assert_eq!(entry.sender, format!("{user}@smkwlab.net"));
        assert_eq!(entry.recipients, ["a@example.org"]);
        let (received, rest) = below_received(&entry.content);
        same(rest, message);
        assert!(received.contains("\r\n\tby mx.smkwlab.net (Hikyaku) with "), "{received}");
        let (server, _) = self.server(service);
        let line = wait_until(&format!("{id} in the log"), || {
            let log = server.log();
            let is_whole = |line: &&str| line.contains(&id) && line.ends_with(" status=accepted");
            log.lines().find(is_whole).map(str::to_owned)
        });
        assert!(line.contains(&format!(" auth={user} status=accepted")), "{line}");
        line
    }

    /// That nothing was queued.
    #[track_caller]
    fn took_nothing(&self) {
        assert_eq!(self.site.queued(), Vec::<String>::new());
    }
}

/// The Received field that we put on top, and what stands below.
#[track_caller]
fn below_received(content: &[u8]) -> (String, &[u8]) {
    assert!(content.starts_with(b"Received: "), "{}", content.escape_ascii());
    let end = content.windows(3).position(|end| end[..2] == *b"\r\n" && !b" \t".contains(&end[2]));
    let (received, rest) = content.split_at(end.unwrap() + 2);
    (String::from_utf8_lossy(received).into_owned(), rest)
}

/// That these bytes are those; where they are not, what differs first.
#[track_caller]
fn same(found: &[u8], wanted: &[u8]) {
    let both = found.iter().zip(wanted);
    let at = both.take_while(|(found, wanted)| found == wanted).count();
    let around = |bytes: &[u8]| {
        let from = at.saturating_sub(40);
        bytes[from..bytes.len().min(at + 40)].escape_ascii().to_string()
    };
    assert!(
        found == wanted,
        "{} bytes for {}, from {at} on other ones: {:?} for {:?}",
        found.len(),
        wanted.len(),
        around(found),
        around(wanted)
    );
}

/// A message of a user's that is whole, with all that is hard on the way: dots, lines that look like
/// an mbox, 8 bits, long lines, empty lines. With CR LF.
fn letter(user: &str) -> Vec<u8> {
    let header = format!(
        "From: {user} <{user}@smkwlab.net>\r\nTo: a@example.org\r\nSubject: hard\r\n\
         Date: Mon, 21 Jun 2004 03:15:20 +0900\r\nMessage-ID: <hard@smkwlab.net>\r\n\
         X-Folded: one,\r\n\ttwo,\r\n   three\r\nMIME-Version: 1.0\r\n\
         Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n\
         .\r\n..\r\n.a dot\r\n...\r\n\r\nFrom here\r\n>From there\r\n.\r\n"
    );
    [
        header.as_bytes(),
        "こんにちは。\r\n".as_bytes(),
        b"Gr\xfc\xdfe \xff\r\n",
        &[b'x'; 998],
        b"\r\n.",
        &[b'y'; 3000],
        b"\r\n \t\r\n\r\n\r\n",
    ]
    .concat()
}

/// Does the same with all of them at once: after a wrong password each has to wait for seconds.
fn at_once<T: Sync>(rows: &[T], check: impl Fn(&T) + Sync) {
    thread::scope(|scope| {
        for row in rows {
            scope.spawn(|| check(row));
        }
    });
}

/// Splits at blanks.
fn words(text: &str) -> Vec<&str> {
    text.split_whitespace().collect()
}

/// That a program ended with this status, and said this.
#[track_caller]
fn says(ran: &Ran, code: i32, said: &str) {
    assert_eq!(ran.code(), Some(code), "{ran}");
    let all = format!("{}{}", ran.text(), ran.stderr);
    assert!(all.contains(said), "{said:?}: {ran}");
}

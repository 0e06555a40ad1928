//! SCRAM-SHA-256-PLUS (RFC 5802 section 6, RFC 7677): a login that is bound to its TLS connection, so
//! that nobody in between can use it.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests and their helpers fail by panicking"
)]

mod support;

use std::net::SocketAddr;

use rustls::SupportedProtocolVersion;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::version::{TLS12, TLS13};
use sha2::{Digest, Sha256};
use support::need;
use support::peer::Peer;
use support::run::{Server, run};
use support::scram;
use support::site::Site;
use support::tls::Pair;

const PASSWORD: &str = "pencil";
const EXPORTER: &str = "p=tls-exporter";
const END_POINT: &str = "p=tls-server-end-point";

/// A host that knows SCRAM keys of `new`.
struct Host {
    pair: Pair,
    _site: Site,
    server: Server,
    address: SocketAddr,
}

impl Host {
    fn new() -> Self {
        let pair = Pair::new();
        let site = pair.plan(Site::plan().set("smtp", "auth", "true")).build();
        let account = Site::account("bob");
        let (uid, gid) = (account.uid.to_string(), account.gid.to_string());
        let add = ["user", "add", "new", "--uid", &uid, "--gid", &gid, "--scheme", "scram-sha-256"];
        run(site.command("mailctl").args(add), format!("{PASSWORD}\n").as_bytes()).expect(0);
        let (server, address) = site.serve("smtpd");
        Self { pair, _site: site, server, address }
    }

    fn client(&self, version: &'static SupportedProtocolVersion) -> Peer {
        let mut peer = Peer::connect(self.address);
        peer.greet();
        assert!(peer.command("STARTTLS").starts_with("220 "));
        peer.start_tls(self.pair.client(&[version])).unwrap();
        let offers = peer.command("EHLO client.example");
        assert!(offers.contains("AUTH SCRAM-SHA-256-PLUS SCRAM-SHA-256 PLAIN"), "{offers}");
        peer
    }

    /// SHA-256 of the certificate, which is signed with ECDSA and SHA-256 (RFC 5929 section 4.1).
    fn end_point(&self) -> Vec<u8> {
        let der = CertificateDer::from_pem_file(self.pair.certificate()).unwrap();
        Sha256::digest(&der).to_vec()
    }
}

/// The client's side of one exchange: with this word for the binding, and these bytes. The last reply.
fn log_in(peer: &mut Peer, mechanism: &str, flag: &str, data: &[u8]) -> String {
    let mut client = scram::Client::new(PASSWORD, flag, data);
    let reply = peer.command(format!("AUTH {mechanism} {}", client.first()));
    let Some(challenge) = reply.strip_prefix("334 ") else {
        return reply;
    };
    let last = client.last(challenge);
    let reply = peer.command(last);
    let Some(said) = reply.strip_prefix("334 ") else {
        return reply;
    };
    client.believes(said);
    peer.command("")
}

#[test]
fn a_login_is_bound_by_what_tls_exports_or_by_the_certificate() {
    let host = Host::new();
    let mut peer = host.client(&TLS13);
    let exported = peer.exported();
    assert!(log_in(&mut peer, "SCRAM-SHA-256-PLUS", EXPORTER, &exported).starts_with("235 "));
    for version in [&TLS13, &TLS12] {
        let mut peer = host.client(version);
        let said = log_in(&mut peer, "SCRAM-SHA-256-PLUS", END_POINT, &host.end_point());
        assert!(said.starts_with("235 "), "{said}");
    }
    host.server.wait_for_log("method=SCRAM-SHA-256-PLUS, user=<new>, status=accepted");
}

#[test]
fn what_belongs_to_another_connection_is_refused() {
    let host = Host::new();
    let others = host.client(&TLS13).exported();
    let mut peer = host.client(&TLS13);
    let own = peer.exported();
    assert_ne!(own, others);
    let said = log_in(&mut peer, "SCRAM-SHA-256-PLUS", EXPORTER, &others);
    assert_eq!(said, "535 5.7.8 Error: authentication failed");
    // As with the certificate of whoever stands in between.
    let said = log_in(&mut peer, "SCRAM-SHA-256-PLUS", END_POINT, &Sha256::digest(b"other"));
    assert!(said.starts_with("535 "), "{said}");
    // What is exported by an older TLS may be another connection's, too.
    let mut older = host.client(&TLS12);
    let exported = older.exported();
    let said = log_in(&mut older, "SCRAM-SHA-256-PLUS", EXPORTER, &exported);
    assert!(said.starts_with("501 "), "{said}");
    for unknown in ["p=tls-unique", "p=", "p=tls-exporter,a=other"] {
        let said = log_in(&mut older, "SCRAM-SHA-256-PLUS", unknown, &exported);
        assert!(said.starts_with("501 "), "{unknown}: {said}");
    }
}

#[test]
fn nobody_takes_the_binding_away_unseen() {
    let host = Host::new();
    let mut peer = host.client(&TLS13);
    // "I could bind, but have seen no PLUS": somebody has taken it out of the list.
    let said = log_in(&mut peer, "SCRAM-SHA-256", "y", b"");
    assert!(said.starts_with("501 "), "{said}");
    // The mechanism and its first message have to fit.
    let exported = peer.exported();
    for (mechanism, flag) in [("SCRAM-SHA-256", EXPORTER), ("SCRAM-SHA-256-PLUS", "n")] {
        let said = log_in(&mut peer, mechanism, flag, &exported);
        assert!(said.starts_with("501 "), "{mechanism} {flag}: {said}");
    }
    // A client that can't bind says so, and logs in.
    assert!(log_in(&mut peer, "SCRAM-SHA-256", "n", b"").starts_with("235 "));
    // Where there is nothing to bind to, "y" is the truth.
    let mut peer = Peer::connect(host.address);
    peer.reply();
    let offers = peer.command("EHLO client.example");
    assert!(offers.contains("AUTH SCRAM-SHA-256 PLAIN"), "{offers}");
    assert!(log_in(&mut peer, "SCRAM-SHA-256-PLUS", EXPORTER, &exported).starts_with("504 "));
    assert!(log_in(&mut peer, "SCRAM-SHA-256", "y", b"").starts_with("235 "));
}

/// A client on another library: Python's, on OpenSSL.
#[test]
fn openssl_and_we_mean_the_same_certificate() {
    if !need("python3") {
        return;
    }
    let host = Host::new();
    let certificate = host.pair.certificate();
    for version in ["TLSv1_2", "TLSv1_3"] {
        let tls = Some((certificate.as_path(), version));
        let said = scram::python(host.address.port(), "new", PASSWORD, tls);
        assert_eq!(said, "235", "{version}");
    }
}

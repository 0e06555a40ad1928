//! AUTH EXTERNAL (RFC 4422 appendix A): logins by a client's certificate, with real clients. And what
//! `mailctl check` says of certificates.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests and their helpers fail by panicking"
)]

mod support;

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use base64ct::{Base64, Encoding};
use rcgen::{CertificateParams, CertifiedIssuer, KeyPair, date_time_ymd};
use rustls::client::ResolvesClientCert;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, SignatureScheme, SupportedProtocolVersion};
use sha2::{Digest, Sha256};
use support::need;
use support::peer::Peer;
use support::run::{Server, run};
use support::site::{HOST, Site, queue_id};
use support::tls::{Pair, VERSIONS};

const TEXT: &[u8] = b"From: hunt@smkwlab.net\n\nx\n";

/// A certificate and its key, in two files.
struct Own {
    certificate: PathBuf,
    key: PathBuf,
}

impl Own {
    /// A self-signed one that is good between these years.
    fn between(directory: &Path, name: &str, years: [i32; 2]) -> Self {
        let key = KeyPair::generate().unwrap();
        let made = Self::parameters(years).self_signed(&key).unwrap();
        Self::write(directory, name, &made.pem(), &key)
    }

    /// One from an authority.
    fn issued(directory: &Path, name: &str) -> Self {
        let issuer = CertificateParams::new(vec!["ca.example".into()]).unwrap();
        let issuer = CertifiedIssuer::self_signed(issuer, KeyPair::generate().unwrap()).unwrap();
        let key = KeyPair::generate().unwrap();
        let made = Self::parameters([2000, 2090]).signed_by(&key, &issuer).unwrap();
        Self::write(directory, name, &made.pem(), &key)
    }

    fn parameters(years: [i32; 2]) -> CertificateParams {
        let mut parameters = CertificateParams::new(vec!["hunt.example".into()]).unwrap();
        parameters.not_before = date_time_ymd(years[0], 1, 1);
        parameters.not_after = date_time_ymd(years[1], 1, 1);
        parameters
    }

    fn write(directory: &Path, name: &str, certificate: &str, key: &KeyPair) -> Self {
        let at = |kind| directory.join(format!("{name}.{kind}"));
        fs::write(at("pem"), certificate).unwrap();
        fs::write(at("key"), key.serialize_pem()).unwrap();
        Self { certificate: at("pem"), key: at("key") }
    }

    fn fingerprint(&self) -> String {
        let der = CertificateDer::from_pem_file(&self.certificate).unwrap();
        Sha256::digest(&der).iter().map(|byte| format!("{byte:02X}")).collect::<Vec<_>>().join(":")
    }

    /// What shows this certificate and signs with the key of `signer`.
    fn signed_by(&self, signer: &Self) -> Arc<dyn ResolvesClientCert> {
        let chain = vec![CertificateDer::from_pem_file(&self.certificate).unwrap()];
        let key = PrivateKeyDer::from_pem_file(&signer.key).unwrap();
        let key = rustls::crypto::ring::sign::any_supported_type(&key).unwrap();
        Arc::new(SingleCertAndKey::from(CertifiedKey::new(chain, key)))
    }
}

/// A client without a certificate, that sees whether it is asked for one.
#[derive(Debug, Default)]
struct Asked(AtomicBool);

impl ResolvesClientCert for Asked {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.0.store(true, Ordering::Relaxed);
        None
    }

    fn has_certs(&self) -> bool {
        true
    }
}

struct Host {
    pair: Pair,
    site: Site,
    server: Server,
    address: SocketAddr,
    directory: tempfile::TempDir,
}

impl Host {
    /// A host where nobody may relay but who has logged in, and whose file of certificates is empty.
    fn new() -> Self {
        let (pair, directory) = (Pair::new(), tempfile::tempdir().unwrap());
        let file = directory.path().join("certificates");
        fs::write(&file, "# nobody\n").unwrap();
        let plan = Site::plan().set("smtp", "auth", "true").set("smtp", "relay_networks", "[]");
        let plan =
            plan.set("smtp.tls", "client_certificates", &format!("{:?}", file.to_str().unwrap()));
        let site = pair.plan(plan).build();
        let (server, address) = site.serve("smtpd");
        Self { pair, site, server, address, directory }
    }

    fn file(&self) -> PathBuf {
        self.directory.path().join("certificates")
    }

    fn own(&self, name: &str) -> Own {
        Own::between(self.directory.path(), name, [2000, 2090])
    }

    fn know(&self, own: &Own, user: &str) {
        fs::write(self.file(), format!("{} {user}\n", own.fingerprint())).unwrap();
    }

    /// A client under TLS, and what it is offered.
    #[track_caller]
    fn comes(&self, settings: &Arc<ClientConfig>) -> (Peer, String) {
        let mut peer = Peer::connect(self.address);
        peer.greet();
        assert!(peer.command("STARTTLS").starts_with("220 "));
        peer.start_tls(self.pair.comes(settings)).unwrap();
        let offers = peer.command("EHLO client.example");
        (peer, offers)
    }

    #[track_caller]
    fn shows(&self, own: &Own, versions: &[&'static SupportedProtocolVersion]) -> (Peer, String) {
        self.comes(&self.pair.settings_with(versions, own.signed_by(own)))
    }

    /// That this client is served as one without a certificate is.
    #[track_caller]
    fn is_nobody((mut peer, offers): (Peer, String)) {
        assert!(offers.contains("AUTH PLAIN LOGIN"), "{offers}");
        assert!(peer.command("AUTH EXTERNAL =").starts_with("504 5.5.4 "));
        let password = Base64::encode_string(b"\0hunt\0Watts?Watt?");
        assert!(peer.command(format!("AUTH PLAIN {password}")).starts_with("235 "));
        let reply = peer.mail("hunt@smkwlab.net", &["a@example.org"], TEXT);
        assert!(reply.starts_with("250 2.0.0 "), "{reply}");
    }
}

#[test]
fn a_known_certificate_logs_its_user_in_by_either_version_and_with_a_ticket() {
    let host = Host::new();
    let own = host.own("hunt");
    host.know(&own, "hunt");
    for version in VERSIONS {
        let settings = host.pair.settings_with(&[version], own.signed_by(&own));
        for (resumed, words) in [(false, "AUTH EXTERNAL ="), (true, "AUTH EXTERNAL aHVudA==")] {
            let (mut peer, offers) = host.comes(&settings);
            assert!(offers.contains("AUTH EXTERNAL PLAIN LOGIN"), "{offers}");
            assert_eq!(peer.command(words), "235 2.7.0 Authentication successful");
            assert_eq!(peer.is_resumed(), resumed, "{version:?}");
            let reply = peer.mail("hunt@smkwlab.net", &["a@example.org"], TEXT);
            assert!(reply.starts_with("250 2.0.0 "), "{reply}");
            peer.command("QUIT");
            let id = queue_id(&reply);
            let log = host.server.wait_for_log(&format!("{id}: "));
            let line = log.lines().find(|line| line.contains(&id)).unwrap();
            assert!(line.contains(" proto=ESMTPSA ") && line.contains(" auth=hunt "), "{line}");
        }
    }
    host.server.wait_for_log("method=EXTERNAL, user=<hunt>, status=accepted");
}

#[test]
fn nobody_logs_in_by_a_certificate_as_somebody_else() {
    let host = Host::new();
    let own = host.own("hunt");
    host.know(&own, "hunt");
    let (mut peer, _) = host.shows(&own, VERSIONS);
    // Without an initial response, and with the name of another one.
    assert_eq!(peer.command("AUTH EXTERNAL"), "334 ");
    assert_eq!(peer.command("Ym9i"), "535 5.7.8 Error: authentication failed");
    host.server.wait_for_log("authentication failure, sasl_username=hunt");
    assert_eq!(peer.command("AUTH EXTERNAL"), "334 ");
    assert!(peer.command("").starts_with("235 "));
}

#[test]
fn other_certificates_are_nobodys_and_their_clients_go_on() {
    let host = Host::new();
    let directory = host.directory.path();
    let own = host.own("hunt");
    host.know(&own, "hunt");
    // Of the same names, by another authority.
    let other = Own::issued(directory, "other");
    for version in VERSIONS {
        Host::is_nobody(host.comes(&host.pair.settings(&[version])));
        Host::is_nobody(host.shows(&other, &[version]));
    }
    host.server.wait_for_log(&format!(
        "NOQUEUE: certificate {} of localhost[127.0.0.1] is nobody's",
        other.fingerprint()
    ));
    for (name, years) in [("old", [2000, 2020]), ("young", [2080, 2090])] {
        let own = Own::between(directory, name, years);
        host.know(&own, "hunt");
        Host::is_nobody(host.shows(&own, VERSIONS));
        host.server.wait_for_log(&format!(
            "NOQUEUE: certificate {} of localhost[127.0.0.1] has expired, or is not yet good",
            own.fingerprint()
        ));
    }
    // An authority makes no difference, the account does.
    host.know(&other, "hunt");
    assert!(host.shows(&other, VERSIONS).1.contains("EXTERNAL"));
    host.know(&other, "stranger");
    assert!(!host.shows(&other, VERSIONS).1.contains("EXTERNAL"));
    host.know(&other, "hunt");
    let users = host.site.path().join("users");
    let text = fs::read_to_string(&users).unwrap();
    fs::write(&users, text.replace("hunt:{PLAIN}", "hunt:!{PLAIN}")).unwrap();
    assert!(!host.shows(&other, VERSIONS).1.contains("EXTERNAL"), "a locked account");
    fs::write(&users, text).unwrap();
    fs::remove_file(host.file()).unwrap();
    Host::is_nobody(host.shows(&other, VERSIONS));
    host.server.wait_for_log("method=EXTERNAL, status=unavailable: ");
}

#[test]
fn a_certificate_without_its_key_ends_the_handshake() {
    let host = Host::new();
    let (own, thief) = (host.own("hunt"), host.own("thief"));
    host.know(&own, "hunt");
    for version in VERSIONS {
        let settings = host.pair.settings_with(&[version], own.signed_by(&thief));
        let mut peer = Peer::connect(host.address);
        peer.greet();
        assert!(peer.command("STARTTLS").starts_with("220 "));
        // By TLS 1.3 the client has finished when the server finds out.
        if peer.start_tls(host.pair.comes(&settings)).is_ok() {
            peer.send("EHLO client.example\r\n");
            assert_eq!(peer.rest(), "");
        }
    }
    let log = host.server.wait_for_log("TLS handshake with localhost[127.0.0.1] failed: ");
    assert!(!log.contains("EXTERNAL"), "{log}");
}

#[test]
fn who_can_not_log_in_is_not_asked_for_a_certificate() {
    let asks = |host: &Pair, address| {
        let asked = Arc::new(Asked::default());
        let mut peer = Peer::connect(address);
        peer.greet();
        assert!(peer.command("STARTTLS").starts_with("220 "));
        let settings = host.settings_with(VERSIONS, Arc::clone(&asked) as _);
        peer.start_tls(host.comes(&settings)).unwrap();
        assert!(peer.command("EHLO client.example").starts_with("250-"));
        asked.0.load(Ordering::Relaxed)
    };
    let host = Host::new();
    assert!(asks(&host.pair, host.address));
    let file = format!("{:?}", host.file().to_str().unwrap());
    for (auth, file) in [("false", file.as_str()), ("true", "\"\"")] {
        let plan = Site::plan().set("smtp", "auth", auth);
        let site = host.pair.plan(plan.set("smtp.tls", "client_certificates", file)).build();
        let (_server, address) = site.serve("smtpd");
        assert!(!asks(&host.pair, address), "{auth} {file}");
    }
}

#[test]
fn a_certificate_of_version_1_is_nobodys_and_costs_no_mail() {
    if !need("openssl") {
        return;
    }
    let host = Host::new();
    let at = |name: &str| host.directory.path().join(name);
    let openssl = |words: &str| {
        let mut command = Command::new("openssl");
        command.args(words.split(' ')).current_dir(host.directory.path());
        run(&mut command, b"").expect(0);
    };
    openssl("req -new -newkey rsa:2048 -nodes -subj /CN=hunt -keyout v1.key -out v1.csr");
    openssl("x509 -req -in v1.csr -signkey v1.key -days 30 -out v1.pem");
    let own = Own { certificate: at("v1.pem"), key: at("v1.key") };
    host.know(&own, "hunt");
    for version in VERSIONS {
        Host::is_nobody(host.shows(&own, &[version]));
    }
}

#[test]
fn real_clients_log_in_by_their_certificates() {
    let host = Host::new();
    let (own, port) = (host.own("hunt"), host.address.port().to_string());
    host.know(&own, "hunt");
    let [certificate, key] = [&own.certificate, &own.key].map(|path| path.to_str().unwrap());
    let chain = host.pair.certificate();
    let chain = chain.to_str().unwrap();
    if need("python3") {
        let script = "import smtplib, ssl, sys\n\
            c = ssl.create_default_context(cafile=sys.argv[2])\n\
            c.check_hostname = False\n\
            c.load_cert_chain(sys.argv[3], sys.argv[4])\n\
            s = smtplib.SMTP('127.0.0.1', int(sys.argv[1]))\n\
            s.starttls(context=c)\n\
            s.ehlo()\n\
            print(s.docmd('AUTH', 'EXTERNAL =')[0])\n\
            s.sendmail('hunt@smkwlab.net', ['a@example.org'], 'From: hunt@smkwlab.net\\r\\n\\r\\nx\\r\\n')\n\
            s.quit()\n";
        let mut command = Command::new("python3");
        command.args(["-c", script, &port, chain, certificate, key]);
        assert_eq!(run(&mut command, b"").expect(0).text(), "235\n");
    }
    if need("curl") {
        let message = host.directory.path().join("message");
        fs::write(&message, TEXT).unwrap();
        let mut command = Command::new("curl");
        command.args(["-sS", "--ssl-reqd", "--cacert", chain, "--cert", certificate, "--key", key]);
        command.args(["--resolve", &format!("{HOST}:{port}:127.0.0.1")]);
        command.args(["-u", "hunt:", "--login-options", "AUTH=EXTERNAL"]);
        command.arg(format!("smtp://{HOST}:{port}/client.example"));
        command.args(["--mail-from", "hunt@smkwlab.net", "--mail-rcpt", "a@example.org", "-T"]);
        run(command.arg(&message), b"").expect(0);
    }
    if need("swaks") {
        // It has no EXTERNAL: with the certificate, and a password all the same.
        let mut command = Command::new("swaks");
        command.args(["--server", "127.0.0.1", "--port", &port, "--tls"]);
        command.args(["--tls-cert", certificate, "--tls-key", key]);
        command.args(["--auth", "PLAIN", "--auth-user", "hunt"]);
        command.args(["--auth-password", "Watts?Watt?"]);
        command.args(["--from", "hunt@smkwlab.net", "--to", "a@example.org"]);
        let said = run(&mut command, b"").expect(0).text();
        assert!(said.contains("AUTH EXTERNAL PLAIN LOGIN"), "{said}");
    }
}

/// What `mailctl check` says, without the words in front.
fn check(site: &Site) -> Vec<String> {
    let ran = run(site.command("mailctl").arg("check"), b"");
    ran.stderr.lines().map(|line| line.trim_start_matches("mailctl: ").to_owned()).collect()
}

#[test]
fn mailctl_check_says_what_is_wrong_with_each_pair() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    let make = |name, years| Own::between(directory.path(), name, years);
    let (good, other, old) =
        (make("good", [2000, 2090]), make("other", [2000, 2090]), make("old", [2000, 2020]));
    // A chain whose second certificate has expired.
    let both = [&good, &old].map(|own| fs::read_to_string(&own.certificate).unwrap()).concat();
    fs::write(at("chain"), both).unwrap();
    fs::write(at("empty"), "").unwrap();
    let pairs = [
        (&good.certificate, &good.key),
        (&at("missing"), &at("gone")),
        (&other.certificate, &good.key),
        (&old.certificate, &old.key),
        (&at("chain"), &good.key),
        (&at("empty"), &good.key),
        (&good.certificate, &at("empty")),
    ];
    let list = |paths: Vec<&PathBuf>| {
        format!("{:?}", paths.iter().map(|path| path.to_str().unwrap()).collect::<Vec<_>>())
    };
    let site = Site::plan()
        .set("smtp.tls", "certificate", &list(pairs.iter().map(|pair| pair.0).collect()))
        .set("smtp.tls", "key", &list(pairs.iter().map(|pair| pair.1).collect()))
        .set("smtp.tls", "client_certificates", &format!("{:?}", at("known").to_str().unwrap()))
        .build();
    fs::write(
        at("known"),
        format!("{} hunt\n{} stranger\nnonsense hunt\n", "ab".repeat(32), "cd".repeat(32)),
    )
    .unwrap();
    let said = check(&site);
    let wanted = [
        format!("[smtp.tls] {}: can't be read: ", at("missing").display()),
        format!("[smtp.tls] {}: can't be read: ", at("gone").display()),
        format!(
            "[smtp.tls] {}: is not the key of the first certificate in {}; name a pair",
            good.key.display(),
            other.certificate.display()
        ),
        format!(
            "[smtp.tls] {}: certificate 1 is good from 2000-01-01T00:00:00Z to \
             2020-01-01T00:00:00Z only; renew it",
            old.certificate.display()
        ),
        format!("[smtp.tls] {}: certificate 2 is good from 2000-", at("chain").display()),
        format!("[smtp.tls] {}: has no certificate", at("empty").display()),
        format!("[smtp.tls] {}: has no private key", at("empty").display()),
        format!("{}: there is no user stranger", at("known").display()),
        format!("{}:3: the fingerprint has another form", at("known").display()),
    ];
    let told: Vec<&String> =
        said.iter().filter(|line| line.contains(directory.path().to_str().unwrap())).collect();
    assert_eq!(told.len(), wanted.len(), "{said:#?}");
    for (told, wanted) in told.iter().zip(&wanted) {
        assert!(told.starts_with(wanted), "{told:?}\n{wanted:?}");
    }
}

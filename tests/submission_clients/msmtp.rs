//! msmtp, which stands in for `sendmail` on many hosts, on GnuTLS and GNU SASL. And gsasl, the latter's
//! own client.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use sha2::{Digest, Sha256};

use super::support::need;
use super::support::run::{Ran, run};
use super::support::site::HOST;
use super::support::tls::Pair;
use super::{
    HUNT, Host, OTHER, PASSWORD, Plan, SERVICES, at_once, below_received, letter, same, says, words,
};

fn fingerprint(certificate: &Path) -> String {
    let der = CertificateDer::from_pem_file(certificate).unwrap();
    Sha256::digest(&der).iter().map(|byte| format!("{byte:02X}")).collect::<Vec<_>>().join(":")
}

/// msmtp with a configuration that is good for a service, and these lines behind it.
fn msmtp(host: &Host, service: &str, lines: &[&str]) -> Command {
    let starttls = if service == "submissions" { "off" } else { "on" };
    let rc = format!(
        "defaults\nhost 127.0.0.1\nport {}\ndomain client.example\nfrom {HUNT}\nuser hunt\n\
         password {PASSWORD}\nauth on\ntls on\ntls_starttls {starttls}\ntls_trust_file {}\n\
         tls_host_override {HOST}\ntimeout 20\naccount default\n{}\n",
        host.port(service),
        host.certificate(),
        lines.join("\n")
    );
    let rc = host.file("msmtprc", rc.as_bytes());
    // It takes no file that others may read, where a password is in it.
    fs::set_permissions(&rc, fs::Permissions::from_mode(0o600)).unwrap();
    let mut command = Command::new("msmtp");
    command.args(["-C", &rc]).env("HOME", host.site.path());
    command
}

/// The letter as it stands on this host, with LF.
fn lines(user: &str) -> Vec<u8> {
    letter(user).into_iter().filter(|byte| *byte != b'\r').collect()
}

fn send(host: &Host, service: &str, more: &[&str], user: &str) -> Ran {
    let mut command = msmtp(host, service, more);
    run(command.args(["--", "a@example.org"]), &lines(user))
}

#[test]
fn it_logs_in_by_every_mechanism_that_it_has() {
    if !need("msmtp") {
        return;
    }
    let host = Host::with_scram();
    let known = run(Command::new("msmtp").arg("--version"), b"").expect(0).text();
    // What is derived from a password for SCRAM takes its time: once is enough.
    let all = [
        ("plain", "hunt"),
        ("login", "hunt"),
        ("on", "hunt"),
        ("on", "new"),
        ("scram-sha-256", "new"),
        ("scram-sha-1", "old"),
    ];
    for service in SERVICES {
        let few = if service == "submission" { all.len() } else { 3 };
        for (mechanism, user) in &all[..few] {
            let auth = format!("auth {mechanism}");
            let from = format!("from {user}@smkwlab.net");
            let ran = send(&host, service, &[&auth, &format!("user {user}"), &from], user);
            assert_eq!(ran.code(), Some(0), "{service} {mechanism}: {ran}");
            let line = host.took(service, user, &letter(user));
            assert!(line.contains(" proto=ESMTPSA tls=TLSv1.3 "), "{line}");
        }
    }
    // What is not offered is not tried.
    for mechanism in ["cram-md5", "digest-md5", "ntlm"] {
        assert!(known.contains(mechanism), "{known}");
        let ran = send(&host, "submission", &[&format!("auth {mechanism}")], "hunt");
        says(&ran, 69, "the server does not support authentication method");
    }
    host.took_nothing();
}

#[test]
fn it_logs_in_by_its_certificate() {
    if !need("msmtp") {
        return;
    }
    let own = Pair::of("hunt.example");
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("certificates");
    fs::write(&file, format!("{} hunt\n", fingerprint(&own.certificate()))).unwrap();
    let plan = Plan::default();
    let host =
        Host::with(plan.set("smtp.tls", "client_certificates", &format!("{:?}", file.display())));
    let certificate = format!("tls_cert_file {}", own.certificate().display());
    let key = format!("tls_key_file {}", own.key().display());
    for service in SERVICES {
        let ran = send(&host, service, &["auth external", &certificate, &key, "password"], "hunt");
        assert_eq!(ran.code(), Some(0), "{service}: {ran}");
        host.took(service, "hunt", &letter("hunt"));
    }
    // Without it, EXTERNAL is not offered, and a password works as before.
    let ran = send(&host, "submission", &["auth external"], "hunt");
    says(&ran, 69, "the server does not support authentication method");
    send(&host, "submission", &[&certificate, &key, "auth plain"], "hunt").expect(0);
    host.took("submission", "hunt", &letter("hunt"));
}

#[test]
fn it_knows_us_by_our_certificate_and_sends_nothing_to_another() {
    if !need("msmtp") {
        return;
    }
    let host = Host::new();
    let stranger = Pair::new();
    let own = fingerprint(&host.pair.certificate());
    let wrong = fingerprint(&stranger.certificate());
    let trust = format!("tls_trust_file {}", stranger.certificate().display());
    for service in SERVICES {
        // The fingerprint is enough, under any name.
        let by = format!("tls_fingerprint {own}");
        let ran = send(&host, service, &["tls_trust_file", "tls_host_override", &by], "hunt");
        assert_eq!(ran.code(), Some(0), "{service}: {ran}");
        host.took(service, "hunt", &letter("hunt"));
        let wrong = format!("tls_fingerprint {wrong}");
        for (lines, said) in [
            (&["tls_trust_file", &wrong][..], "fingerprint does not match"),
            (&[&trust], "certificate verification failed"),
            (&["tls_host_override nobody.example"], "does not match the expected"),
            (&["tls_host_override"], "does not match the expected"),
        ] {
            let ran = send(&host, service, lines, "hunt");
            assert_ne!(ran.code(), Some(0), "{service} {lines:?}: {ran}");
            assert!(ran.stderr.contains(said), "{service} {lines:?}: {ran}");
        }
    }
    // By name it is shown the certificate of that name.
    let other = format!("tls_trust_file {}", host.other.certificate().display());
    let name = format!("tls_host_override {OTHER}");
    send(&host, "submission", &[&other, &name], "hunt").expect(0);
    host.took("submission", "hunt", &letter("hunt"));
    host.took_nothing();
}

pub fn it_hears_what_it_may_not_do() {
    if !need("msmtp") {
        return;
    }
    let host = Host::new();
    let rows = [
        ("submission", &["auth plain", "password wrong"][..], 77, "535 5.7.8 "),
        ("submissions", &["auth login", "password wrong"], 77, "535 5.7.8 "),
        ("smtp", &["auth on", "user nobody"], 77, "535 5.7.8 "),
        ("submission", &["auth off"], 65, "530 5.7.0 "),
        ("smtp", &["auth off"], 65, "554 5.7.1 "),
        ("submission", &["from toshi@smkwlab.net"], 65, "553 5.7.1 "),
        // Without TLS it dares no password, and we take nothing.
        ("submission", &["tls off", "auth on"], 69, ""),
        ("submission", &["tls off", "auth off"], 65, "530 5.7.0 "),
    ];
    at_once(&rows, |(service, lines, code, said)| {
        says(&send(&host, service, lines, "hunt"), *code, said);
    });
    host.took_nothing();
}

#[test]
fn it_is_told_what_there_is() {
    if !need("msmtp") {
        return;
    }
    let host = Host::with_scram();
    let own = fingerprint(&host.pair.certificate());
    for service in SERVICES {
        let mut command =
            msmtp(&host, service, &["tls_certcheck off", "tls_trust_file", "auth off"]);
        let ran = run(command.arg("--serverinfo"), b"").expect(0);
        for said in [
            "mx.smkwlab.net ESMTP Hikyaku",
            &own,
            "SIZE 52428800",
            "PIPELINING",
            "AUTH",
            "PLAIN SCRAM-SHA-1 SCRAM-SHA-256 LOGIN",
        ] {
            assert!(ran.text().contains(said), "{service}, {said}: {ran}");
        }
    }
}

#[test]
fn it_stands_in_for_sendmail() {
    if !need("msmtp") {
        return;
    }
    let host = Host::new();
    let letter = "From: hunt@smkwlab.net\nTo: toshi@smkwlab.net,\n \"a, b\" <a@example.org>\n\
                  Cc: bob@smkwlab.net\nBcc: alice@smkwlab.net, b@example.org\nSubject: all\n\
                  Date: Mon, 21 Jun 2004 03:15:20 +0900\nMessage-ID: <m@smkwlab.net>\n\nHello.\n.\n";
    let without = letter.replace("Bcc: alice@smkwlab.net, b@example.org\n", "");
    let all = [
        "toshi@smkwlab.net",
        "a@example.org",
        "bob@smkwlab.net",
        "alice@smkwlab.net",
        "b@example.org",
    ];
    for more in
        [&[][..], &["remove_bcc_headers off"], &["set_date_header off", "set_msgid_header off"]]
    {
        let mut command = msmtp(&host, "submission", more);
        run(command.args(["-t", "-oi", "-i"]), letter.as_bytes()).expect(0);
        let (_, entry) = host.take();
        assert_eq!(entry.recipients, all);
        // Where it leaves Bcc in, we do not.
        let (_, rest) = below_received(&entry.content);
        same(rest, without.replace('\n', "\r\n").as_bytes());
    }
    // What it passes on for a report.
    let mut command = msmtp(&host, "submission", &[]);
    command.args(words("-f hunt+list@smkwlab.net -N success,failure -R hdrs -- a@example.org"));
    run(&mut command, letter.as_bytes()).expect(0);
    let (_, entry) = host.take();
    assert_eq!(entry.sender, "hunt+list@smkwlab.net");
    let envelope = format!("{:?}", entry.envelope).to_lowercase();
    for said in ["success,failure", "hdrs"] {
        assert!(envelope.contains(said), "{envelope}");
    }
}

/// gsasl binds the login to the connection, by what TLS exports of it.
#[test]
fn gsasl_binds_its_login_to_the_connection() {
    if !need("gsasl") {
        return;
    }
    let host = Host::with_scram();
    let authority = host.other.certificate();
    for (form, mechanism) in [
        // By itself it takes the best that is offered.
        ("-a new", "SCRAM-SHA-256-PLUS"),
        ("-m SCRAM-SHA-256 -a new --no-cb", "SCRAM-SHA-256"),
        ("-m SCRAM-SHA-1 -a old --no-cb", "SCRAM-SHA-1"),
        ("-m PLAIN -a new", "PLAIN"),
        ("-m LOGIN -a hunt", "LOGIN"),
        // Under TLS 1.2 it knows tls-unique only, which we can't have of our library.
        ("-m SCRAM-SHA-256-PLUS -a new --priority NORMAL:-VERS-TLS1.3", ""),
    ] {
        let mut command = Command::new("gsasl");
        command.args(["--smtp", "--connect", &format!("{OTHER}:{}", host.port("submission"))]);
        command.arg("--x509-ca-file").arg(&authority).args(["--verbose", "-p", PASSWORD]);
        let ran = run(command.args(words(form)), b"");
        if mechanism.is_empty() {
            says(&ran, 1, "501 5.5.2 ");
        } else {
            says(&ran, 0, "235 2.7.0 ");
            assert!(ran.text().contains(&format!("AUTH {mechanism}\n")), "{form}: {ran}");
        }
    }
}

//! swaks, which does as it is told: each form of TLS and of a login.

use std::fs;
use std::process::Command;

use super::support::need;
use super::support::run::run;
use super::support::site::Site;
use super::{HUNT, Host, OTHER, PASSWORD, SERVICES, at_once, letter, same, says, words};

/// swaks with a message for one of the services, without TLS.
pub fn swaks(host: &Host, service: &str) -> Command {
    let mut command = Command::new("swaks");
    // It puts a line end behind what it is given.
    let message = letter("hunt");
    let message = host.file("letter", message.strip_suffix(b"\r\n").unwrap());
    command.args(["--server", "127.0.0.1", "--port", &host.port(service)]);
    command.args(["--helo", "client.example", "--from", HUNT, "--to", "a@example.org"]);
    command.args(["--timeout", "20", "--data", &format!("@{message}")]);
    command
}

/// How TLS begins at a service.
pub fn tls(service: &str) -> &'static str {
    if service == "submissions" { "--tls-on-connect" } else { "--tls" }
}

const LOGIN: [&str; 4] = ["--auth-user", "hunt", "--auth-password", PASSWORD];

#[test]
fn it_logs_in_by_every_form_at_every_service() {
    if !need("swaks") {
        return;
    }
    let host = Host::new();
    let forms = [
        "--auth PLAIN",
        "--auth LOGIN",
        // By whatever there is.
        "--auth",
        "--auth CRAM-MD5,LOGIN",
        "--auth-optional PLAIN",
        "--auth-optional-strict LOGIN",
        "--auth PLAIN --auth-plaintext",
        "--auth LOGIN --auth-plaintext --auth-hide-password",
        "--auth PLAIN --pipeline",
    ];
    for service in SERVICES {
        for (form, version) in forms.iter().zip(["tlsv1_3", "tlsv1_2"].into_iter().cycle()) {
            let mut command = swaks(&host, service);
            command.args(words(form)).args(LOGIN).args([tls(service), "--tls-protocol", version]);
            let ran = run(&mut command, b"");
            assert_eq!(ran.code(), Some(0), "{service} {form}: {ran}");
            let line = host.took(service, "hunt", &letter("hunt"));
            let version = version.replace("tlsv1_", "TLSv1.");
            assert!(line.contains(&format!(" proto=ESMTPSA tls={version} ")), "{line}");
        }
    }
}

#[test]
fn it_begins_tls_in_every_form() {
    if !need("swaks") {
        return;
    }
    let host = Host::new();
    let own = host.certificate();
    let other = host.other.certificate();
    let other = other.to_str().unwrap();
    let peer = host.file("peer", b"");
    let verify = |sni: &str, authority: &str| {
        format!("--tls-sni {sni} --tls-verify --tls-ca-path {authority}")
    };
    let rows = [
        ("submission", "--tls-optional".to_owned()),
        ("submission", "--tls-optional-strict".to_owned()),
        ("smtp", "--tls-optional".to_owned()),
        ("submission", format!("--tls {}", verify(super::support::site::HOST, &own))),
        ("submission", format!("--tls {}", verify(OTHER, other))),
        ("submissions", format!("--tls-on-connect {}", verify(OTHER, other))),
        // Who asks for nobody, or for somebody else, is shown the first one.
        ("smtp", format!("--tls --tls-verify --tls-ca-path {own}")),
        ("smtp", format!("--tls {}", verify("nobody.example", &own))),
        ("submission", format!("--tls --tls-get-peer-cert {peer}")),
        (
            "submission",
            "--tls --tls-protocol tlsv1_2 --tls-cipher ECDHE-ECDSA-CHACHA20-POLY1305".to_owned(),
        ),
        ("submission", "--tls --tls-protocol no_tlsv1_3".to_owned()),
    ];
    for (service, form) in rows {
        let mut command = swaks(&host, service);
        let ran = run(command.args(words(&form)).args(["--auth", "PLAIN"]).args(LOGIN), b"");
        assert_eq!(ran.code(), Some(0), "{service} {form}: {ran}");
        let line = host.took(service, "hunt", &letter("hunt"));
        assert!(line.contains(" proto=ESMTPSA tls=TLSv1."), "{line}");
    }
    let shown = fs::read_to_string(peer).unwrap().replace("\r\n", "\n");
    let wanted = fs::read_to_string(&own).unwrap().replace("\r\n", "\n");
    assert_eq!(shown.trim(), wanted.trim());
}

#[test]
fn without_tls_there_only_what_insists_on_it_ends() {
    if !need("swaks") {
        return;
    }
    let host = Host::new();
    let site = Site::plan().set("smtp", "auth", "true").set("smtp", "relay_networks", "[]").build();
    let (_server, address) = site.serve("smtpd");
    for (form, code) in [("--tls", 29), ("--tls-optional", 0), ("--tls-optional-strict", 0)] {
        let mut command = swaks(&host, "smtp");
        command.args(["--port", &address.port().to_string(), form, "--auth", "PLAIN"]).args(LOGIN);
        run(&mut command, b"").expect(code);
    }
    assert_eq!(site.queued_in("incoming").len(), 2);
}

#[test]
fn handshakes_that_it_or_we_do_not_want_end() {
    if !need("swaks") {
        return;
    }
    let host = Host::new();
    let own = host.certificate();
    let rows = [
        // A certificate of somebody else's.
        ("submission", format!("--tls --tls-sni {OTHER} --tls-verify --tls-ca-path {own}")),
        // What is too old.
        ("submission", "--tls --tls-protocol tlsv1_1".to_owned()),
        ("smtp", "--tls --tls-protocol tlsv1".to_owned()),
        ("submissions", "--tls-on-connect --tls-protocol tlsv1_1".to_owned()),
        ("smtp", "--tls --tls-protocol tlsv1_2 --tls-cipher AES128-SHA".to_owned()),
    ];
    for (service, form) in rows {
        let mut command = swaks(&host, service);
        let ran = run(command.args(words(&form)).args(["--auth", "PLAIN"]).args(LOGIN), b"");
        assert_eq!(ran.code(), Some(29), "{service} {form}: {ran}");
        assert!(!ran.text().contains("235 "), "{ran}");
    }
    host.took_nothing();
    for service in SERVICES {
        let (server, _) = host.server(service);
        server.wait_for_log("NOQUEUE: TLS handshake with localhost[127.0.0.1] failed: ");
    }
}

pub fn a_wrong_password_is_refused_and_mechanisms_that_are_not_ours_are_not_offered() {
    if !need("swaks") {
        return;
    }
    let host = Host::new();
    let wrong = "--auth-user hunt --auth-password wrong";
    let right = format!("--auth-user hunt --auth-password {PASSWORD}");
    let rows = [
        ("submission", format!("--auth PLAIN {wrong}"), 28, "<~* 535 5.7.8 "),
        ("submissions", format!("--auth LOGIN {wrong}"), 28, "<~* 535 5.7.8 "),
        (
            "smtp",
            "--auth PLAIN --auth-user nobody --auth-password wrong".to_owned(),
            28,
            "535 5.7.8 ",
        ),
        // It goes on without, and may not.
        ("submission", format!("--auth-optional LOGIN {wrong}"), 23, "<~* 530 5.7.0 "),
        ("smtp", format!("--auth-optional PLAIN {wrong}"), 24, "<~* 554 5.7.1 "),
        ("submission", format!("--auth CRAM-MD5 {right}"), 28, "Auth not attempted"),
        ("submissions", format!("--auth CRAM-MD5 {right}"), 28, "Auth not attempted"),
        // It takes PLAIN for CRAM-MD5, hears that this is none, and tries PLAIN.
        (
            "smtp",
            format!("--auth CRAM-MD5,PLAIN --auth-map PLAIN=CRAM-MD5 {right}"),
            0,
            "<~* 501 5.5.2 ",
        ),
    ];
    at_once(&rows, |(service, form, code, said)| {
        let mut command = swaks(&host, service);
        let ran = run(command.arg(tls(service)).args(words(form)), b"");
        says(&ran, *code, said);
        assert!(!ran.text().contains("MD5 "), "none of it is offered: {ran}");
    });
    same(super::below_received(&host.take().1.content).1, &letter("hunt"));
    host.took_nothing();
    for (service, mechanism, user) in [
        ("submission", "PLAIN", "hunt"),
        ("submissions", "login", "hunt"),
        ("smtp", "PLAIN", "nobody"),
    ] {
        host.server(service).0.wait_for_log(&format!(
            "warning: localhost[127.0.0.1]: SASL {mechanism} authentication failed: authentication \
             failure, sasl_username={user}"
        ));
    }
}

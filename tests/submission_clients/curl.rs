//! curl, which sends a file as it is and says exactly what was asked for.

use std::process::Command;

use super::support::need;
use super::support::run::run;
use super::support::site::HOST;
use super::{HUNT, Host, PASSWORD, SERVICES, at_once, below_received, letter, same, says, words};

/// curl at one of the services, under TLS and as somebody.
fn curl(host: &Host, service: &str, user: &str, password: &str) -> Command {
    let mut command = Command::new("curl");
    let port = host.port(service);
    let scheme = if service == "submissions" { "smtps" } else { "smtp" };
    command.args(["-sS", "--ssl-reqd", "--cacert", &host.certificate()]);
    command.args(["--resolve", &format!("{HOST}:{port}:127.0.0.1")]);
    command.args(["-u", &format!("{user}:{password}")]);
    command.arg(format!("{scheme}://{HOST}:{port}/client.example"));
    command
}

/// What curl is told of a message.
fn message(file: &str) -> [&str; 6] {
    ["--mail-from", HUNT, "--mail-rcpt", "a@example.org", "-T", file]
}

#[test]
fn it_logs_in_by_the_mechanism_it_is_told() {
    if !need("curl") {
        return;
    }
    let host = Host::with_scram();
    let file = host.file("letter", &letter("hunt"));
    for service in SERVICES {
        for form in [
            "",
            "--login-options AUTH=*",
            "--login-options AUTH=PLAIN",
            "--login-options AUTH=PLAIN --sasl-ir",
            "--login-options AUTH=LOGIN",
            "--login-options AUTH=LOGIN --sasl-ir",
            "--tlsv1.2 --tls-max 1.2",
            "--tlsv1.3",
        ] {
            let mut command = curl(&host, service, "hunt", PASSWORD);
            let ran = run(command.args(words(form)).args(message(&file)), b"");
            assert_eq!(ran.code(), Some(0), "{service} {form}: {ran}");
            let line = host.took(service, "hunt", &letter("hunt"));
            let version = if form.contains("--tlsv1.2") { "TLSv1.2" } else { "TLSv1.3" };
            assert!(line.contains(&format!(" proto=ESMTPSA tls={version} ")), "{line}");
        }
    }
}

/// It has SCRAM where it is built with GNU SASL, and says else that it can't.
#[test]
fn it_logs_in_by_scram_as_far_as_it_is_built_with_it() {
    if !need("curl") {
        return;
    }
    let host = Host::with_scram();
    let features = run(Command::new("curl").arg("-V"), b"").expect(0).text();
    let wanted = if features.contains("gsasl") { 0 } else { 67 };
    for (mechanism, user) in [("SCRAM-SHA-256", "new"), ("SCRAM-SHA-1", "old")] {
        let file = host.file("letter", &letter(user));
        let from = format!("{user}@smkwlab.net");
        let mut command = curl(&host, "submission", user, PASSWORD);
        command.args(["--login-options", &format!("AUTH={mechanism}"), "--mail-from", &from]);
        command.args(["--mail-rcpt", "a@example.org", "-T", &file]);
        let ran = run(&mut command, b"");
        assert_eq!(ran.code(), Some(wanted), "{mechanism}: {ran}");
        if wanted == 0 {
            host.took("submission", user, &letter(user));
        }
    }
    host.took_nothing();
}

pub fn what_it_may_not_do_it_is_told() {
    if !need("curl") {
        return;
    }
    let host = Host::new();
    let file = host.file("letter", &letter("hunt"));
    let stranger = super::support::tls::Pair::new();
    let stranger = format!("--cacert {}", stranger.certificate().display());
    // Errors of curl: 67 a login, 55 a sender or a recipient, 60 a certificate, 35 a handshake.
    let rows = [
        ("submission", "-u hunt:wrong", 67, "Login denied"),
        ("submissions", "-u hunt:wrong --login-options AUTH=LOGIN", 67, "Login denied"),
        ("smtp", "--login-options AUTH=CRAM-MD5", 67, ""),
        ("smtp", "--login-options AUTH=NTLM", 67, ""),
        ("submission", "--mail-from toshi@smkwlab.net", 55, "RCPT failed: 553"),
        ("submission", "--mail-rcpt nobody@smkwlab.net", 55, "RCPT failed: 550"),
        ("submission", "--tls-max 1.1", 35, ""),
        ("submission", &stranger, 60, ""),
        ("submissions", &stranger, 60, ""),
        ("smtp", &stranger, 60, ""),
    ];
    at_once(&rows, |(service, form, code, said)| {
        let mut command = curl(&host, service, "hunt", PASSWORD);
        says(&run(command.args(message(&file)).args(words(form)), b""), *code, said);
    });
    host.took_nothing();
}

#[test]
fn mail_goes_to_those_who_are_not_refused() {
    if !need("curl") {
        return;
    }
    let host = Host::new();
    let file = host.file("letter", &letter("hunt"));
    let to =
        "--mail-rcpt bob@smkwlab.net --mail-rcpt nobody@smkwlab.net --mail-rcpt <a@example.org>";
    for service in SERVICES {
        let mut command = curl(&host, service, "hunt", PASSWORD);
        command.args(["--mail-from", HUNT, "-T", &file]).args(words(to));
        says(&run(&mut command, b""), 55, "RCPT failed: 550");
        host.took_nothing();
        command.arg("--mail-rcpt-allowfails");
        run(&mut command, b"").expect(0);
        let (_, entry) = host.take();
        assert_eq!(entry.recipients, ["bob@smkwlab.net", "a@example.org"]);
        same(below_received(&entry.content).1, &letter("hunt"));
    }
}

#[test]
fn auth_on_behalf_of_somebody_is_taken_and_goes_no_further() {
    if !need("curl") {
        return;
    }
    let host = Host::new();
    let file = host.file("letter", &letter("hunt"));
    // It encodes nothing: with a plus sign this is no xtext.
    for (author, code) in [(HUNT, 0), ("<>", 0), ("president@example.org", 0), ("a+x@b", 55)] {
        let mut command = curl(&host, "submission", "hunt", PASSWORD);
        let ran = run(command.args(message(&file)).args(["-v", "--mail-auth", author]), b"");
        assert_eq!(ran.code(), Some(code), "{author}: {ran}");
        assert!(ran.stderr.contains(" AUTH=<"), "{ran}");
        if code == 0 {
            host.took("submission", "hunt", &letter("hunt"));
        }
    }
    host.took_nothing();
}

#[test]
fn it_asks_who_is_here() {
    if !need("curl") {
        return;
    }
    let plan = super::Site::plan().set("smtp", "vrfy", "true").set("smtp", "expn", "true");
    let open = Host::with(plan);
    let closed = Host::new();
    for host in [&open, &closed] {
        std::fs::write(host.site.path().join("aliases"), "sales: hunt, toshi\n").unwrap();
    }
    let rows = [
        (&open, "--mail-rcpt hunt", 0, "hunt@"),
        (&open, "--mail-rcpt nobody", 8, "550"),
        (&open, "-X EXPN --mail-rcpt sales", 0, "toshi@"),
        (&open, "-X HELP", 0, "VRFY"),
        (&open, "-X NOOP", 0, "250 2.0.0 "),
        (&open, "-X RSET", 0, "250 2.0.0 "),
        (&closed, "--mail-rcpt hunt", 0, "252 "),
        (&closed, "--mail-rcpt nobody", 0, "252 "),
        (&closed, "-X EXPN --mail-rcpt sales", 8, "550"),
        (&closed, "-X HELP", 0, "214"),
        (&closed, "-X NONSENSE", 8, "50"),
    ];
    for service in SERVICES {
        for (host, form, code, said) in &rows {
            let mut command = curl(host, service, "hunt", PASSWORD);
            says(&run(command.args(words(form)), b""), *code, said);
        }
    }
}

#[test]
fn a_file_with_the_line_ends_of_this_host_arrives_with_the_same_lines() {
    if !need("curl") {
        return;
    }
    let host = Host::new();
    let message = letter("hunt");
    let lines = |message: &[u8]| -> Vec<u8> {
        message.iter().copied().filter(|byte| *byte != b'\r').collect()
    };
    let mut command = curl(&host, "submission", "hunt", PASSWORD);
    let file = host.file("lines", &lines(&message));
    run(command.args(self::message(&file)).arg("--crlf"), b"").expect(0);
    host.took("submission", "hunt", &message);
    // Without --crlf it sends bare LFs, doubles no dots behind them, and ends the last line again.
    let dotless: Vec<&[u8]> = message
        .split_inclusive(|byte| *byte == b'\n')
        .filter(|line| !line.starts_with(b"."))
        .collect();
    let mut command = curl(&host, "submission", "hunt", PASSWORD);
    let file = host.file("lines", &lines(&dotless.concat()));
    run(command.args(self::message(&file)), b"").expect(0);
    host.took("submission", "hunt", &[&dotless.concat()[..], b"\r\n"].concat());
    // No line end behind the last line.
    let cut = host.file("cut", &message[..message.len() - 20]);
    let mut command = curl(&host, "submission", "hunt", PASSWORD);
    run(command.args(self::message(&cut)), b"").expect(0);
    host.took("submission", "hunt", &[&message[..message.len() - 20], b"\r\n"].concat());
}

#[test]
fn it_makes_a_message_of_several_parts() {
    if !need("curl") {
        return;
    }
    let host = Host::new();
    let blob: Vec<u8> = (0..=255).cycle().take(100_000).collect();
    let blob_file = host.file("blob", &blob);
    let mut command = curl(&host, "submissions", "hunt", PASSWORD);
    command.args(["--mail-from", HUNT, "--mail-rcpt", "a@example.org"]);
    command.args([
        "-H",
        "From: hunt@smkwlab.net",
        "-H",
        "Subject: parts",
        "-H",
        "Bcc: b@example.org",
    ]);
    command.args(["-F", "=Hello.\r\n.\r\n;type=text/plain"]);
    command.args(["-F", &format!("file=@{blob_file};encoder=base64")]);
    run(&mut command, b"").expect(0);
    let (id, entry) = host.take();
    let text = String::from_utf8_lossy(&entry.content);
    // It is no whole message: what is missing is added, and Bcc is taken out.
    assert!(text.contains(&format!("\r\nMessage-ID: <{id}@mx.smkwlab.net>\r\n")), "{text:.900}");
    assert!(text.contains("\r\nDate: ") && !text.contains("Bcc"), "{text:.900}");
    let encoded: String =
        text.split("\r\n\r\n").nth(3).unwrap().split("\r\n--").next().unwrap().into();
    let decoded =
        <base64ct::Base64 as base64ct::Encoding>::decode_vec(&encoded.replace("\r\n", ""));
    assert_eq!(decoded.unwrap(), blob);
}

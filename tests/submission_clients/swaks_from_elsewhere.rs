//! swaks in front of us as a filter (XCLIENT) or a load balancer (PROXY): a client from elsewhere,
//! who has to encrypt and to log in.

use super::support::need;
use super::support::run::run;
use super::swaks::{swaks, tls};
use super::{BALANCER, FILTER, Host, PASSWORD, SERVICES, at_once, letter, says, words};

/// A client in the documentation's network, in both versions of the header.
const FIRST: &str = "--proxy-family TCP4 --proxy-source 192.0.2.77 --proxy-source-port 4711 \
                     --proxy-dest 192.0.2.1 --proxy-dest-port 587";
const SECOND: &str = "--proxy-version 2 --proxy-family AF_INET --proxy-source 192.0.2.77 \
                      --proxy-source-port 4711 --proxy-dest 192.0.2.1 --proxy-dest-port 587";
const SIXTH: &str = "--proxy-family TCP6 --proxy-source 2001:db8::77 --proxy-source-port 4711 \
                     --proxy-dest 2001:db8::1 --proxy-dest-port 587";

fn login() -> String {
    format!("--auth PLAIN --auth-user hunt --auth-password {PASSWORD}")
}

#[test]
fn behind_a_balancer_it_is_the_client_that_the_balancer_names() {
    if !need("swaks") {
        return;
    }
    let host = Host::new();
    for service in SERVICES {
        for (form, client) in
            [(FIRST, "192.0.2.77"), (SECOND, "192.0.2.77"), (SIXTH, "2001:db8::77")]
        {
            let mut command = swaks(&host, service);
            command.args(["--local-interface", BALANCER, tls(service)]);
            let ran = run(command.args(words(form)).args(words(&login())), b"");
            assert_eq!(ran.code(), Some(0), "{service} {form}: {ran}");
            let line = host.took(service, "hunt", &letter("hunt"));
            let wanted = format!(": client=unknown[{client}] helo=<client.example> ");
            assert!(line.contains(&wanted), "{line}");
        }
    }
    // The same header in words of its own, and clients of whom there is nothing to know.
    let datagrams = [&words(SECOND)[..], &["--proxy-protocol", "DGRAM"]].concat();
    for (form, client) in [
        (vec!["--proxy", "TCP4 192.0.2.78 192.0.2.1 4711 25"], "192.0.2.78"),
        (vec!["--proxy", "UNKNOWN"], "0.0.0.0"),
        (datagrams, "0.0.0.0"),
    ] {
        let mut command = swaks(&host, "submission");
        command.args(["--local-interface", BALANCER, "--tls"]).args(&form);
        let ran = run(command.args(words(&login())), b"");
        assert_eq!(ran.code(), Some(0), "{form:?}: {ran}");
        let line = host.took("submission", "hunt", &letter("hunt"));
        assert!(line.contains(&format!("[{client}]")), "{line}");
    }
}

pub fn from_elsewhere_nothing_goes_without_tls_and_a_login() {
    if !need("swaks") {
        return;
    }
    let host = Host::new();
    let rows = [
        ("submission", login(), 28, "Host did not advertise authentication"),
        (
            "submission",
            login().replace("--auth PLAIN", "--auth-optional PLAIN"),
            23,
            "<** 530 5.7.0 ",
        ),
        ("submission", "--tls".to_owned(), 23, "<~* 530 5.7.0 "),
        ("submissions", "--tls-on-connect".to_owned(), 23, "<~* 530 5.7.0 "),
        ("smtp", login(), 28, "Host did not advertise authentication"),
        ("smtp", "--tls".to_owned(), 24, "<~* 554 5.7.1 "),
        ("smtp", format!("--tls {}x", login()), 28, "<~* 535 5.7.8 "),
    ];
    at_once(&rows, |(service, form, code, said)| {
        let mut command = swaks(&host, service);
        command.args(["--local-interface", BALANCER]).args(words(FIRST)).args(words(form));
        says(&run(&mut command, b""), *code, said);
    });
    host.took_nothing();
}

#[test]
fn a_header_that_is_wrong_or_comes_from_elsewhere_is_nobodys() {
    if !need("swaks") {
        return;
    }
    let host = Host::new();
    let rows = [
        // Who is no balancer speaks out of turn, or says what is no command.
        ("127.0.0.1", FIRST.to_owned()),
        ("127.0.0.1", SECOND.to_owned()),
        (BALANCER, "--proxy TCP4".to_owned()),
        (BALANCER, FIRST.replace("TCP4", "TCP6")),
        (BALANCER, FIRST.replace("192.0.2.77", "somewhere")),
    ];
    for (from, form) in rows {
        let mut command = swaks(&host, "submission");
        command.args(["--local-interface", from, "--tls"]);
        let ran = run(command.args(words(&form)).args(words(&login())), b"");
        // A balancer hears no greeting, nobody gets anywhere.
        let word = if from == BALANCER { "220 " } else { "235 " };
        assert!(ran.code() != Some(0) && !ran.text().contains(word), "{form}: {ran}");
    }
    host.took_nothing();
}

#[test]
fn a_filter_says_for_whom_it_speaks() {
    if !need("swaks") {
        return;
    }
    let host = Host::new();
    let who = "--xclient-addr 192.0.2.5 --xclient-name mail.example --xclient-helo far.example";
    let far = "client=mail.example[192.0.2.5] helo=<client.example>";
    let rows = [
        ("smtp", format!("{who} --tls {}", login()), far),
        ("smtp", format!("{who} --tls --xclient-before-starttls {}", login()), far),
        ("submission", format!("{who} --tls {}", login()), far),
        ("submission", format!("{who} --tls --xclient-before-starttls {}", login()), far),
        ("submissions", format!("{who} --tls-on-connect {}", login()), far),
        // Two commands, one after the other.
        (
            "smtp",
            format!(
                "--xclient-addr 192.0.2.5 --xclient-delim --xclient-name mail.example --tls {}",
                login()
            ),
            far,
        ),
        ("smtp", format!("--xclient-port 4711 --xclient-proto ESMTP {who} --tls {}", login()), far),
        // Who has logged in there need not do so here.
        ("smtp", format!("{who} --xclient-login hunt"), far),
        ("smtp", format!("{who} --xclient-optional --tls {}", login()), far),
    ];
    for (service, form, client) in rows {
        let mut command = swaks(&host, service);
        command.args(["--local-interface", FILTER]).args(words(&form));
        let ran = run(&mut command, b"");
        assert_eq!(ran.code(), Some(0), "{service} {form}: {ran}");
        let line = host.took(service, "hunt", &letter("hunt"));
        assert!(line.contains(client), "{form}: {line}");
    }
    let refused = [
        // Nobody else is offered it, nor obeyed.
        ("127.0.0.1", who, 33, "did not advertise XCLIENT"),
        // It is that client in what it may not do, too.
        (FILTER, who, 24, "<** 554 5.7.1 "),
        (FILTER, "--xclient-reverse-name mail.example", 33, "XCLIENT"),
        (FILTER, "--xclient ADDR=nonsense", 33, "<** 501 "),
        (FILTER, "--xclient COLOUR=blue", 33, "<** 501 "),
    ];
    for (from, form, code, said) in refused {
        let mut command = swaks(&host, "smtp");
        command.args(["--local-interface", from]).args(words(form));
        says(&run(&mut command, b""), code, said);
    }
    host.took_nothing();
}

//! What Thunderbird, Outlook and others say, word for word, where no program of theirs can be run.

use base64ct::{Base64, Encoding};

use super::support::peer::{Peer, stuffed};
use super::support::tls::VERSIONS;
use super::{HUNT, Host, PASSWORD, letter};

fn encoded(text: &str) -> String {
    Base64::encode_string(text.as_bytes())
}

fn plain() -> String {
    encoded(&format!("\0hunt\0{PASSWORD}"))
}

/// A client that has come to `service` and has said EHLO under TLS.
#[track_caller]
fn under_tls(host: &Host, service: &str) -> (Peer, String) {
    let mut peer = Peer::connect(host.address(service));
    if service == "submissions" {
        peer.start_tls(host.pair.client(VERSIONS)).unwrap();
        assert!(peer.reply().starts_with("220 "));
    } else {
        assert!(peer.reply().starts_with("220 "));
        assert!(peer.command("EHLO [192.168.1.23]").contains("250-STARTTLS"));
        assert_eq!(peer.command("STARTTLS"), "220 2.0.0 Ready to start TLS");
        peer.start_tls(host.pair.client(VERSIONS)).unwrap();
    }
    let offers = peer.command("EHLO [192.168.1.23]");
    (peer, offers)
}

/// MAIL with what Thunderbird adds, RCPT, DATA.
#[track_caller]
fn sends(host: &Host, service: &str, peer: &mut Peer) {
    let letter = letter("hunt");
    let text = stuffed(&letter);
    let mail = format!("MAIL FROM:<{HUNT}> BODY=8BITMIME SIZE={}", text.len());
    assert_eq!(peer.command(mail), "250 2.1.0 Ok");
    assert_eq!(peer.command("RCPT TO:<a@example.org>"), "250 2.1.5 Ok");
    assert!(peer.command("DATA").starts_with("354 "));
    peer.send(text);
    assert!(peer.reply().starts_with("250 2.0.0 Ok: queued as "));
    assert_eq!(peer.command("QUIT"), "221 2.0.0 Bye");
    let line = host.took(service, "hunt", &letter);
    assert!(line.contains("helo=<[192.168.1.23]>"), "{line}");
}

/// Each row is what the client says and how the answer begins, from EHLO on until it is logged in.
#[test]
fn a_login_goes_as_each_of_them_does_it() {
    let host = Host::new();
    let (user, password) = (encoded("hunt"), encoded(PASSWORD));
    let plain = plain();
    let at_once = format!("AUTH PLAIN {plain}");
    let named = format!("AUTH LOGIN {user}");
    let (username, password_prompt) = ("334 VXNlcm5hbWU6", "334 UGFzc3dvcmQ6");
    let logged_in = "235 2.7.0 ";
    let other = format!("AUTH PLAIN {}", encoded(&format!("hunt\0hunt\0{PASSWORD}")));
    let rows: [&[(&str, &str)]; 9] = [
        // Thunderbird.
        &[(&at_once, logged_in)],
        // One that waits for its turn.
        &[("AUTH PLAIN", "334 "), (&plain, logged_in)],
        // One that says as whom it wants to act.
        &[(&other, logged_in)],
        // Outlook, and others that ask in one step less.
        &[("AUTH LOGIN", username), (&user, password_prompt), (&password, logged_in)],
        &[(&named, password_prompt), (&password, logged_in)],
        &[("auth login", username), (&user, password_prompt), (&password, logged_in)],
        // Somebody presses Cancel, at every place, and thinks again.
        &[("AUTH PLAIN", "334 "), ("*", "501 5."), (&at_once, logged_in)],
        &[
            ("AUTH LOGIN", username),
            ("*", "501 5."),
            ("AUTH LOGIN", username),
            (&user, password_prompt),
            ("*", "501 5."),
            ("NOOP", "250 "),
            (&at_once, logged_in),
        ],
        // What is not offered, and the old Outlook's first try.
        &[
            ("AUTH NTLM TlRMTVNTUAAB", "504 5.5.4 "),
            ("AUTH CRAM-MD5", "504 5.5.4 "),
            ("AUTH DIGEST-MD5", "504 5.5.4 "),
            (&at_once, logged_in),
        ],
    ];
    for service in super::SERVICES {
        for row in rows {
            let (mut peer, offers) = under_tls(&host, service);
            assert!(offers.contains("AUTH PLAIN LOGIN"), "{offers}");
            // Old clients look for this form.
            assert!(offers.contains("8BITMIME") && offers.contains("SIZE "), "{offers}");
            for (said, wanted) in row {
                let answer = peer.command(said);
                assert!(answer.starts_with(wanted), "{said}: {answer}\n{}", peer.dialogue());
            }
            assert!(peer.command(&at_once).starts_with("503 5.5.1 "), "once is enough");
            sends(&host, service, &mut peer);
        }
    }
}

#[test]
fn what_is_no_login_is_said_to_be_none() {
    let host = Host::new();
    for (said, wanted) in [
        (vec!["AUTH PLAIN !!!"], "501 5.5.2 "),
        (vec!["AUTH PLAIN aHVudA=="], "501 5.5.2 "),
        (vec!["AUTH PLAIN ="], "501 5.5.2 "),
        (vec!["AUTH PLAIN", ""], "501 5.5.2 "),
        (vec!["AUTH"], "501 5.5.4 "),
        (vec!["AUTH LOGIN", "!!!"], "501 5.5.2 "),
    ] {
        let (mut peer, _) = under_tls(&host, "submission");
        let answers: Vec<String> = said.iter().map(|line| peer.command(line)).collect();
        assert!(answers.last().unwrap().starts_with(wanted), "{said:?}: {answers:?}");
        assert!(peer.command(format!("AUTH PLAIN {}", plain())).starts_with("235 "));
    }
    // As somebody else.
    let (mut peer, _) = under_tls(&host, "submission");
    let other = encoded(&format!("bob\0hunt\0{PASSWORD}"));
    let answer = peer.command(format!("AUTH PLAIN {other}"));
    assert!(answer.starts_with("535 5.7.8 "), "{answer}");
    assert!(peer.command("MAIL FROM:<hunt@smkwlab.net>").starts_with("530 5.7.0 "));
}

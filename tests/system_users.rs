//! The host's own accounts, `[users] source = "system"`: passwd and shadow, with the hashes that
//! Debian's tools write. The two files are bound over the host's in a mount namespace of the test.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests and their helpers fail by panicking"
)]

mod support;

use support::accounts::{self, PASSWORD, SHA512, need_own_accounts, on};
use support::peer::Peer;
use support::run::run;
use support::site::Site;

/// `mkpasswd -m yescrypt` made this of [`PASSWORD`].
const YESCRYPT: &str = "$y$j9T$aMw3QAzuGkoMr5Fqd4N1y.$QTN2celPyCj6c2gZ8F16ERAVwZKT0MuvQXzq5Su8989";

/// A host whose accounts are these: name, uid, what stands in shadow behind the name.
fn host() -> Site {
    let site = Site::plan().set("users", "source", "\"system\"").build();
    let (toshi, hunt) = (Site::account("toshi").uid, Site::account("hunt").uid);
    let accounts = [
        ("root", 0, format!("{SHA512}:1:0:99999:7:::")),
        ("nobody", 65534, "*:1:0:99999:7:::".to_owned()),
        ("daemon", 1, format!("{SHA512}:1:0:99999:7:::")),
        ("toshi", toshi, format!("{YESCRYPT}:1:0:99999:7:::")),
        ("hunt", hunt, format!("{SHA512}:1:0:99999:7:::")),
        ("locked", 64098, format!("!{SHA512}:1:0:99999:7:::")),
        ("expired", 64099, format!("{SHA512}:1:0:99999:7::100:")),
        ("open", 64097, ":1:0:99999:7:::".to_owned()),
    ];
    accounts::write(&site, &accounts);
    site
}

/// Whether the password lets the user in.
fn is_let_in(site: &Site, user: &str, password: &str) -> bool {
    let (server, mut peer) = Site::session_of(on(site, &site.command("popd")));
    assert!(peer.line().starts_with("+OK"));
    assert!(peer.pop(&format!("USER {user}")).starts_with("+OK"));
    let answer = peer.pop(&format!("PASS {password}"));
    assert!(answer.starts_with("+OK") || answer.starts_with("-ERR [AUTH]"), "{user}: {answer}");
    peer.pop("QUIT");
    drop::<Peer>(peer);
    server.join();
    answer.starts_with("+OK")
}

#[test]
fn accounts_of_the_host_log_in_with_their_passwords_and_no_others_do() {
    if !need_own_accounts() {
        return;
    }
    let site = host();
    for user in ["toshi", "hunt"] {
        assert!(is_let_in(&site, user, PASSWORD), "{user}");
        assert!(!is_let_in(&site, user, "Watts?Watt"), "{user}");
    }
    for user in ["root", "daemon", "locked", "expired", "open", "nobody", "stranger"] {
        assert!(!is_let_in(&site, user, PASSWORD), "{user}");
    }
}

#[test]
fn mail_for_accounts_of_the_host_is_taken_and_delivered_and_for_others_refused() {
    if !need_own_accounts() {
        return;
    }
    let site = host();
    let (server, mut peer) = Site::session_of(on(&site, &site.command("smtpd")));
    peer.greet();
    assert!(peer.command("MAIL FROM:<a@example.org>").starts_with("250"));
    for user in ["root", "daemon", "stranger"] {
        let reply = peer.command(format!("RCPT TO:<{user}@smkwlab.net>"));
        assert!(reply.starts_with("550 5.1.1 "), "{user}: {reply}");
    }
    peer.command("RSET");
    let to = ["toshi@smkwlab.net", "HUNT@smkwlab.net"];
    let reply = peer.mail("a@example.org", &to, b"Subject: host\n\nx\n");
    assert!(reply.starts_with("250 2.0.0 "), "{reply}");
    peer.command("QUIT");
    server.join();
    run(&mut on(&site, &site.command("mta-queue")), b"").expect(0);
    for user in ["toshi", "hunt"] {
        assert_eq!(site.messages(user).len(), 1, "{user}");
    }
    // And by itself, for the name on the command line.
    let mut alone = site.command("local-deliver");
    alone.args(["-d", "hunt"]);
    run(&mut on(&site, &alone), b"Subject: alone\n\nx\n").expect(0);
    assert_eq!(site.messages("hunt").len(), 2);
}

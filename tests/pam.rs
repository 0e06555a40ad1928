//! Passwords by PAM, in a build with the feature `pam` (`make check-pam`): the rules are files of the
//! tests' own, bound over /etc/pam.d in a mount namespace, and so are passwd and shadow.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests and their helpers fail by panicking"
)]

mod support;

#[cfg(not(feature = "pam"))]
#[test]
fn without_pam_in_the_build_the_key_is_an_error() {
    use support::run::run;
    use support::site::Site;

    support::note("logins by PAM: skipped: this build is without it, see `make check-pam`");
    let plan = Site::plan().set("users", "source", "\"system\"");
    let site = plan.set("auth", "pam_service", "\"hikyaku\"").build();
    let ran = run(site.command("popd").args(["--listen", "127.0.0.1:0"]), b"").expect(78);
    assert!(ran.stderr.contains("PAM is not in this build: make all FEATURES=pam"), "{ran}");
}

#[cfg(feature = "pam")]
mod with_pam {
    use std::fs;
    use std::net::TcpListener;
    use std::os::fd::OwnedFd;
    use std::os::unix::fs::PermissionsExt;
    use std::process::Stdio;
    use std::time::{Duration, Instant};

    use base64ct::{Base64, Encoding};

    use crate::support::accounts::{self, PASSWORD, SHA512, need_own_accounts, on};
    use crate::support::peer::Peer;
    use crate::support::run::{Server, run};
    use crate::support::site::{Plan, Site, activated};

    /// A host with accounts of its own, and these rules for its logins.
    fn host(plan: Plan, rules: &str) -> Site {
        let plan = plan.set("users", "source", "\"system\"");
        let site = plan.set("auth", "pam_service", "\"hikyaku-test\"").build();
        let accounts = [
            ("root", 0, "1:0:99999:7:::"),
            ("daemon", 1, "1:0:99999:7:::"),
            ("toshi", Site::account("toshi").uid, "1:0:99999:7:::"),
            ("hunt", Site::account("hunt").uid, "1:0:99999:7:::"),
            ("expired", 64099, "1:0:99999:7::100:"),
            ("must-change", 64098, "0:0:99999:7:::"),
        ];
        let line = |(name, uid, fields)| (name, uid, format!("{SHA512}:{fields}"));
        accounts::write(&site, &accounts.map(line));
        let at = |name: &str| site.path().join(name);
        fs::create_dir(at("pam.d")).unwrap();
        fs::write(at("pam.d").join("hikyaku-test"), rules).unwrap();
        fs::write(at("pam.d").join("other"), "auth required pam_deny.so\n").unwrap();
        site
    }

    fn popd(site: &Site) -> (Server, Peer) {
        let (server, mut peer) = Site::session_of(on(site, &site.command("popd")));
        assert!(peer.line().starts_with("+OK"));
        (server, peer)
    }

    /// What popd says to this password, and what its log says.
    fn says(site: &Site, user: &str, password: &str) -> (String, String) {
        let (server, mut peer) = popd(site);
        assert!(peer.pop(&format!("USER {user}")).starts_with("+OK"));
        let answer = peer.pop(&format!("PASS {password}"));
        peer.pop("QUIT");
        drop(peer);
        let (_, log) = server.join();
        (answer, log)
    }

    #[track_caller]
    fn lets_in(site: &Site, user: &str, password: &str) -> bool {
        let (answer, log) = says(site, user, password);
        assert!(answer.starts_with("+OK") || answer.starts_with("-ERR [AUTH]"), "{answer}\n{log}");
        answer.starts_with("+OK")
    }

    #[test]
    fn pam_unix_knows_the_accounts_of_the_host_and_which_of_them_are_over() {
        if !need_own_accounts() {
            return;
        }
        let site = host(Site::plan(), "auth required pam_unix.so\naccount required pam_unix.so\n");
        assert!(lets_in(&site, "hunt", PASSWORD) && lets_in(&site, "toshi", PASSWORD));
        assert!(!lets_in(&site, "hunt", "Watts?Watt"));
        for user in ["expired", "must-change", "root", "daemon", "stranger", "a/b", "x"] {
            assert!(!lets_in(&site, user, PASSWORD), "{user}");
        }
        // The wait is ours and not the module's, which has two seconds of its own.
        let begin = Instant::now();
        assert!(!lets_in(&site, "hunt", "wrong"));
        assert!(begin.elapsed() >= Duration::from_secs(2));
        assert!(begin.elapsed() < Duration::from_millis(3500), "{:?}", begin.elapsed());
    }

    #[test]
    fn smtpd_asks_pam_too_and_offers_no_scram() {
        if !need_own_accounts() {
            return;
        }
        let plan = Site::plan().set("smtp", "auth", "true");
        let site = host(plan, "auth required pam_unix.so\naccount required pam_unix.so\n");
        let (_server, mut peer) = Site::session_of(on(&site, &site.command("smtpd")));
        peer.reply();
        assert!(peer.command("EHLO client.example").contains("AUTH PLAIN LOGIN"));
        for (password, wanted) in [("wrong", "535 "), (PASSWORD, "235 ")] {
            let text = Base64::encode_string(format!("\0hunt\0{password}").as_bytes());
            assert!(peer.command(format!("AUTH PLAIN {text}")).starts_with(wanted), "{password}");
        }
    }

    #[test]
    fn the_rules_decide_but_not_about_those_who_are_not_served() {
        if !need_own_accounts() {
            return;
        }
        let permit = "auth required pam_permit.so\naccount required pam_permit.so\n";
        let site = host(Site::plan(), permit);
        assert!(lets_in(&site, "hunt", "anything"));
        for user in ["root", "daemon", "stranger", ".."] {
            assert!(!lets_in(&site, user, "anything"), "{user}");
        }
        let rules = site.path().join("pam.d/hikyaku-test");
        fs::write(&rules, "auth required pam_permit.so\naccount required pam_deny.so\n").unwrap();
        assert!(!lets_in(&site, "hunt", PASSWORD), "the account may not be used");
        // A service without a file has the rules of "other".
        fs::remove_file(&rules).unwrap();
        assert!(!lets_in(&site, "hunt", PASSWORD));
        let ran = run(&mut on(&site, site.command("mailctl").arg("check")), b"");
        assert!(ran.stderr.contains("there is no /etc/pam.d/hikyaku-test"), "{ran}");
        // Rules that can't be followed are no answer.
        fs::write(&rules, "auth required pam_none_such.so\n").unwrap();
        let (answer, log) = says(&site, "hunt", PASSWORD);
        assert!(answer.starts_with("-ERR [SYS/TEMP]"), "{answer}");
        assert!(log.contains("status=unavailable: PAM: "), "{log}");
    }

    #[test]
    fn an_app_password_needs_the_rules_for_accounts_only() {
        if !need_own_accounts() {
            return;
        }
        let site =
            host(Site::plan(), "auth required pam_deny.so\naccount required pam_permit.so\n");
        let words = ["user", "app-password", "add", "hunt", "phone"];
        let made = run(&mut on(&site, site.command("mailctl").args(words)), b"").expect(0).text();
        assert!(lets_in(&site, "hunt", made.trim()) && !lets_in(&site, "hunt", PASSWORD));
        let rules = site.path().join("pam.d/hikyaku-test");
        fs::write(rules, "auth required pam_permit.so\naccount required pam_deny.so\n").unwrap();
        assert!(!lets_in(&site, "hunt", made.trim()));
    }

    #[test]
    fn a_module_gets_the_password_of_those_only_who_are_served_and_holds_up_nobody_else() {
        if !need_own_accounts() {
            return;
        }
        let site = host(Site::plan(), "");
        let (heard, script) = (site.path().join("heard"), site.path().join("ask"));
        let text = format!(
            "#!/bin/sh\nread -r password\necho \"$PAM_USER $password\" >>'{}'\n\
             [ \"$PAM_USER\" != toshi ] || sleep 5\n[ \"$password\" = secret ]\n",
            heard.display()
        );
        fs::write(&script, text).unwrap();
        fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
        let rules = format!(
            "auth required pam_exec.so expose_authtok quiet {}\naccount required pam_permit.so\n",
            script.display()
        );
        fs::write(site.path().join("pam.d/hikyaku-test"), rules).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let mut command = activated(&on(&site, &site.command("popd")));
        command.stdin(OwnedFd::from(listener)).stdout(Stdio::null());
        let _server = Server::start(&mut command);
        let begins = |user: &str, password: &str| {
            let mut peer = Peer::connect(address);
            peer.line();
            peer.pop(&format!("USER {user}"));
            peer.send(format!("PASS {password}\r\n"));
            peer
        };
        let begin = Instant::now();
        let mut slow = begins("toshi", "secret");
        std::thread::sleep(Duration::from_millis(500));
        assert!(begins("hunt", "secret").line().starts_with("+OK"));
        assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
        assert!(slow.line().starts_with("+OK"));
        assert!(begin.elapsed() >= Duration::from_secs(5));
        assert!(begins("root", "secret").line().starts_with("-ERR [AUTH]"));
        let heard = fs::read_to_string(heard).unwrap();
        assert_eq!(heard, "toshi secret\nhunt secret\nroot \x08\x08\x08\x08\x08\x08\n");
    }
}

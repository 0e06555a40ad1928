//! OfflineIMAP: Maildirs that are the same as the folders.

use std::fs;

use super::host::{Host, NAME, PASSWORD, client};
use super::mirror::Mirror;
use super::support::need;
use super::support::run::run;
use super::support::store::{FORMS, USER};

const OLDER_TLS: &str = "openssl_conf = all\n[all]\nssl_conf = ssl\n[ssl]\nsystem_default = tls\n\
                         [tls]\nMaxProtocol = TLSv1.2\n";

#[test]
fn both_sides_become_the_same_while_others_change_them() {
    if !need("offlineimap") {
        return;
    }
    for (form, is_begun) in FORMS.into_iter().zip([true, false]) {
        let host = Host::new(form);
        let home = host.home("offlineimap");
        let near = home.join("mail");
        fs::create_dir(&near).unwrap();
        let (port, tls) = if is_begun { (host.port(), "no") } else { (host.tls_port(), "yes") };
        let text = format!(
            "[general]\naccounts = a\nmetadata = {home}/known\nui = basic\nsocktimeout = 20\n\n\
             [Account a]\nlocalrepository = near\nremoterepository = far\n\n\
             [Repository near]\ntype = Maildir\nlocalfolders = {near}\nsep = /\n\
             sync_deletes = yes\n\n\
             [Repository far]\ntype = IMAP\nremotehost = {NAME}\nremoteport = {port}\nssl = {tls}\n\
             starttls = {starttls}\nsslcacertfile = {certificate}\nremoteuser = {USER}\n\
             remotepass = {PASSWORD}\nsync_deletes = yes\nexpunge = yes\n",
            home = home.display(),
            near = near.display(),
            starttls = if is_begun { "yes" } else { "no" },
            certificate = host.certificate()
        );
        let rc = home.join("rc");
        fs::write(&rc, text).unwrap();
        // Behind STARTTLS a thread of its reads before the other has begun to write: of TLS 1.3, where
        // the server speaks first with its tickets, OpenSSL loses bytes then, of Dovecot's as of ours.
        let openssl = home.join("openssl.cnf");
        fs::write(&openssl, OLDER_TLS).unwrap();
        let sync = || {
            for _ in 0..10 {
                let mut command = client("offlineimap", &home);
                if is_begun {
                    command.env("OPENSSL_CONF", &openssl);
                }
                let ran = run(command.args(["-o", "-c"]).arg(&rc), b"");
                // It falls over what it is told, unasked, of a message that it does not know yet, and
                // complains of one that is gone when it wants to fetch it. Now and then Python
                // itself dies of its threads.
                let troubles = ["KeyError: ", "does not have a message with UID"];
                let is_troubled = troubles.iter().any(|trouble| ran.to_string().contains(trouble));
                if ran.signal().is_none() && !is_troubled {
                    ran.expect(0);
                    return;
                }
            }
            panic!("it never gets through");
        };
        Mirror { host: &host, near: &near, sync: &sync, expunges: false }.both_ways();
        host.ends_well();
    }
}

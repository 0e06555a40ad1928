//! OfflineIMAP: Maildirs that are the same as the folders.

use std::fs;

use super::host::{Host, NAME, PASSWORD, client};
use super::mirror::Mirror;
use super::support::need;
use super::support::run::run;
use super::support::store::{FORMS, USER};

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
            "[general]\naccounts = a\nmetadata = {home}/known\nui = basic\nsocktimeout = 60\n\n\
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
        let sync = || {
            let mut command = client("offlineimap", &home);
            let ran = run(command.args(["-o", "-c"]).arg(&rc), b"").expect(0);
            assert!(!ran.to_string().contains("ERROR"), "{ran}");
        };
        Mirror { host: &host, near: &near, sync: &sync, expunges: false }.both_ways();
        host.is_content();
    }
}

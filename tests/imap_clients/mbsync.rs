//! mbsync (isync): Maildirs that are the same as the folders.

use std::fs;

use super::host::{Host, NAME, PASSWORD, client};
use super::mirror::Mirror;
use super::support::need;
use super::support::run::run;
use super::support::store::{FORMS, USER};

#[test]
fn both_sides_become_the_same_while_others_change_them() {
    if !need("mbsync") {
        return;
    }
    for (form, ssl) in FORMS.into_iter().zip(["STARTTLS", "IMAPS"]) {
        let host = Host::new(form);
        let home = host.home("mbsync");
        let near = home.join("mail");
        fs::create_dir(&near).unwrap();
        let port = if ssl == "IMAPS" { host.tls_port() } else { host.port() };
        let text = format!(
            "IMAPAccount a\nHost {NAME}\nPort {port}\nUser {USER}\nPass {PASSWORD}\nSSLType {ssl}\n\
             CertificateFile {}\n\nIMAPStore far\nAccount a\n\n\
             MaildirStore near\nPath {near}/\nInbox {near}/INBOX\nSubFolders Verbatim\n\n\
             Channel c\nFar :far:\nNear :near:\nPatterns *\nCreate Both\nExpunge Both\n\
             SyncState *\n",
            host.certificate(),
            near = near.display()
        );
        let rc = home.join("rc");
        fs::write(&rc, text).unwrap();
        let sync = || {
            let mut command = client("mbsync", &home);
            let ran = run(command.arg("-c").arg(&rc).args(["-V", "-a"]), b"").expect(0);
            assert!(ran.stderr.is_empty(), "{ran}");
        };
        Mirror { host: &host, near: &near, sync: &sync, expunges: true }.both_ways();
        host.ends_well();
    }
}

//! Alpine at a terminal: read, flagged, saved, deleted and expunged by keys, while mail comes and others
//! do the same.

use std::fs;

use super::host::{Host, NAME, PASSWORD, flags, has};
use super::letters::id;
use super::support::store::{FORMS, USER};
use super::support::{need, need_account, wait_until};
use super::work::Terminal;

/// Control-L has it look for new mail.
const LOOK: &str = "\x0c";

#[test]
fn alpine_works_in_a_mailbox_that_others_change() {
    if !need("alpine") || !need("script") || !need_account() {
        return;
    }
    for (form, is_begun) in FORMS.into_iter().zip([true, false]) {
        let host = Host::new(form);
        let home = host.home("alpine");
        let (port, tls) = if is_begun { (host.port(), "tls") } else { (host.tls_port(), "ssl") };
        let server = format!("{{{NAME}:{port}/user={USER}/{tls}}}");
        let rc = home.join("pinerc");
        let text = format!(
            "personal-name=hunt\nuser-domain=smkwlab.net\ninbox-path={server}INBOX\n\
             folder-collections=Mail {server}[]\nsort-key=Arrival\nlast-version-used=6.26\n\
             feature-list=disable-password-caching,disable-password-file-saving,quit-without-confirm,expunge-without-confirm,\
             expunge-without-confirm-everywhere,enable-flag-cmd,no-save-will-advance\n\
             mail-check-interval=15\ninitial-keystroke-list=\nread-message-folder=\n\
             index-format=STATUS SUBJECT\n",
        );
        fs::write(&rc, text).unwrap();
        host.deliver(0..6);
        let mut other = host.session();
        other.ok("SELECT INBOX");
        let inside = format!(
            "env SSL_CERT_FILE={} alpine -i -p {} -nowrite_password_cache",
            host.certificate(),
            rc.display()
        );
        let mut alpine = Terminal::start(&home, &inside);
        alpine.sees("ASSWORD");
        alpine.press(&format!("{PASSWORD}\r"));
        alpine.sees("letter 5");
        alpine.press("J1\r\r");
        alpine.sees("Hello.");
        alpine.press("<J2\r*\rJ3\rSSaved\r");
        alpine.sees("Create");
        alpine.press("yJ4\rD");
        // The message that was saved, and this one.
        wait_until("two are marked as deleted", || {
            let inbox = host.folder("INBOX");
            ([2, 3].map(|number| flags(&inbox, number)) == ["\\Deleted"; 2]).then_some(())
        });
        other.of("STORE", 5, "+FLAGS.SILENT (\\Answered)");
        other.expunge(4);
        host.deliver(6..8);
        alpine.press(LOOK);
        alpine.sees("letter 7");
        alpine.press("X");
        wait_until("what was deleted is gone", || {
            (!host.folder("INBOX").contains_key(&id(3))).then_some(())
        });
        alpine.press("Q");
        alpine.end();
        let inbox = host.folder("INBOX");
        has(&inbox, [0, 1, 5, 6, 7]);
        let marks = [0, 1, 5, 6, 7].map(|number| flags(&inbox, number));
        assert_eq!(marks, ["\\Seen", "\\Flagged", "\\Answered", "", ""]);
        has(&host.folder("Saved"), [2]);
        other.log_out();
        host.ends_well();
    }
}

//! mutt and NeoMutt at a terminal: opened, read, marked, copied and deleted by keys, while mail comes
//! and others mark and delete; once more with what the header cache remembers.

use std::fs;

use super::host::{Host, NAME, PASSWORD, flags, has};
use super::letters::id;
use super::support::store::{Form, USER};
use super::support::{need, need_account, wait_until};
use super::work::Terminal;

#[test]
fn mutt_works_in_a_mailbox_that_others_change() {
    works("mutt", Form::Mbox, false);
    works("mutt", Form::Maildir, true);
}

#[test]
fn neomutt_works_in_a_mailbox_that_others_change() {
    works("neomutt", Form::Maildir, false);
    works("neomutt", Form::Mbox, true);
}

fn works(program: &str, form: Form, is_encrypted: bool) {
    if !need(program) || !need("script") || !need_account() {
        return;
    }
    let host = Host::new(form);
    let home = host.home(program);
    let (scheme, port) =
        if is_encrypted { ("imaps", host.tls_port()) } else { ("imap", host.port()) };
    let url = format!("{scheme}://{USER}@{NAME}:{port}");
    let rc = home.join("rc");
    fs::create_dir(home.join("cache")).unwrap();
    let text = format!(
        "set folder={url}/\nset spoolfile={url}/INBOX\nset imap_pass={PASSWORD}\nset ssl_starttls=yes\n\
         set ssl_force_tls=yes\nset ssl_ca_certificates_file={certificate}\n\
         set certificate_file={certificate}\nset header_cache={home}/cache/\nset record=\"\"\n\
         set message_cachedir={home}/cache/\nset sort=mailbox-order\nset confirmappend=no\n\
         set confirmcreate=no\nset delete=yes\nset quit=yes\nset wait_key=no\nset move=no\n\
         set timeout=1\nset mail_check=1\nset imap_idle=yes\nset imap_check_subscribed=no\n\
         set index_format='%s.'\nset status_format='%m there, %d deleted.'\n\
         set pager_format='page'\nset beep=no\nset mark_old=no\n",
        certificate = host.certificate(),
        home = home.display(),
    );
    fs::write(&rc, text).unwrap();
    let open =
        || Terminal::start(&home, &format!("{program} -n -F {} -f {url}/INBOX", rc.display()));
    host.deliver(0..6);
    let mut other = host.session();
    other.ok("SELECT INBOX");

    let mut mutt = open();
    mutt.sees("letter 5.");
    mutt.press("1\n\n");
    mutt.sees("Hello.");
    mutt.press("q2\nF");
    if program == "neomutt" {
        // It forgets marks that it has not sent when others expunge.
        mutt.press("$");
        wait_until("marks are sent", || {
            let inbox = host.folder("INBOX");
            let marks = [0, 1].map(|number| flags(&inbox, number));
            (marks == ["\\Seen", "\\Flagged"]).then_some(())
        });
    }
    mutt.press("3\nC=Saved\n4\nd");
    // While it idles.
    other.of("STORE", 5, "+FLAGS.SILENT (\\Answered)");
    other.expunge(4);
    host.deliver(6..8);
    mutt.sees("letter 7.");
    mutt.press("$");
    wait_until("what was deleted is gone", || {
        (!host.folder("INBOX").contains_key(&id(3))).then_some(())
    });
    mutt.press("q");
    mutt.end();
    let inbox = host.folder("INBOX");
    has(&inbox, [0, 1, 2, 5, 6, 7]);
    let marks = [0, 1, 2, 5, 6].map(|number| flags(&inbox, number));
    assert_eq!(marks, ["\\Seen", "\\Flagged", "", "\\Answered", ""]);
    has(&host.folder("Saved"), [2]);

    // Others have been there meanwhile.
    other.of("STORE", 1, "-FLAGS.SILENT (\\Flagged)");
    other.of("STORE", 2, "FLAGS.SILENT (\\Flagged \\Seen)");
    other.expunge(0);
    host.deliver(8..9);
    let mut mutt = open();
    mutt.sees("letter 8.");
    // Numbers are those of the messages that are left: 1, 2, 5, 6, 7, 8.
    mutt.press("3\ns=Saved\n6\n\n");
    mutt.sees("au lait");
    mutt.press("qq");
    mutt.end();
    let inbox = host.folder("INBOX");
    has(&inbox, [1, 2, 6, 7, 8]);
    let marks = [1, 2, 6, 7, 8].map(|number| flags(&inbox, number));
    assert_eq!(marks, ["", "\\Flagged \\Seen", "", "", "\\Seen"]);
    let saved = host.folder("Saved");
    has(&saved, [2, 5]);
    assert_eq!(flags(&saved, 5), "\\Answered");
    other.log_out();
    host.ends_well();
}

//! imapfilter: rules that search, mark, copy, move and delete on the server, and wait for what comes.

use std::fs;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use super::host::{Host, NAME, PASSWORD, client, flags, has};
use super::letters::{delivered, id};
use super::support::need;
use super::support::store::{FORMS, USER};
use super::work::Work;

/// Works through the inbox, waits until something comes, and works through it again.
const RULES: &str = r"
options.timeout = 30
options.info = false
options.subscribe = true
options.charset = 'UTF-8'
function work()
    local inbox = account.INBOX
    inbox:contain_subject('letter 1'):move_messages(account['Lists/one'])
    local lait = inbox:contain_body('AU LAIT') * inbox:is_unflagged()
    lait:copy_messages(account.Copies)
    lait:mark_flagged()
    inbox:contain_from('s3@example.net'):delete_messages()
    inbox:contain_body('Grüsse'):mark_seen()
    inbox:match_body('Hello\\.'):mark_answered()
    inbox:send_query('UID 1:* KEYWORD junk'):move_messages(account.Junk)
    -- To and fro.
    account.Boxes:select_all():move_messages(account.INBOX)
end
work()
local exist, recent, unseen = account.INBOX:check_status()
local boxes = account:list_all('', '*')
table.sort(boxes)
print(table.concat(boxes, ' '))
io.stdout:flush()
account.INBOX:enter_idle()
work()
print('again')
";

#[test]
fn rules_sort_what_is_there_and_what_comes() {
    if !need("imapfilter") {
        return;
    }
    for (form, is_begun) in FORMS.into_iter().zip([true, false]) {
        let host = Host::new(form);
        let home = host.home("imapfilter");
        let (port, ssl) =
            if is_begun { (host.port(), "") } else { (host.tls_port(), ", ssl = 'auto'") };
        let account = format!(
            "account = IMAP {{ server = '{NAME}', port = {port}, username = '{USER}', \
             password = '{PASSWORD}'{ssl} }}\n"
        );
        let rules = home.join("rules.lua");
        fs::write(&rules, [&account, RULES].concat()).unwrap();
        host.deliver(0..8);
        let mut other = host.session();
        other.ok("CREATE Boxes");
        other.append("Boxes", "\\Seen", &delivered(50));
        other.ok("CREATE Junk");
        other.ok("SELECT INBOX");
        other.of("STORE", 6, "+FLAGS.SILENT (junk)");

        let mut command = client("imapfilter", &home);
        command.arg("-c").arg(&rules).arg("-t").arg(host.certificate());
        // It says that there is no such folder, before it makes it.
        let work = Work::start(command.stderr(Stdio::null()));
        work.hears("Boxes Copies INBOX Junk Lists/one");
        let is_over = AtomicBool::new(false);
        // What comes before it waits wakes nobody.
        let last = thread::scope(|scope| {
            let sender = scope.spawn(|| {
                let mut number = 100;
                while !is_over.load(Ordering::Relaxed) && number < 200 {
                    host.deliver([number]);
                    number += 1;
                    thread::sleep(Duration::from_millis(300));
                }
                number
            });
            work.hears("again");
            is_over.store(true, Ordering::Relaxed);
            sender.join().unwrap()
        });
        work.end();
        let inbox = host.folder("INBOX");
        let lists = host.folder("Lists/one");
        let rest = (100..last).filter(|number| inbox.contains_key(&id(*number)));
        has(&inbox, [0, 2, 4, 5, 7, 50].into_iter().chain(rest.clone()));
        let moved = (100..last).filter(|number| !inbox.contains_key(&id(*number)));
        has(&lists, [1].into_iter().chain(moved.clone()));
        assert!(moved.count() > 0);
        has(&host.folder("Copies"), [2, 50]);
        has(&host.folder("Junk"), [6]);
        has(&host.folder("Boxes"), []);
        let marks = [0, 2, 4, 5, 50].map(|number| flags(&inbox, number));
        assert_eq!(marks, ["\\Answered", "\\Flagged", "", "\\Seen", "\\Flagged \\Seen"]);
        assert!(other.ok("LSUB \"\" *").contains(" Lists/one\n"));
        other.log_out();
        host.ends_well();
    }
}

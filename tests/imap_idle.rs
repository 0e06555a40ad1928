//! IDLE: how soon a client hears of mail and of what others do, and what it costs to wait.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests and their helpers fail by panicking"
)]

mod support;

use std::fs;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use support::imap::{Imap, Said};
use support::run::{Server, run};
use support::site::Site;
use support::store::{FORMS, Form, USER};
use support::wait_until;

/// How often something is done that is waited for.
const TIMES: usize = 50;

/// On a machine that is at rest it is 50 and 100 milliseconds, which is what is told; here others may
/// be at work.
const AT_MOST: Duration = Duration::from_secs(1);

fn host(form: Form) -> (Site, Server, SocketAddr) {
    let site = form.plan().set("imap", "max_connections_per_ip", "200").build();
    form.fill(&form.inbox(&site));
    let (server, address) = site.serve("imapd");
    (site, server, address)
}

fn select(address: SocketAddr) -> Imap {
    let mut imap = Imap::log_in(address, USER, "Watts?Watt?");
    imap.must("SELECT INBOX");
    imap
}

fn idle(address: SocketAddr) -> Imap {
    let mut imap = select(address);
    go(&mut imap);
    imap
}

fn go(imap: &mut Imap) {
    let said = imap.ask("IDLE").unwrap();
    assert_eq!(said.last(), Some(&Said::Go), "{imap}");
}

/// Hears up to what is meant.
#[track_caller]
fn hear(imap: &mut Imap, is_meant: impl Fn(&Said) -> bool) {
    loop {
        let said = imap.hear().unwrap_or_else(|error| panic!("{error}\n{imap}"));
        if is_meant(&said) {
            return;
        }
    }
}

fn is(word: &'static str) -> impl Fn(&Said) -> bool {
    move |said| matches!(said, Said::Number(_, of) if of == word)
}

fn deliver(site: &Site) {
    let mut command = site.local_deliver_command(USER, "a@example.org");
    run(&mut command, b"Subject: new\n\nnew\n").expect(0);
}

/// Tells how long it took, and that it was not too long.
#[track_caller]
fn tell(what: &str, mut times: Vec<Duration>) {
    times.sort_unstable();
    let (half, last) = (times[times.len() / 2], times[times.len() - 1]);
    support::note(&format!("{what}: half of them within {half:?}, all within {last:?}"));
    assert!(last < AT_MOST, "{what}: {last:?}");
}

#[test]
fn mail_is_announced_at_once() {
    for form in FORMS {
        let (site, _server, address) = host(form);
        let mut imap = idle(address);
        let mut times = Vec::new();
        for _ in 0..TIMES {
            // From when it is certain that the sender was told so.
            deliver(&site);
            let begun = Instant::now();
            hear(&mut imap, is("EXISTS"));
            times.push(begun.elapsed());
        }
        tell(&format!("{form:?}: a delivery"), times);
    }
}

#[test]
fn what_another_session_does_is_told_at_once() {
    for form in FORMS {
        let (site, _server, address) = host(form);
        (0..TIMES).for_each(|_| deliver(&site));
        let (mut imap, mut other) = (idle(address), select(address));
        let is_flags = |said: &Said| matches!(said, Said::Fetch(..));
        let (mut flags, mut expunges) = (Vec::new(), Vec::new());
        for _ in 0..TIMES {
            let begun = Instant::now();
            other.must("STORE 1 +FLAGS.SILENT (\\Deleted)");
            hear(&mut imap, is_flags);
            flags.push(begun.elapsed());
            let begun = Instant::now();
            other.must("EXPUNGE");
            hear(&mut imap, is("EXPUNGE"));
            expunges.push(begun.elapsed());
        }
        tell(&format!("{form:?}: a flag of another session's, with the STORE"), flags);
        tell(&format!("{form:?}: an expunge of another session's, with the EXPUNGE"), expunges);
    }
}

#[test]
fn a_client_hears_of_mail_and_of_folders_that_come_while_it_waits_at_none() {
    let site = Site::new();
    let (_server, address) = site.serve("imapd");
    // No spool file, no index, no directory for it.
    let mut imap = idle(address);
    deliver(&site);
    hear(&mut imap, is("EXISTS"));
    imap.send(b"DONE\r\n").unwrap();
    hear(&mut imap, |said| matches!(said, Said::End(..)));
    // One that others replace, as mutt and procmail do not, and rsync does.
    go(&mut imap);
    let inbox = site.inbox(USER);
    let text = fs::read(&inbox).unwrap();
    let other = site.path().join("mail/other");
    fs::copy(&inbox, &other).unwrap();
    fs::write(
        &other,
        [&text[..], b"From x Mon Jun 21 03:15:20 2004\nSubject: y\n\ny\n\n"].concat(),
    )
    .unwrap();
    fs::set_permissions(&other, fs::metadata(&inbox).unwrap().permissions()).unwrap();
    if support::is_root() {
        let account = Site::account(USER);
        std::os::unix::fs::chown(&other, Some(account.uid), Some(account.gid)).unwrap();
    }
    fs::rename(&other, &inbox).unwrap();
    hear(&mut imap, is("EXISTS"));
}

/// How often a process has given the processor back.
fn switches(pid: i32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("voluntary_ctxt_switches")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn nobody_is_woken_where_nothing_happens() {
    let sites = FORMS.map(host);
    let clients: Vec<Imap> =
        sites.iter().flat_map(|(_, _, address)| [idle(*address), select(*address)]).collect();
    let sessions: Vec<i32> = sites.iter().flat_map(|(_, server, _)| server.monitors()).collect();
    assert_eq!(sessions.len(), clients.len());
    let count = || -> Vec<u64> { sessions.iter().map(|pid| switches(*pid)).collect() };
    // They have come to rest when nothing more is counted.
    let mut before = count();
    wait_until("the sessions to wait", || {
        std::thread::sleep(Duration::from_millis(300));
        let now = count();
        let rests = now == before;
        before = now;
        rests.then_some(())
    });
    std::thread::sleep(Duration::from_secs(5));
    assert_eq!(count(), before, "they were woken");
    // A write that is none of theirs wakes none of them either.
    for (site, ..) in &sites {
        fs::write(site.path().join("mail/somebody"), "x").unwrap();
        fs::write(site.home(USER).join("note"), "x").unwrap();
    }
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(count(), before, "what others do with other files has woken them");
}

#[test]
fn fifty_sessions_of_one_mailbox_hear_the_same() {
    for form in FORMS {
        let (site, server, address) = host(form);
        let mut clients: Vec<Imap> = (0..50).map(|_| idle(address)).collect();
        assert_eq!(server.monitors().len(), clients.len());
        let begun = Instant::now();
        deliver(&site);
        for imap in &mut clients {
            hear(imap, is("EXISTS"));
        }
        support::note(&format!("{form:?}: 50 clients know of mail after {:?}", begun.elapsed()));
        let mut other = select(address);
        let begun = Instant::now();
        other.must("STORE 1 +FLAGS (\\Flagged work)");
        for imap in &mut clients {
            hear(imap, |said| match said {
                Said::Fetch(1, items) => items[0].1.words().iter().any(|word| word == "work"),
                _ => false,
            });
        }
        support::note(&format!("{form:?}: 50 clients know of a flag after {:?}", begun.elapsed()));
        // All of them are read-write: each sets a flag, and all hear of all.
        for imap in &mut clients {
            imap.send(b"DONE\r\n").unwrap();
            hear(imap, |said| matches!(said, Said::End(..)));
        }
        std::thread::scope(|scope| {
            for (number, imap) in clients.iter_mut().enumerate() {
                scope.spawn(move || {
                    imap.must(&format!("STORE 2 +FLAGS.SILENT (k{})", number % 30));
                });
            }
        });
        for imap in &mut clients {
            imap.must("NOOP");
            let said = imap.must("FETCH 2 FLAGS");
            let flags = said.iter().find_map(|said| match said {
                Said::Fetch(2, items) => Some(items[0].1.words()),
                _ => None,
            });
            let keywords = flags.unwrap().into_iter().filter(|word| word.starts_with('k')).count();
            assert_eq!(keywords, 30, "{imap}");
        }
    }
}

#[test]
fn a_folder_that_gets_another_name_under_clients_that_wait_keeps_its_marks() {
    for form in FORMS {
        let plan = match form {
            Form::Mbox => form.plan(),
            Form::Maildir => form.plan().set("paths", "folders", "\"%h/Maildir/\""),
        };
        let site = plan.build();
        let (server, address) = site.serve("imapd");
        let mut imap = Imap::log_in(address, USER, "Watts?Watt?");
        imap.must("CREATE New");
        imap.must("CREATE First");
        for _ in 0..5 {
            imap.ask_with("APPEND First", b"Subject: x\r\n\r\nx\r\n").unwrap();
        }
        // UIDs are known from now on.
        imap.must("STATUS First (UIDNEXT)");
        for number in 0..10 {
            let (from, to) =
                if number % 2 == 0 { ("First", "New/Name") } else { ("New/Name", "First") };
            let mut waiting: Vec<Imap> = (0..4)
                .map(|_| {
                    let mut imap = Imap::log_in(address, USER, "Watts?Watt?");
                    imap.must(&format!("SELECT {from}"));
                    imap
                })
                .collect();
            let flag = format!("k{number}");
            waiting[0].must(&format!("STORE 2:3 +FLAGS ({flag} \\Flagged)"));
            waiting.iter_mut().for_each(go);
            imap.must(&format!("RENAME {from} {to}"));
            for one in &mut waiting {
                // The mailbox by that name is gone.
                while one.hear().is_ok() {}
            }
            let said = format!("{:?}", imap.must(&format!("EXAMINE {to}")));
            assert!(said.contains("Number(5, \"EXISTS\")"), "{form:?}, {number}: {said}");
            let said = imap.must("FETCH 2 (UID FLAGS)");
            let said = format!("{said:?}");
            assert!(
                said.contains(&flag) && said.contains("\\\\Flagged"),
                "{form:?}, {number}: {said}"
            );
            assert!(said.contains("(\"UID\", Word(\"2\"))"), "{form:?}, {number}: {said}");
            imap.must("UNSELECT");
        }
        assert!(!server.log().contains("panicked"));
    }
}

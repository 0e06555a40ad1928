//! The queue's runner where something goes wrong: no message is lost, and none holds up the others.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests and their helpers fail by panicking"
)]

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::fs::chown;
use std::process::Stdio;

use tempfile::TempDir;

use support::run::{Server, run};
use support::site::{Site, behind, program};
use support::{is_root, need_root, wait_until};

const NONE: [&str; 0] = [];

fn text(subject: &str) -> Vec<u8> {
    format!("Subject: {subject}\n\nx\n").into_bytes()
}

#[test]
fn a_message_that_can_not_be_brought_in_now_holds_up_no_other() {
    let site = Site::new();
    let (_smtpd, address) = site.serve("smtpd");
    Site::send(address, "a@example.org", &["hunt@smkwlab.net"], "Subject: small\n\nx\n");
    let large = [text("large"), vec![b'x'; 100_000]].concat();
    site.sendmail("alice", &["hunt"], &large).expect(0);
    // No file may grow beyond 16 KiB: the copy of the large one can't be made.
    let limited = ["/bin/sh", "-c", "ulimit -f 32; exec \"$@\"", "sh"];
    // 75: who started the runner because drop/ is not empty shall wait before the next one.
    let ran = run(&mut behind(&limited, &site.command("mta-queue")), b"").expect(75);
    assert_eq!(site.messages("hunt").len(), 1, "{ran}");
    assert_eq!(site.queued_in("drop").len(), 1);
    site.mta_queue(&NONE).expect(0);
    assert_eq!(site.messages("hunt").len(), 2);
    assert_eq!(site.queued(), NONE);
}

#[test]
fn a_message_that_can_not_be_read_now_waits_and_is_not_called_damaged() {
    let site = Site::new();
    let (_smtpd, address) = site.serve("smtpd");
    let id = Site::send(address, "a@example.org", &["hunt@smkwlab.net"], "Subject: x\n\nx\n");
    let entry = site.queue().join("incoming").join(&id);
    fs::set_permissions(&entry, fs::Permissions::from_mode(0o000)).unwrap();
    let ran = site.mta_queue(&NONE).expect(0);
    assert_eq!(site.queued_in("incoming"), NONE, "a path unit must not spin");
    assert_eq!(site.queued_in("corrupt"), NONE, "{ran}");
    let name = site.queued_in("deferred").remove(0);
    let entry = site.queue().join("deferred").join(name);
    fs::set_permissions(&entry, fs::Permissions::from_mode(0o600)).unwrap();
    site.mta_queue(&["--flush"]).expect(0);
    assert_eq!(site.messages("hunt").len(), 1);
}

#[test]
fn a_due_time_that_only_a_wrong_clock_can_have_given_does_not_count() {
    let site = Site::new();
    let (_smtpd, address) = site.serve("smtpd");
    let id = Site::send(address, "a@example.org", &["hunt@smkwlab.net"], "Subject: x\n\nx\n");
    let queue = site.queue();
    let far = queue.join("deferred").join(format!("4102444800.{id}"));
    fs::rename(queue.join("incoming").join(&id), far).unwrap();
    site.mta_queue(&NONE).expect(0);
    assert_eq!(site.messages("hunt").len(), 1);
}

/// A host where `local-deliver` for toshi never says a word.
fn with_a_silent_user() -> (Site, TempDir) {
    let directory = tempfile::tempdir().unwrap();
    let script = format!(
        "#!/bin/sh\ncase \" $* \" in *' toshi '*) exec sleep 60;; esac\nexec {} \"$@\"\n",
        program("local-deliver")
    );
    let path = directory.path().join("local-deliver");
    fs::write(&path, script).unwrap();
    for path in [directory.path(), &path] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let site = Site::plan()
        .set("queue", "wakeup", "\"nudge\"")
        .set("paths", "libexec", &format!("{:?}", directory.path().to_str().unwrap()))
        .build();
    (site, directory)
}

#[test]
fn a_delivery_that_hangs_holds_up_no_mail_that_comes_later() {
    let (site, _programs) = with_a_silent_user();
    let mut command = site.command("mta-queue");
    command.arg("--watch").stdin(Stdio::null()).stdout(Stdio::null());
    let _runner = Server::start(&mut command);
    let (_smtpd, address) = site.serve("smtpd");
    Site::send(address, "a@example.org", &["toshi@smkwlab.net"], "Subject: x\n\nx\n");
    wait_until("toshi's message to be taken", || (site.queued_in("work").len() == 1).then_some(()));
    Site::send(address, "a@example.org", &["hunt@smkwlab.net"], "Subject: x\n\nx\n");
    site.wait_for_mail("hunt", 1);
    site.sendmail("alice", &["bob"], &text("x")).expect(0);
    site.wait_for_mail("bob", 1);
}

#[test]
fn a_delivery_agent_is_in_no_session_of_the_terminal_that_started_the_runner() {
    let directory = tempfile::tempdir().unwrap();
    let told = directory.path().join("told");
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let path = directory.path().join("local-deliver");
    let script = format!(
        "#!/bin/sh\nopen=$(ls /proc/$$/fd | tr '\\n' ' ')\n{{ cut -d' ' -f6 /proc/$$/stat; echo $open; }} >{0}.new\nmv {0}.new {0}\n",
        told.display()
    );
    fs::write(&path, script).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    let site = Site::plan()
        .set("paths", "libexec", &format!("{:?}", directory.path().to_str().unwrap()))
        .build();
    site.sendmail("alice", &["hunt"], &text("x")).expect(0);
    site.mta_queue(&NONE).expect(0);
    let told = wait_until("the script", || fs::read_to_string(&told).ok());
    let (session, open) = told.split_once('\n').unwrap();
    let stat = fs::read_to_string("/proc/self/stat").unwrap();
    let own_session = stat.rsplit(") ").next().unwrap().split(' ').nth(3).unwrap();
    assert_ne!(session, own_session);
    // 3 is the pipe from ls, and 10 the script itself, as dash opens it.
    let of_the_shell = |number: &str| ["0", "1", "2", "3", "10"].contains(&number);
    assert!(open.split_whitespace().all(of_the_shell), "left open for a user: {open}");
}

#[test]
fn a_queue_of_group_root_is_refused_with_root() {
    if !need_root() {
        return;
    }
    let site = Site::new();
    chown(site.queue(), Some(Site::queue_uid()), Some(0)).unwrap();
    let ran = site.mta_queue(&NONE);
    assert_eq!(ran.code(), Some(72), "{ran}");
    assert!(ran.stderr.contains("group"), "{ran}");
    assert!(is_root());
}

#[test]
fn a_file_in_place_of_the_wake_fifo_is_never_written_to() {
    let site = Site::plan().set("queue", "wakeup", "\"nudge\"").build();
    let wake = site.queue().join("wake");
    fs::remove_file(&wake).unwrap();
    fs::write(&wake, "precious").unwrap();
    fs::set_permissions(&wake, fs::Permissions::from_mode(0o666)).unwrap();
    let (_smtpd, address) = site.serve("smtpd");
    Site::send(address, "a@example.org", &["hunt@smkwlab.net"], "Subject: x\n\nx\n");
    site.sendmail("alice", &["hunt"], &text("x")).expect(0);
    assert_eq!(fs::read(&wake).unwrap(), b"precious");
}

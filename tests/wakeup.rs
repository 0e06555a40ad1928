//! `[queue] wakeup = "spawn"`: a listening parent starts runners, one at a time.

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

use nix::sys::signal::Signal;

use tempfile::TempDir;

use support::site::{Site, program};
use support::wait_until;

/// A host with spawn, whose delivery agents take their time and say when they start.
fn slow_site() -> (Site, TempDir) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("local-deliver");
    let script = format!("#!/bin/sh\nsleep 0.5\nexec {} \"$@\"\n", program("local-deliver"));
    fs::write(&path, script).unwrap();
    for path in [directory.path(), &path] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let site = Site::plan()
        .set("queue", "wakeup", "\"spawn\"")
        .set("paths", "libexec", &format!("{:?}", directory.path().to_str().unwrap()))
        .build();
    (site, directory)
}

/// Children of a process that are called `name`.
fn children(parent: i32, name: &str) -> Vec<i32> {
    fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok())
        .filter(|pid: &i32| {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            let Some((head, rest)) = stat.rsplit_once(") ") else {
                return false;
            };
            head.ends_with(&format!("({name}"))
                && rest.split(' ').nth(1) == Some(&parent.to_string())
        })
        .collect()
}

#[test]
fn one_runner_at_a_time_and_what_comes_during_a_run_is_delivered() {
    let (site, _programs) = slow_site();
    let (one, first) = site.serve("smtpd");
    let (two, second) = site.serve("smtpd");
    for count in 0..6 {
        let address = if count % 2 == 0 { first } else { second };
        Site::send(address, "a@example.org", &["hunt@smkwlab.net"], "Subject: x\n\nx\n");
        let runners =
            children(one.pid(), "mta-queue").len() + children(two.pid(), "mta-queue").len();
        assert!(runners <= 1, "{runners} runners");
        std::thread::sleep(std::time::Duration::from_millis(150));
    }
    site.wait_for_mail("hunt", 6);
    wait_until("an empty queue", || site.queued().is_empty().then_some(()));
}

#[test]
fn a_listener_that_is_killed_is_followed_by_the_other_one() {
    let (site, _programs) = slow_site();
    let (one, _) = site.serve("smtpd");
    std::thread::sleep(std::time::Duration::from_millis(300));
    let (_two, _address) = site.serve("smtpd");
    std::thread::sleep(std::time::Duration::from_millis(300));
    one.signal(Signal::SIGKILL);
    // No client comes to the other listener: it must notice by itself.
    site.sendmail("alice", &["hunt"], b"Subject: x\n\nx\n").expect(0);
    site.wait_for_mail("hunt", 1);
}

#[test]
fn a_runner_that_is_killed_is_followed_by_another_one() {
    let (site, _programs) = slow_site();
    let (server, address) = site.serve("smtpd");
    // The run at the start, over an empty queue.
    std::thread::sleep(std::time::Duration::from_millis(300));
    Site::send(address, "a@example.org", &["hunt@smkwlab.net"], "Subject: x\n\nx\n");
    let runner = wait_until("a runner", || children(server.pid(), "mta-queue").first().copied());
    wait_until("it to have the message", || (site.queued_in("work").len() == 1).then_some(()));
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(runner), Signal::SIGKILL).unwrap();
    site.wait_for_mail("hunt", 1);
}

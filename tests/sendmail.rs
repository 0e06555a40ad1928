//! `sendmail` as the programs of a host call it: cron, PHP, mailx, git, mutt.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests and their helpers fail by panicking"
)]

mod support;

use std::fs;
use std::process::Command;

use support::need_root;
use support::run::{Ran, run};
use support::site::{Site, behind};

const NONE: [&str; 0] = [];

/// Runs `sendmail` as a user behind a shell that says something first.
fn after(site: &Site, user: &str, shell: &str, arguments: &[&str], message: &[u8]) -> Ran {
    let mut command = site.command("sendmail");
    command.args(arguments);
    let script = format!("{shell}; exec \"$@\"");
    let mut command: Command = behind(&["/bin/sh", "-c", &script, "sh"], &command);
    site.become_user(&mut command, user);
    run(&mut command, message)
}

#[test]
fn a_callers_umask_does_not_keep_the_message_from_the_queue() {
    let site = Site::new();
    after(&site, "alice", "umask 077", &["hunt"], b"Subject: x\n\nx\n").expect(0);
    site.mta_queue(&NONE).expect(0);
    assert_eq!(site.queued(), NONE);
    assert_eq!(site.messages("hunt").len(), 1);
}

#[test]
fn root_needs_no_setgid_bit_to_be_read_by_the_queues_owner() {
    if !need_root() {
        return;
    }
    let site = Site::new();
    run(site.command("sendmail").arg("hunt"), b"Subject: x\n\nx\n").expect(0);
    site.mta_queue(&NONE).expect(0);
    assert_eq!(site.queued(), NONE);
    assert_eq!(site.messages("hunt").len(), 1);
}

#[test]
fn smtp_on_stdin_puts_a_message_into_the_drop_box() {
    let site = Site::new();
    let session =
        b"EHLO localhost\nMAIL FROM:<alice>\nRCPT TO:<hunt>\nDATA\nSubject: bs\n\nx\n.\nQUIT\n";
    let ran = site.sendmail("alice", &["-bs"], session).expect(0);
    assert!(ran.text().contains("250 2.0.0 Ok: queued as "), "{ran}");
    assert_eq!(site.queued_in("drop").len(), 1);
    site.mta_queue(&NONE).expect(0);
    assert_eq!(site.messages("hunt").len(), 1);
}

#[test]
fn a_session_that_root_starts_is_not_root() {
    if !need_root() {
        return;
    }
    let site = Site::new();
    let mut command = site.command("sendmail");
    command.arg("-bs");
    let (server, mut peer) = Site::local_session_of(command);
    peer.greet();
    let child = fs::read_to_string(format!("/proc/{0}/task/{0}/children", server.pid())).unwrap();
    let status = fs::read_to_string(format!("/proc/{}/status", child.trim())).unwrap();
    let uid = format!("Uid:\t{0}\t{0}\t{0}\t{0}\n", Site::queue_uid());
    assert!(status.contains(&uid), "{status}");
    let reply = peer.mail("alice@smkwlab.net", &["hunt@smkwlab.net"], b"Subject: x\n\nx\n");
    assert!(reply.starts_with("250 2.0.0 "), "{reply}");
    site.mta_queue(&NONE).expect(0);
    assert_eq!(site.messages("hunt").len(), 1);
}

#[test]
fn an_option_may_be_given_twice_and_the_last_one_counts() {
    let site = Site::new();
    // PHP adds mail()'s own parameters to those of sendmail_path.
    let arguments = ["-t", "-i", "-fweb@smkwlab.net", "-oi", "-i", "-t", "-falice@smkwlab.net"];
    site.sendmail("alice", &arguments, b"To: hunt\nSubject: x\n\nx\n").expect(0);
    site.mta_queue(&NONE).expect(0);
    let messages = site.messages("hunt");
    assert_eq!(messages.len(), 1);
    assert_eq!(messages[0].field("Return-Path"), Some("<alice@smkwlab.net>"));
}

#[test]
fn the_command_lines_of_other_programs_are_understood() {
    let site = Site::new();
    let lines: [&[&str]; 8] = [
        // Debian's cron, cronie, mutt with dsn_notify, git send-email, s-nail, Exim's and Postfix's options.
        &["-i", "-FCronDaemon", "-B8BITMIME", "-oem", "hunt"],
        &["-FCronDaemon", "-i", "-odi", "-oem", "-oi", "-t", "-f", "alice"],
        &["-oem", "-oi", "-B8BITMIME", "-N", "failure", "-R", "hdrs", "-f", "alice", "--", "hunt"],
        &["-f", "alice@smkwlab.net", "-i", "hunt@smkwlab.net"],
        &["-i", "-m", "-v", "-r", "alice", "--", "hunt"],
        &["-Am", "-G", "-L", "tag", "-V", "envelope", "-h", "3", "hunt"],
        &["-O", "DeliveryMode=b", "-Nnever", "-U", "-n", "hunt"],
        &["-ti", "-Falice", "-falice"],
    ];
    for (count, line) in lines.iter().enumerate() {
        let ran = site.sendmail("alice", line, b"To: hunt\nSubject: x\n\nx\n");
        assert_eq!(ran.code(), Some(0), "{line:?}: {ran}");
        site.mta_queue(&NONE).expect(0);
        assert_eq!(site.messages("hunt").len(), count + 1, "{line:?}");
    }
}

#[test]
fn a_from_line_above_the_header_is_no_part_of_the_message() {
    let site = Site::new();
    let message =
        b"From alice Mon Jun 21 03:15:20 2004\n>From x\nTo: hunt\nSubject: x\n\nFrom here\n";
    site.sendmail("alice", &["-t"], message).expect(0);
    site.mta_queue(&NONE).expect(0);
    let messages = site.messages("hunt");
    assert_eq!(messages.len(), 1);
    assert_eq!(messages[0].field("Subject"), Some("x"));
    assert!(messages[0].text().ends_with("From here\n"), "{}", messages[0].text());
}

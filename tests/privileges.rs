//! Who each process is, and what the one that speaks to strangers can't do, asked of the kernel.
//!
//! As root only: without it there is one user id. `gdb` makes a live session try what an attacker
//! in it would.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests and their helpers fail by panicking"
)]

mod support;

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Command, Stdio};

use support::peer::Peer;
use support::run::{Server, children, run};
use support::site::{Site, activated};
use support::tls::{Pair, VERSIONS};
use support::{need, need_root, wait_until};

/// One field of /proc/PID/status.
fn status(pid: i32, field: &str) -> String {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))
        .unwrap_or_else(|| panic!("no {field} in {text}"));
    line.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The one child of a process, once it is there.
#[track_caller]
fn child(pid: i32) -> i32 {
    wait_until("a child", || match children(pid)[..] {
        [child] => Some(child),
        _ => None,
    })
}

/// A server's one session, once it is there: its child that speaks where a zygote makes them, else
/// its monitor.
#[track_caller]
fn session_of(server: &Server) -> i32 {
    wait_until("a session", || match server.sessions()[..] {
        [session] => Some(session),
        _ => None,
    })
}

/// That a process has become somebody for good.
#[track_caller]
fn assert_is(pid: i32, uid: u32, gid: u32) {
    let all = |id: u32| format!("{id} {id} {id} {id}");
    assert_eq!(status(pid, "Uid"), all(uid));
    assert_eq!(status(pid, "Gid"), all(gid));
    let groups = status(pid, "Groups");
    assert!(groups.is_empty() || groups == gid.to_string(), "{groups}");
    for set in ["CapEff", "CapPrm", "CapInh", "CapAmb"] {
        assert_eq!(status(pid, set), "0000000000000000", "{set}");
    }
}

/// That a process is locked up: no new rights, a list of system calls, an empty root directory.
#[track_caller]
fn assert_is_jailed(pid: i32) {
    assert_eq!(status(pid, "NoNewPrivs"), "1");
    assert_eq!(status(pid, "Seccomp"), "2");
    let root = format!("/proc/{pid}/root");
    assert_ne!(fs::read_link(&root).unwrap(), Path::new("/"));
    assert_eq!(fs::read_dir(&root).unwrap().count(), 0, "its root is empty");
    assert_eq!(fs::read_link(format!("/proc/{pid}/cwd")).unwrap(), fs::read_link(&root).unwrap());
    // Another process of its user can neither trace it nor read its memory.
    let owner = fs::metadata(format!("/proc/{pid}/mem")).unwrap();
    assert_eq!(std::os::unix::fs::MetadataExt::uid(&owner), 0, "it is not dumpable");
}

/// The files that a process has open, but for what every session needs: its connections, its
/// empty root directory, and /proc, by which it names a new file where the kernel is old.
fn open_files(pid: i32) -> Vec<String> {
    let mut files: Vec<String> = fs::read_dir(format!("/proc/{pid}/fd"))
        .unwrap()
        .map(|entry| fs::read_link(entry.unwrap().path()).unwrap())
        .map(|path| path.display().to_string())
        .filter(|file| {
            let kind = file.split(':').next().unwrap_or_default();
            let own = file == "/proc";
            let root = file.starts_with("/tmp/hikyaku-") && file.ends_with(" (deleted)");
            !matches!(kind, "socket" | "pipe" | "/dev/null") && !own && !root
        })
        .collect();
    files.sort();
    files
}

/// A listener and a session at it.
fn session(site: &Site, name: &str) -> (Server, Peer) {
    let (server, address) = site.serve(name);
    let mut peer = Peer::connect(address);
    assert!(peer.line().starts_with(['2', '+', '*']));
    (server, peer)
}

fn nobody() -> (u32, u32) {
    let user = nix::unistd::User::from_name("nobody").unwrap().unwrap();
    (user.uid.as_raw(), user.gid.as_raw())
}

#[test]
fn the_smtp_session_is_the_queues_owner_in_a_jail_and_holds_incoming_only() {
    if !need_root() {
        return;
    }
    let site = Site::new();
    let (server, mut peer) = session(&site, "smtpd");
    let (zygote, session) = (server.zygote().unwrap(), session_of(&server));
    assert_eq!(status(server.pid(), "Uid"), "0 0 0 0");
    assert_eq!(status(server.pid(), "Threads"), "1", "a process that forks has one thread");
    let incoming = site.queue().join("incoming").display().to_string();
    for pid in [zygote, session] {
        assert_is(pid, Site::queue_uid(), Site::queue_uid());
        assert_is_jailed(pid);
        assert_eq!(status(pid, "Threads"), "1", "a process that forks has one thread");
        assert_eq!(open_files(pid), std::slice::from_ref(&incoming));
    }
    // It has the way to its parent and that to the policy process, and none to its siblings.
    let sockets = |pid: i32| {
        let files = fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
        let files = files.map(|file| fs::read_link(file.unwrap().path()).unwrap());
        files.filter(|file| file.to_string_lossy().starts_with("socket:")).count()
    };
    // The zygote lets go of its client's once the session is there.
    wait_until("one socket and three", || {
        ((sockets(zygote), sockets(session)) == (1, 3)).then_some(())
    });
    // It does its work like this.
    peer.command("EHLO client.example");
    let reply = peer.mail("a@example.org", &["hunt@smkwlab.net"], b"Subject: x\n\nx\n");
    assert!(reply.starts_with("250 2.0.0 "), "{reply}");
    assert_is_jailed(session);
}

#[test]
fn under_tls_the_smtp_session_is_the_same() {
    if !need_root() {
        return;
    }
    let pair = Pair::new();
    fs::set_permissions(pair.key(), fs::Permissions::from_mode(0o600)).unwrap();
    let site = pair.plan(Site::plan()).build();
    let (server, mut peer) = session(&site, "smtpd");
    let session = session_of(&server);
    peer.command("EHLO client.example");
    peer.command("STARTTLS");
    peer.start_tls(pair.client(VERSIONS)).unwrap();
    peer.command("EHLO client.example");
    assert_is(session, Site::queue_uid(), Site::queue_uid());
    assert_is_jailed(session);
    assert_eq!(open_files(session), [site.queue().join("incoming").display().to_string()]);
    let reply = peer.mail("a@example.org", &["hunt@smkwlab.net"], b"Subject: x\n\nx\n");
    assert!(reply.starts_with("250 2.0.0 "), "{reply}");
}

/// Whether these bytes stand anywhere in the memory of a process.
fn is_in_memory(pid: i32, wanted: &[u8]) -> bool {
    let memory = fs::File::open(format!("/proc/{pid}/mem")).unwrap();
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
    maps.lines().any(|line| {
        let range = line.split(' ').next().unwrap().split_once('-').unwrap();
        let (from, to) = (range.0, range.1);
        let parse = |number| u64::from_str_radix(number, 16).unwrap();
        let mut bytes = vec![0; usize::try_from(parse(to) - parse(from)).unwrap()];
        // Some pages are the kernel's, and can't be read.
        let read = memory.read_exact_at(&mut bytes, parse(from));
        read.is_ok() && bytes.windows(wanted.len()).any(|window| window == wanted)
    })
}

/// The child of smtpd that asks DNS, once it is locked up.
#[track_caller]
fn policy(smtpd: &Server) -> i32 {
    wait_until("the policy process in its cell", || {
        smtpd.policy().filter(|pid| status(*pid, "Seccomp") == "2")
    })
}

#[test]
fn the_resolver_is_nobody_opens_no_file_and_has_no_key() {
    if !need_root() {
        return;
    }
    let pair = Pair::new();
    let site = pair.plan(Site::plan()).build();
    let (server, address) = site.serve("smtpd");
    let mut peer = Peer::connect_from([127, 0, 0, 2].into(), address);
    peer.greet();
    let resolver = policy(&server);
    let (uid, gid) = nobody();
    assert_is(resolver, uid, gid);
    assert_eq!(status(resolver, "NoNewPrivs"), "1");
    assert_eq!(status(resolver, "Threads"), "1");
    let files = open_files(resolver);
    let aliases = site.path().join("aliases");
    let is_its_own =
        |file: &String| file.starts_with("anon_inode:") || *file == aliases.to_str().unwrap();
    assert!(files.iter().all(is_its_own), "{files:?}");
    let key = fs::read_to_string(pair.key()).unwrap();
    let secret = key.lines().nth(1).unwrap().as_bytes();
    assert!(is_in_memory(server.pid(), secret), "the listener has it");
    assert!(!is_in_memory(resolver, secret), "the resolver has not");
    // A name that is asked for from here on can't be had: nobody answers on the port of the site.
    let reply = peer.mail("a@example.org", &["hunt@smkwlab.net"], b"Subject: x\n\nx\n");
    assert!(reply.starts_with("250 2.0.0 "), "{reply}");
}

#[test]
#[cfg_attr(not(target_arch = "x86_64"), ignore = "the numbers are those of x86_64")]
fn the_resolver_can_not_open_exec_signal_or_fork() {
    if !need_root() || !need("gdb") {
        return;
    }
    let site = Site::new();
    let (server, address) = site.serve("smtpd");
    let mut peer = Peer::connect_from([127, 0, 0, 2].into(), address);
    peer.greet();
    let resolver = policy(&server);
    let calls: Vec<_> = FORBIDDEN.iter().filter(|(what, _)| *what != "a socket").collect();
    let results = calls_in(resolver, &calls.iter().map(|(_, call)| *call).collect::<Vec<_>>());
    for ((what, _), result) in calls.iter().zip(results) {
        assert_eq!(result, -1, "{what}");
    }
}

/// The one monitor of a server, once it is there.
#[track_caller]
fn monitor_of(server: &Server) -> i32 {
    wait_until("a monitor", || match server.monitors()[..] {
        [monitor] => Some(monitor),
        _ => None,
    })
}

/// Logs in as `hunt`.
#[track_caller]
fn log_in(name: &str, peer: &mut Peer) {
    if name == "popd" {
        peer.pop("USER hunt");
        let answer = peer.pop("PASS Watts?Watt?");
        assert!(answer.starts_with("+OK"), "{answer}");
    } else {
        let answer = peer.imap("a LOGIN hunt Watts?Watt?");
        assert!(answer.contains("a OK "), "{answer}");
    }
}

/// That a process is the user and has nothing open that it should not have.
#[track_caller]
fn assert_is_users(name: &str, pid: i32) {
    let account = Site::account("hunt");
    assert_is(pid, account.uid, account.gid);
    let files = open_files(pid).join(" ");
    assert!(!files.contains("users"), "{name}: the passwords are closed: {files}");
    // Of the listener's.
    assert!(!files.contains("eventpoll"), "{name}: {files}");
    let owner = fs::metadata(format!("/proc/{pid}/mem")).unwrap();
    assert_eq!(std::os::unix::fs::MetadataExt::uid(&owner), 0, "it is not dumpable");
}

#[test]
fn a_login_child_is_nobody_in_a_jail_until_the_login_and_then_there_is_the_user() {
    if !need_root() {
        return;
    }
    let site = Site::new();
    support::reference::fill(&site, 2);
    for name in ["popd", "imapd"] {
        let (server, mut peer) = session(&site, name);
        let (zygote, login) = (server.zygote().unwrap(), session_of(&server));
        assert_eq!(status(server.pid(), "Uid"), "0 0 0 0");
        assert_eq!(status(server.pid(), "Threads"), "1", "a process that forks has one thread");
        let (uid, gid) = nobody();
        for pid in [zygote, login] {
            assert_is(pid, uid, gid);
            assert_is_jailed(pid);
            assert_eq!(open_files(pid), [""; 0]);
        }
        assert_eq!(server.monitors(), [0; 0], "nobody was asked yet");
        log_in(name, &mut peer);
        wait_until("the login child to end", || server.sessions().is_empty().then_some(()));
        assert_is_users(name, monitor_of(&server));
        let goes_on = if name == "popd" { peer.pop("STAT") } else { peer.imap("b NOOP") };
        assert!(goes_on.contains("OK"), "{goes_on}");
    }
}

#[test]
fn under_tls_the_login_child_stays_and_no_key_is_in_the_session() {
    if !need_root() {
        return;
    }
    let pair = Pair::new();
    let site = pair.plan_for("imap.tls", pair.plan_for("pop3.tls", Site::plan())).build();
    support::reference::fill(&site, 2);
    let key = fs::read_to_string(pair.key()).unwrap();
    let secret = key.lines().nth(1).unwrap().as_bytes();
    for (name, word) in [("popd", "pop3s"), ("imapd", "imaps")] {
        let (server, address) = site.serve_word(name, word);
        let mut peer = Peer::connect(address);
        peer.start_tls(pair.client(VERSIONS)).unwrap();
        peer.line();
        log_in(name, &mut peer);
        let (relay, monitor) = (session_of(&server), monitor_of(&server));
        let (uid, gid) = nobody();
        assert_is(relay, uid, gid);
        assert_is_jailed(relay);
        assert_eq!(open_files(relay), [""; 0]);
        assert_is_users(name, monitor);
        assert!(is_in_memory(server.pid(), secret), "the listener has the file");
        assert!(!is_in_memory(monitor, secret), "the session has not");
        // The client's socket is the relay's alone.
        let inode = |pid: i32| {
            let files = fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
            let links = files.filter_map(|file| fs::read_link(file.unwrap().path()).ok());
            links.map(|link| link.display().to_string()).collect::<Vec<_>>()
        };
        let both: Vec<String> =
            inode(relay).into_iter().filter(|file| inode(monitor).contains(file)).collect();
        assert!(both.iter().all(|file| !file.starts_with("socket:")), "{both:?}");
    }
}

#[test]
fn the_queue_runner_that_reads_mail_is_the_queues_owner() {
    if !need_root() {
        return;
    }
    let site = Site::plan().set("queue", "wakeup", "\"nudge\"").build();
    let mut command = site.command("mta-queue");
    command.arg("--watch").stdin(Stdio::null());
    let launcher = Server::start(&mut command);
    // The child that makes missing directories ends at once; the worker opens the FIFO.
    let wake = site.queue().join("wake");
    let has_wake = |pid: &i32| {
        let open = fs::read_dir(format!("/proc/{pid}/fd"));
        open.is_ok_and(|mut open| {
            open.any(|fd| fd.is_ok_and(|fd| fs::read_link(fd.path()).is_ok_and(|to| to == wake)))
        })
    };
    let worker = wait_until("the worker", || children(launcher.pid()).into_iter().find(has_wake));
    assert_is(worker, Site::queue_uid(), Site::queue_uid());
    assert_eq!(status(launcher.pid(), "Uid"), "0 0 0 0");
    // Users' commands may need a setgid program: no_new_privs is on no way to local-deliver.
    assert_eq!(status(launcher.pid(), "NoNewPrivs"), "0");
}

/// What calls in a live process return, by gdb; each is a C expression.
fn calls_in(pid: i32, calls: &[&str]) -> Vec<i64> {
    let mut command = Command::new("gdb");
    command.args(["-nx", "-batch", "-p", &pid.to_string()]);
    for call in calls {
        command.arg("-ex").arg(format!("printf \"RESULT %ld\\n\", (long){call}"));
    }
    let ran = run(&mut command, b"");
    let results: Vec<i64> = ran
        .text()
        .lines()
        .filter_map(|line| line.strip_prefix("RESULT ")?.trim().parse().ok())
        .collect();
    assert_eq!(results.len(), calls.len(), "{ran}");
    results
}

/// The raw call: no library, no memory of its own needed but the stack.
const FORBIDDEN: [(&str, &str); 13] = [
    ("open of a file", "((long(*)(long,...))syscall)(257, -100, \"/etc/passwd\", 0)"),
    ("open of the root", "((long(*)(long,...))syscall)(257, -100, \"/\", 0)"),
    ("open of the parent", "((long(*)(long,...))syscall)(257, -100, \"..\", 0)"),
    ("execve", "((long(*)(long,...))syscall)(59, \"/bin/sh\", 0, 0)"),
    ("a socket", "((long(*)(long,...))syscall)(41, 2, 1, 0)"),
    ("a local socket", "((long(*)(long,...))syscall)(41, 1, 1, 0)"),
    ("connect", "((long(*)(long,...))syscall)(42, 0, 0, 0)"),
    ("kill", "((long(*)(long,...))syscall)(62, 1, 0)"),
    ("fork", "((long(*)(long,...))syscall)(57)"),
    ("fork as the library has it", "((long(*)(long,...))syscall)(56, 0x1200011, 0, 0, 0, 0)"),
    ("setuid", "((long(*)(long,...))syscall)(105, 0)"),
    ("ptrace", "((long(*)(long,...))syscall)(101, 16, 1, 0, 0)"),
    ("mount", "((long(*)(long,...))syscall)(165, 0, 0, 0, 0, 0)"),
];

#[test]
#[cfg_attr(not(target_arch = "x86_64"), ignore = "the numbers are those of x86_64")]
fn a_session_can_not_open_exec_connect_signal_or_fork() {
    if !need_root() || !need("gdb") {
        return;
    }
    let site = Site::new();
    let calls: Vec<&str> = FORBIDDEN.iter().map(|(_, call)| *call).collect();
    for name in ["smtpd", "popd", "imapd"] {
        let (server, mut peer) = session(&site, name);
        for ((what, _), result) in FORBIDDEN.iter().zip(calls_in(session_of(&server), &calls)) {
            assert_eq!(result, -1, "{name}: {what}");
        }
        // It lives on.
        assert!(peer.pop("a NOOP").starts_with(['2', '5', '-', 'a']));
    }
    // Neither can a relay.
    let pair = Pair::new();
    let site = pair.plan_for("imap.tls", Site::plan()).build();
    let (server, address) = site.serve_word("imapd", "imaps");
    let mut peer = Peer::connect(address);
    peer.start_tls(pair.client(VERSIONS)).unwrap();
    peer.line();
    log_in("imapd", &mut peer);
    for ((what, _), result) in FORBIDDEN.iter().zip(calls_in(session_of(&server), &calls)) {
        assert_eq!(result, -1, "relay: {what}");
    }
    assert!(peer.imap("b NOOP").contains("b OK"));
}

#[test]
#[cfg_attr(not(target_arch = "x86_64"), ignore = "the numbers are those of x86_64")]
fn the_smtp_session_can_not_read_what_others_have_sent() {
    if !need_root() || !need("gdb") {
        return;
    }
    let site = Site::new();
    let (server, address) = site.serve("smtpd");
    let id = Site::send(address, "a@example.org", &["hunt@smkwlab.net"], "Subject: secret\n\nx\n");
    wait_until("the first session to end", || server.sessions().is_empty().then_some(()));
    let peer = Peer::connect(address);
    let stranger = session_of(&server);
    let incoming = site.queue().join("incoming").display().to_string();
    let held = fs::read_dir(format!("/proc/{stranger}/fd"))
        .unwrap()
        .map(|entry| entry.unwrap())
        .find(|entry| fs::read_link(entry.path()).unwrap().display().to_string() == incoming)
        .expect("it holds incoming/");
    let fd = held.file_name().into_string().unwrap();
    let read = format!("((long(*)(long,...))syscall)(257, {fd}, \"{id}\", 0)");
    let list = format!("((long(*)(long,...))syscall)(257, {fd}, \".\", 65536)");
    let remove = format!("((long(*)(long,...))syscall)(263, {fd}, \"{id}\", 0)");
    let out = format!("((long(*)(long,...))syscall)(257, {fd}, \"../hold\", 65536)");
    let results = calls_in(stranger, &[&read, &list, &remove, &out]);
    assert_eq!(results, [-1, -1, -1, -1], "read, list, remove, leave");
    assert_eq!(site.queued_in("incoming"), [id]);
    drop(peer);
}

#[test]
fn no_program_serves_root_or_system_accounts() {
    if !need_root() {
        return;
    }
    let site = Site::plan().set("users", "source", "\"system\"").build();
    let ran = run(
        site.command("local-deliver").args(["-f", "a@example.org", "-d", "root"]),
        b"Subject: x\n\nx\n",
    );
    assert!(matches!(ran.code(), Some(67 | 77)), "{ran}");
    let ran = run(
        site.command("local-deliver").args(["-f", "a@example.org", "-d", "daemon"]),
        b"Subject: x\n\nx\n",
    );
    assert!(matches!(ran.code(), Some(67 | 77)), "{ran}");
    assert_eq!(site.spool("root"), b"");
    let (_server, address) = site.serve("smtpd");
    let mut peer = Peer::connect(address);
    peer.greet();
    peer.command("MAIL FROM:<>");
    for name in ["root", "daemon", "bin"] {
        let reply = peer.command(format!("RCPT TO:<{name}@smkwlab.net>"));
        assert!(reply.starts_with("550 5.1.1 "), "{reply}");
    }
}

#[test]
fn a_user_can_deliver_to_no_one_else() {
    if !need_root() {
        return;
    }
    let site = Site::new();
    site.fill("bob", b"");
    let mut command = site.command("local-deliver");
    command.args(["-f", "a@example.org", "-d", "bob"]);
    site.become_user(&mut command, "alice");
    let ran = run(&mut command, b"Subject: x\n\nx\n");
    assert!(matches!(ran.code(), Some(67 | 73 | 75 | 77)), "{ran}");
    assert_eq!(site.spool("bob"), b"");
}

#[test]
fn delivery_never_follows_a_link_or_touches_what_is_not_the_users() {
    if !need_root() {
        return;
    }
    let site = Site::new();
    let message = b"Subject: x\n\nx\n";
    let victim = site.path().join("victim");
    fs::write(&victim, "untouched\n").unwrap();
    // A symbolic link where the mailbox should be.
    std::os::unix::fs::symlink(&victim, site.inbox("hunt")).unwrap();
    let command = |user: &str| {
        let mut command = site.command("local-deliver");
        command.args(["-f", "a@example.org", "-d", user]);
        command
    };
    assert_ne!(run(&mut command("hunt"), message).code(), Some(0));
    // A file of somebody else.
    fs::write(site.inbox("bob"), "root's\n").unwrap();
    assert_ne!(run(&mut command("bob"), message).code(), Some(0));
    assert_eq!(site.spool("bob"), b"root's\n");
    // A second name of a user's own file.
    site.fill("alice", b"");
    fs::hard_link(site.inbox("alice"), site.path().join("mail/alice-too")).unwrap();
    assert_ne!(run(&mut command("alice"), message).code(), Some(0));
    assert_eq!(site.spool("alice"), b"");
    assert_eq!(fs::read_to_string(&victim).unwrap(), "untouched\n");
}

/// A listening LMTP agent and a client of it.
fn lmtp_session(site: &Site) -> (Server, Peer) {
    let listener = UnixListener::bind(site.path().join("lmtp")).unwrap();
    let mut command = activated(site.command("local-deliver").arg("--lmtp"));
    command.stdin(OwnedFd::from(listener)).stdout(Stdio::null());
    let server = Server::start(&mut command);
    let mut peer = Peer::new(UnixStream::connect(site.path().join("lmtp")).unwrap());
    assert!(peer.line().starts_with("220"));
    (server, peer)
}

#[test]
fn the_lmtp_session_is_nobody_in_a_jail_and_each_agent_is_its_user() {
    if !need_root() {
        return;
    }
    let site = Site::new();
    let (server, mut peer) = lmtp_session(&site);
    let monitor = session_of(&server);
    let session = child(monitor);
    assert_eq!(status(monitor, "Uid"), "0 0 0 0");
    let (uid, gid) = nobody();
    assert_is(session, uid, gid);
    assert_is_jailed(session);
    assert_eq!(open_files(session), Vec::<String>::new());
    peer.command("LHLO client.example");
    peer.command("MAIL FROM:<>");
    for user in ["hunt", "alice"] {
        assert!(peer.command(format!("RCPT TO:<{user}@smkwlab.net>")).starts_with("250"));
    }
    peer.command("DATA");
    peer.send("Subject: x\r\n\r\nx\r\n.\r\n");
    assert!(peer.line().starts_with("250") && peer.line().starts_with("250"));
    // The text's file, which has no name.
    let files = open_files(session);
    assert!(matches!(&files[..], [one] if one.ends_with(" (deleted)")), "{files:?}");
    let agents = &children(monitor)[1..];
    for (agent, user) in agents.iter().zip(["hunt", "alice"]) {
        let account = Site::account(user);
        assert_is(*agent, account.uid, account.gid);
        assert_eq!(open_files(*agent), Vec::<String>::new());
        // Their commands may need setgid programs.
        assert_eq!(status(*agent, "NoNewPrivs"), "0");
        let owner = fs::metadata(format!("/proc/{agent}/mem")).unwrap();
        assert_eq!(std::os::unix::fs::MetadataExt::uid(&owner), 0, "it is not dumpable");
    }
    assert_eq!(agents.len(), 2);
}

#[test]
#[cfg_attr(not(target_arch = "x86_64"), ignore = "the numbers are those of x86_64")]
fn an_lmtp_session_can_not_open_exec_connect_signal_or_fork() {
    if !need_root() || !need("gdb") {
        return;
    }
    let site = Site::new();
    let (server, _peer) = lmtp_session(&site);
    let session = child(session_of(&server));
    let calls: Vec<&str> = FORBIDDEN.iter().map(|(_, call)| *call).collect();
    for ((what, _), result) in FORBIDDEN.iter().zip(calls_in(session, &calls)) {
        assert_eq!(result, -1, "{what}");
    }
}

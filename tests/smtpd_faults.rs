//! What smtpd makes of a system that fails it: no process, no descriptor, no disk, and processes
//! that are killed. A client is told that it has to come again, or waits; no message is half
//! accepted; and when the fault is over, clients are served.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests and their helpers fail by panicking"
)]

mod support;

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::process::Stdio;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use support::disk::Disk;
use support::entry;
use support::kill::{Attempt, at_each};
use support::peer::{Heard, Peer};
use support::processes::{self, Fault};
use support::run::{Server, run};
use support::site::{Plan, Site, activated, behind};
use support::{is_root, need, need_root, wait_until};

const TEXT: &[u8] = b"Subject: whole\n\nThe first line.\nThe last line.\n";
const FROM: &str = "a@example.org";
const TO: &[&str] = &["toshi@smkwlab.net"];

/// How long a client listens that may have to wait.
const MOMENT: Duration = Duration::from_millis(200);

/// A host where places are few, so that one which is lost is missed.
fn plan() -> Plan {
    Site::plan().in_memory().set("smtp", "max_connections", "4")
}

/// A host whose processes have all been started: a client has come, and has gone.
fn host() -> (Site, Server, SocketAddr) {
    let site = plan().build();
    let (server, address) = site.serve("smtpd");
    serves(address);
    (site, server, address)
}

/// That a client is served; a message of its is refused in the end, so that none is left.
#[track_caller]
fn serves(address: SocketAddr) {
    let mut peer = wait_until("a greeting", || {
        let mut peer = Peer::connect(address);
        peer.reply().starts_with("220 ").then_some(peer)
    });
    assert!(peer.command("EHLO client.example").starts_with("250-"));
    assert!(peer.command(format!("MAIL FROM:<{FROM}>")).starts_with("250 "));
    let reply = peer.command(format!("RCPT TO:<{}>", TO[0]));
    assert!(reply.starts_with("250 "), "{reply}");
    assert!(peer.command("QUIT").starts_with("221 "));
}

/// A client that has sent a part of its message.
#[track_caller]
fn in_data(address: SocketAddr) -> Peer {
    let mut peer = Peer::connect(address);
    peer.greet();
    assert!(peer.command(format!("MAIL FROM:<{FROM}>")).starts_with("250 "));
    let reply = peer.command(format!("RCPT TO:<{}>", TO[0]));
    assert!(reply.starts_with("250 "), "{reply}");
    assert!(peer.command("DATA").starts_with("354 "));
    peer.send("Subject: whole\r\n\r\nThe first line.\r\n");
    peer
}

/// Sends the rest of it; whether it was accepted.
fn finish(peer: &mut Peer) -> bool {
    peer.send("The last line.\r\n.\r\n");
    match peer.hear() {
        Heard::Line(line) => line.starts_with(b"250 2.0.0 "),
        _ => false,
    }
}

/// That the queue has so many messages, all whole, and nothing else.
#[track_caller]
fn has(site: &Site, count: usize) {
    assert_eq!(wrong(site, count), None);
}

fn wrong(site: &Site, count: usize) -> Option<String> {
    let queued = site.queued();
    if queued.len() != count {
        return Some(format!("{count} messages are wanted: {queued:?}"));
    }
    queued.into_iter().find_map(|name| {
        let entry = entry::read(&site.queue().join(&name));
        let is_whole = entry.is_ok_and(|entry| {
            let text = "Subject: whole\r\n\r\nThe first line.\r\nThe last line.\r\n";
            entry.content.ends_with(text.as_bytes()) && entry.recipients.len() == 1
        });
        (!is_whole).then(|| format!("{name} is not whole"))
    })
}

/// That what was accepted is delivered, and nothing else. What was refused when it had its name
/// already, and could not lose it again, is no message any more, and kept for the operator.
fn comes_once_if_accepted(site: &Site, count: usize) -> Result<(), String> {
    site.mta_queue(&[] as &[&str]).expect(0);
    let left = site.queued();
    if left.iter().any(|name| !name.starts_with("corrupt/")) {
        return Err(format!("{left:?} are left"));
    }
    let delivered = site.messages("toshi").len();
    (delivered == count).then_some(()).ok_or(format!("{delivered} messages come, not {count}"))
}

/// Whether processes can be looked at that are locked up, and have faults made for them.
fn may_intervene() -> bool {
    need_root() && need("strace")
}

fn end(pid: i32) {
    kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
}

#[test]
fn without_a_fork_a_client_is_told_so_and_the_next_one_is_served() {
    if !may_intervene() {
        return;
    }
    let (site, server, address) = host();
    let mut before = in_data(address);
    for fault in ["error=EAGAIN", "error=ENOMEM:when=1"] {
        let fault = Fault::of(&processes::of(&server), "clone,clone3,fork,vfork", fault);
        // More than there are places. With the second fault each process can't fork once.
        for number in 0..6 {
            let mut peer = Peer::connect(address);
            let said = peer.line();
            let is_late = number > 0 && said.starts_with("220 ");
            assert!(said.starts_with("421 4.3.") || is_late, "{number}: {said:?}");
        }
        drop(fault);
    }
    assert!(finish(&mut before));
    drop(before);
    serves(address);
    has(&site, 1);
    wait_until("no session", || server.sessions().is_empty().then_some(()));
    assert_eq!(processes::zombies(&server), []);
}

#[test]
fn a_user_who_may_have_no_more_processes_turns_clients_away() {
    if !need_root() || !need("prlimit") {
        return;
    }
    let site = plan().build();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let mut command = activated(&site.command("smtpd"));
    command.stdin(OwnedFd::from(listener)).stdout(Stdio::null());
    if is_root() {
        // Root may have as many as it likes.
        command.uid(Site::queue_uid()).gid(Site::queue_uid());
    }
    let server = Server::start(&mut command);
    let relays = || {
        let mut peer = wait_until("a greeting", || {
            let mut peer = Peer::connect(address);
            peer.reply().starts_with("220 ").then_some(peer)
        });
        assert!(peer.command("EHLO client.example").starts_with("250-"));
        let reply = peer.mail(FROM, &["a@elsewhere.example"], TEXT);
        assert!(reply.starts_with("250 2.0.0 "), "{reply}");
    };
    relays();
    // Its sessions are made by a process that is locked up.
    let parent = server.zygote().unwrap();
    let usual = processes::limit_of(parent, "Max processes");
    processes::limit(parent, "nproc", "1");
    for _ in 0..6 {
        let said = Peer::connect(address).line();
        assert!(said.starts_with("421 4.3."), "{said:?}");
    }
    processes::limit(parent, "nproc", &usual);
    relays();
    has(&site, 2);
}

#[test]
fn without_descriptors_a_client_waits_or_is_told_so_and_no_message_is_lost() {
    if !need("prlimit") {
        return;
    }
    let (site, server, address) = host();
    let usual = processes::limit_of(server.pid(), "Max open files");
    let next = processes::next_descriptor(server.pid());
    let mut accepted = 0;
    let mut outcomes = Vec::new();
    // From none that is free up to more than are used.
    for most in next..next + 20 {
        let mut waiting = None;
        processes::limit(server.pid(), "nofile", &most.to_string());
        let mut peer = Peer::connect(address);
        let outcome = match peer.hear_within(MOMENT) {
            Heard::Silence => {
                waiting = Some(peer);
                "waits".to_owned()
            }
            Heard::Line(line) if line.starts_with(b"220 ") => {
                peer.command("EHLO client.example");
                let reply = peer.mail(FROM, TO, TEXT);
                accepted += usize::from(reply.starts_with("250 2.0.0 "));
                reply
            }
            Heard::Line(line) => String::from_utf8_lossy(&line).into_owned(),
            Heard::Closed(_) => "closed".to_owned(),
        };
        let is_right = ["waits", "421 4.3.", "451 4.3.0 ", "452 4.3.1 ", "250 2.0.0 "]
            .iter()
            .any(|right| outcome.starts_with(right));
        outcomes.push(outcome);
        assert!(is_right, "{outcomes:#?}\n{}", server.log());
        processes::limit(server.pid(), "nofile", &usual);
        if let Some(mut peer) = waiting {
            peer.greet();
            let reply = peer.mail(FROM, TO, TEXT);
            assert!(reply.starts_with("250 2.0.0 "), "{reply}");
            accepted += 1;
        }
    }
    assert!(outcomes[0] == "waits" && outcomes[19].starts_with("250 "), "{outcomes:#?}");
    serves(address);
    has(&site, accepted);
    wait_until("no session", || server.sessions().is_empty().then_some(()));
}

#[test]
fn when_a_full_disk_has_room_again_the_next_message_is_taken() {
    if !need_root() || !need("unshare") || !need("nsenter") {
        return;
    }
    let site = plan().build();
    let incoming = site.queue().join("incoming");
    let uid = Site::queue_uid();
    let disk = Disk::at(&incoming, &format!("size=1m,mode=700,uid={uid},gid={uid}"));
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let mut command = disk.command(&activated(&site.command("smtpd")));
    command.stdin(OwnedFd::from(listener)).stdout(Stdio::null());
    let server = Server::start(&mut command);
    let mut peer = Peer::connect(address);
    peer.greet();
    let large = [TEXT, &b"A line of many.\n".repeat(6000)].concat();
    let left = || {
        let names = fs::read_dir(disk.seen(&incoming)).unwrap();
        let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name != "ballast").count()
    };
    // Full from the beginning, and in the middle of a message.
    for pages in [0, 1, 10] {
        disk.leave(pages);
        for _ in 0..3 {
            let reply = peer.mail(FROM, TO, &large);
            assert!(reply.starts_with("452 4.3.1 "), "{pages}: {reply}");
            assert_eq!(left(), 0, "{pages}");
        }
        let free = nix::sys::statvfs::statvfs(&disk.seen(&incoming)).unwrap().blocks_available();
        assert_eq!(free, pages, "the disk has them back");
    }
    server.wait_for_log("can't keep a message in ");
    disk.leave(100);
    let reply = peer.mail(FROM, TO, &large);
    assert!(reply.starts_with("250 2.0.0 "), "{reply}");
    assert_eq!(left(), 1);
}

#[test]
fn an_error_of_any_call_that_makes_a_message_last_is_no_250_and_leaves_nothing() {
    if !need("strace") {
        return;
    }
    let calls =
        ["openat", "fchmod", "write", "pwrite64", "fsync", "fdatasync", "linkat", "renameat2"];
    for fault in ["error=EIO", "error=ENOSPC"] {
        at_each("smtpd", fault, &calls, |attempt: &Attempt| {
            let site = plan().build();
            let (server, mut peer) = Site::session_of(attempt.wrap(&site.command("smtpd")));
            let mut is_accepted = false;
            // The program may end before it has begun.
            if peer.reply().starts_with("220 ") && peer.command("EHLO x").starts_with("250") {
                is_accepted = peer.mail(FROM, TO, TEXT).starts_with("250 2.0.0 ");
            }
            drop(peer);
            server.join();
            if attempt.is_whole() && !is_accepted {
                return Err("the message was not accepted".into());
            }
            comes_once_if_accepted(&site, usize::from(is_accepted))
        });
    }
}

#[test]
fn a_fault_that_lasts_for_a_while_costs_the_messages_of_that_while_only() {
    if !may_intervene() {
        return;
    }
    let (site, server, address) = host();
    let mut peer = Peer::connect(address);
    peer.greet();
    assert!(peer.mail(FROM, TO, TEXT).starts_with("250 2.0.0 "));
    let session = processes::serving(&server, &peer, address);
    for (call, fault) in [
        ("openat", "error=EMFILE"),
        ("pwrite64", "error=ENOSPC"),
        ("fsync", "error=EIO"),
        // The directory's.
        ("fsync", "error=EIO:when=2"),
        ("linkat", "error=EDQUOT"),
    ] {
        let fault = Fault::of(&[session], call, fault);
        let reply = peer.mail(FROM, TO, TEXT);
        assert!(reply.starts_with("452 4.3.1 "), "{reply}");
        drop(fault);
    }
    // The disk has begun with a large message before all of it is there.
    let large = [TEXT, &b"A line of a large message.\n".repeat(100_000)].concat();
    let fault = Fault::of(&[session], "sync_file_range", "error=ENOSPC");
    let reply = peer.mail(FROM, TO, &large);
    assert!(reply.starts_with("452 4.3.1 "), "{reply}");
    drop(fault);
    server.wait_for_log(&format!("can't keep a message in {}: ", site.queue().display()));
    assert!(peer.mail(FROM, TO, TEXT).starts_with("250 2.0.0 "));
    comes_once_if_accepted(&site, 2).unwrap();
}

#[test]
fn a_log_that_takes_nothing_costs_no_message() {
    let site = plan().build();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let full = ["sh", "-c", "exec \"$@\" 2>/dev/full", "sh"];
    let mut command = activated(&behind(&full, &site.command("smtpd")));
    command.stdin(OwnedFd::from(listener)).stdout(Stdio::null());
    let server = Server::start(&mut command);
    let mut peers: Vec<Peer> = (0..4).map(|_| in_data(address)).collect();
    assert!(Peer::connect(address).line().starts_with("421 4.3.2 "));
    assert!(peers.iter_mut().all(finish));
    has(&site, 4);
    drop(peers);
    serves(address);
    assert_eq!(server.log(), "");
}

#[test]
fn without_the_directory_mail_waits_until_it_is_back() {
    let (site, mut server, address) = host();
    let mut before = in_data(address);
    let mut idle = Peer::connect(address);
    idle.greet();
    let (incoming, away) = (site.queue().join("incoming"), site.queue().join("away"));
    fs::rename(&incoming, &away).unwrap();
    fs::create_dir(&incoming).unwrap();
    fs::remove_dir(&incoming).unwrap();
    // Whoever had begun goes on in the directory that it has.
    assert!(finish(&mut before));
    assert_eq!(fs::read_dir(&away).unwrap().count(), 1);
    fs::rename(&away, &incoming).unwrap();
    has(&site, 1);
    // Gone for good it takes nothing.
    fs::remove_file(site.queue().join(&site.queued()[0])).unwrap();
    fs::remove_dir(&incoming).unwrap();
    for _ in 0..2 {
        let reply = idle.mail(FROM, TO, TEXT);
        assert!(reply.starts_with("452 4.3.1 "), "{reply}");
    }
    assert!(server.ended().is_none());
    server.wait_for_log(&format!(" in {}: No such file or directory", site.queue().display()));
    let mut peer = Peer::connect(address);
    peer.greet();
    let reply = peer.mail(FROM, TO, TEXT);
    assert!(reply.starts_with("452 4.3.1 "), "{reply}");
    // A new server makes it again.
    drop(server);
    let (_server, address) = site.serve("smtpd");
    let mut peer = Peer::connect(address);
    peer.greet();
    assert!(peer.mail(FROM, TO, TEXT).starts_with("250 2.0.0 "));
    has(&site, 1);
}

#[test]
fn without_a_queue_it_does_not_start_and_says_what_to_do() {
    let site = plan().build();
    let away = site.path().join("away");
    fs::rename(site.queue(), &away).unwrap();
    let mut command = site.command("smtpd");
    let ran = run(command.args(["--listen", "127.0.0.1:0"]), b"").expect(72);
    let wanted = format!(
        "smtpd: {}: No such file or directory (os error 2): make it, as the queue's account\n",
        site.queue().display()
    );
    assert_eq!(ran.stderr, wanted);
    fs::rename(&away, site.queue()).unwrap();
}

#[test]
fn sessions_live_on_without_their_listener_or_end_with_nothing_half_done() {
    for signal in [Signal::SIGTERM, Signal::SIGKILL] {
        let (site, server, address) = host();
        let [mut first, other] = [in_data(address), in_data(address)];
        let mut idle = Peer::connect(address);
        idle.greet();
        server.signal(signal);
        // Nobody else holds the port, so that another one can take its place.
        let listener = wait_until("the port to be free", || TcpListener::bind(address).ok());
        let _second = site.serve_on("smtpd", listener);
        serves(address);
        let mut accepted = usize::from(finish(&mut first));
        accepted += usize::from(idle.mail(FROM, TO, TEXT).starts_with("250 2.0.0 "));
        has(&site, accepted);
        if signal == Signal::SIGTERM {
            assert_eq!(accepted, 2, "{}", server.log());
        }
        drop((first, other, idle));
        wait_until("the sessions to end", || processes::of(&server).is_empty().then_some(()));
        has(&site, accepted);
    }
}

#[test]
fn a_session_that_is_killed_leaves_nothing_and_gives_its_place_back() {
    if !need_root() {
        return;
    }
    let (site, server, address) = host();
    for _ in 0..6 {
        let mut peer = in_data(address);
        end(processes::serving(&server, &peer, address));
        assert_eq!(peer.hear(), Heard::Closed(Vec::new()));
        has(&site, 0);
        serves(address);
    }
    wait_until("no session", || server.sessions().is_empty().then_some(()));
    assert_eq!(processes::zombies(&server), []);
}

#[test]
fn whoever_is_killed_besides_the_session_no_message_is_half_accepted() {
    if !need_root() {
        return;
    }
    let (site, server, address) = host();
    let mut accepted = 0;
    let mut tries = 0;
    loop {
        let mut peer = in_data(address);
        let session = processes::serving(&server, &peer, address);
        let others = processes::of(&server).into_iter();
        let others: Vec<i32> =
            others.filter(|pid| ![server.pid(), session].contains(pid)).collect();
        // Each of them in turn: monitors, and the policy process.
        let Some(other) = others.get(tries) else { break };
        tries += 1;
        end(*other);
        wait_until("its end", || (!processes::of(&server).contains(other)).then_some(()));
        accepted += usize::from(finish(&mut peer));
        has(&site, accepted);
        // A session that nobody answers any more ends with the next question.
        let reply = peer.mail(FROM, TO, TEXT);
        accepted += usize::from(reply.starts_with("250 2.0.0 "));
        assert!(
            reply.is_empty() || reply.starts_with("250 2.0.0 ") || reply.starts_with("451 4.3.0 "),
            "{reply}"
        );
        drop(peer);
        wait_until("the session's end", || {
            (!processes::of(&server).contains(&session)).then_some(())
        });
        // A policy process is not started again within its first second.
        std::thread::sleep(Duration::from_millis(1100));
        serves(address);
        wait_until("no session", || server.sessions().is_empty().then_some(()));
    }
    assert!(tries >= 2, "there were others");
    has(&site, accepted);
    assert_eq!(processes::zombies(&server), []);
}

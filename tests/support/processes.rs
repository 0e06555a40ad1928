//! The processes of a server: which there are, who of them has a client, and what can go wrong with
//! them while they run.
//!
//! Nothing here knows how a server splits its work: its processes are those of its group.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, SocketAddrV4};
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::peer::Peer;
use super::run::{Server, spawn};
use super::site::must;
use super::{is_root, wait_until};

/// The processes of a server that live, whoever their parent is by now.
pub fn of(server: &Server) -> Vec<i32> {
    members(server).into_iter().filter(|one| one.state != "Z").map(|one| one.pid).collect()
}

/// Those that have ended, and that another one of them has not waited for yet.
pub fn zombies(server: &Server) -> Vec<i32> {
    let living = of(server);
    let members = members(server).into_iter();
    let ended = members.filter(|one| one.state == "Z" && living.contains(&one.parent));
    ended.map(|one| one.pid).collect()
}

/// A process, as proc_pid_stat(5) tells of it.
struct Member {
    pid: i32,
    state: String,
    parent: i32,
}

/// The processes of a server's group.
fn members(server: &Server) -> Vec<Member> {
    let group = server.pid().to_string();
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        // A process may have gone since.
        let text = fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        let (_, rest) = text.rsplit_once(") ").unwrap_or_default();
        if let [state, parent, of, ..] = rest.split(' ').collect::<Vec<_>>().as_slice()
            && *of == group
        {
            let parent = parent.parse().unwrap();
            found.push(Member { pid, state: (*state).to_owned(), parent });
        }
    }
    found.sort_unstable_by_key(|one| one.pid);
    found
}

/// The one process of a server that has the connection of this client. Needs root: it is locked up.
#[track_caller]
pub fn serving(server: &Server, peer: &Peer, address: SocketAddr) -> i32 {
    let socket = format!("socket:[{}]", inode(address, peer.address()));
    let holders = || -> Vec<i32> {
        of(server).into_iter().filter(|pid| links(*pid).contains(&socket)).collect()
    };
    // A listener gives a client away in a moment.
    wait_until("one process to have the client", || match holders().as_slice() {
        [one] => Some(*one),
        _ => None,
    })
}

/// The number of the socket by which a server has a client.
fn inode(server: SocketAddr, client: SocketAddr) -> String {
    let written = |address: SocketAddr| {
        let SocketAddr::V4(address) = address else {
            panic!("no IPv4 address: {address}");
        };
        of_table(address)
    };
    let wanted = [written(server), written(client)];
    let table = fs::read_to_string("/proc/net/tcp").unwrap();
    let line = table
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>())
        .find(|line| line.get(1..3).is_some_and(|pair| pair == wanted));
    line.unwrap_or_else(|| panic!("{client} is not connected to {server}"))[9].to_owned()
}

/// An address as /proc/net/tcp has it: the bytes of the number in the machine's order.
fn of_table(address: SocketAddrV4) -> String {
    let number = u32::from_ne_bytes(address.ip().octets());
    format!("{number:08X}:{:04X}", address.port())
}

/// What the descriptors of a process lead to.
pub fn links(pid: i32) -> Vec<String> {
    let entries = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    let links = entries.filter_map(|entry| fs::read_link(entry.path()).ok());
    links.map(|link| link.to_string_lossy().into_owned()).collect()
}

/// The number that the next descriptor of a process gets.
pub fn next_descriptor(pid: i32) -> u64 {
    let open = |number: &u64| fs::symlink_metadata(format!("/proc/{pid}/fd/{number}")).is_ok();
    (0..1 << 20).find(|number| !open(number)).unwrap()
}

/// What these processes have together of the machine's memory, in KiB: a page that several of them
/// share is counted once, and those of files not at all, which belong to all who run the program.
pub fn memory(pids: &[i32]) -> u64 {
    let of = |pid: &i32| -> u64 {
        let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
        let lines = text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        let own = lines.filter(|line| ["Pss_Anon:", "Pss_Shmem:"].contains(&line[0]));
        own.map(|line| line[1].parse::<u64>().unwrap()).sum()
    };
    pids.iter().map(of).sum()
}

/// A soft limit of a process, by its line in proc_pid_limits(5): `Max open files`.
pub fn limit_of(pid: i32, what: &str) -> String {
    let text = fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(what)).unwrap();
    line.split_whitespace().next().unwrap().to_owned()
}

/// What a process, and those that it forks, may have from now on (as `nofile`, `12`). It is the soft
/// limit, which may be raised again.
pub fn limit(pid: i32, what: &str, most: &str) {
    let mut command = Command::new("prlimit");
    command.args(["--pid", &pid.to_string(), &format!("--{what}={most}:")]);
    if is_root() {
        // Not every root may change the limits of others.
        let owner = fs::metadata(format!("/proc/{pid}")).unwrap();
        command.uid(owner.uid()).gid(owner.gid());
    }
    must(&mut command);
}

/// A fault of the system that processes meet as long as this lives: strace is attached to them, and
/// to those that they fork.
pub struct Fault(Child);

impl Fault {
    /// These calls (as `clone,fork`) have this fault, as strace wants it: `error=EAGAIN`.
    pub fn of(pids: &[i32], calls: &str, fault: &str) -> Self {
        let calls = format!("?{}", calls.replace(',', ",?"));
        Self::attach(pids, &["-e", &format!("inject={calls}:{fault}")], &calls, "/dev/null")
    }

    /// No fault: these calls are written down.
    pub fn none(pids: &[i32], calls: &str, output: &str) -> Self {
        Self::attach(pids, &["-y", "-xx"], calls, output)
    }

    fn attach(pids: &[i32], more: &[&str], calls: &str, output: &str) -> Self {
        let mut command = Command::new("strace");
        command.args(["-f", "-o", output, "-e", &format!("trace={calls}")]).args(more);
        for pid in pids {
            command.args(["-p", &pid.to_string()]);
        }
        let mut strace = spawn(command.stderr(Stdio::piped()).stdin(Stdio::null()));
        // It says of each process that it has it, and goes on to speak of those that come.
        let mut lines = BufReader::new(strace.stderr.take().unwrap()).lines();
        for _ in pids {
            let line = lines.next().unwrap().unwrap();
            assert!(line.ends_with(" attached"), "{line}");
        }
        std::thread::spawn(move || lines.for_each(drop));
        Self(strace)
    }
}

impl Drop for Fault {
    fn drop(&mut self) {
        // It lets them go.
        let _ = kill(Pid::from_raw(i32::try_from(self.0.id()).unwrap()), Signal::SIGTERM);
        let _ = self.0.wait();
    }
}

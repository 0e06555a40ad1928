//! What the suites share: a private host in a directory, programs that are run and watched, peers
//! that speak to them, and the tools that stop them at the worst moment.
//!
//! Every suite must run for anybody who has Rust and a C compiler. What more it wants it asks for
//! with [`need`] or [`need_root`], and ends quietly where that is missing; under `CI=true` nothing
//! may be missing, so that a suite can't be skipped for years without anybody's notice.

#![allow(dead_code, reason = "each suite uses its part of what is shared")]

pub mod accounts;
pub mod disk;
pub mod dns;
pub mod dovecot;
pub mod entry;
pub mod exchange;
pub mod handover;
pub mod host;
pub mod imap;
pub mod imap_play;
pub mod kill;
pub mod lan;
pub mod letter;
pub mod machine;
pub mod maildir;
pub mod mbox;
pub mod mta;
pub mod mutt;
pub mod network;
pub mod outbox;
pub mod peer;
pub mod powercut;
pub mod processes;
pub mod reference;
pub mod report;
pub mod rules;
pub mod run;
pub mod scram;
pub mod sessions;
pub mod shared;
pub mod site;
pub mod store;
pub mod stress;
pub mod tls;
pub mod trace;
pub mod transcript;

use std::io::Write;
use std::net::{Ipv4Addr, TcpListener};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// How long a test waits for something that should happen at once. Long, because a loaded machine
/// is no bug; it only costs time where a test fails.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// A port that nobody has on any of these addresses, for a program that must be told one. It is none
/// of those that the system gives to connections (ip_local_port_range), and that others at work may
/// take in the next moment.
pub fn free_port(addresses: &[Ipv4Addr]) -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let first = std::process::id().wrapping_mul(97);
    wait_until("a port that is free", || {
        let number = first.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % 20_000;
        let port = 10_000 + u16::try_from(number).unwrap();
        let free = |ip: &Ipv4Addr| TcpListener::bind((*ip, port)).is_ok();
        addresses.iter().all(free).then_some(port)
    })
}

/// Whether a program is there. Where it is not, says so (or fails, under `CI=true`), and the
/// caller returns.
pub fn need(program: &str) -> bool {
    find(program).is_some() || skip(&format!("needs {program}"))
}

/// Whether the tests run as root, told like [`need`].
pub fn need_root() -> bool {
    is_root() || skip("needs root")
}

/// Whether whoever runs the tests has a login name, without which many mail programs do nothing.
pub fn need_account() -> bool {
    let account = nix::unistd::User::from_uid(nix::unistd::geteuid());
    account.is_ok_and(|account| account.is_some()) || skip("needs an account in passwd")
}

/// Whether the tests run as root.
pub fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// Says why a test does nothing, where it can be seen without `--nocapture`.
pub fn skip(reason: &str) -> bool {
    assert!(
        std::env::var("CI").as_deref() != Ok("true"),
        "{reason}, and CI=true lets nothing be skipped"
    );
    let thread = std::thread::current();
    let test = thread.name().unwrap_or("a test");
    let _ = writeln!(std::io::stderr(), "{test}: skipped: {reason}");
    false
}

/// Something that the reader of a test's output should know, shown without `--nocapture`.
pub fn note(what: &str) {
    let _ = writeln!(std::io::stderr(), "note: {what}");
}

/// Where a program is, by PATH and the directories of daemons.
pub fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var("PATH").unwrap_or_default();
    path.split(':')
        .chain(["/usr/sbin", "/sbin", "/usr/local/sbin"])
        .map(|directory| PathBuf::from(directory).join(program))
        .find(|file| file.is_file())
}

/// Waits until `condition` gives something, and fails where it does not within [`PATIENCE`].
pub fn wait_until<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    let mut pause = Duration::from_millis(1);
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(Instant::now() < deadline, "waited {PATIENCE:?} for this: {what}");
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(10));
    }
}

/// A pseudo-random sequence (xorshift64*) that is the same in every run, so that what it finds can
/// be found again.
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    /// A number below `limit`.
    pub fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() >> 11).unwrap() % limit.max(1)
    }
}

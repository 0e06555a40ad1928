//! `[queue] wakeup = "spawn"`, for hosts where neither systemd nor a `--watch` runner waits: a
//! listening parent reads the FIFO `wake` and starts `mta-queue`.
//!
//! Of several parents one does it: the one that holds the FIFO's lock. When it is gone another one
//! takes over. There is one runner at a time; one that failed is followed by another after a while.

use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::unistd::Pid;

use crate::queue::Wake;
use crate::sys::process::{self, Ended};
use crate::sys::{Exit, Log};

/// How often a parent that does not hold the lock looks whether it is free.
const CLAIM: Duration = Duration::from_secs(2);
/// What waits for another try is looked at so often, even when nothing new comes.
const INTERVAL: Duration = Duration::from_mins(5);
/// The pause after a runner that failed, so that a lasting fault costs little.
const PAUSE: Duration = Duration::from_secs(10);

/// Starts runners.
pub struct Spawner {
    wake: Wake,
    owner: bool,
    running: Option<Pid>,
    /// When the next one is to be started.
    next: Instant,
    config: Option<PathBuf>,
}

impl Spawner {
    /// For a listening parent with `wakeup = "spawn"`; `config` is its `-C`.
    pub fn open(queue: &Path, config: Option<&Path>) -> std::io::Result<Self> {
        Ok(Self {
            wake: Wake::open(queue)?,
            owner: false,
            running: None,
            // What came while nobody was there is delivered at once.
            next: Instant::now(),
            config: config.map(Path::to_owned),
        })
    }

    /// Does what is to be done now; says when to come back at the latest, where anything is to be
    /// done without a byte in the FIFO and without the end of a runner.
    pub fn tend(&mut self, log: &Log) -> Option<Duration> {
        self.owner = self.owner || self.wake.claim();
        if !self.owner {
            return Some(CLAIM);
        }
        if self.running.is_some() {
            return None;
        }
        let left = self.next.saturating_duration_since(Instant::now());
        if left.is_zero() {
            self.start(log);
        }
        if self.running.is_some() { None } else { Some(left) }
    }

    /// The FIFO to be polled, while it is ours to answer.
    pub fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.owner.then(|| self.wake.as_fd())
    }

    /// The FIFO can be read: somebody has put something into the queue.
    pub fn woken(&mut self) {
        self.wake.drain();
        self.next = Instant::now();
    }

    /// A child has ended; true where it was the runner.
    pub fn ended(&mut self, child: Pid, how: Ended) -> bool {
        if self.running != Some(child) {
            return false;
        }
        self.running = None;
        if how != Ended::Exited(0) {
            self.next = Instant::now() + PAUSE;
        }
        true
    }

    fn start(&mut self, log: &Log) {
        self.next = Instant::now() + INTERVAL;
        let runner = std::env::current_exe()
            .ok()
            .and_then(|path| Some(path.parent()?.join("mta-queue")))
            .unwrap_or_else(|| "mta-queue".into());
        let mut arguments = vec![OsStr::new("mta-queue")];
        if let Some(config) = &self.config {
            arguments.extend([OsStr::new("-C"), config.as_os_str()]);
        }
        let started = process::fork(|| {
            let Ok(null) = File::options().read(true).write(true).open("/dev/null") else {
                return Exit::OsErr;
            };
            let error = process::exec(&runner, &arguments, &[], &null, &null);
            log.error(&format!("{}: can't be run: {error}", runner.display()));
            Exit::OsErr
        });
        match started {
            Ok(pid) => self.running = Some(pid),
            Err(error) => {
                log.error(&format!("can't fork a runner: {error}"));
                self.next = Instant::now() + PAUSE;
            }
        }
    }
}

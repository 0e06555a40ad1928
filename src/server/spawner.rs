//! `[queue] wakeup`: who is told that there is something new.
//!
//! `nudge` writes a byte into `queue/wake` and that is all. `spawn`, for hosts without systemd, has
//! the listening parent read that FIFO and start `mta-queue`: one parent (it holds the FIFO's lock)
//! and one runner at a time.

use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;
use nix::unistd::Pid;

use crate::config::Wakeup;
use crate::queue::enqueue;
use crate::sys::{Exit, Log, lock, process};

/// The FIFO, as a server holds it.
pub struct Waker {
    wake: Option<OwnedFd>,
}

impl Waker {
    /// Opens the FIFO for writing, as this configuration wants it. Open for reading too, so that
    /// bytes wait for a runner that has not come yet.
    pub fn open(queue: &Path, wakeup: Wakeup) -> Self {
        let wake = match wakeup {
            Wakeup::None => None,
            Wakeup::Nudge | Wakeup::Spawn => open_fifo(queue),
        };
        Self { wake }
    }

    /// Says that there is something new.
    pub fn wake(&self) {
        if let Some(wake) = &self.wake {
            enqueue::nudge(wake);
        }
    }

    /// The descriptor, for a child that keeps it.
    pub fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.wake.as_ref().map(AsFd::as_fd)
    }
}

fn open_fifo(queue: &Path) -> Option<OwnedFd> {
    let flags = OFlag::O_RDWR | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW;
    open(&queue.join("wake"), flags, Mode::empty()).ok()
}

/// Starts runners.
pub struct Spawner {
    fifo: File,
    owner: bool,
    running: Option<Pid>,
    pending: bool,
    config: Option<PathBuf>,
}

impl Spawner {
    /// For a listening parent with `wakeup = "spawn"`; `config` is its `-C`.
    pub fn open(queue: &Path, config: Option<&Path>) -> Option<Self> {
        let fifo = File::from(open_fifo(queue)?);
        let mut spawner = Self {
            fifo,
            owner: false,
            running: None,
            // What came while nobody was there is delivered at once.
            pending: true,
            config: config.map(Path::to_owned),
        };
        spawner.claim();
        Some(spawner)
    }

    /// The FIFO to be polled, while it is ours to answer.
    pub fn descriptor(&mut self) -> Option<BorrowedFd<'_>> {
        self.claim();
        self.owner.then(|| self.fifo.as_fd())
    }

    /// The FIFO can be read: somebody has put something into the queue.
    pub fn woken(&mut self, log: &Log) {
        let mut bytes = [0; 4096];
        while nix::unistd::read(&self.fifo, &mut bytes).is_ok_and(|count| count == bytes.len()) {}
        self.pending = true;
        self.start(log);
    }

    /// A child has ended; true where it was the runner.
    pub fn ended(&mut self, child: Pid, log: &Log) -> bool {
        if self.running != Some(child) {
            return false;
        }
        self.running = None;
        self.start(log);
        true
    }

    /// Starts a runner where one is wanted and none runs.
    pub fn start(&mut self, log: &Log) {
        if !self.owner || !self.pending || self.running.is_some() {
            return;
        }
        self.pending = false;
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
            let path = OsStr::new("/usr/local/bin:/usr/bin:/bin");
            let error = process::exec(&runner, &arguments, &[("PATH", path)], &null, &null);
            log.error(&format!("{}: can't be run: {error}", runner.display()));
            Exit::OsErr
        });
        match started {
            Ok(pid) => self.running = Some(pid),
            Err(error) => log.error(&format!("can't fork a runner: {error}")),
        }
    }

    /// One parent answers the FIFO: the one that holds its lock.
    fn claim(&mut self) {
        if !self.owner {
            self.owner = lock::try_flock(&self.fifo, lock::Kind::Exclusive).unwrap_or(false);
        }
    }
}

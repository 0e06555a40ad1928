//! Programs that run once, and servers that stay.

use std::fmt;
use std::fs;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use rustix::process::{PidfdFlags, pidfd_open};

use super::{PATIENCE, wait_until};

/// How long a program that should end may run, before it counts as hanging.
const RUN_LIMIT: Duration = Duration::from_mins(2);

/// What came of a program.
#[derive(Debug)]
pub struct Ran {
    pub status: ExitStatus,
    pub stdout: Vec<u8>,
    pub stderr: String,
}

impl Ran {
    /// The exit status; `None` where a signal ended it.
    pub fn code(&self) -> Option<i32> {
        self.status.code()
    }

    /// The signal that ended it.
    pub fn signal(&self) -> Option<i32> {
        self.status.signal()
    }

    /// Itself, after making sure that it ended with this status.
    #[track_caller]
    pub fn expect(self, code: i32) -> Self {
        assert_eq!(self.code(), Some(code), "{self}");
        self
    }

    /// What it wrote, as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }
}

impl fmt::Display for Ran {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}\nstdout: {}\nstderr: {}",
            self.status,
            String::from_utf8_lossy(&self.stdout),
            self.stderr
        )
    }
}

/// Runs a program to its end with this input.
pub fn run(command: &mut Command, input: &[u8]) -> Ran {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = spawn(command);
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    // The program may end without having read all of it.
    let writer = std::thread::spawn(move || stdin.write_all(&input));
    let ran = finish(command, child);
    let _ = writer.join().unwrap();
    ran
}

/// Waits for the end of a program whose output is piped.
pub fn finish(command: &Command, mut child: Child) -> Ran {
    let stdout = reader(child.stdout.take());
    let stderr = reader(child.stderr.take());
    let status = wait(&mut child, RUN_LIMIT).unwrap_or_else(|| {
        let _ = child.kill();
        let _ = child.wait();
        panic!("{command:?} did not end within {RUN_LIMIT:?}");
    });
    Ran {
        status,
        stdout: stdout.join().unwrap(),
        stderr: String::from_utf8_lossy(&stderr.join().unwrap()).into_owned(),
    }
}

fn reader(pipe: Option<impl Read + Send + 'static>) -> JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut all = Vec::new();
        if let Some(mut pipe) = pipe {
            let _ = pipe.read_to_end(&mut all);
        }
        all
    })
}

/// Waits for a child, but not for ever.
pub fn wait(child: &mut Child, limit: Duration) -> Option<ExitStatus> {
    if let Some(status) = child.try_wait().unwrap() {
        return Some(status);
    }
    // Not waited for yet: the number is still its own.
    let process = pidfd_open(rustix::process::Pid::from_child(child), PidfdFlags::empty()).unwrap();
    let deadline = Instant::now() + limit;
    while let Some(left) = deadline.checked_duration_since(Instant::now()) {
        let left = PollTimeout::try_from(left + Duration::from_millis(1)).unwrap();
        let _ = poll(&mut [PollFd::new(process.as_fd(), PollFlags::POLLIN)], left);
        if let Some(status) = child.try_wait().unwrap() {
            return Some(status);
        }
    }
    None
}

pub fn spawn(command: &mut Command) -> Child {
    command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"))
}

/// A process that stays until it is stopped, and what it says on stderr.
///
/// It leads a process group of its own, so that dropping it ends whatever it forked, too.
pub struct Server {
    child: Child,
    log: Arc<Mutex<Vec<u8>>>,
    ended: bool,
}

impl Server {
    /// Starts it; stdin is what the caller set.
    pub fn start(command: &mut Command) -> Self {
        command.stderr(Stdio::piped()).process_group(0);
        let mut child = spawn(command);
        let log = Arc::new(Mutex::new(Vec::new()));
        let mut stderr = child.stderr.take().unwrap();
        let sink = Arc::clone(&log);
        std::thread::spawn(move || {
            let mut chunk = [0; 4096];
            while let Ok(n @ 1..) = stderr.read(&mut chunk) {
                sink.lock().unwrap().extend_from_slice(&chunk[..n]);
            }
        });
        Self { child, log, ended: false }
    }

    pub fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).unwrap()
    }

    /// Its sessions, the oldest first: the children of its zygote, or else their monitors, which are
    /// its own children.
    pub fn sessions(&self) -> Vec<i32> {
        let own = children(self.pid()).into_iter().filter(|pid| !is_policy(*pid));
        let (zygotes, monitors): (Vec<i32>, Vec<i32>) = own.partition(|pid| is_locked_up(*pid));
        if zygotes.is_empty() {
            return monitors;
        }
        zygotes.into_iter().flat_map(children).collect()
    }

    /// The process that forks its sessions, where it has one.
    pub fn zygote(&self) -> Option<i32> {
        let mut own = children(self.pid()).into_iter().filter(|pid| !is_policy(*pid));
        own.find(|pid| is_locked_up(*pid))
    }

    /// The monitors of its sessions, each of which may be its user by now.
    pub fn monitors(&self) -> Vec<i32> {
        let own = children(self.pid()).into_iter();
        own.filter(|pid| !is_policy(*pid) && !is_locked_up(*pid)).collect()
    }

    /// Waits until nobody is there any more.
    #[track_caller]
    pub fn wait_until_quiet(&self) {
        wait_until("the sessions to end", || {
            (self.sessions().is_empty() && self.monitors().is_empty()).then_some(())
        });
    }

    /// The process that its sessions ask.
    pub fn policy(&self) -> Option<i32> {
        children(self.pid()).into_iter().find(|pid| is_policy(*pid))
    }

    /// What it has said until now.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&self.log.lock().unwrap()).into_owned()
    }

    /// Waits for a text in what it says.
    #[track_caller]
    pub fn wait_for_log(&self, text: &str) -> String {
        wait_until(&format!("{text:?} in the log"), || {
            let log = self.log();
            log.contains(text).then_some(log)
        })
    }

    /// Whether it has ended, and how.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        let status = self.child.try_wait().unwrap();
        self.ended |= status.is_some();
        status
    }

    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.pid()), signal).unwrap();
    }

    /// Asks it to end (SIGTERM), and waits.
    #[track_caller]
    pub fn stop(mut self) -> (ExitStatus, String) {
        self.signal(Signal::SIGTERM);
        let status = wait(&mut self.child, PATIENCE);
        self.ended = status.is_some();
        let status = status.unwrap_or_else(|| panic!("SIGTERM did not end it: {}", self.log()));
        (status, self.log())
    }

    /// Waits for its end by itself.
    #[track_caller]
    pub fn join(mut self) -> (ExitStatus, String) {
        let status = wait(&mut self.child, PATIENCE);
        self.ended = status.is_some();
        let status = status.unwrap_or_else(|| panic!("did not end: {}", self.log()));
        (status, self.log())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // The group is ours: its number is that of a child that we have not forgotten.
        let _ = killpg(Pid::from_raw(self.pid()), Signal::SIGKILL);
        let _ = self.child.wait();
        if std::thread::panicking() {
            super::note(&format!("the server's log:\n{}", self.log()));
        }
    }
}

/// The children of a process, the oldest first.
pub fn children(pid: i32) -> Vec<i32> {
    let text = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    text.split_whitespace().map(|pid| pid.parse().unwrap()).collect()
}

/// Whether a process has given up most system calls.
fn is_locked_up(pid: i32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    status.lines().any(|line| line == "Seccomp:\t2")
}

fn is_policy(pid: i32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name == "hikyaku-policy\n")
}

//! Kills a program at each of its system calls in turn, or lets each of them fail.
//!
//! strace(1) delivers SIGKILL when the Nth call of a kind begins, in whichever process of the
//! program comes to its Nth first (so that of two processes that both write, the second one's first
//! write is not tried: its later ones are, and its calls of other kinds). What is left behind must be right every time. This shows what
//! other processes find after a crash; what a disk holds after a power cut is `powercut`'s to show.
//! Another signal, or an error that the call returns, is put there in the same way.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, File};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use tempfile::TempDir;

use super::site::{Site, behind};
use super::trace::{self, Event};

/// The calls that change something which others can see, and those in between at which a program
/// waits or is about to.
pub const CALLS: [&str; 42] = [
    "open",
    "openat",
    "creat",
    "close",
    "read",
    "write",
    "writev",
    "pwrite64",
    "pwritev",
    "ftruncate",
    "fallocate",
    "fsetxattr",
    "fremovexattr",
    "link",
    "linkat",
    "rename",
    "renameat",
    "renameat2",
    "unlink",
    "unlinkat",
    "mkdir",
    "mkdirat",
    "fsync",
    "fdatasync",
    "fcntl",
    "flock",
    "fchmod",
    "fchown",
    "utimensat",
    "sendto",
    "sendmsg",
    "recvfrom",
    "recvmsg",
    "poll",
    "ppoll",
    "epoll_wait",
    "epoll_pwait",
    "socket",
    "connect",
    "clone",
    "clone3",
    "exit_group",
];

/// At most so many places of one kind are tried; where there are more, they are spread evenly.
const PLACES: usize = 40;

/// What strace does to be a file system without extended attributes.
pub const NO_ATTRIBUTES: &str = "inject=fgetxattr,fsetxattr:error=EOPNOTSUPP";

/// The command on a file system that has no extended attributes.
pub fn without_attributes(command: &Command) -> Command {
    let strace = ["strace", "-f", "-o", "/dev/null", "-e", "trace=fgetxattr,fsetxattr", "-e"];
    let strace: Vec<OsString> = strace.into_iter().chain([NO_ATTRIBUTES]).map(Into::into).collect();
    behind(&strace, command)
}

/// One run under strace, with or without a kill.
pub struct Attempt {
    _directory: TempDir,
    output: PathBuf,
    /// The kind of call and its number; `None` in the first run, which only looks.
    place: Option<(String, usize)>,
    /// What happens there, as strace wants it: `signal=KILL`, `error=EIO`.
    fault: String,
    /// The kinds of calls that are looked at.
    calls: Vec<String>,
    /// Whether the file system has extended attributes.
    attributes: bool,
}

impl Attempt {
    fn new(fault: &str, calls: &[&str], place: Option<(String, usize)>) -> Self {
        let (directory, output) = trace::output();
        let calls = calls.iter().map(|call| (*call).to_owned()).collect();
        let fault = fault.to_owned();
        Self { _directory: directory, output, place, fault, calls, attributes: true }
    }

    /// The same on a file system that has no extended attributes: a kill at the calls that ask for
    /// one is left out.
    #[must_use]
    pub fn without_attributes(&self) -> Self {
        let (directory, output) = (tempfile::tempdir().unwrap(), self.output.clone());
        Self {
            _directory: directory,
            output,
            place: self.place.clone(),
            fault: self.fault.clone(),
            calls: self.calls.clone(),
            attributes: false,
        }
    }

    /// The command with strace in front of it.
    pub fn wrap(&self, command: &Command) -> Command {
        let mut prefix: Vec<OsString> = ["strace", "-f", "-o"].map(OsString::from).to_vec();
        prefix.push(self.output.clone().into());
        let (mut traced, mut options) = match &self.place {
            Some((call, number)) => {
                let fault = &self.fault;
                (call.clone(), vec![format!("inject={call}:{fault}:when={number}")])
            }
            None => (format!("?{}", self.calls.join(",?")), Vec::new()),
        };
        if !self.attributes {
            traced += ",fgetxattr,fsetxattr";
            options.push(NO_ATTRIBUTES.into());
        }
        options.insert(0, format!("trace={traced}"));
        for option in options {
            prefix.extend(["-e".into(), option.into()]);
        }
        let mut wrapped = behind(&prefix, command);
        // cargo's: the loader would look for everything in many places, and these calls be tried.
        wrapped.env_remove("LD_LIBRARY_PATH");
        wrapped
    }

    /// Whether it is the run in which nothing is killed.
    pub fn is_whole(&self) -> bool {
        self.place.is_none()
    }

    /// Whether the fault happened.
    fn happened(&self) -> bool {
        if self.fault == "signal=KILL" {
            return self.killed();
        }
        let Some((call, number)) = &self.place else {
            return false;
        };
        self.counts().get(call).is_some_and(|count| count >= number)
    }

    /// Whether a process was killed.
    pub fn killed(&self) -> bool {
        let text = fs::read_to_string(&self.output).unwrap();
        trace::parse(&text)
            .iter()
            .any(|event| matches!(event, Event::Killed(_, signal) if signal == "SIGKILL"))
    }

    /// How often each kind of call was made, by the process that made it most often.
    fn counts(&self) -> BTreeMap<String, usize> {
        let text = fs::read_to_string(&self.output).unwrap();
        let mut each: BTreeMap<(u32, String), usize> = BTreeMap::new();
        for line in text.lines() {
            let Some((pid, rest)) = line.split_once(' ') else {
                continue;
            };
            let rest = rest.trim_start();
            let Some((name, _)) = rest.split_once('(') else {
                continue;
            };
            if self.calls.iter().any(|call| call == name) {
                *each.entry((pid.parse().unwrap_or(0), name.to_owned())).or_default() += 1;
            }
        }
        let mut counts: BTreeMap<String, usize> = BTreeMap::new();
        for ((_, name), count) in each {
            let most = counts.entry(name).or_default();
            *most = count.max(*most);
        }
        counts
    }
}

impl std::fmt::Display for Attempt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.place {
            Some((call, number)) => write!(f, "{} at {call} number {number}", self.fault),
            None => write!(f, "nothing happened"),
        }
    }
}

/// Runs `scenario` once whole, and then once for each place at which the program can be killed.
///
/// The scenario makes its own site, runs the program as [`Attempt::wrap`] gives it, and says what
/// is wrong with what it finds afterwards.
pub fn kill_at_each(
    program: &str,
    skip: &[&str],
    scenario: impl Fn(&Attempt) -> Result<(), String> + Sync,
) {
    let calls: Vec<&str> = CALLS.into_iter().filter(|call| !skip.contains(call)).collect();
    at_each(program, "signal=KILL", &calls, scenario);
}

/// The same with another fault, as strace wants it (`signal=TERM`, `error=EIO`), at these kinds of
/// calls.
pub fn at_each(
    program: &str,
    fault: &str,
    calls: &[&str],
    scenario: impl Fn(&Attempt) -> Result<(), String> + Sync,
) {
    let whole = Attempt::new(fault, calls, None);
    scenario(&whole).unwrap_or_else(|what| panic!("{program}, {whole}: {what}"));
    let mut places = Vec::new();
    for (call, count) in whole.counts() {
        // One more than was seen: the order of processes is not the same in every run.
        let count = count + 1;
        let tried = count.min(PLACES);
        if count > PLACES {
            super::note(&format!("{program}: {tried} of {count} {call} calls are tried"));
        }
        for place in 0..tried {
            places.push((call.clone(), place * count / tried + 1));
        }
    }
    assert!(!places.is_empty(), "{program} made no call that is known");
    let next = AtomicUsize::new(0);
    let happened = AtomicUsize::new(0);
    let failures = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while let Some(place) = places.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let attempt = Attempt::new(fault, calls, Some(place.clone()));
                    // A scenario may panic as well; what it says is above, where is said here.
                    let ran = catch_unwind(AssertUnwindSafe(|| scenario(&attempt)));
                    if let Err(what) = ran.unwrap_or_else(|_| Err("it panicked".into())) {
                        failures.lock().unwrap().push(format!("{attempt}: {what}"));
                    }
                    if attempt.happened() {
                        happened.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    let happened = happened.into_inner();
    super::note(&format!("{program}: {fault} at {} places, reached {happened}", places.len()));
    let failures = failures.into_inner().unwrap();
    assert!(
        failures.is_empty(),
        "{program}: {} of {} failed:\n{}",
        failures.len(),
        places.len(),
        failures.join("\n")
    );
    assert!(happened > 0, "{program}: no place was reached: does strace work here?");
}

/// Lets the dot locks of the dead be old enough to be broken; nobody waits five minutes here.
pub fn age_locks(site: &Site) {
    let long_ago = SystemTime::now() - Duration::from_mins(10);
    for account in Site::accounts() {
        let lock = site.inbox(account.name).with_extension("lock");
        if let Ok(lock) = File::options().write(true).open(lock) {
            lock.set_modified(long_ago).unwrap();
        }
    }
}

/// Whether a file is exactly these bytes, said for a scenario.
pub fn same(what: &str, path: &Path, expected: &[&[u8]]) -> Result<(), String> {
    let found = fs::read(path).unwrap_or_default();
    if expected.contains(&found.as_slice()) {
        return Ok(());
    }
    Err(format!("{what}: {}", found.escape_ascii()))
}

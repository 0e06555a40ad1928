//! Processes: fork, exec, wait.

use std::ffi::{CString, OsStr};
use std::fs::File;
use std::io::{self, IsTerminal};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{SigHandler, SigSet, SigmaskHow, Signal};
use nix::sys::wait::{WaitPidFlag, WaitStatus};
use nix::unistd::{ForkResult, Pid};

use super::Exit;

/// Forks; the child runs `body` and exits with what it returns, without the parent's destructors.
///
/// Refuses when the process has more than one thread: a lock that another thread holds would stay
/// locked in the child for ever.
#[allow(unsafe_code, reason = "fork has no safe form")]
pub fn fork(body: impl FnOnce() -> Exit) -> io::Result<Pid> {
    if threads()? > 1 {
        return Err(io::Error::other("fork in a process with threads"));
    }
    // SAFETY: the process has one thread, so the child may use anything that the parent could.
    match unsafe { nix::unistd::fork() }? {
        ForkResult::Parent { child } => Ok(child),
        ForkResult::Child => {
            let exit = body();
            // SAFETY: _exit takes any status; it only skips the parent's exit handlers.
            unsafe { nix::libc::_exit(i32::from(exit as u8)) }
        }
    }
}

/// Threads of this process: entries of /proc/self/task, counted by its links. Where there is no
/// /proc (an empty root directory), 1: such a process was forked by one that could look.
fn threads() -> io::Result<u64> {
    use std::os::unix::fs::MetadataExt;
    match std::fs::metadata("/proc/self/task") {
        Ok(task) => Ok(task.nlink().saturating_sub(2)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(1),
        Err(error) => Err(error),
    }
}

/// How a child ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// It exited with this status.
    Exited(i32),
    /// A signal killed it.
    Killed(i32),
}

/// Takes one ended child, without waiting.
pub fn reap() -> Option<(Pid, Ended)> {
    loop {
        match nix::sys::wait::waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(status) => match ended(status) {
                Some(ended) => return Some(ended),
                None if status == WaitStatus::StillAlive => return None,
                None => {}
            },
            Err(nix::Error::EINTR) => {}
            Err(_) => return None,
        }
    }
}

/// Waits for one child.
pub fn wait(child: Pid) -> io::Result<Ended> {
    loop {
        match nix::sys::wait::waitpid(child, None) {
            Ok(status) => {
                if let Some((_, how)) = ended(status) {
                    return Ok(how);
                }
            }
            Err(nix::Error::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// How a child has ended, if it has.
pub fn try_wait(child: Pid) -> io::Result<Option<Ended>> {
    let status = nix::sys::wait::waitpid(child, Some(WaitPidFlag::WNOHANG))?;
    Ok(ended(status).map(|(_, how)| how))
}

fn ended(status: WaitStatus) -> Option<(Pid, Ended)> {
    match status {
        WaitStatus::Exited(pid, code) => Some((pid, Ended::Exited(code))),
        WaitStatus::Signaled(pid, signal, _) => Some((pid, Ended::Killed(signal as i32))),
        _ => None,
    }
}

/// Where programs that a child runs are looked for, whatever the caller's own path is.
pub const PATH: &str = "/usr/local/bin:/usr/bin:/bin";

/// Replaces this process by `program`, called with `arguments` (its name first), with `input` and
/// `output` as its 0 and 1, default SIGPIPE and an empty signal mask. Its environment is a PATH, our
/// time zone, what is given, and no more. Returns only on failure.
pub fn exec(
    program: &Path,
    arguments: &[&OsStr],
    environment: &[(&str, &OsStr)],
    input: impl AsFd,
    output: impl AsFd,
) -> io::Error {
    let run = || -> io::Result<()> {
        // Both are moved out of the way first: either may stand on the other's number.
        let input = nix::fcntl::fcntl(&input, nix::fcntl::FcntlArg::F_DUPFD_CLOEXEC(3))?;
        let output = nix::fcntl::fcntl(&output, nix::fcntl::FcntlArg::F_DUPFD_CLOEXEC(3))?;
        duplicate(input, 0)?;
        duplicate(output, 1)?;
        // What our own caller has left open for us is not the program's either.
        keep_all_from_exec()?;
        reset_signals()?;
        let path = CString::new(program.as_os_str().as_bytes())?;
        let mut argv = Vec::new();
        for argument in arguments {
            argv.push(CString::new(argument.as_bytes())?);
        }
        let zone = std::env::var_os("TZ");
        let ours = [("PATH", OsStr::new(PATH))].into_iter();
        let ours = ours.chain(zone.as_deref().map(|zone| ("TZ", zone)));
        let mut envp = Vec::new();
        for (name, value) in ours.chain(environment.iter().copied()) {
            envp.push(CString::new([name.as_bytes(), b"=", value.as_bytes()].concat())?);
        }
        nix::unistd::execve(&path, &argv, &envp)?;
        Ok(())
    };
    run().err().unwrap_or_else(|| io::Error::other("execve returned"))
}

#[allow(unsafe_code, reason = "dup2 onto a standard descriptor has no safe form")]
fn duplicate(from: i32, to: i32) -> io::Result<()> {
    // SAFETY: dup2 takes any two numbers; 0 and 1 are meant to be replaced here.
    if unsafe { nix::libc::dup2(from, to) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Lets a program begin as [`exec`] has it begin: no signal held back, and none ignored of those that
/// we ignore or look at ourselves.
#[allow(unsafe_code, reason = "pre_exec has no safe form")]
pub fn with_usual_signals(command: &mut Command) -> &mut Command {
    // SAFETY: between fork and exec, reset_signals makes system calls and touches no memory of
    // anybody's.
    unsafe { command.pre_exec(reset_signals) }
}

#[allow(unsafe_code, reason = "signal() has no safe form")]
fn reset_signals() -> io::Result<()> {
    for signal in [Signal::SIGPIPE, Signal::SIGTERM, Signal::SIGCHLD, Signal::SIGXFSZ] {
        // SAFETY: the default action is no handler of ours.
        unsafe { nix::sys::signal::signal(signal, SigHandler::SigDfl) }?;
    }
    nix::sys::signal::sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None)?;
    Ok(())
}

/// Lets a forked child lose the terminal that its parent was started on, before it becomes somebody
/// else: another user's process could type into root's terminal (TIOCSTI), or read what is typed.
pub fn leave_terminal() -> io::Result<()> {
    nix::unistd::setsid()?;
    if super::privilege::is_root() && io::stderr().is_terminal() {
        let null = File::options().write(true).open("/dev/null")?;
        duplicate(null.as_raw_fd(), 2)?;
    }
    Ok(())
}

/// Closes every descriptor above 2 but those given: what a forked child does not need.
pub fn close_others(keep: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut kept: Vec<u32> = keep
        .iter()
        .filter_map(|fd| u32::try_from(fd.as_raw_fd()).ok())
        .filter(|number| *number > 2)
        .collect();
    kept.sort_unstable();
    let mut first = 3;
    for number in kept {
        close_range(first, number.saturating_sub(1))?;
        first = number.saturating_add(1);
    }
    close_range(first, u32::MAX)
}

#[allow(unsafe_code, reason = "nix has no close_range")]
fn close_range(first: u32, last: u32) -> io::Result<()> {
    if first > last {
        return Ok(());
    }
    // SAFETY: the caller is a freshly forked child that names every descriptor it goes on using.
    let code = unsafe { nix::libc::syscall(nix::libc::SYS_close_range, first, last, 0) };
    if code == 0 {
        return Ok(());
    }
    match nix::Error::last() {
        // Kernels before 5.9, and containers that do not know the call yet.
        nix::Error::ENOSYS | nix::Error::EPERM => close_each(first, last),
        error => Err(error.into()),
    }
}

/// How many descriptors this process may have open.
pub fn max_descriptors() -> usize {
    let limit = getrlimit(Resource::RLIMIT_NOFILE).map_or(0, |(soft, _)| soft);
    usize::try_from(limit).unwrap_or(usize::MAX)
}

/// Raises that limit as far as it may be, up to `most`.
pub fn raise_max_descriptors(most: u64) -> io::Result<()> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    if soft < most.min(hard) {
        setrlimit(Resource::RLIMIT_NOFILE, most.min(hard), hard)?;
    }
    Ok(())
}

/// Lets no descriptor above 2 reach a program that is executed.
pub fn keep_all_from_exec() -> io::Result<()> {
    open_descriptors()?.filter(|number| *number > 2).try_for_each(keep_from_exec)
}

/// Kills what is left of a child's process group, of which it was made the leader.
pub fn kill_group(child: &std::process::Child) {
    if let Ok(leader) = i32::try_from(child.id()) {
        let _ = nix::sys::signal::killpg(Pid::from_raw(leader), Signal::SIGKILL);
    }
}

/// The numbers of this process's open descriptors, and that of a directory that is closed by now.
fn open_descriptors() -> io::Result<impl Iterator<Item = u32>> {
    let numbers: Vec<u32> = std::fs::read_dir("/proc/self/fd")?
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect();
    Ok(numbers.into_iter())
}

#[allow(unsafe_code, reason = "a descriptor is known by its number only")]
fn keep_from_exec(number: u32) -> io::Result<()> {
    // SAFETY: F_SETFD on any number changes no memory.
    let code = unsafe {
        nix::libc::syscall(nix::libc::SYS_fcntl, number, nix::libc::F_SETFD, nix::libc::FD_CLOEXEC)
    };
    match nix::errno::Errno::result(code) {
        Ok(_) | Err(nix::Error::EBADF) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

#[allow(unsafe_code, reason = "descriptors are closed by their numbers")]
fn close_each(first: u32, last: u32) -> io::Result<()> {
    for number in open_descriptors()?.filter(|number| (first..=last).contains(number)) {
        // SAFETY: as in close_range; the directory's own descriptor is closed already, and closing
        // a number that is not open is an error without effect.
        unsafe { nix::libc::syscall(nix::libc::SYS_close, number) };
    }
    Ok(())
}

//! The cell in which a process that speaks to strangers lives.
//!
//! Four walls, each where the kernel and our rights allow it: an empty root directory (root only),
//! another user id (root only), Landlock (no file but what is named, no network connection but to
//! ports that are named, no signal to the outside), and a list of system calls, all under
//! `no_new_privs`.
//!
//! There are two kinds of cells. In one a session speaks to a client on a descriptor that it was
//! given; walls cost more than a fork, so that one process may enter such a cell and then fork the
//! sessions ([`Jail::for_parents`], [`forbid_children`]). In the other a process calls other hosts:
//! it may make sockets, but has no system call left that opens a file by its name, so that it needs
//! no empty root directory (it may see that a file exists); what it must read (resolv.conf,
//! certificates) it reads as the other user, before it enters.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, NetPort, PathBeneath,
    Ruleset, RulesetAttr, RulesetCreatedAttr, Scope,
};
use nix::libc;
use nix::sys::resource::{Resource, setrlimit};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch,
};

use super::{Account, privilege};

/// What a cell is made of; prepared once by the listening parent.
pub struct Jail {
    /// An empty directory that has no name any more, so that nothing can ever be put into it;
    /// `None` without root.
    empty: Option<OwnedFd>,
    filter: BpfProgram,
    /// TCP ports that may be called.
    ports: Vec<u16>,
}

/// What a prisoner may do with the one directory that it was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grant {
    /// Make new files by `O_TMPFILE` and link.
    Create,
    /// Make and also rename or remove files: where the file system has no `O_TMPFILE`.
    CreateAndRemove,
}

impl Jail {
    /// A cell for a session with one client. Makes the empty directory, as root.
    pub fn prepare() -> io::Result<Self> {
        Self::around(session_filter(false)?)
    }

    /// A cell for a process that forks the sessions, each of which calls [`forbid_children`] first.
    pub fn for_parents() -> io::Result<Self> {
        Self::around(session_filter(true)?)
    }

    fn around(filter: BpfProgram) -> io::Result<Self> {
        if !privilege::is_root() {
            return Ok(Self { empty: None, filter, ports: Vec::new() });
        }
        let name = format!("/tmp/hikyaku-{}-{:08x}", std::process::id(), random()?);
        nix::unistd::mkdir(name.as_str(), nix::sys::stat::Mode::S_IRWXU)
            .map_err(|error| wall(&name, error))?;
        let opened = super::fd::open_directory(name.as_ref());
        fs::remove_dir(&name)?;
        let directory = opened?;
        // Owned by root, and others may only pass through it.
        let mode = nix::sys::stat::Mode::from_bits_truncate(0o111);
        nix::sys::stat::fchmod(&directory, mode)?;
        Ok(Self { empty: Some(directory), filter, ports: Vec::new() })
    }

    /// A cell for a process that calls other hosts, by UDP and, on these ports, by TCP.
    pub fn for_callers(ports: &[u16]) -> io::Result<Self> {
        Ok(Self { empty: None, filter: caller_filter()?, ports: ports.to_vec() })
    }

    /// The descriptor that [`Jail::enter`] needs.
    pub fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.empty.as_ref().map(AsFd::as_fd)
    }

    /// Locks the calling process up for good: it becomes `account` (as root) and keeps its open
    /// descriptors, and of the file system only `directory`.
    pub fn enter(
        &self,
        account: Option<&Account>,
        directory: Option<(&OwnedFd, Grant)>,
    ) -> io::Result<()> {
        // Whichever wall can't be built, there is no session: the error names it.
        if let Some(empty) = &self.empty {
            let changed = nix::unistd::fchdir(empty).and_then(|()| nix::unistd::chroot("."));
            changed.map_err(|error| wall("chroot", error))?;
        }
        if let Some(account) = account {
            privilege::become_account(account)?;
        }
        nix::sys::prctl::set_dumpable(false).map_err(|error| wall("dumpable", error))?;
        landlock(directory, &self.ports).map_err(|error| wall("landlock", error))?;
        seccompiler::apply_filter(&self.filter).map_err(|error| wall("seccomp", error))
    }
}

/// Lets the calling process fork no more, nor start threads. It must not be root.
pub fn forbid_children() -> io::Result<()> {
    setrlimit(Resource::RLIMIT_NPROC, 0, 0).map_err(|error| wall("no children", error))
}

fn wall(name: &str, error: impl std::fmt::Display) -> io::Error {
    io::Error::other(format!("{name}: {error}"))
}

fn random() -> io::Result<u32> {
    getrandom::u32().map_err(|error| io::Error::other(error.to_string()))
}

/// No file but below `directory`, no TCP connection but to `ports`, no signal to others: as far as
/// this kernel's Landlock goes; the rest is seccomp's.
fn landlock(
    directory: Option<(&OwnedFd, Grant)>,
    ports: &[u16],
) -> Result<(), landlock::RulesetError> {
    let mut rules = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(ABI::V6))?
        .handle_access(AccessNet::from_all(ABI::V6))?
        .scope(Scope::AbstractUnixSocket | Scope::Signal)?
        .create()?;
    if let Some((fd, grant)) = directory {
        let mut rights: BitFlags<AccessFs> = AccessFs::MakeReg | AccessFs::WriteFile;
        if grant == Grant::CreateAndRemove {
            rights |= AccessFs::RemoveFile;
        }
        rules = rules.add_rule(PathBeneath::new(fd.as_fd(), rights))?;
    }
    for port in ports {
        rules = rules.add_rule(NetPort::new(*port, AccessNet::ConnectTcp))?;
    }
    rules.restrict_self()?;
    Ok(())
}

/// openat(2) with these flags, for writing only: a new file, and never one that is there. An open
/// directory leads out of an empty root directory by `..`, and older kernels have no Landlock.
fn new_file(flags: i32) -> io::Result<SeccompRule> {
    let mask = u64::from((flags | libc::O_ACCMODE).unsigned_abs());
    let wanted = u64::from((flags | libc::O_WRONLY).unsigned_abs());
    let condition =
        SeccompCondition::new(2, SeccompCmpArgLen::Dword, SeccompCmpOp::MaskedEq(mask), wanted);
    condition.and_then(|condition| SeccompRule::new(vec![condition])).map_err(io::Error::other)
}

/// What both kinds of cells need: descriptors that are open, memory, time.
const COMMON: &[i64] = &[
    libc::SYS_read,
    libc::SYS_readv,
    libc::SYS_pread64,
    libc::SYS_write,
    libc::SYS_writev,
    libc::SYS_lseek,
    libc::SYS_close,
    libc::SYS_fstat,
    libc::SYS_statx,
    libc::SYS_fcntl,
    libc::SYS_ppoll,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_sendto,
    libc::SYS_sendmsg,
    libc::SYS_shutdown,
    libc::SYS_getsockopt,
    libc::SYS_mmap,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_mprotect,
    libc::SYS_madvise,
    libc::SYS_brk,
    libc::SYS_futex,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    libc::SYS_gettimeofday,
    libc::SYS_getpid,
    libc::SYS_gettid,
    libc::SYS_getrandom,
    libc::SYS_restart_syscall,
    libc::SYS_exit,
    libc::SYS_exit_group,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_poll,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_time,
];

/// A session: besides, new files below a directory that it already has open. No exec, no new
/// socket, no signal; a process only where `more` says that the caller forks.
fn session_filter(parent: bool) -> io::Result<BpfProgram> {
    let files = [
        libc::SYS_pwrite64,
        libc::SYS_fchmod,
        libc::SYS_newfstatat,
        libc::SYS_fsync,
        libc::SYS_syncfs,
        libc::SYS_fdatasync,
        libc::SYS_sync_file_range,
        libc::SYS_ftruncate,
        libc::SYS_linkat,
        libc::SYS_renameat2,
        libc::SYS_unlinkat,
    ];
    let open = vec![new_file(libc::O_TMPFILE)?, new_file(libc::O_CREAT | libc::O_EXCL)?];
    let mut ruled = vec![(libc::SYS_openat, open)];
    if parent {
        // What fork(3) makes of itself; and no other limit of no other process.
        let forks = libc::SIGCHLD | libc::CLONE_CHILD_SETTID | libc::CLONE_CHILD_CLEARTID;
        ruled.push((libc::SYS_clone, vec![arguments(&[(0, forks)])?]));
        ruled.push((libc::SYS_set_robust_list, Vec::new()));
        let limit = i32::try_from(libc::RLIMIT_NPROC).map_err(io::Error::other)?;
        ruled.push((libc::SYS_prlimit64, vec![arguments(&[(0, 0), (1, limit)])?]));
    }
    filter(&files, ruled)
}

/// A caller of other hosts: besides, sockets of the internet and waiting for many of them. No file
/// by its name, no exec, no signal, no process.
fn caller_filter() -> io::Result<BpfProgram> {
    let sockets = [
        // Of files that it has open: the greylist.
        libc::SYS_pwrite64,
        libc::SYS_flock,
        libc::SYS_connect,
        libc::SYS_bind,
        libc::SYS_setsockopt,
        libc::SYS_getsockname,
        libc::SYS_getpeername,
        libc::SYS_epoll_create1,
        libc::SYS_epoll_ctl,
        libc::SYS_epoll_pwait,
        libc::SYS_eventfd2,
        #[cfg(target_arch = "x86_64")]
        libc::SYS_epoll_wait,
    ];
    let families = vec![arguments(&[(0, libc::AF_INET)])?, arguments(&[(0, libc::AF_INET6)])?];
    // What std makes a socket non-blocking with.
    let nonblocking = i32::try_from(libc::FIONBIO).map_err(io::Error::other)?;
    let nonblocking = vec![arguments(&[(1, nonblocking)])?];
    filter(&sockets, vec![(libc::SYS_socket, families), (libc::SYS_ioctl, nonblocking)])
}

/// A system call only where these arguments, by their numbers, have these values.
fn arguments(wanted: &[(u8, i32)]) -> io::Result<SeccompRule> {
    let condition = |(number, value): &(u8, i32)| {
        let value = u64::from(value.unsigned_abs());
        SeccompCondition::new(*number, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, value)
    };
    let conditions: Result<Vec<_>, _> = wanted.iter().map(condition).collect();
    conditions.and_then(SeccompRule::new).map_err(io::Error::other)
}

/// Allows the common calls, `more`, and those of `ruled` that one of their rules fits; anything
/// else is `EPERM`.
fn filter(more: &[i64], ruled: Vec<(i64, Vec<SeccompRule>)>) -> io::Result<BpfProgram> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> =
        COMMON.iter().chain(more).map(|call| (*call, Vec::new())).collect();
    rules.extend(ruled);
    let denied = SeccompAction::Errno(libc::EPERM.unsigned_abs());
    let architecture = TargetArch::try_from(std::env::consts::ARCH).map_err(io::Error::other)?;
    SeccompFilter::new(rules, denied, SeccompAction::Allow, architecture)
        .and_then(BpfProgram::try_from)
        .map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::fd::AsFd;

    use nix::fcntl::{OFlag, openat};
    use nix::sys::resource::Resource;
    use nix::sys::stat::Mode;

    use super::{Grant, Jail, landlock, session_filter};
    use crate::sys::fd;

    /// What a prisoner of one wall can do with its directory: make a file, read one that is there,
    /// read one outside. Filters hold for the thread that sets them, and its descendants.
    fn tries(wall: impl FnOnce(&std::os::fd::OwnedFd) + Send + 'static) -> [bool; 3] {
        let place = tempfile::tempdir().unwrap();
        std::fs::write(place.path().join("there"), "x").unwrap();
        let directory = fd::open_directory(place.path()).unwrap();
        let prisoner = std::thread::spawn(move || {
            wall(&directory);
            let made = fd::unnamed_file(&directory, 0o600)
                .and_then(|file: File| fd::link(&file, &directory, "new", None));
            let read = |path| openat(directory.as_fd(), path, OFlag::O_RDONLY, Mode::empty());
            [
                made.is_ok(),
                read("there").is_ok(),
                read("../../../../../../../../etc/passwd").is_ok(),
            ]
        });
        prisoner.join().unwrap()
    }

    #[test]
    fn either_wall_alone_lets_files_be_made_and_none_be_read() {
        let filter = session_filter(false).unwrap();
        let by_calls = tries(move |_| seccompiler::apply_filter(&filter).unwrap());
        assert_eq!(by_calls, [true, false, false], "seccomp");
        let by_rules = tries(|directory| landlock(Some((directory, Grant::Create)), &[]).unwrap());
        assert!(by_rules[0], "landlock");
        assert_eq!(tries(|_| ()), [true, true, true], "no wall");
    }

    #[test]
    fn a_parent_of_sessions_forks_and_starts_nothing_else() {
        let filter = session_filter(true).unwrap();
        let prisoner = std::thread::spawn(move || {
            seccompiler::apply_filter(&filter).unwrap();
            let limit = |what| nix::sys::resource::getrlimit(what).is_ok();
            [
                limit(Resource::RLIMIT_NPROC),
                limit(Resource::RLIMIT_NOFILE),
                std::thread::Builder::new().spawn(|| ()).is_ok(),
                std::process::Command::new("/bin/true").status().is_ok(),
                std::net::UdpSocket::bind("127.0.0.1:0").is_ok(),
            ]
        });
        assert_eq!(prisoner.join().unwrap(), [true, false, false, false, false]);
    }

    #[test]
    fn a_caller_calls_the_named_port_and_opens_no_file() {
        let server = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let other = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let (named, unnamed) = (server.local_addr().unwrap(), other.local_addr().unwrap());
        let prisoner = std::thread::spawn(move || {
            Jail::for_callers(&[named.port()]).unwrap().enter(None, None).unwrap();
            [
                std::net::TcpStream::connect(named).is_ok(),
                std::net::UdpSocket::bind("127.0.0.1:0").is_ok(),
                std::net::TcpStream::connect(unnamed).is_ok(),
                File::open("/etc/passwd").is_ok(),
                std::os::unix::net::UnixStream::pair().is_ok(),
                std::process::Command::new("/bin/true").status().is_ok(),
            ]
        });
        let [named, udp, unnamed, file, unix, process] = prisoner.join().unwrap();
        assert!(named && udp && !file && !unix && !process);
        // Only newer kernels' Landlock knows ports.
        assert!(!unnamed || !knows_ports());
    }

    fn knows_ports() -> bool {
        use landlock::{ABI, Access, AccessNet, CompatLevel, Compatible, Ruleset, RulesetAttr};
        let rules = Ruleset::default().set_compatibility(CompatLevel::HardRequirement);
        rules.handle_access(AccessNet::from_all(ABI::V4)).is_ok()
    }
}

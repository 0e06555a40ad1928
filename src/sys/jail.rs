//! The cell in which a process that speaks to strangers lives.
//!
//! Four walls, each where the kernel and our rights allow it: an empty root directory (root only),
//! another user id (root only), Landlock (no file but what is named, no network connection, no
//! signal to the outside), and a list of system calls, all under `no_new_privs`.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, PathBeneath, Ruleset,
    RulesetAttr, RulesetCreatedAttr, Scope,
};
use nix::libc;
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
    /// Makes the empty directory, as root.
    pub fn prepare() -> io::Result<Self> {
        if !privilege::is_root() {
            return Ok(Self { empty: None, filter: system_calls()? });
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
        Ok(Self { empty: Some(directory), filter: system_calls()? })
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
        nix::sys::prctl::set_no_new_privs().map_err(|error| wall("no_new_privs", error))?;
        nix::sys::prctl::set_dumpable(false).map_err(|error| wall("dumpable", error))?;
        landlock(directory).map_err(|error| wall("landlock", error))?;
        seccompiler::apply_filter(&self.filter).map_err(|error| wall("seccomp", error))
    }
}

fn wall(name: &str, error: impl std::fmt::Display) -> io::Error {
    io::Error::other(format!("{name}: {error}"))
}

fn random() -> io::Result<u32> {
    getrandom::u32().map_err(|error| io::Error::other(error.to_string()))
}

/// No file but below `directory`, no TCP connection, no signal to others: as far as this kernel's
/// Landlock goes; the rest is seccomp's.
fn landlock(directory: Option<(&OwnedFd, Grant)>) -> Result<(), landlock::RulesetError> {
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

/// What a session needs: its descriptors, memory, time, and new files below a directory that it
/// already has open. No exec, no new socket, no signal, no process; anything else is `EPERM`.
fn system_calls() -> io::Result<BpfProgram> {
    let allowed = [
        libc::SYS_read,
        libc::SYS_readv,
        libc::SYS_pread64,
        libc::SYS_write,
        libc::SYS_writev,
        libc::SYS_pwrite64,
        libc::SYS_lseek,
        libc::SYS_close,
        libc::SYS_fstat,
        libc::SYS_fchmod,
        libc::SYS_newfstatat,
        libc::SYS_statx,
        libc::SYS_fsync,
        libc::SYS_syncfs,
        libc::SYS_fdatasync,
        libc::SYS_ftruncate,
        libc::SYS_linkat,
        libc::SYS_renameat2,
        libc::SYS_unlinkat,
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
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> =
        allowed.into_iter().map(|call| (call, Vec::new())).collect();
    rules.insert(
        libc::SYS_openat,
        vec![new_file(libc::O_TMPFILE)?, new_file(libc::O_CREAT | libc::O_EXCL)?],
    );
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
    use nix::sys::stat::Mode;

    use super::{Grant, landlock, system_calls};
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
        let filter = system_calls().unwrap();
        let by_calls = tries(move |_| seccompiler::apply_filter(&filter).unwrap());
        assert_eq!(by_calls, [true, false, false], "seccomp");
        let by_rules = tries(|directory| landlock(Some((directory, Grant::Create))).unwrap());
        assert!(by_rules[0], "landlock");
        assert_eq!(tries(|_| ()), [true, true, true], "no wall");
    }
}

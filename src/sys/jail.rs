//! The cell in which a process that speaks to strangers lives.
//!
//! Four walls, each where the kernel and our rights allow it: an empty root directory (root only),
//! another user id (root only), Landlock (no file but what is named, no network connection, no
//! signal to the outside), and a list of system calls, all under `no_new_privs`.

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, PathBeneath, Ruleset,
    RulesetAttr, RulesetCreatedAttr, Scope,
};
use nix::libc;
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, TargetArch};

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
            return Ok(Self {
                empty: None,
                filter: system_calls()?,
            });
        }
        let name = format!("/tmp/hikyaku-{}-{:08x}", std::process::id(), random()?);
        nix::unistd::mkdir(name.as_str(), nix::sys::stat::Mode::S_IRWXU)?;
        let opened = super::fd::open_directory(name.as_ref());
        fs::remove_dir(&name)?;
        let directory = opened?;
        // Owned by root, and others may only pass through it.
        let mode = nix::sys::stat::Mode::from_bits_truncate(0o111);
        nix::sys::stat::fchmod(&directory, mode)?;
        Ok(Self {
            empty: Some(directory),
            filter: system_calls()?,
        })
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
        if let Some(empty) = &self.empty {
            nix::unistd::fchdir(empty)?;
            nix::unistd::chroot(".")?;
        }
        if let Some(account) = account {
            privilege::become_account(account)?;
        }
        nix::sys::prctl::set_no_new_privs()?;
        nix::sys::prctl::set_dumpable(false)?;
        landlock(directory)?;
        seccompiler::apply_filter(&self.filter)
            .map_err(|error| io::Error::other(format!("seccomp: {error}")))
    }
}

fn random() -> io::Result<u32> {
    getrandom::u32().map_err(|error| io::Error::other(error.to_string()))
}

/// No file but below `directory`, no TCP connection, no signal to others: as far as this kernel's
/// Landlock goes; the rest is seccomp's.
fn landlock(directory: Option<(&OwnedFd, Grant)>) -> io::Result<()> {
    let rules = || -> Result<(), landlock::RulesetError> {
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
    };
    rules().map_err(|error| io::Error::other(format!("landlock: {error}")))
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
        libc::SYS_newfstatat,
        libc::SYS_statx,
        libc::SYS_fsync,
        libc::SYS_fdatasync,
        libc::SYS_ftruncate,
        libc::SYS_openat,
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
    let denied = SeccompAction::Errno(libc::EPERM.unsigned_abs());
    let architecture = TargetArch::try_from(std::env::consts::ARCH).map_err(io::Error::other)?;
    SeccompFilter::new(
        allowed.into_iter().map(|call| (call, Vec::new())).collect(),
        denied,
        SeccompAction::Allow,
        architecture,
    )
    .and_then(BpfProgram::try_from)
    .map_err(io::Error::other)
}

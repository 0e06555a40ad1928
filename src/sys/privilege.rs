//! Giving rights up: for good, and verified.

use std::io;

use nix::unistd::{
    Gid, Uid, getegid, geteuid, getgid, getresgid, getresuid, getuid, setegid, setgroups,
    setresgid, setresuid,
};

use super::Account;

/// Whether this process runs as root.
pub fn is_root() -> bool {
    geteuid().is_root()
}

/// Whether somebody runs us with rights that are not theirs (a setuid or setgid program). Such a
/// program takes no configuration, debug or log file from its caller.
pub fn is_elevated() -> bool {
    getuid() != geteuid() || getgid() != getegid()
}

/// Gives the setgid group back to the caller for good.
pub fn drop_setgid() -> io::Result<()> {
    let gid = getgid();
    setresgid(gid, gid, gid)?;
    verify(getuid(), gid)
}

/// Becomes the account for good: groups, then group, then user, then proof that there is no way
/// back. Called by root before the first byte of the user's data is read (maildrop CVE-2010-0301).
///
/// Without root it succeeds only for the account that the process already has.
pub fn become_account(account: &Account) -> io::Result<()> {
    become_ids(account.uid, account.gid, &[account.gid])
}

/// Makes new files, as root, with this group.
pub fn take_group(group: Gid) -> io::Result<()> {
    Ok(setegid(group)?)
}

/// Runs `action` with the account's user id and `group` as effective group, as root with the way
/// back still open: for the one file that a user may not make alone, a spool in a directory of
/// group mail.
pub fn with_group<T>(account: &Account, group: Gid, action: impl FnOnce() -> T) -> io::Result<T> {
    // nix's getgroups asks /proc how many there may be.
    let groups = rustix::process::getgroups()?;
    let groups: Vec<Gid> = groups.iter().map(|group| Gid::from_raw(group.as_raw())).collect();
    let (uid, gid) = (geteuid(), getegid());
    setgroups(&[group])?;
    setegid(group)?;
    nix::unistd::seteuid(account.uid)?;
    let result = action();
    nix::unistd::seteuid(uid)?;
    setegid(gid)?;
    setgroups(&groups)?;
    Ok(result)
}

fn become_ids(uid: Uid, gid: Gid, groups: &[Gid]) -> io::Result<()> {
    if is_root() {
        setgroups(groups)?;
        setresgid(gid, gid, gid)?;
        setresuid(uid, uid, uid)?;
    }
    verify(uid, gid)
}

fn verify(uid: Uid, gid: Gid) -> io::Result<()> {
    let (users, groups) = (getresuid()?, getresgid()?);
    let held = [users.real, users.effective, users.saved] == [uid; 3]
        && [groups.real, groups.effective, groups.saved] == [gid; 3];
    let way_back = !uid.is_root() && nix::unistd::setuid(Uid::from_raw(0)).is_ok();
    if held && !way_back {
        return Ok(());
    }
    Err(io::Error::new(
        io::ErrorKind::PermissionDenied,
        format!("can't become uid {uid} gid {gid}: only root or that user can"),
    ))
}

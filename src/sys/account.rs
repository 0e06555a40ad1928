//! Accounts: who a process can become.

use std::ffi::{CStr, CString};
use std::io;
use std::path::PathBuf;

use nix::unistd::{Gid, Uid, User};

/// An account of the host, or a virtual one from a users file: somebody that a process can become.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// Login name; for a virtual user the name in the users file.
    pub name: String,
    /// Numeric user id.
    pub uid: Uid,
    /// Primary group.
    pub gid: Gid,
    /// Home directory.
    pub home: PathBuf,
    /// Login shell.
    pub shell: PathBuf,
}

impl From<User> for Account {
    fn from(user: User) -> Self {
        Self { name: user.name, uid: user.uid, gid: user.gid, home: user.dir, shell: user.shell }
    }
}

impl Account {
    /// This process's own account, as it was told: its ids, and the home directory of its
    /// environment.
    pub fn own(name: &str) -> Self {
        let home = std::env::var_os("HOME").unwrap_or_else(|| "/nonexistent".into());
        Self {
            name: name.to_owned(),
            uid: nix::unistd::geteuid(),
            gid: nix::unistd::getegid(),
            home: home.into(),
            shell: PathBuf::from("/bin/sh"),
        }
    }

    /// Looks a login name up in the host's passwd database.
    pub fn by_name(name: &str) -> io::Result<Option<Self>> {
        Ok(User::from_name(name)?.map(Self::from))
    }

    /// Looks a user id up in the host's passwd database.
    pub fn by_uid(uid: Uid) -> io::Result<Option<Self>> {
        Ok(User::from_uid(uid)?.map(Self::from))
    }
}

/// The password hash of a shadow entry; `None` where there is no entry, or it has expired.
///
/// Only root may read it. NSS is asked (getspnam_r(3)), so that other databases than the file work.
#[allow(unsafe_code, reason = "nix has no binding for getspnam_r")]
pub fn shadow_hash(name: &str) -> io::Result<Option<String>> {
    let Ok(name) = CString::new(name) else {
        return Ok(None);
    };
    let mut buffer = vec![0 as nix::libc::c_char; 16 * 1024];
    // SAFETY: spwd is a plain C struct of pointers and integers, for which all zeroes is a value.
    let mut entry: nix::libc::spwd = unsafe { std::mem::zeroed() };
    let mut result: *mut nix::libc::spwd = std::ptr::null_mut();
    // SAFETY: every pointer is valid for the call, and the buffer's true length is passed.
    let code = unsafe {
        nix::libc::getspnam_r(
            name.as_ptr(),
            &raw mut entry,
            buffer.as_mut_ptr(),
            buffer.len(),
            &raw mut result,
        )
    };
    if result.is_null() {
        return match code {
            0 | nix::libc::ENOENT => Ok(None),
            code => Err(io::Error::from_raw_os_error(code)),
        };
    }
    let today = super::clock::seconds() / 86_400;
    if entry.sp_expire > 0 && u64::try_from(entry.sp_expire).is_ok_and(|day| today >= day) {
        return Ok(None);
    }
    if entry.sp_pwdp.is_null() {
        return Ok(None);
    }
    // SAFETY: getspnam_r succeeded, so sp_pwdp is a NUL-terminated string inside `buffer`.
    let hash = unsafe { CStr::from_ptr(entry.sp_pwdp) };
    Ok(hash.to_str().ok().map(str::to_owned))
}

//! Accounts of the host, `[users] source = "system"`, that are a test's own: passwd and shadow, and
//! PAM's rules, are bound over those of /etc in a mount namespace.

use std::fmt::Write;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use super::site::{Site, behind};
use super::{need, need_root};

pub const PASSWORD: &str = "Watts?Watt?";
/// `chpasswd -c SHA512` made this of it.
pub const SHA512: &str = "$6$bB5dXtQhl.7hDLM1$ou7fvYT5T9gBJmjGAPkwZNiShVsERRpCqmvvrJpN1osMOHgxwx7J\
                          xMNDlp1jKAeluW2Thj.7DETn5MI/1R2Yd/";

/// Whether there can be such a host here.
pub fn need_own_accounts() -> bool {
    need_root() && need("unshare")
}

/// Writes the accounts: name, uid, and what stands in shadow behind the name.
pub fn write(site: &Site, accounts: &[(&str, u32, String)]) {
    let (mut passwd, mut shadow) = (String::new(), String::new());
    for (name, uid, fields) in accounts {
        let home = site.home(name);
        writeln!(passwd, "{name}:x:{uid}:{uid}::{}:/bin/sh", home.display()).unwrap();
        writeln!(shadow, "{name}:{fields}").unwrap();
    }
    fs::write(site.path().join("passwd"), passwd).unwrap();
    let file = site.path().join("shadow");
    fs::write(&file, shadow).unwrap();
    fs::set_permissions(file, fs::Permissions::from_mode(0o600)).unwrap();
}

/// A program of ours on that host.
pub fn on(site: &Site, command: &Command) -> Command {
    let script = "cd \"$0\" || exit; for name in passwd shadow pam.d; do \
                  [ ! -e $name ] || mount --bind \"$PWD/$name\" /etc/$name || exit; done; exec \"$@\"";
    behind(&["unshare", "-m", "sh", "-c", script, site.path().to_str().unwrap()], command)
}

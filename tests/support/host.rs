//! The users of a site as accounts of the host, for programs that look them up in passwd(5). The
//! file is bound over the host's in a mount namespace, which ends with the program.

use std::fmt::Write;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use super::is_root;
use super::site::{Site, behind};

/// An account: name, uid and gid, home.
#[derive(Clone, Debug)]
pub struct Account {
    pub name: String,
    pub id: u32,
    pub home: PathBuf,
}

/// Those of a site.
pub fn accounts(site: &Site) -> Vec<Account> {
    let account = |account: super::site::Account| Account {
        name: account.name.to_owned(),
        id: account.uid,
        home: site.home(account.name),
    };
    Site::accounts().into_iter().map(account).collect()
}

/// The host's passwd(5) with more accounts.
pub fn passwd(more: &[Account]) -> String {
    let mut text = fs::read_to_string("/etc/passwd").unwrap();
    for Account { name, id, home } in more {
        writeln!(text, "{name}:x:{id}:{id}::{}:/bin/sh", home.display()).unwrap();
    }
    text
}

/// The host's group(5) with the groups of more accounts.
pub fn group(more: &[Account]) -> String {
    let mut text = fs::read_to_string("/etc/group").unwrap();
    for Account { name, id, .. } in more {
        writeln!(text, "{name}:x:{id}:").unwrap();
    }
    text
}

/// A command run by a user of the site, who has a name and a home on the host. Without root it is
/// whoever runs the tests, by their own name.
pub fn run_by(site: &Site, user: &str, command: &Command) -> Command {
    if !is_root() {
        let mut command = behind(&["env"], command);
        site.become_user(&mut command, user);
        return command;
    }
    let file = site.path().join("passwd");
    fs::write(&file, passwd(&accounts(site))).unwrap();
    let id = Site::account(user).uid;
    let script = format!(
        "mount --bind '{}' /etc/passwd; exec setpriv --reuid {id} --regid {id} --clear-groups \"$@\"",
        file.display()
    );
    let mut command = behind(&["unshare", "--mount", "sh", "-ec", &script, "sh"], command);
    command
        .env("USER", user)
        .env("LOGNAME", user)
        .env("HOME", site.home(user))
        .current_dir(site.home(user));
    command
}

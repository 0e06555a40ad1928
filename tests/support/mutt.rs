//! mutt at a terminal of its own, pressing the keys that a test names.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use super::run::{spawn, wait};
use super::{PATIENCE, need, need_account};

/// Whether mutt can be run; says why not.
pub fn possible() -> bool {
    need("mutt") && need("script") && need_account()
}

/// Opens a mailbox and presses keys: `<tag-pattern>.<enter>…`. Its settings are kept in
/// `directory`.
pub fn press(directory: &Path, mailbox: &Path, keys: &str) {
    let rc = directory.join("muttrc");
    fs::write(
        &rc,
        format!(
            "set mbox_type=mbox\nset read_only=yes\nset confirmappend=no\nset confirmcreate=no\n\
             set folder={}\nset wait_key=no\nset delete=no\nset header_cache=\"\"\n\
             push \"{keys}\"\n",
            // Where it is missing, mutt asks whether it shall be made, and takes a key for the answer.
            directory.display()
        ),
    )
    .unwrap();
    let mutt = format!("mutt -n -F {} -f {}", rc.display(), mailbox.display());
    let mut command = Command::new("script");
    command
        .args(["-qec", &mutt, "/dev/null"])
        .env("TERM", "vt100")
        .env("HOME", directory)
        .stdin(Stdio::piped())
        .stdout(Stdio::null());
    // The end of input would be a key that somebody pressed: it comes after mutt's own end.
    let mut child = spawn(&mut command);
    let keyboard = child.stdin.take();
    let status = wait(&mut child, PATIENCE);
    drop(keyboard);
    assert!(status.is_some(), "mutt does not end");
}

/// The first message of a mailbox as mutt shows it to a reader: weeded, decoded, all parts.
pub fn shows(directory: &Path, mailbox: &Path) -> String {
    let shown = directory.join("shown");
    let keys = format!(
        "<first-entry>:set pipe_decode=yes<enter><pipe-message>cat >{}<enter><exit>",
        shown.display()
    );
    press(directory, mailbox, &keys);
    String::from_utf8_lossy(&fs::read(shown).unwrap_or_default()).into_owned()
}

//! mutt at a terminal of its own, pressing the keys that a test names.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

use super::run::{spawn, wait};
use super::site::Site;
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

/// Whether mutt can be run as a user of a site, who needs no account; says why not.
pub fn possible_as_user() -> bool {
    need("mutt") && need("script")
}

/// Opens a mailbox of a user's with mutt's locks as Debian builds it, and presses keys.
pub fn press_as(site: &Site, user: &str, mailbox: &Path, settings: &str, keys: &str) {
    let settings = format!("{settings}\npush '{keys}'");
    AtWork::start(site, user, mailbox, &settings).end(|_| ());
}

/// The same with a macro that is pressed so often, with a pause behind each time: where mutt
/// complains it forgets what is left of a macro, and a person presses the next key. Where it asks
/// whether to break a lock, `n` says no, a key that does nothing elsewhere.
pub fn press_often(
    site: &Site,
    user: &str,
    mailbox: &Path,
    keys: &str,
    times: usize,
    pause: Duration,
) {
    let settings = format!("bind index n refresh\nmacro index Z '{keys}'");
    let mut mutt = AtWork::start(site, user, mailbox, &settings);
    for _ in 0..times {
        mutt.type_in("Z");
        std::thread::sleep(pause);
    }
    // ^G leaves a prompt.
    mutt.end(|mutt| mutt.type_in("\x07nx"));
}

/// A mutt that somebody sits at.
struct AtWork {
    child: Child,
    keyboard: ChildStdin,
    screen: PathBuf,
}

impl AtWork {
    fn start(site: &Site, user: &str, mailbox: &Path, settings: &str) -> Self {
        let rc = site.path().join("muttrc");
        let home = site.home(user).display().to_string();
        let text = format!(
            "set folder={home}\nset mbox_type=mbox\nset move=no\nset quit=yes\n\
             set sort=mailbox-order\nset wait_key=no\nset pipe_split=yes\nset pipe_decode=no\n\
             set pipe_sep=\"\"\nset delete=yes\nset confirmappend=no\nset confirmcreate=no\n\
             set mail_check=0\n{settings}\n"
        );
        fs::write(&rc, text).unwrap();
        let inside = format!("exec mutt -n -F {} -f {}", rc.display(), mailbox.display());
        let screen = site.home(user).join("screen");
        let mut command = Command::new("script");
        command.args(["-qefc", &inside]).arg(&screen);
        command.env("TERM", "xterm").env("LC_ALL", "C.UTF-8");
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        site.become_user(&mut command, user);
        let mut child = spawn(&mut command);
        let keyboard = child.stdin.take().unwrap();
        Self { child, keyboard, screen }
    }

    fn type_in(&mut self, keys: &str) {
        // It may have ended.
        let _ = self.keyboard.write_all(keys.as_bytes());
    }

    /// Waits for its end, and does now and then what is to bring it about. The end of input would
    /// be a key that somebody pressed: it comes after that.
    fn end(mut self, mut urge: impl FnMut(&mut Self)) {
        let deadline = Instant::now() + PATIENCE;
        let status = loop {
            urge(&mut self);
            let status = wait(&mut self.child, Duration::from_millis(300));
            if status.is_some() || Instant::now() > deadline {
                break status;
            }
        };
        assert!(
            status.is_some_and(|status| status.success()),
            "mutt: {status:?}: {}",
            fs::read(&self.screen).unwrap_or_default().escape_ascii()
        );
    }
}

impl Drop for AtWork {
    /// mutt loses its terminal, and ends.
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
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

//! All locks of a mailbox at once.
//!
//! Mail programs don't agree on an order, so no lock is held while another is waited for: all are
//! tried, and where one fails all are given back. Kernel locks live with the open file and go with
//! it.

use std::cell::RefCell;
use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use super::dotlock::{Dotlock, Tried};
use super::helper::Helper;
use crate::config::LockKind;
use crate::sys::lock::{self, Kind};

/// Takes the locks of one mailbox.
#[derive(Debug)]
pub(super) struct Locker {
    kinds: Vec<LockKind>,
    helper_program: PathBuf,
    helper: Rc<RefCell<Option<Helper>>>,
}

/// Why a lock can't be taken at all.
#[derive(Debug)]
pub(super) enum Trouble {
    /// The kernel's locks.
    Kernel(io::Error),
    /// The dot lock.
    Dotlock(String),
}

/// What became of one try.
#[derive(Debug)]
pub(super) enum Attempt {
    /// All are held.
    Got(Held),
    /// This one is somebody else's; what was had already is to be given back by closing the file.
    Busy(String),
}

/// The locks that are held beside the file's own.
#[derive(Debug)]
pub(super) struct Held(Dot);

#[derive(Debug)]
enum Dot {
    None,
    Own(Dotlock),
    Helper(Rc<RefCell<Option<Helper>>>),
}

impl Locker {
    pub fn new(kinds: Vec<LockKind>, libexec: &Path) -> Self {
        Self { kinds, helper_program: libexec.join("dotlock"), helper: Rc::default() }
    }

    /// Tries all locks once. Readers need the dot lock only where there is no kernel lock to
    /// share.
    pub fn try_all(
        &self,
        dir: &OwnedFd,
        path: &Path,
        file: &File,
        kind: Kind,
    ) -> Result<Attempt, Trouble> {
        let has = |kind| self.kinds.contains(&kind);
        let busy = |what: &str| Ok(Attempt::Busy(what.into()));
        if has(LockKind::Fcntl) && !lock::try_fcntl(file, kind).map_err(Trouble::Kernel)? {
            return busy("fcntl lock");
        }
        if has(LockKind::Flock) && !lock::try_flock(file, kind).map_err(Trouble::Kernel)? {
            return busy("flock lock");
        }
        let kernel = has(LockKind::Fcntl) || has(LockKind::Flock);
        if !has(LockKind::Dotlock) || (kind == Kind::Shared && kernel) {
            return Ok(Attempt::Got(Held(Dot::None)));
        }
        self.dot(dir, path)
    }

    fn dot(&self, dir: &OwnedFd, path: &Path) -> Result<Attempt, Trouble> {
        if self.helper.borrow().is_some() {
            return self.by_helper(path, None);
        }
        match Dotlock::try_make(dir, path.file_name().unwrap_or(OsStr::new(""))) {
            Ok(Tried::Made(dotlock)) => Ok(Attempt::Got(Held(Dot::Own(dotlock)))),
            Ok(Tried::Held(who)) => Ok(Attempt::Busy(who)),
            Err(error) => match error.kind() {
                io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                    self.by_helper(path, Some(&error))
                }
                _ => Err(Trouble::Dotlock(error.to_string())),
            },
        }
    }

    fn by_helper(&self, path: &Path, own: Option<&io::Error>) -> Result<Attempt, Trouble> {
        let mut helper = self.helper.borrow_mut();
        let asked = match &mut *helper {
            Some(running) => running.lock(),
            None => match Helper::start(&self.helper_program, path) {
                Ok(started) => helper.insert(started).lock(),
                Err(error) => Err(error),
            },
        };
        match asked {
            Ok(true) => Ok(Attempt::Got(Held(Dot::Helper(Rc::clone(&self.helper))))),
            Ok(false) => Ok(Attempt::Busy("dot lock".into())),
            Err(error) => {
                *helper = None;
                let program = self.helper_program.display();
                let own = own.map_or_else(String::new, |own| format!("{own}; "));
                Err(Trouble::Dotlock(format!("{own}{program}: {error}")))
            }
        }
    }
}

impl Held {
    /// Keeps a long-held lock fresh; false when it was taken away. (The helper does it itself.)
    pub fn touch(&mut self) -> bool {
        match &mut self.0 {
            Dot::Own(dotlock) => dotlock.touch(),
            Dot::None | Dot::Helper(_) => true,
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Dot::Helper(helper) = &self.0 {
            let mut helper = helper.borrow_mut();
            if let Some(running) = &mut *helper
                && running.unlock().is_err()
            {
                // Its end unlocks, too.
                *helper = None;
            }
        }
    }
}

/// A random time to sleep before the next try, growing with the number of tries. It is short at first:
/// a delivery, of which an idle session has just heard, is over in a few milliseconds.
pub(super) fn pause(tries: u32) -> Duration {
    let mut random = [0; 2];
    let _ = getrandom::fill(&mut random);
    let most = 2_u64.saturating_pow(tries).clamp(4, 200);
    let random = u64::from(u16::from_ne_bytes(random)) % most;
    Duration::from_millis(random.saturating_add(most / 4))
}

//! Waiting until somebody changes a mailbox: inotify(7) on the few names that tell.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, WatchDescriptor};

/// Where others don't stop, the next look comes soon enough.
const MOST_ROUNDS: usize = 3;

/// Names that are watched: a directory for what comes and goes in it; a file for what is written
/// to it, and for another one that gets its name.
#[derive(Debug)]
pub struct Watch {
    inotify: Inotify,
    names: Vec<Name>,
}

#[derive(Debug)]
struct Name {
    path: PathBuf,
    /// Where it is missing its directory is watched until it comes.
    waiting: Option<WatchDescriptor>,
    is_missing: bool,
}

impl Watch {
    /// Watches these from now on: what is looked at afterwards is not missed.
    pub fn new(paths: impl IntoIterator<Item = PathBuf>) -> io::Result<Self> {
        let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?;
        let names =
            paths.into_iter().map(|path| Name { path, waiting: None, is_missing: false }).collect();
        let mut watch = Self { inotify, names };
        watch.arm()?;
        Ok(watch)
    }

    /// Forgets what has happened up to now. To be called before the look.
    pub fn drain(&mut self) -> io::Result<()> {
        // A name may lead to another file now; and that a watch ended is an event, too.
        for _ in 0..MOST_ROUNDS {
            if !self.take_events()? {
                break;
            }
            self.arm()?;
        }
        Ok(())
    }

    fn take_events(&mut self) -> io::Result<bool> {
        let mut any = false;
        loop {
            match self.inotify.read_events() {
                Ok(_) => any = true,
                Err(nix::Error::EAGAIN) => return Ok(any),
                Err(nix::Error::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn arm(&mut self) -> io::Result<()> {
        for name in &mut self.names {
            let found = watch(&self.inotify, &name.path)?;
            if found && let Some(waiting) = name.waiting.take() {
                // It may be gone with its directory, or have been another name's, too.
                let _ = self.inotify.rm_watch(waiting);
            }
            name.is_missing = !found;
        }
        for name in self.names.iter_mut().filter(|name| name.is_missing) {
            let parent = name.path.parent().unwrap_or(Path::new("/"));
            let comes = AddWatchFlags::IN_CREATE | AddWatchFlags::IN_MOVED_TO;
            let comes = comes | AddWatchFlags::from_bits_retain(nix::libc::IN_MASK_ADD);
            name.waiting = self.inotify.add_watch(parent, comes).ok();
            // It may have come before its directory was watched.
            watch(&self.inotify, &name.path)?;
        }
        Ok(())
    }
}

/// False where there is nothing of this name.
fn watch(inotify: &Inotify, path: &Path) -> io::Result<bool> {
    match inotify.add_watch(path, events(path)) {
        Ok(_) => Ok(true),
        Err(nix::Error::ENOENT) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

fn events(path: &Path) -> AddWatchFlags {
    let own = AddWatchFlags::IN_DELETE_SELF | AddWatchFlags::IN_MOVE_SELF;
    if path.is_dir() {
        return own
            | AddWatchFlags::IN_CREATE
            | AddWatchFlags::IN_DELETE
            | AddWatchFlags::IN_MOVED_FROM
            | AddWatchFlags::IN_MOVED_TO;
    }
    // The number of its names is an attribute: it tells of a file that was replaced.
    own | AddWatchFlags::IN_MODIFY | AddWatchFlags::IN_ATTRIB
}

impl AsFd for Watch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inotify.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::fd::AsFd;

    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

    use super::Watch;

    fn is_readable(watch: &Watch) -> bool {
        let mut fds = [PollFd::new(watch.as_fd(), PollFlags::POLLIN)];
        poll(&mut fds, PollTimeout::ZERO).unwrap() == 1
    }

    #[test]
    fn a_name_is_watched_whatever_file_it_leads_to() {
        let place = tempfile::tempdir().unwrap();
        let (file, dir) = (place.path().join("file"), place.path().join("dir"));
        fs::create_dir(&dir).unwrap();
        let mut watch = Watch::new([file.clone(), dir.clone()]).unwrap();
        let mut tells = |action: &dyn Fn()| {
            assert!(!is_readable(&watch));
            action();
            let told = is_readable(&watch);
            watch.drain().unwrap();
            told
        };
        assert!(tells(&|| fs::write(&file, "1").unwrap()), "made");
        assert!(!tells(&|| fs::write(place.path().join("other"), "1").unwrap()), "another one");
        assert!(tells(&|| fs::write(&file, "2").unwrap()), "written");
        assert!(tells(&|| fs::rename(place.path().join("other"), &file).unwrap()), "replaced");
        assert!(tells(&|| fs::write(&file, "3").unwrap()), "written again");
        assert!(tells(&|| fs::remove_file(&file).unwrap()), "removed");
        assert!(tells(&|| fs::write(&file, "4").unwrap()), "made again");
        assert!(!tells(&|| drop(fs::read(&file).unwrap())), "read");
        assert!(tells(&|| fs::write(dir.join("x"), "").unwrap()));
        assert!(tells(&|| fs::rename(dir.join("x"), dir.join("y")).unwrap()));
        assert!(tells(&|| fs::remove_file(dir.join("y")).unwrap()));
    }
}

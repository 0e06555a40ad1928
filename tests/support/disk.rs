//! Disks that are full, and limits that are reached.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::run::spawn;
use super::site::behind;

/// A small disk at a directory, in a mount namespace of its own, as long as this lives. Needs root.
pub struct Disk {
    holder: Child,
    path: PathBuf,
}

impl Disk {
    /// A tmpfs with these options.
    pub fn at(path: &Path, options: &str) -> Self {
        let script = format!(
            "mount -t tmpfs -o {options} tmpfs '{}' && echo mounted && read line",
            path.display()
        );
        let mut command = Command::new("unshare");
        command.args(["-m", "sh", "-c", &script]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut holder = spawn(&mut command);
        let mut line = String::new();
        BufReader::new(holder.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "mounted\n", "a tmpfs of {options}");
        Self { holder, path: path.to_owned() }
    }

    /// The command where the disk is.
    pub fn command(&self, command: &Command) -> Command {
        let pid = self.holder.id().to_string();
        behind(&["nsenter", "-t", &pid, "-m", "--"], command)
    }

    /// Where a file on the disk is seen from here.
    pub fn seen(&self, path: &Path) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{}", self.holder.id(), path.display()))
    }

    /// Fills the disk up to so many free pages of 4 KiB.
    pub fn leave(&self, pages: u64) {
        self.make_room();
        let free = self.free();
        assert!(free >= pages, "{free} pages are free, not {pages}");
        fs::write(self.ballast(), vec![0; usize::try_from((free - pages) * 4096).unwrap()])
            .unwrap();
        assert_eq!(self.free(), pages);
    }

    /// Removes what fills it.
    pub fn make_room(&self) {
        let _ = fs::remove_file(self.ballast());
    }

    fn ballast(&self) -> PathBuf {
        self.seen(&self.path.join("ballast"))
    }

    fn free(&self) -> u64 {
        nix::sys::statvfs::statvfs(&self.seen(&self.path)).unwrap().blocks_available()
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // The end of its input ends it, and the disk goes with it.
        drop(self.holder.stdin.take());
        let _ = self.holder.wait();
    }
}

/// A command in a mount namespace of its own, where a directory is a small disk.
pub fn on_a_small_disk(directory: &Path, options: &str, command: &Command) -> Command {
    let script =
        format!("mount -t tmpfs -o {options} tmpfs '{}' && exec \"$@\"", directory.display());
    behind(&["unshare", "-m", "sh", "-c", &script, "sh"], command)
}

/// A command that can't make a file larger than so many blocks of 512 bytes. Behind dash's builtin
/// the unit is 512; bash in its POSIX mode agrees.
pub fn with_small_files(blocks: u32, command: &Command) -> Command {
    let script = format!("ulimit -f {blocks} && exec \"$@\"");
    behind(&["sh", "-c", &script, "sh"], command)
}

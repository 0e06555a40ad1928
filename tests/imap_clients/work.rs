//! Programs that stay while a test goes on: told what to do line by line, or at a terminal.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;

use super::support::run::{spawn, wait};
use super::support::{PATIENCE, note, wait_until};

/// A program that says lines and waits for lines.
pub struct Work {
    child: Child,
    input: ChildStdin,
    lines: Receiver<String>,
}

impl Work {
    pub fn start(command: &mut Command) -> Self {
        let mut child = spawn(command.stdin(Stdio::piped()).stdout(Stdio::piped()));
        let input = child.stdin.take().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = channel();
        thread::spawn(move || {
            output.lines().map_while(Result::ok).try_for_each(|l| sender.send(l))
        });
        Self { child, input, lines }
    }

    /// Waits until it says this line.
    #[track_caller]
    pub fn hears(&self, wanted: &str) {
        assert_eq!(self.lines.recv_timeout(PATIENCE).as_deref(), Ok(wanted));
    }

    pub fn say(&mut self, line: &str) {
        self.input.write_all(format!("{line}\n").as_bytes()).unwrap();
    }

    /// Waits for its end, which must be a good one.
    #[track_caller]
    pub fn end(mut self) {
        let status = wait(&mut self.child, PATIENCE);
        assert!(status.is_some_and(|status| status.success()), "{status:?}");
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A program at a terminal, at which somebody presses keys.
pub struct Terminal {
    child: Child,
    keyboard: ChildStdin,
    screen: PathBuf,
    seen: usize,
}

impl Terminal {
    /// Starts a shell's command.
    pub fn start(home: &Path, inside: &str) -> Self {
        let screen = home.join("screen");
        let mut command = super::host::client("script", home);
        command.args(["-qefc", &format!("stty cols 100 rows 40; exec {inside}")]).arg(&screen);
        command.env("TERM", "xterm").stdin(Stdio::piped()).stdout(Stdio::null());
        let mut child = spawn(command.stderr(Stdio::null()));
        let keyboard = child.stdin.take().unwrap();
        Self { child, keyboard, screen, seen: 0 }
    }

    pub fn press(&mut self, keys: &str) {
        // It may have ended.
        let _ = self.keyboard.write_all(keys.as_bytes());
    }

    /// Waits until this stands on the screen, behind what was waited for before.
    #[track_caller]
    pub fn sees(&mut self, wanted: &str) {
        wait_until(&format!("{wanted:?} on the screen"), || {
            let screen = fs::read(&self.screen).unwrap_or_default();
            let new = &screen[self.seen..];
            let at = new.windows(wanted.len()).position(|window| window == wanted.as_bytes())?;
            self.seen += at + wanted.len();
            Some(())
        });
    }

    /// Waits for its end, which must be a good one. The end of input would be a key that somebody
    /// pressed: it comes after that.
    #[track_caller]
    pub fn end(mut self) {
        let status = wait(&mut self.child, PATIENCE);
        assert!(status.is_some_and(|status| status.success()), "{status:?}");
    }
}

impl Drop for Terminal {
    /// The program loses its terminal, and ends.
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            let screen = fs::read(&self.screen).unwrap_or_default();
            note(&format!("the screen: {}", screen.escape_ascii()));
        }
    }
}

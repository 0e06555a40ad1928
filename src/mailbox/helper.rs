//! The setgid helper `dotlock`, for users who may not make files in the spool's directory.
//!
//! It is asked with one byte (`l` lock, `u` unlock) and answers with one: `y` done, `n` somebody
//! else has the lock, `e` and a line of text: it can't. The end of its input unlocks, so that the
//! lock of a killed process goes away.

use std::io::{self, Read, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use crate::sys::fd;

/// How long the helper may take to answer, in milliseconds.
const PATIENCE: u32 = 30_000;

/// A running helper for one mailbox.
#[derive(Debug)]
pub(super) struct Helper {
    child: Child,
    orders: Option<ChildStdin>,
    answers: ChildStdout,
}

impl Helper {
    /// Starts the helper for `mailbox`, with an empty environment.
    pub fn start(program: &Path, mailbox: &Path) -> io::Result<Self> {
        let mut child = Command::new(program)
            .arg(mailbox)
            .env_clear()
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let gone = || io::Error::from(io::ErrorKind::BrokenPipe);
        let (orders, answers) = (child.stdin.take(), child.stdout.take().ok_or_else(gone)?);
        Ok(Self { child, orders, answers })
    }

    /// Tries the lock once; false when somebody else has it.
    pub fn lock(&mut self) -> io::Result<bool> {
        match self.ask(b'l')? {
            b'y' => Ok(true),
            b'n' => Ok(false),
            b'e' => {
                let mut text = Vec::new();
                while text.len() < 500 {
                    match self.answer()? {
                        b'\n' => break,
                        byte => text.push(byte),
                    }
                }
                let text = String::from_utf8_lossy(&text).into_owned();
                Err(io::Error::other(text))
            }
            _ => Err(io::ErrorKind::InvalidData.into()),
        }
    }

    /// Gives the lock back.
    pub fn unlock(&mut self) -> io::Result<()> {
        match self.ask(b'u')? {
            b'y' => Ok(()),
            _ => Err(io::ErrorKind::InvalidData.into()),
        }
    }

    fn ask(&mut self, order: u8) -> io::Result<u8> {
        let gone = || io::Error::from(io::ErrorKind::BrokenPipe);
        self.orders.as_mut().ok_or_else(gone)?.write_all(&[order])?;
        self.answer()
    }

    fn answer(&mut self) -> io::Result<u8> {
        if !fd::wait_readable(&self.answers, PATIENCE)? {
            return Err(io::ErrorKind::TimedOut.into());
        }
        let mut byte = [0];
        self.answers.read_exact(&mut byte)?;
        let [byte] = byte;
        Ok(byte)
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        self.orders = None;
        let _ = self.child.wait();
    }
}

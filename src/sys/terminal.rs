//! Secrets from a person or a pipe.

use std::io::{self, BufRead, IsTerminal, Write};
use std::os::fd::AsFd;

use nix::sys::termios::{LocalFlags, SetArg, tcgetattr, tcsetattr};

/// The longest line that is read, in bytes.
const MAX_LINE: u64 = 4096;

/// Whether somebody sits at stdin.
pub fn is_terminal() -> bool {
    io::stdin().is_terminal()
}

/// Reads one line of stdin, without its end. At a terminal it is asked for, and not shown.
pub fn read_secret(prompt: &str) -> io::Result<String> {
    let stdin = io::stdin();
    let mut line = Vec::new();
    let mut read = || io::Read::take(stdin.lock(), MAX_LINE).read_until(b'\n', &mut line);
    if is_terminal() {
        write!(io::stderr(), "{prompt}")?;
        let usual = tcgetattr(stdin.as_fd())?;
        let mut hidden = usual.clone();
        // Nor do signals end the program before the terminal is as it was: ^C is part of the line.
        hidden.local_flags.remove(LocalFlags::ECHO | LocalFlags::ISIG);
        tcsetattr(stdin.as_fd(), SetArg::TCSAFLUSH, &hidden)?;
        let done = read();
        tcsetattr(stdin.as_fd(), SetArg::TCSAFLUSH, &usual)?;
        let _ = writeln!(io::stderr());
        done?;
    } else {
        read()?;
    }
    let text = line.strip_suffix(b"\n").unwrap_or(&line);
    let text = text.strip_suffix(b"\r").unwrap_or(text);
    let text = std::str::from_utf8(text).map_err(|_| io::Error::other("not UTF-8 text"))?;
    Ok(text.to_owned())
}

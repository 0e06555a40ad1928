//! The log: syslog(3) with facility mail, or stderr.

use std::cell::RefCell;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd};

use syslog::{Facility, LogFormat, Logger, LoggerBackend, Severity};

/// How much a line matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Level {
    /// What the operator must mend.
    Error = 3,
    /// What the operator should look at.
    Warning = 4,
    /// What happened.
    Info = 6,
}

/// Where lines go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// The host's syslog daemon.
    Syslog,
    /// Standard error.
    Stderr,
}

/// An open log. Losing it ends no program: a line that can't be written is dropped.
pub struct Log {
    program: &'static str,
    syslog: Option<RefCell<Option<Logger<LoggerBackend, Format>>>>,
}

impl Log {
    /// Opens the log; to be called before a process loses sight of /dev/log.
    pub fn open(program: &'static str, target: Target) -> Self {
        let syslog = match target {
            // Under inetd stderr is the client's connection: no place for a log.
            Target::Stderr if is_client(&io::stderr()) => Some(RefCell::new(connect(program))),
            Target::Stderr => None,
            Target::Syslog => Some(RefCell::new(connect(program))),
        };
        Self { program, syslog }
    }

    /// Writes one line; line ends and control characters in it are escaped.
    pub fn line(&self, level: Level, line: &str) {
        let line = escape(line);
        let Some(syslog) = &self.syslog else {
            let text = format!("{}[{}]: {line}\n", self.program, std::process::id());
            let _ = io::stderr().write_all(text.as_bytes());
            return;
        };
        let mut logger = syslog.borrow_mut();
        // A restarted syslogd has a new socket: one failure is answered by connecting again.
        for _ in 0..2 {
            if logger.is_none() {
                *logger = connect(self.program);
            }
            let Some(open) = logger.as_mut() else { return };
            let sent = match level {
                Level::Error => open.err(&line),
                Level::Warning => open.warning(&line),
                Level::Info => open.info(&line),
            };
            if sent.is_ok() {
                return;
            }
            *logger = None;
        }
    }

    /// Logs what happened.
    pub fn info(&self, line: &str) {
        self.line(Level::Info, line);
    }

    /// Logs what the operator should look at.
    pub fn warning(&self, line: &str) {
        self.line(Level::Warning, line);
    }

    /// Logs what the operator must mend.
    pub fn error(&self, line: &str) {
        self.line(Level::Error, line);
    }
}

/// Whether this is the very socket that stands on 0.
fn is_client(stderr: &impl AsFd) -> bool {
    let identity = |fd: BorrowedFd<'_>| {
        let found = nix::sys::stat::fstat(fd).ok()?;
        let is_socket = found.st_mode & nix::libc::S_IFMT == nix::libc::S_IFSOCK;
        is_socket.then_some((found.st_dev, found.st_ino))
    };
    let client = identity(io::stdin().as_fd());
    client.is_some() && client == identity(stderr.as_fd())
}

/// One line out of any text: control characters become `\n`, `\r`, `\x1b` and so on.
pub fn escape(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() {
            line.extend(c.escape_default());
        } else {
            line.push(c);
        }
    }
    line
}

fn connect(program: &'static str) -> Option<Logger<LoggerBackend, Format>> {
    syslog::unix(Format { program }).ok()
}

/// The classic line of RFC 3164 with local time and the pid of the process that writes it (the
/// crate's own formatter fixes the pid at creation and writes UTC).
#[derive(Clone, Debug)]
struct Format {
    program: &'static str,
}

impl<T: std::fmt::Display> LogFormat<T> for Format {
    fn format<W: Write>(
        &self,
        writer: &mut W,
        severity: Severity,
        message: T,
    ) -> syslog::Result<()> {
        let priority = Facility::LOG_MAIL as u8 | severity as u8;
        let time = super::clock::now().strftime("%b %e %H:%M:%S").to_string();
        let pid = std::process::id();
        write!(writer, "<{priority}>{time} {}[{pid}]: {message}", self.program)
            .map_err(syslog::Error::Write)
    }
}

#[cfg(test)]
mod tests {
    use super::escape;

    #[test]
    fn a_line_end_in_the_text_does_not_forge_a_second_line() {
        assert_eq!(escape("a\r\nb\x1b[0m"), "a\\r\\nb\\u{1b}[0m");
    }
}

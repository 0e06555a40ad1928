//! Programs that are given a message: a user's command, and the one that sends mail on.
//!
//! They run as the user, with nothing of our environment, in the user's home directory, with the
//! message on stdin, as a process group of their own, which is killed when its time is over.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::sys::stat::{Mode, umask};

use crate::delivery::Failure;
use crate::sys::{Account, Exit, fd, process, signal};

/// So much of what a program says is told to the sender.
const OUTPUT: usize = 1000;

/// How often a program is looked after that has closed its output.
const LOOK: Duration = Duration::from_millis(20);

/// A program to be run.
pub struct Program<'a> {
    /// Whose it is.
    pub account: &'a Account,
    /// Program and arguments.
    pub words: &'a [&'a OsStr],
    /// Variables beside those that every program gets.
    pub environment: &'a [(&'a str, &'a str)],
    /// How long it may take.
    pub limit: Duration,
    /// What it is called in a failure.
    pub name: &'a str,
}

impl Program<'_> {
    /// Runs it with this message, and waits for its end.
    ///
    /// Exit status 0 is success. A status of sysexits(3) says for itself whether another try may
    /// help; any other one is a failure for good, as it is for sendmail and Postfix. A program that
    /// was killed, takes too long or can't be started is tried again.
    pub fn run(&self, message: File) -> Result<(), Failure> {
        let name = self.name;
        let failed =
            |error: io::Error| Failure::temporary("4.3.0", format!("{name} can't be run: {error}"));
        let (mut output, theirs) = io::pipe().map_err(failed)?;
        let mut child = self.start(message, theirs).map_err(failed)?;
        let mut said = Vec::new();
        let ended = self.wait(&mut child, &mut output, &mut said).map_err(failed)?;
        let Some(status) = ended else {
            process::kill_group(&child);
            let _ = child.wait();
            let text = if signal::is_end_asked_for() {
                format!("{name} was killed: the delivery was asked to end")
            } else {
                format!("{name} did not end within {} s", self.limit.as_secs())
            };
            return Err(Failure::temporary("4.3.0", text));
        };
        judge(status, name, &said)
    }

    fn start(&self, message: File, output: io::PipeWriter) -> io::Result<Child> {
        let (program, arguments) = self.words.split_first().ok_or(io::ErrorKind::NotFound)?;
        // What our own caller has left open for us is not the program's.
        process::keep_all_from_exec()?;
        let mut command = Command::new(program);
        command.args(arguments).env_clear().env("PATH", process::PATH);
        let Account { name, home, shell, .. } = self.account;
        command.env("HOME", home).env("SHELL", shell).env("USER", name).env("LOGNAME", name);
        for variable in ["TZ", "TMPDIR"] {
            command.envs(std::env::var_os(variable).map(|value| (variable, value)));
        }
        command.envs(self.environment.iter().copied());
        let directory = if home.is_dir() { home } else { Path::new("/") };
        command.current_dir(directory).process_group(0);
        command.stdin(message).stdout(output.try_clone()?).stderr(Stdio::from(output));
        // The delivery holds signals back: not so what it runs. And what that makes is the user's
        // alone, unless it says otherwise.
        let before = umask(Mode::S_IRWXG | Mode::S_IRWXO);
        let child = process::with_usual_signals(&mut command).spawn();
        umask(before);
        child
    }

    /// Reads what it says until it ends; `None` where it was to be given up.
    fn wait(
        &self,
        child: &mut Child,
        output: &mut io::PipeReader,
        said: &mut Vec<u8>,
    ) -> io::Result<Option<ExitStatus>> {
        let deadline = Instant::now() + self.limit;
        let mut open = true;
        let mut pause = Duration::from_micros(100);
        let mut buffer = [0; 4096];
        loop {
            if let Some(status) = child.try_wait()? {
                // What it had said is there, even where something that it started goes on.
                while open && said.len() < OUTPUT && fd::wait_readable(&*output, 0)? {
                    let n = output.read(&mut buffer)?;
                    said.extend_from_slice(buffer.get(..n).unwrap_or_default());
                    open = n > 0;
                }
                return Ok(Some(status));
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || signal::is_end_asked_for() {
                return Ok(None);
            }
            if !open {
                // Nearly always it ends together with its output.
                std::thread::sleep(left.min(pause));
                pause = LOOK.min(2 * pause);
                continue;
            }
            let patience = left.min(10 * LOOK).as_millis();
            if fd::wait_readable(&*output, u32::try_from(patience).unwrap_or(0))? {
                let n = output.read(&mut buffer)?;
                open = n > 0;
                let room = OUTPUT.saturating_sub(said.len()).min(n);
                said.extend_from_slice(buffer.get(..room).unwrap_or_default());
            }
        }
    }
}

fn judge(status: ExitStatus, name: &str, said: &[u8]) -> Result<(), Failure> {
    let said = String::from_utf8_lossy(said.get(..OUTPUT).unwrap_or(said));
    let said: Vec<&str> = said.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let said = said.join(" / ");
    let tail = if said.is_empty() { String::new() } else { format!(": {said}") };
    let Some(code) = status.code() else {
        let signal = status.signal().unwrap_or(0);
        let text = format!("{name} was killed by signal {signal}{tail}");
        return Err(Failure::temporary("4.3.0", text));
    };
    let text = format!("{name} failed with status {code}{tail}");
    let is = |exit: Exit| code == i32::from(exit as u8);
    Err(match code {
        0 => return Ok(()),
        _ if is(Exit::TempFail) || is(Exit::OsErr) || is(Exit::IoErr) || is(Exit::OsFile) => {
            Failure::temporary("4.3.0", text)
        }
        _ if is(Exit::NoUser) => Failure::permanent("5.1.1", text),
        _ if is(Exit::CantCreat) => Failure::permanent("5.2.0", text),
        _ if is(Exit::DataErr) => Failure::permanent("5.6.0", text),
        _ if is(Exit::NoPerm) => Failure::permanent("5.7.1", text),
        _ => Failure::permanent("5.3.0", text),
    })
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::io::{Seek, Write};
    use std::time::{Duration, Instant};

    use super::Program;
    use crate::delivery::Failure;
    use crate::sys::Account;

    fn run(command: &str, limit: Duration) -> Result<(), Failure> {
        let account = Account { home: "/nonexistent".into(), ..Account::own("hunt") };
        let words = ["/bin/sh", "-c", command].map(OsStr::new);
        let mut message = tempfile::tempfile().unwrap();
        message.write_all(b"Subject: x\n\nhello\n").unwrap();
        message.rewind().unwrap();
        let environment = [("EXTENSION", "a b")];
        let program = Program {
            account: &account,
            words: &words,
            environment: &environment,
            limit,
            name: "the command",
        };
        program.run(message)
    }

    const LIMIT: Duration = Duration::from_secs(20);

    #[test]
    fn a_command_gets_the_message_and_a_clean_environment() {
        let all = "test \"$(cat)\" = 'Subject: x\n\nhello' && test \"$EXTENSION\" = 'a b' &&
            test \"$PWD\" = / && test \"$USER\" = hunt && test \"$(env | wc -l)\" -le 10";
        assert_eq!(run(all, LIMIT), Ok(()));
        assert_eq!(run("exit 0", LIMIT), Ok(()), "it need not read");
    }

    #[test]
    fn its_status_says_whether_another_try_may_help() {
        for (status, code) in [
            (75, "4.3.0"),
            (71, "4.3.0"),
            (1, "5.3.0"),
            (67, "5.1.1"),
            (77, "5.7.1"),
            (127, "5.3.0"),
        ] {
            let failure =
                run(&format!("echo why; echo not >&2; exit {status}"), LIMIT).unwrap_err();
            assert_eq!(failure.code(), code);
            assert!(failure.text().ends_with(&format!("status {status}: why / not")), "{failure}");
        }
        assert_eq!(run("kill -9 $$", LIMIT).unwrap_err().code(), "4.3.0");
    }

    #[test]
    fn it_does_not_outlive_its_time_nor_fill_our_memory() {
        let started = Instant::now();
        let failure = run("yes & sleep 60", Duration::from_millis(300)).unwrap_err();
        assert!(failure.is_temporary() && failure.text().contains("did not end"), "{failure}");
        // What goes on with its output open holds up nobody.
        assert_eq!(run("sleep 30 & exit 0", LIMIT), Ok(()));
        let failure = run("yes | head -c 10000000; exit 1", LIMIT).unwrap_err();
        assert!(failure.text().len() < 3 * super::OUTPUT);
        assert!(started.elapsed() < LIMIT);
    }
}

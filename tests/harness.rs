//! What the suites stand on must hold by itself.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests and their helpers fail by panicking"
)]

mod support;

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::Command;

use nix::fcntl::{AT_FDCWD, AtFlags};
use nix::libc;
use nix::unistd::linkat;

use support::kill::{Attempt, CALLS, kill_at_each, same};
use support::powercut::{Recorder, Report};
use support::run::run;
use support::site::must;
use support::transcript::{matches, unescape};
use support::{mbox, need};

#[test]
fn a_pattern_matches_what_it_says() {
    for (pattern, line) in [
        ("250 Ok", "250 Ok"),
        ("250...", "250 Ok"),
        ("250[- ]SIZE ...", "250-SIZE 5"),
        ("250 ...queued as...", "250 2.0.0 Ok: queued as X"),
        ("...", ""),
        ("+OK ... octets", "+OK 5 octets"),
    ] {
        assert!(matches(pattern, line), "{pattern} {line}");
    }
    for (pattern, line) in
        [("250 Ok", "250 Ok."), ("250[- ]x", "250=x"), ("250 ...as...b", "250 a b"), ("", "x")]
    {
        assert!(!matches(pattern, line), "{pattern} {line}");
    }
    assert_eq!(unescape("a\\0{3*b\\n}\\x80{c}").unwrap(), b"a\0b\nb\nb\n\x80{c}");
}

#[test]
fn the_mbox_reader_finds_messages_after_empty_lines_only() {
    let messages = mbox::parse(
        b"From a Mon Jun 21 03:15:20 2004\nSubject: one\n two\n\nText\nFrom here on\n>From b\n\n\
          From b Mon Jun 21 03:15:20 2004\n\nText\n\n",
    );
    assert_eq!(messages.len(), 2);
    assert_eq!(messages[0].field("subject"), Some("one\n two"));
    assert_eq!(messages[0].text(), "Text\nFrom here on\nFrom b\n");
    assert_eq!(messages[1].body, b"Text\n");
}

/// The environment variable that says which writer this program is to be, when it is run again by
/// a test that watches it.
const WRITER: &str = "HIKYAKU_TEST_WRITER";

/// No test: what the tests below run under strace.
#[test]
fn a_writer_for_the_other_tests() {
    let Ok(writer) = std::env::var(WRITER) else {
        return;
    };
    let new = "new\n".repeat(3000);
    let directory = File::open(".").unwrap();
    let temporary = || {
        let mut file = File::create_new("temporary").unwrap();
        file.write_all(new.as_bytes()).unwrap();
        file
    };
    match writer.as_str() {
        "rename" => {
            temporary();
            fs::rename("temporary", "file").unwrap();
            directory.sync_all().unwrap();
        }
        "fsync, rename" => {
            temporary().sync_all().unwrap();
            fs::rename("temporary", "file").unwrap();
        }
        "fsync, rename, fsync" => {
            temporary().sync_all().unwrap();
            fs::rename("temporary", "file").unwrap();
            directory.sync_all().unwrap();
        }
        "in place" => {
            let mut file = File::create("file").unwrap();
            file.write_all(&new.as_bytes()[..5000]).unwrap();
            file.sync_all().unwrap();
            file.write_all(&new.as_bytes()[5000..]).unwrap();
            file.sync_all().unwrap();
        }
        "nameless" | "nameless, no fsync" => {
            let mut file =
                OpenOptions::new().write(true).custom_flags(libc::O_TMPFILE).open(".").unwrap();
            file.write_all(&new.as_bytes()[..8000]).unwrap();
            let mut child = Command::new("printf");
            child.arg(&new[8000..]).stdout(file.try_clone().unwrap());
            assert!(child.status().unwrap().success());
            if writer == "nameless" {
                file.sync_all().unwrap();
            }
            let path = format!("/proc/self/fd/{}", file.as_raw_fd());
            let follow = AtFlags::AT_SYMLINK_FOLLOW;
            linkat(AT_FDCWD, path.as_str(), &directory, "name", follow).unwrap();
            fs::rename("name", "file").unwrap();
            directory.sync_all().unwrap();
        }
        _ => panic!("no writer {writer}"),
    }
}

fn writer(name: &str, directory: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", "a_writer_for_the_other_tests", "--test-threads=1"])
        .env(WRITER, name)
        .current_dir(directory);
    command
}

/// Lets a writer replace a file, and looks whether a power cut leaves the old or the new one, and
/// the new one once the writer has ended.
fn replay(name: &str) -> Report {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("file");
    fs::write(&file, "old\n").unwrap();
    let recorder = Recorder::new(directory.path());
    must(&mut recorder.wrap(&writer(name, directory.path())));
    assert_eq!(fs::read_to_string(&file).unwrap().len(), 12_000);
    recorder.finish("").replay(&mut |moment| {
        let found = fs::read_to_string(&file).map_err(|error| error.to_string())?;
        if found == "new\n".repeat(3000) || (found == "old\n" && moment.ended != Some(0)) {
            Ok(())
        } else {
            Err(format!("{} bytes", found.len()))
        }
    })
}

#[test]
fn the_power_cut_model_passes_the_right_order() {
    if need("strace") {
        let report = replay("fsync, rename, fsync");
        report.expect_none("write, fsync, rename, fsync of the directory");
        assert!(report.states > 5, "{} states", report.states);
    }
}

#[test]
fn the_power_cut_model_finds_a_rename_without_fsync() {
    if need("strace") {
        assert!(!replay("rename").failures.is_empty());
    }
}

#[test]
fn the_power_cut_model_finds_a_directory_without_fsync() {
    if need("strace") {
        // The new name was promised by the exit status, and may be lost.
        let failures = replay("fsync, rename").failures;
        assert!(!failures.is_empty());
        assert!(failures.iter().all(|what| what.contains("ended with 0")));
    }
}

#[test]
fn the_power_cut_model_finds_a_file_that_is_written_in_place() {
    if need("strace") {
        assert!(!replay("in place").failures.is_empty());
    }
}

#[test]
fn the_power_cut_model_follows_a_file_without_a_name() {
    if need("strace") {
        replay("nameless").expect_none("a file without a name, written by two processes");
        assert!(!replay("nameless, no fsync").failures.is_empty());
    }
}

#[test]
fn the_kill_harness_finds_what_is_not_atomic() {
    if !need("strace") {
        return;
    }
    // The calls of the test runner around the writer are not what this is about.
    let skip: Vec<&str> = CALLS
        .into_iter()
        .filter(|call| !matches!(*call, "write" | "rename" | "fsync" | "ftruncate"))
        .collect();
    let scenario = |name: &'static str| {
        move |attempt: &Attempt| {
            let directory = tempfile::tempdir().unwrap();
            let file = directory.path().join("file");
            fs::write(&file, "old\n").unwrap();
            let ran = run(&mut attempt.wrap(&writer(name, directory.path())), b"");
            assert_eq!(attempt.killed(), ran.signal().is_some(), "{ran}");
            let new = "new\n".repeat(3000);
            match ran.code() {
                Some(0) => same("file", &file, &[new.as_bytes()]),
                _ => same("file", &file, &[b"old\n", new.as_bytes()]),
            }
        }
    };
    kill_at_each("rename", &skip, scenario("fsync, rename, fsync"));
    let torn = std::panic::catch_unwind(|| {
        kill_at_each("in place", &skip, scenario("in place"));
    });
    assert!(torn.is_err());
}

//! What tests/bench/store asks our mailbox: it opens one as a session does, works, and prints lines
//! of a name and a number; milliseconds where nothing else is said.
//!
//! It stands in for a server that has the store as Dovecot's imap has its own.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a tool for the terminal, whose output is what it is for"
)]

use std::fs::File;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime};

use hikyaku::config::LockKind;
use hikyaku::mailbox::mbox::Scanner;
use hikyaku::mailbox::store::{Arrival, Flags, Marking, Store};
use hikyaku::mailbox::{MboxStore, NewMessage, Place, Stager, UidSet};

type Outcome<T = ()> = Result<T, Box<dyn std::error::Error>>;

const USAGE: &str = "usage: store_bench scan|first|open|all|near|tenth|delivered MBOX INDEX";

/// So many times is done what is quick; the median counts.
const TIMES: usize = 100;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [what, mbox, index] = words.as_slice() else {
        eprintln!("{USAGE}");
        return ExitCode::from(64);
    };
    match run(what, mbox, index) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("store_bench: {what}: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(what: &str, mbox: &str, index: &str) -> Outcome {
    let open = || MboxStore::open(place(mbox, index));
    match what {
        "scan" => scan(Path::new(mbox)),
        "first" => {
            tell("first", timed(|| open().map(drop))?);
            println!("peak {} KiB", of_status("status", "VmHWM:")?);
            Ok(())
        }
        "open" => {
            let store = open()?;
            println!("messages {}", store.status().messages);
            println!("rss {} KiB", of_status("status", "VmRSS:")?);
            println!("pss {} KiB", of_status("smaps_rollup", "Pss:")?);
            println!("peak {} KiB", of_status("status", "VmHWM:")?);
            Ok(())
        }
        "all" => all(open()?, &[mbox, index]),
        "near" => {
            let mut store = open()?;
            let uids = store.uids().iter().skip(5).take(11).collect();
            expunge(what, &mut store, &uids)
        }
        "tenth" => {
            let mut store = open()?;
            let uids = store.uids().iter().step_by(10).collect();
            expunge(what, &mut store, &uids)
        }
        "delivered" => {
            drop(open()?);
            let mut delivery = hikyaku::mailbox::Mbox::new(place(mbox, index));
            delivery.append(&[message()?])?;
            tell("delivered", timed(|| open().map(drop))?);
            tell("behind", timed(|| open().map(drop))?);
            Ok(())
        }
        _ => Err(USAGE.into()),
    }
}

/// As the configuration has it by itself.
fn place(mbox: &str, index: &str) -> Place {
    Place {
        path: mbox.into(),
        index: index.into(),
        owner: nix::unistd::geteuid(),
        locks: vec![LockKind::Fcntl, LockKind::Dotlock],
        libexec: "/nonexistent".into(),
        lock_timeout: Duration::from_secs(10),
        quota: 0,
    }
}

fn scan(mbox: &Path) -> Outcome {
    let file = File::open(mbox)?;
    let size = file.metadata()?.len();
    let mut best = Duration::MAX;
    for _ in 0..5 {
        best = best.min(timed(|| Scanner::new(&file, size).try_for_each(|one| one.map(drop)))?);
    }
    tell("scan", best);
    #[allow(clippy::cast_precision_loss, reason = "a number for people")]
    let rate = size as f64 / best.as_secs_f64() / 1e9;
    println!("scan-rate {rate:.2} GB/s");
    Ok(())
}

fn all(mut store: MboxStore, again: &[&str]) -> Outcome {
    let child = || -> Outcome {
        let status = Command::new(std::env::current_exe()?).arg("open").args(again).output()?;
        if status.status.success() { Ok(()) } else { Err("the second one failed".into()) }
    };
    median("again", 9, |_| child())?;
    let uids: Vec<u32> = store.uids().iter().collect();
    let mut octets = 0_u64;
    let read = timed(|| {
        uids.iter().try_for_each(|uid| {
            store.read(*uid, 0..u64::MAX, &mut |piece| {
                octets += piece.len() as u64;
                Ok(())
            })
        })
    })?;
    tell("read", read);
    median("flag", TIMES, |n| {
        let uids = uids.get(n).map(|uid| UidSet::from(*uid..=*uid)).unwrap_or_default();
        store.mark(&uids, Marking::Add, Flags::FLAGGED, &[], None).map(drop)
    })?;
    let all = UidSet::from(1..=u32::MAX);
    tell("flags", timed(|| store.mark(&all, Marking::Add, Flags::SEEN, &[], None))?);
    tell("checkpoint", timed(|| store.checkpoint())?);
    let arrival = Arrival { message: message()?, flags: Flags::default(), keywords: Vec::new() };
    median("append", TIMES, |_| store.append(std::slice::from_ref(&arrival)).map(drop))
}

fn expunge(what: &str, store: &mut MboxStore, uids: &UidSet) -> Outcome {
    store.mark(uids, Marking::Add, Flags::DELETED, &[], None)?;
    tell(what, timed(|| store.expunge(uids))?);
    Ok(())
}

/// Of 4 KB.
fn message() -> Outcome<NewMessage> {
    let mut stager = Stager::new(1 << 20);
    stager.push(b"Subject: appended\r\n\r\n")?;
    for _ in 0..50 {
        stager.push(&[&[b'X'; 78][..], b"\r\n"].concat())?;
    }
    Ok(NewMessage {
        sender: b"sender@bench.example".to_vec(),
        at: SystemTime::now(),
        trace: Vec::new(),
        text: Rc::new(stager.finish()?),
    })
}

fn timed<T, E>(action: impl FnOnce() -> Result<T, E>) -> Result<Duration, E> {
    let began = Instant::now();
    let done = action();
    let took = began.elapsed();
    done.map(|_| took)
}

fn median<E>(name: &str, times: usize, mut action: impl FnMut(usize) -> Result<(), E>) -> Outcome
where
    Box<dyn std::error::Error>: From<E>,
{
    let mut all = Vec::new();
    for n in 0..times {
        all.push(timed(|| action(n))?);
    }
    all.sort();
    tell(name, all.get(times / 2).copied().unwrap_or_default());
    Ok(())
}

fn tell(name: &str, took: Duration) {
    println!("{name} {:.3}", took.as_secs_f64() * 1000.0);
}

/// A line of a file about this process.
fn of_status(file: &str, name: &str) -> Outcome<u64> {
    let text = std::fs::read_to_string(format!("/proc/self/{file}"))?;
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let number = line.and_then(|line| line.split_whitespace().next());
    Ok(number.ok_or("no such line")?.parse()?)
}

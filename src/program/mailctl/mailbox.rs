//! `mailctl mailbox`: what a user's mailbox is like, whether all is well, and its index made anew.
//!
//! Started by root the process becomes the user before it looks at anything of the mailbox.

use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use clap::Subcommand;

use crate::config::Config;
use crate::delivery::{self, local};
use crate::mailbox::folders::{self, Name};
use crate::mailbox::inspect::{self, Inspected};
use crate::mailbox::{self, Place};
use crate::program::{Failure, complain, local_deliver};
use crate::sys::{Exit, log};

/// How often it is said on a terminal how far we are.
const OFTEN: Duration = Duration::from_millis(500);

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Read all of a mailbox, and say what is wrong
    Check(Whose),
    /// Make the index of a mailbox anew
    Rebuild(Whose),
    /// Say what a mailbox is like
    Stats(Whose),
}

#[derive(Debug, clap::Args)]
pub(super) struct Whose {
    /// The user's name
    user: String,
    /// The folder; the inbox unless given
    #[arg(value_parser = Name::parse)]
    folder: Option<Name>,
}

pub(super) fn run(config: &Config, command: &Command) -> Result<Exit, Failure> {
    crate::program::start()?;
    match command {
        Command::Check(whose) => check(&place(config, whose)?),
        Command::Rebuild(whose) => rebuild(&place(config, whose)?),
        Command::Stats(whose) => stats(&place(config, whose)?),
    }
}

/// Becomes the user, and says where the mailbox is.
fn place(config: &Config, whose: &Whose) -> Result<Place, Failure> {
    let refused = |failure: delivery::Failure| Failure::new(failure.exit(), failure.text());
    let account = local_deliver::account(config, &whose.user).map_err(refused)?;
    local::become_recipient(config, &account).map_err(refused)?;
    let Some(folder) = &whose.folder else {
        return local::inbox_place(config, &account).map_err(refused);
    };
    let folders = local::folders(config, &account).map_err(refused)?;
    folders.place(folder).map_err(|error| {
        let exit = match &error {
            folders::Error::NonExistent(_) | folders::Error::Cannot(_) => Exit::NoInput,
            folders::Error::NoPermission(_) => Exit::NoPerm,
            _ => Exit::TempFail,
        };
        Failure::new(exit, error)
    })
}

fn unusable(error: mailbox::Error) -> Failure {
    let exit = match &error {
        mailbox::Error::Locked { .. } => Exit::TempFail,
        mailbox::Error::Refused { .. } | mailbox::Error::TooMany(_) => Exit::DataErr,
        _ => Exit::IoErr,
    };
    Failure::new(exit, error)
}

fn check(place: &Place) -> Result<Exit, Failure> {
    let mut progress = Progress::begin();
    let found = inspect::check(place.clone(), &mut |done, all| progress.tell(done, all));
    progress.end();
    let found = found.map_err(unusable)?;
    let path = place.path.display();
    let mut out = String::new();
    for mended in &found.mended {
        let _ = writeln!(out, "{}", log::escape(mended));
    }
    for fault in &found.faults {
        complain("mailctl", &format!("{path}: {fault}"));
    }
    if found.faults.is_empty() {
        let _ = writeln!(out, "{path} is sound: {}.", messages(found.messages));
    }
    say(&out)?;
    Ok(if found.faults.is_empty() { Exit::Ok } else { Exit::DataErr })
}

fn rebuild(place: &Place) -> Result<Exit, Failure> {
    let mut inspected = Inspected::open(place.clone()).map_err(unusable)?;
    let before = inspected.stats().map_err(unusable)?.status.uid_validity;
    let mut progress = Progress::begin();
    let rebuilt = inspected.rebuild(&mut |done, all| progress.tell(done, all));
    progress.end();
    rebuilt.map_err(unusable)?;
    for warning in inspected.take_warnings() {
        complain("mailctl", &warning);
    }
    let stats = inspected.stats().map_err(unusable)?;
    let path = place.path.display();
    let mut out =
        format!("{path}: the index was made anew, {}.\n", messages(stats.status.messages));
    let now = stats.status.uid_validity;
    if now != before {
        let _ = writeln!(
            out,
            "UIDVALIDITY was {before} and is {now}: the mailbox has no UIDs of its own, and IMAP \
             clients will fetch all messages again."
        );
    }
    say(&out)?;
    Ok(Exit::Ok)
}

fn stats(place: &Place) -> Result<Exit, Failure> {
    let mut inspected = Inspected::open(place.clone()).map_err(unusable)?;
    for warning in inspected.take_warnings() {
        complain("mailctl", &warning);
    }
    let stats = inspected.stats().map_err(unusable)?;
    let status = &stats.status;
    let keywords: Vec<_> = stats.keywords.iter().map(|name| log::escape(name)).collect();
    let (index, bytes) = match &stats.index {
        Some((path, bytes)) => (path.display().to_string(), bytes.to_string()),
        None => ("none, its directory can't be made".to_owned(), "0".to_owned()),
    };
    let lines = [
        ("mailbox", log::escape(&place.path.display().to_string())),
        ("kind", inspected.kind().to_owned()),
        ("messages", status.messages.to_string()),
        ("unseen", status.unseen.to_string()),
        ("recent", status.recent.to_string()),
        ("deleted", status.deleted.to_string()),
        ("octets", status.size.to_string()),
        ("UIDVALIDITY", status.uid_validity.to_string()),
        ("UIDNEXT", status.uid_next.to_string()),
        ("HIGHESTMODSEQ", status.highest_modseq.to_string()),
        ("keywords", keywords.join(" ")),
        ("index", log::escape(&index)),
        ("bytes of the index", bytes),
        ("messages with marks in the index only", stats.marks_in_index.to_string()),
        ("messages with UIDs in the index only", stats.uids_in_index.to_string()),
    ];
    let mut out = String::new();
    for (name, value) in lines {
        let _ = writeln!(out, "{}", format!("{name}: {value}").trim_end());
    }
    say(&out)?;
    Ok(Exit::Ok)
}

fn messages(count: usize) -> String {
    if count == 1 { "1 message".to_owned() } else { format!("{count} messages") }
}

fn say(text: &str) -> Result<(), Failure> {
    io::stdout().write_all(text.as_bytes()).map_err(|error| Failure::new(Exit::IoErr, error))
}

/// How far long work is, where somebody sits at a terminal.
struct Progress {
    is_shown: bool,
    told: Instant,
    any: bool,
}

impl Progress {
    fn begin() -> Self {
        Self { is_shown: io::stderr().is_terminal(), told: Instant::now(), any: false }
    }

    fn tell(&mut self, done: u64, all: u64) {
        if self.is_shown && self.told.elapsed() >= OFTEN {
            (self.told, self.any) = (Instant::now(), true);
            let percent = done.saturating_mul(100).checked_div(all).unwrap_or(100).min(100);
            let _ = write!(io::stderr(), "\r{percent:3} %");
        }
    }

    fn end(&self) {
        if self.any {
            let _ = write!(io::stderr(), "\r     \r");
        }
    }
}

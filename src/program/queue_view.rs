//! The queue for people: `mta-queue --list` and `--show`.

use std::io::{self, IsTerminal, Write};

use super::Failure;
use crate::queue::entry::Path;
use crate::queue::spool::Error;
use crate::queue::{Entry, Id, Origin, Outcome, Place, Spool};
use crate::sys::{Exit, clock};

/// Prints the queue, a few lines a message, oldest first.
pub(super) fn list(spool: &Spool) -> Result<Exit, Failure> {
    let mut places = places(spool)?;
    places.sort_by(|a, b| a.id().cmp(b.id()));
    let mut out = io::BufWriter::new(io::stdout().lock());
    let print = |out: &mut dyn Write| -> io::Result<()> {
        let (mut count, mut bytes) = (0_u64, 0_u64);
        for place in &places {
            match spool.open(place) {
                Ok(entry) => {
                    if count == 0 {
                        writeln!(
                            out,
                            "-Queue ID-------- --Size-- ----Arrival Time----- -Sender/Recipient-------"
                        )?;
                    }
                    count += 1;
                    bytes += entry.size();
                    print_entry(out, &entry)?;
                }
                // Delivered while we looked.
                Err(Error::Taken) => {}
                Err(error) => writeln!(out, "{}  {error}", place.id())?,
            }
        }
        if count == 0 {
            writeln!(out, "Mail queue is empty")?;
        } else {
            let plural = if count == 1 { "" } else { "s" };
            writeln!(out, "\n-- {} Kbytes in {count} Request{plural}.", bytes.div_ceil(1024))?;
        }
        out.flush()
    };
    finish(print(&mut out))
}

/// Prints one message: its envelope, its history, and its text.
pub(super) fn show(spool: &Spool, id: &str) -> Result<Exit, Failure> {
    let unknown = || Failure::new(Exit::NoInput, format!("{id}: no such message in the queue"));
    let id = Id::parse(id).ok_or_else(unknown)?;
    let place = places(spool)?.into_iter().find(|place| *place.id() == id).ok_or_else(unknown)?;
    let entry = spool.open(&place).map_err(|error| match error {
        Error::Taken => unknown(),
        error => Failure::new(Exit::DataErr, format!("{id}: {error}")),
    })?;
    let stdout = io::stdout();
    let terminal = stdout.is_terminal();
    let mut out = io::BufWriter::new(stdout.lock());
    let print = |out: &mut dyn Write| -> io::Result<()> {
        let envelope = &entry.envelope;
        writeln!(out, "id:        {}", entry.id())?;
        writeln!(out, "state:     {}", state(entry.place()))?;
        writeln!(out, "arrived:   {}", date(envelope.arrived))?;
        match &envelope.origin {
            Origin::Smtp => writeln!(out, "origin:    SMTP")?,
            Origin::User(uid) => writeln!(out, "origin:    user id {uid}")?,
            Origin::Local => writeln!(out, "origin:    made here")?,
            Origin::Alias(list) => writeln!(out, "origin:    sent on by <{list}>")?,
            Origin::Programs => writeln!(out, "origin:    for an alias's commands and files")?,
        }
        writeln!(out, "size:      {}", entry.size())?;
        writeln!(out, "sender:    <{}>", Path(envelope.sender.as_ref()))?;
        for (index, recipient) in envelope.recipients.iter().enumerate() {
            writeln!(out, "recipient: <{}>", recipient.address)?;
            if let Some(notify) = recipient.notify {
                writeln!(out, "    notify: {notify}")?;
            }
            for event in entry.history.iter().filter(|event| event.recipient == index) {
                let outcome = match event.outcome {
                    Outcome::Done => "delivered",
                    Outcome::Failed => "failed",
                    Outcome::Deferred => "deferred",
                    Outcome::Warned => "sender told of the delay:",
                };
                writeln!(out, "    {}: {outcome} {} {}", date(event.time), event.code, event.text)?;
            }
        }
        writeln!(out)?;
        let mut buffer = vec![0; 64 * 1024];
        let mut offset = 0;
        loop {
            let count = entry.read_content(offset, &mut buffer)?;
            let text = buffer.get(..count).unwrap_or_default();
            if text.is_empty() {
                return out.flush();
            }
            offset += count as u64;
            // Mail must not command the operator's terminal.
            for &byte in text {
                match byte {
                    b'\r' => {}
                    b'\n' | b'\t' => out.write_all(&[byte])?,
                    byte if terminal && byte.is_ascii_control() => {
                        write!(out, "{}", byte.escape_ascii())?;
                    }
                    byte => out.write_all(&[byte])?,
                }
            }
        }
    };
    finish(print(&mut out))
}

fn places(spool: &Spool) -> Result<Vec<Place>, Failure> {
    spool.list().map_err(|error| {
        Failure::new(Exit::NoInput, format!("{}: {error}", spool.root().display()))
    })
}

/// A reader that has had enough (`mta-queue --list | head`) is no failure.
fn finish(printed: io::Result<()>) -> Result<Exit, Failure> {
    match printed {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::new(Exit::IoErr, format!("stdout: {error}")))
        }
        _ => Ok(Exit::Ok),
    }
}

fn print_entry(out: &mut dyn Write, entry: &Entry) -> io::Result<()> {
    let mark = match entry.place() {
        Place::Work(_) => '*',
        Place::Hold(_) => '!',
        _ => ' ',
    };
    let envelope = &entry.envelope;
    let sender = match &envelope.sender {
        Some(sender) => sender.to_string(),
        None => "MAILER-DAEMON".into(),
    };
    writeln!(out, "{}{mark} {:>9} {} {sender}", entry.id(), entry.size(), date(envelope.arrived))?;
    if let Place::Deferred(due, _) = entry.place() {
        writeln!(
            out,
            "{:>17} next attempt {}",
            "",
            if *due <= clock::seconds() { "now".into() } else { date(*due) }
        )?;
    }
    for recipient in entry.pending() {
        let last = entry.history.iter().rfind(|event| event.recipient == recipient);
        if let Some(event) = last {
            writeln!(out, "{:>17} ({} {})", "", event.code, event.text)?;
        }
        let address = envelope.recipients.get(recipient).map(|to| &to.address);
        writeln!(out, "{:>17} {:>31} {}", "", "", Path(address))?;
    }
    Ok(())
}

fn state(place: &Place) -> String {
    match place {
        Place::Work(_) => "being delivered, or its runner was killed".into(),
        Place::Incoming(_) => "new".into(),
        Place::Deferred(due, _) => format!("deferred until {}", date(*due)),
        Place::Hold(_) => "held for the operator".into(),
        Place::Drop(_) => "handed in by sendmail, not picked up yet".into(),
    }
}

/// Local time.
fn date(seconds: u64) -> String {
    clock::at(seconds)
        .map_or_else(|| "unknown".into(), |time| time.strftime("%a %b %e %H:%M:%S").to_string())
}

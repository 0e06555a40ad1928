//! Recipients that stand for others: aliases and virtual users.
//!
//! What they lead to becomes messages of its own in the queue, and only when those last is the
//! recipient done. A runner that is killed in between sends some of them twice, and forgets nobody.

use std::io;

use super::super::fate::Fate;
use super::super::flight::Flight;
use super::super::launcher;
use super::super::report::{self, Action};
use super::Run;
use crate::config::Config;
use crate::message::Address;
use crate::queue::spool::Error;
use crate::queue::{Entry, Envelope, Id, Origin, Outcome};
use crate::route::resolve::{Virtual, virtual_user};
use crate::route::{self, Destination, Expansion, Files, Group};
use crate::smtp::Recipient;
use crate::smtp::dsn::{Notify, OriginalRecipient};
use crate::text::line;

/// The most recipients of one message that is made.
const MAX_RECIPIENTS: usize = 1000;

impl Run<'_> {
    /// The fate of a recipient that stands for others, or for nobody; `None` where it is an account
    /// or an address elsewhere.
    pub(super) fn follow(&self, flight: &Flight, to: &Recipient) -> Option<Fate> {
        let address = &to.address;
        let entry = &flight.entry;
        let later = |what: String| Fate::ours(Outcome::Deferred, "4.3.5", reason(&what));
        let resolved = match entry.envelope.origin {
            // It was followed already; but in a virtual domain it may be nobody.
            Origin::Alias(_) => virtual_user(self.runner.config, &self.lookups(), address).map(
                |found| match found {
                    Virtual::Unknown => Destination::Unknown,
                    Virtual::No | Virtual::User { .. } => Destination::Account,
                },
            ),
            _ => route::resolve(self.runner.config, &self.lookups(), address),
        };
        let expansion = match resolved {
            Ok(Destination::Account | Destination::Remote) => return None,
            Ok(Destination::Unknown) => {
                let text = "there is no such user in this virtual domain";
                return Some(Fate::ours(Outcome::Failed, "5.1.1", text));
            }
            Ok(Destination::Expanded(expansion)) => expansion,
            Err(what) => return Some(later(what)),
        };
        let expanded = match was_sent_on_by(entry, address) {
            Ok(true) => {
                let text = format!("mail loop: it was sent on by {address} before");
                return Some(Fate::ours(Outcome::Failed, "5.4.6", text));
            }
            Ok(false) => self.expand(entry, to, &expansion),
            Err(error) => Err(error.into()),
        };
        Some(match expanded {
            Ok(made) => {
                let text = describe(&expansion, &made);
                let receipt = Kind::of(&expansion).receipt();
                Fate { receipt, ..Fate::ours(Outcome::Done, "2.0.0", text) }
            }
            Err(Error::Damaged(what)) => later(format!("the message in the queue {what}")),
            Err(error) => later(format!("it can't be sent on now: {error}")),
        })
    }

    fn lookups(&self) -> Files<'_, impl Fn(&str) -> io::Result<bool>> {
        let launcher = self.runner.launcher;
        Files {
            tables: &self.tables,
            has_account: |local: &str| launcher::is_known(launcher, local),
        }
    }

    /// Puts what a recipient stands for into the queue; the new messages.
    fn expand(
        &self,
        entry: &Entry,
        to: &Recipient,
        expansion: &Expansion,
    ) -> Result<Vec<Id>, Error> {
        let config = self.runner.config;
        let recipient = &to.address;
        let old = &entry.envelope;
        let wishes = Kind::of(expansion).wishes(to);
        let mut made = Vec::new();
        for Group { list, owner, members } in &expansion.groups {
            let sender = owner.as_ref().or(old.sender.as_ref());
            // A list's owner gets the list's reports, in no sender's terms.
            let wishes = owner.is_none().then_some(&wishes);
            let told = |address: &Address| match wishes {
                Some(wishes) => Recipient { address: address.clone(), ..wishes.clone() },
                None => address.clone().into(),
            };
            let envelope = |members: &[Address]| Envelope {
                origin: Origin::Alias(list.clone()),
                sender: sender.cloned(),
                ret: old.ret.filter(|_| owner.is_none()),
                envelope_id: old.envelope_id.clone().filter(|_| owner.is_none()),
                recipients: members.iter().map(told).collect(),
                ..old.clone()
            };
            let (own, others): (Vec<Address>, Vec<Address>) =
                members.iter().cloned().partition(|member| is_own(config, recipient, member));
            for recipients in others.chunks(MAX_RECIPIENTS) {
                made.push(self.send_on(entry, &envelope(recipients), Some(recipient))?);
            }
            // The account of the alias's own name: its .forward shall not take our mark for its own.
            if !own.is_empty() {
                made.push(self.send_on(entry, &envelope(&own), None)?);
            }
        }
        if !expansion.commands.is_empty() || !expansion.files.is_empty() {
            let owner = expansion.program_owner.as_ref();
            let envelope = Envelope {
                origin: Origin::Programs,
                sender: owner.or(old.sender.as_ref()).cloned(),
                ret: old.ret.filter(|_| owner.is_none()),
                envelope_id: old.envelope_id.clone().filter(|_| owner.is_none()),
                recipients: vec![wishes.clone()],
                ..old.clone()
            };
            made.push(self.send_on(entry, &envelope, None)?);
        }
        Ok(made)
    }

    /// Makes a message of an entry's text, with a mark that it was delivered to `list`.
    fn send_on(
        &self,
        entry: &Entry,
        envelope: &Envelope,
        list: Option<&Address>,
    ) -> Result<Id, Error> {
        let mut draft = self.runner.inlet.create(Id::new()?, envelope)?;
        if let Some(list) = list {
            draft.write(format!("Delivered-To: {list}\r\n").as_bytes())?;
        }
        entry.copy_content(&mut draft)?;
        Ok(draft.commit()?)
    }
}

/// What an address that stands for others is to its sender (RFC 3461 section 5.2.7).
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Another name of one.
    Alias,
    /// Several.
    Group,
    /// A mailing list: it has an owner, who hears of its members' failures.
    List,
    /// Nobody.
    Nothing,
}

impl Kind {
    fn of(expansion: &Expansion) -> Self {
        let Expansion { groups, commands, files, .. } = expansion;
        let programs = commands.len() + files.len();
        let members: usize = groups.iter().map(|group| group.members.len()).sum();
        if members + programs == 0 {
            return Self::Nothing;
        }
        let groups_owned = groups.iter().all(|group| group.owner.is_some());
        if groups_owned && (programs == 0 || expansion.program_owner.is_some()) {
            return Self::List;
        }
        if members + programs == 1 { Self::Alias } else { Self::Group }
    }

    /// What the sender is told who wants to hear of success.
    fn receipt(self) -> Option<Action> {
        match self {
            Self::Alias => None,
            Self::Group => Some(Action::Expanded),
            Self::List | Self::Nothing => Some(Action::Delivered),
        }
    }

    /// The recipient with what its members are told of the sender's wishes.
    fn wishes(self, to: &Recipient) -> Recipient {
        let original = to.original.clone().or_else(|| OriginalRecipient::of(&to.address));
        let notify = match self {
            Self::Alias => to.notify,
            // One receipt is enough.
            Self::Group => to.notify.map(|notify| Notify { success: false, ..notify }),
            Self::List | Self::Nothing => return to.address.clone().into(),
        };
        Recipient { address: to.address.clone(), notify, original }
    }
}

/// Whether a member is the account that has the alias's own name.
fn is_own(config: &Config, alias: &Address, member: &Address) -> bool {
    let here = |address: &Address| config.is_local_domain(address.domain());
    let base = |address: &Address| route::before_extension(config, address.local()).to_owned();
    here(alias) && here(member) && base(alias).eq_ignore_ascii_case(&base(member))
}

/// Whether a message was sent on by this address before: its header has the mark.
fn was_sent_on_by(entry: &Entry, address: &Address) -> io::Result<bool> {
    let mut header = vec![0; report::MAX_HEADER];
    let mut length = 0;
    while let Some(room) = header.get_mut(length..).filter(|room| !room.is_empty()) {
        match entry.read_content(length as u64, room)? {
            0 => break,
            count => length += count,
        }
    }
    header.truncate(length);
    Ok(has_mark(&header, &address.to_string()))
}

fn has_mark(header: &[u8], address: &str) -> bool {
    const NAME: &[u8] = b"delivered-to:";
    header
        .split(|byte| *byte == b'\n')
        .map(<[u8]>::trim_ascii_end)
        .take_while(|line| !line.is_empty())
        .filter_map(|line| line.split_at_checked(NAME.len()))
        .filter(|(name, _)| name.eq_ignore_ascii_case(NAME))
        .any(|(_, value)| value.trim_ascii().eq_ignore_ascii_case(address.as_bytes()))
}

/// What is said of it in the log and in reports.
fn describe(expansion: &Expansion, made: &[Id]) -> String {
    let members: usize = expansion.groups.iter().map(|group| group.members.len()).sum();
    let programs = expansion.commands.len() + expansion.files.len();
    let ids: Vec<&str> = made.iter().map(Id::as_str).collect();
    let mut text = format!("alias of {members} addresses");
    if programs > 0 {
        text = format!("{text} and {programs} commands or files");
    }
    if ids.is_empty() { text } else { format!("{text}, sent on as {}", ids.join(", ")) }
}

/// What keeps a recipient from being followed, in one line; it may quote a file.
fn reason(what: &str) -> String {
    line::printable(what).take(1000).collect()
}

#[cfg(test)]
mod tests {
    use super::has_mark;

    #[test]
    fn the_mark_counts_in_the_header_only_and_without_letter_case() {
        let header = b"Received: x\r\ndelivered-to:  List@Here \r\nSubject: s\r\n\r\n";
        assert!(has_mark(header, "list@here"));
        assert!(!has_mark(header, "ist@here"));
        assert!(!has_mark(b"Subject: x\r\n\r\nDelivered-To: list@here\r\n", "list@here"));
        assert!(!has_mark(b"X-Delivered-To: list@here\r\n", "list@here"));
        assert!(!has_mark(b"Delivered-To:", "list@here"));
    }
}

//! Delivery for one user: into their mailboxes, to their commands, and on to other addresses.
//!
//! A process that delivers is one recipient for good ([`become_recipient`]) before it reads a byte
//! of the message. Then it makes an [`Agent`] and gives it messages, one or many:
//! [`Agent::stage`], [`Stager::push`] as the bytes come, [`Agent::deliver`]. What is to be done with
//! a message is worked out first, as a [`Plan`], and then carried out. What deliver has returned for
//! is on stable storage.

mod command;
mod duplicates;
mod plan;
mod recipient;

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fmt;
use std::fs::File;
use std::io::{self, BufWriter, Seek, Write};
use std::path::PathBuf;
use std::rc::Rc;
use std::time::SystemTime;

use super::Failure;
use super::failure::LOCKED;
use super::report::{self, Action, Report};
use crate::config::{Config, OverQuota};
use crate::mailbox::folders::Wanted;
use crate::mailbox::mbox::from_line;
use crate::mailbox::{self, Growth, Mailbox, NewMessage, Place, StageError, Staged, Stager};
use crate::message::{Address, date};
use crate::queue::Id;
use crate::route::{self, Route};
use crate::sys::{Account, clock};

use command::Program;
use duplicates::Duplicates;

pub use plan::{Plan, forward_file};
pub use recipient::{address_of, become_recipient, folders, inbox_place, open_inbox};

/// What the envelope says of one message for one recipient.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Envelope {
    /// The reverse-path, without angle brackets; empty for the null sender.
    pub sender: String,
    /// The address that is delivered to, for Delivered-To.
    pub recipient: String,
    /// What stands behind the delimiter in it; may be empty.
    pub extension: String,
    /// The sender wants to hear of its delivery.
    pub receipt: Option<Receipt>,
}

/// What a report on a delivery repeats of the envelope (RFC 3461).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Receipt {
    /// `ENVID`.
    pub envelope_id: Option<String>,
    /// `ORCPT`, as `type;address`.
    pub original: Option<String>,
}

/// Where messages go that no `.forward` sends elsewhere.
#[derive(Clone, Debug, Default)]
pub struct Wish {
    /// This folder; the user's `.forward` is not asked.
    pub folder: Option<Wanted>,
    /// The user's `.forward` is not asked.
    pub ignore_forward: bool,
    /// What aliases have in commands and files is done, for whatever address.
    pub aliases: bool,
}

/// A message that has been delivered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivered {
    /// Its size.
    pub size: u64,
    /// What was done with it.
    pub how: String,
}

impl fmt::Display for Delivered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "delivered: {}", self.how)
    }
}

/// Delivers messages to one recipient.
pub struct Agent<'a> {
    config: &'a Config,
    account: &'a Account,
    wish: Wish,
    inbox: PathBuf,
    /// Mailboxes that were used, and may be again.
    mailboxes: HashMap<PathBuf, Mailbox>,
    warnings: Vec<String>,
}

impl<'a> Agent<'a> {
    /// For the account that this process has become.
    pub fn new(config: &'a Config, account: &'a Account, wish: Wish) -> Result<Self, Failure> {
        Ok(Self {
            config,
            account,
            wish,
            inbox: inbox_place(config, account)?.path,
            mailboxes: HashMap::new(),
            warnings: Vec::new(),
        })
    }

    /// Begins a message.
    pub fn stage(&self) -> Stager {
        Stager::new(self.config.smtp.max_message_size)
    }

    /// What is to be done with a message.
    pub fn plan(&self, message: &Staged, envelope: &Envelope) -> Result<Plan, Failure> {
        let (config, account) = (self.config, self.account);
        if let Some(folder) = &self.wish.folder {
            return Plan::folder(config, account, folder);
        }
        if self.wish.aliases {
            if message.was_delivered_to(|other| is_same(config, &envelope.recipient, other)) {
                let text = format!("mail loop: it was delivered to {} before", envelope.recipient);
                return Err(Failure::permanent("5.4.6", text));
            }
            return Plan::alias(config, account, &envelope.recipient);
        }
        let forward = if self.wish.ignore_forward {
            None
        } else {
            Plan::forward(config, account, &envelope.extension)?
        };
        let Some(plan) = forward else {
            return Plan::inbox(config, account);
        };
        let is_same = |other: &[u8]| {
            is_same(config, &envelope.recipient, other)
                || self.is_sent_on_alike(other, &envelope.extension)
        };
        let passes = plan.addresses.is_empty() && plan.commands.is_empty();
        let again = !plan.addresses.is_empty() && message.was_delivered_to(is_same);
        if passes || !(again || message.was_delivered_to(|_| false)) {
            return Ok(plan);
        }
        // It was sent on from here before, or by whoever called us. A copy that is to be kept is
        // kept; sending it on once more would be a loop.
        if plan.mailboxes.iter().any(|place| place.path == self.inbox) {
            return Plan::inbox(config, account);
        }
        let text = format!("mail loop: it was delivered to {} before", envelope.recipient);
        Err(Failure::permanent("5.4.6", text))
    }

    /// Whether an address is this user's with another extension, and the same file sends its mail
    /// on: Postfix takes the extension off for `\user`.
    fn is_sent_on_alike(&self, address: &[u8], extension: &str) -> bool {
        let (config, account) = (self.config, self.account);
        let Ok(address) = Address::parse(address) else {
            return false;
        };
        let Route::Local(local) = route::route(config, &address) else {
            return false;
        };
        route::extension(config, &account.name, local)
            .is_some_and(|other| plan::is_same_file(config, account, other, extension))
    }

    /// Delivers a message.
    pub fn deliver(&mut self, text: Rc<Staged>, envelope: Envelope) -> Result<Delivered, Failure> {
        let lost = || Err(Failure::temporary("4.3.0", "lost count"));
        self.deliver_all(vec![(Ok(text), envelope)]).pop().unwrap_or_else(lost)
    }

    /// Delivers messages in their order. Those for the inbox that follow each other are put there
    /// together, with one sync. Where that fails, each is tried alone, so that one that can't be
    /// stored does not keep the others out.
    pub fn deliver_all(
        &mut self,
        messages: Vec<(Result<Rc<Staged>, Failure>, Envelope)>,
    ) -> Vec<Result<Delivered, Failure>> {
        let mut fates = Vec::with_capacity(messages.len());
        let mut together = Vec::new();
        for (text, envelope) in messages {
            let planned = text.and_then(|text| {
                let plan = self.plan(&text, &envelope)?;
                Ok((plan, Letter { text, envelope }))
            });
            match planned {
                Ok((plan, letter)) if self.can_wait(&plan) => together.push(letter),
                Ok((plan, letter)) => {
                    self.put_into_inbox(&mut together, &mut fates);
                    fates.push(self.carry_out(&plan, &letter));
                }
                Err(failure) => {
                    self.put_into_inbox(&mut together, &mut fates);
                    fates.push(Err(failure));
                }
            }
        }
        self.put_into_inbox(&mut together, &mut fates);
        fates
    }

    fn can_wait(&self, plan: &Plan) -> bool {
        plan.is_inbox_only(&self.inbox) && self.config.mailbox.drop_duplicates.seconds() == 0
    }

    fn put_into_inbox(
        &mut self,
        letters: &mut Vec<Letter>,
        fates: &mut Vec<Result<Delivered, Failure>>,
    ) {
        if letters.is_empty() {
            return;
        }
        let messages: Vec<NewMessage> = letters.iter().map(Letter::for_mailbox).collect();
        let place = inbox_place(self.config, self.account);
        let all = place.map(|place| (self.put(&place, &messages), place));
        fates.extend(letters.drain(..).zip(&messages).map(|(letter, message)| {
            match &all {
                Err(failure) => return Err(failure.clone()),
                Ok((Ok(()), _)) => {}
                // A lock that could not be had for all of them can't be had for one.
                Ok((Err(failure), _)) if messages.len() == 1 || failure.code() == LOCKED => {
                    return Err(failure.clone());
                }
                Ok((Err(_), place)) => self.put(place, std::slice::from_ref(message))?,
            }
            self.tell_sender(&letter, Action::Delivered);
            Ok(letter.delivered(format!("mailbox={}", self.inbox.display())))
        }));
    }

    fn carry_out(&mut self, plan: &Plan, letter: &Letter) -> Result<Delivered, Failure> {
        let duplicates = self.duplicates(letter)?;
        if duplicates.as_ref().is_some_and(Duplicates::is_known) {
            return Ok(letter.delivered("dropped, a duplicate".into()));
        }
        for command in &plan.commands {
            self.command(command, letter)?;
        }
        for place in &plan.mailboxes {
            self.put(place, &[letter.for_mailbox()])?;
        }
        if !plan.addresses.is_empty() {
            self.forward(&plan.addresses, letter)?;
        }
        if let Some(Err(error)) = duplicates.map(Duplicates::remember) {
            self.warnings.push(format!("a delivery can't be remembered: {error}"));
        }
        let elsewhere = plan.mailboxes.is_empty() && !plan.addresses.is_empty();
        self.tell_sender(letter, if elsewhere { Action::Relayed } else { Action::Delivered });
        let mailbox =
            plan.mailboxes.iter().map(|place| format!("mailbox={}", place.path.display()));
        let command = plan.commands.iter().map(|command| format!("command={command:?}"));
        let forward = plan.addresses.iter().map(|address| format!("forward=<{address}>"));
        let how: Vec<String> = mailbox.chain(command).chain(forward).collect();
        Ok(letter.delivered(if how.is_empty() { "discarded".into() } else { how.join(" ") }))
    }

    /// What is known of earlier copies, where that is asked for.
    fn duplicates(&self, letter: &Letter) -> Result<Option<Duplicates>, Failure> {
        let memory = self.config.mailbox.drop_duplicates;
        let Some(id) = letter.text.message_id().filter(|id| !id.is_empty() && memory.seconds() > 0)
        else {
            return Ok(None);
        };
        let index = recipient::index_of(self.config, self.account)?;
        let looked = Duplicates::look(&index, &letter.envelope.recipient, id, memory);
        looked.map(Some).map_err(|error| {
            let text = format!("{}/duplicates: {error}", index.display());
            Failure::temporary("4.3.0", text)
        })
    }

    /// Puts messages into a mailbox together.
    fn put(&mut self, place: &Place, messages: &[NewMessage]) -> Result<(), Failure> {
        let folders = recipient::folders_of(self.config, self.account);
        if let (Some(parent), Ok(folders)) = (place.path.parent(), folders)
            && place.path.starts_with(folders)
            && !parent.is_dir()
        {
            // A folder of the user's; where this fails, opening it tells why.
            let _ = mailbox::directory::make(parent);
        }
        let mailbox =
            self.mailboxes.entry(place.path.clone()).or_insert_with(|| Mailbox::new(place.clone()));
        let appended = mailbox.append(messages);
        self.warnings.append(&mut mailbox.take_warnings());
        let growth = appended.map_err(|error| over_quota(self.config, error))?;
        self.warn_of_quota(place, growth);
        Ok(())
    }

    /// Tells the user, once, when a mailbox grows beyond the greater part of its quota.
    fn warn_of_quota(&mut self, place: &Place, growth: Growth) {
        let percent = u64::from(self.config.mailbox.quota_warning);
        let line = place.quota / 100 * percent;
        if place.quota == 0 || percent == 0 || growth.before > line || growth.after <= line {
            return;
        }
        let name = place.path.file_name().unwrap_or(OsStr::new("")).to_string_lossy().into_owned();
        let (config, to) = (self.config, address_of(self.config, self.account, ""));
        let (now, used, quota) = (clock::now(), growth.after / 1024, place.quota / 1024);
        let (host, origin) = (&config.hostname, config.origin());
        let text = format!(
            "From: Mail delivery <postmaster@{origin}>\nTo: <{to}>\nSubject: Your mailbox is nearly full\n\
             Date: {date}\nMessage-ID: <quota.{stamp}.{pid}@{host}>\nAuto-Submitted: auto-generated\n\
             MIME-Version: 1.0\nContent-Type: text/plain; charset=utf-8\n\n\
             Your mailbox {name} has {used} KiB now. Of more than {quota} KiB nothing will be\n\
             delivered into it. Please delete what you do not need.\n",
            date = date::rfc5322(&now),
            stamp = now.timestamp().as_millisecond(),
            pid = std::process::id(),
        );
        let mut stager = Stager::new(u64::MAX);
        let staged = stager.push(text.as_bytes()).and_then(|()| stager.finish());
        let Ok(staged) = staged else {
            return;
        };
        let warning = NewMessage::delivered(b"", to.as_bytes(), SystemTime::now(), Rc::new(staged));
        if let Some(mailbox) = self.mailboxes.get_mut(&place.path)
            && let Err(error) = mailbox.append(&[warning])
        {
            self.warnings.push(format!("the user can't be warned of the quota: {error}"));
        }
    }

    /// Gives the message to a command of the user's.
    fn command(&self, command: &str, letter: &Letter) -> Result<(), Failure> {
        let words = ["/bin/sh", "-c", command].map(OsStr::new);
        let Envelope { sender, recipient, extension, .. } = &letter.envelope;
        let (local, domain) = recipient.rsplit_once('@').unwrap_or((recipient, ""));
        let values = [sender.as_str(), recipient, extension, local, domain].map(harmless);
        let names = ["SENDER", "RECIPIENT", "EXTENSION", "LOCAL", "DOMAIN"];
        let environment: Vec<(&str, &str)> =
            names.into_iter().zip(values.iter().map(String::as_str)).collect();
        let program = Program {
            account: self.account,
            words: &words,
            environment: &environment,
            limit: self.limit(),
            name: &format!("command {command:?}"),
        };
        program.run(letter.for_command().map_err(|error| unwritten(&error))?)
    }

    /// Hands the message to the queue, for all of these at once.
    fn forward(&self, addresses: &[Address], letter: &Letter) -> Result<(), Failure> {
        self.send(
            &letter.envelope.sender,
            addresses,
            letter.for_queue().map_err(|e| unwritten(&e))?,
        )
    }

    /// Tells the sender that the message was delivered, where that is wanted (RFC 3461 section
    /// 6.2). Where that can't be done, it is no reason to deliver it again.
    fn tell_sender(&mut self, letter: &Letter, action: Action) {
        let Envelope { sender, recipient, receipt, .. } = &letter.envelope;
        let Some(receipt) = receipt else {
            return;
        };
        let addresses = [sender, recipient].map(|text| Address::parse(text.as_bytes()));
        // A report on addresses with UTF-8 would be of another kind (RFC 6533).
        let [Ok(sender), Ok(address)] = addresses else {
            return;
        };
        let told = self.report(letter, action, &sender, address, receipt);
        if let Err(failure) = told {
            let text = format!("<{sender}> can't be told of a delivery: {failure}");
            self.warnings.push(text);
        }
    }

    fn report(
        &self,
        letter: &Letter,
        action: Action,
        sender: &Address,
        address: Address,
        receipt: &Receipt,
    ) -> Result<(), Failure> {
        let failed = |error: io::Error| unwritten(&error);
        let header = letter.text.header(report::MAX_HEADER).map_err(failed)?;
        let report = Report {
            hostname: &self.config.hostname,
            id: None,
            envelope_id: receipt.envelope_id.as_deref(),
            sender,
            arrived: clock::seconds(),
            action,
            recipients: &[report::Recipient {
                address,
                original: receipt.original.clone(),
                code: "2.0.0".into(),
                text: "delivered".into(),
                remote: None,
            }],
            text: &header,
            whole: false,
        };
        let mut message = report.message(&Id::new().map_err(failed)?, &clock::now());
        message.retain(|byte| *byte != b'\r');
        let mut file = tempfile::tempfile().map_err(failed)?;
        file.write_all(&message).and_then(|()| file.rewind()).map_err(failed)?;
        self.send("", std::slice::from_ref(sender), file)
    }

    /// Hands a message to the queue; an empty sender is the null one.
    fn send(&self, sender: &str, addresses: &[Address], message: File) -> Result<(), Failure> {
        let sendmail = &self.config.delivery.sendmail;
        // Attached, so that no sender is taken for an option.
        let sender = if sender.is_empty() { "-f<>".to_owned() } else { format!("-f{sender}") };
        let addresses: Vec<String> = addresses.iter().map(Address::to_string).collect();
        let mut words: Vec<&OsStr> = sendmail.iter().map(OsStr::new).collect();
        words.extend(["-i", &sender, "--"].map(OsStr::new));
        words.extend(addresses.iter().map(OsStr::new));
        let program = Program {
            account: self.account,
            words: &words,
            environment: &[],
            limit: self.limit(),
            name: &sendmail.join(" "),
        };
        program.run(message)
    }

    fn limit(&self) -> std::time::Duration {
        std::time::Duration::from_secs(self.config.delivery.command_time_limit.seconds())
    }

    /// What the operator should know of what was found.
    pub fn take_warnings(&mut self) -> Vec<String> {
        std::mem::take(&mut self.warnings)
    }
}

/// A message with its envelope.
struct Letter {
    text: Rc<Staged>,
    envelope: Envelope,
}

impl Letter {
    fn for_mailbox(&self) -> NewMessage {
        let Envelope { sender, recipient, .. } = &self.envelope;
        let (sender, recipient) = (sender.as_bytes(), recipient.as_bytes());
        NewMessage::delivered(sender, recipient, SystemTime::now(), Rc::clone(&self.text))
    }

    /// As a command gets it: with a `From_` line, since procmail and its like want one.
    fn for_command(&self) -> io::Result<File> {
        let message = self.for_mailbox();
        let from = from_line::write(&message.sender, message.at);
        self.file(&[from, message.trace].concat())
    }

    /// As it is sent on: it was delivered to this recipient, who has not to get it again.
    fn for_queue(&self) -> io::Result<File> {
        self.file(format!("Delivered-To: {}\n", self.envelope.recipient).as_bytes())
    }

    /// In a file without a name, to be read from its start.
    fn file(&self, head: &[u8]) -> io::Result<File> {
        let mut file = BufWriter::new(tempfile::tempfile()?);
        file.write_all(head)?;
        self.text.each(&mut |bytes| file.write_all(bytes))?;
        let mut file = file.into_inner().map_err(io::IntoInnerError::into_error)?;
        file.rewind()?;
        Ok(file)
    }

    fn delivered(&self, how: String) -> Delivered {
        Delivered { size: self.text.length(), how }
    }
}

/// Whether two addresses mean the same recipient: all domains of this host are one.
fn is_same(config: &Config, recipient: &str, other: &[u8]) -> bool {
    let other = String::from_utf8_lossy(other);
    let [(local, domain), (other_local, other_domain)] =
        [recipient, &other].map(|address| address.rsplit_once('@').unwrap_or((address, "")));
    let both_here = config.is_local_domain(domain) && config.is_local_domain(other_domain);
    local.eq_ignore_ascii_case(other_local)
        && (domain.eq_ignore_ascii_case(other_domain) || both_here)
}

/// What a stranger said, for the environment of a shell: what could be more than a word there
/// becomes `_`, as Postfix has it.
fn harmless(value: &str) -> String {
    let harmless = |c: char| c.is_alphanumeric() || "!@%-_=+:,./".contains(c);
    value.chars().map(|c| if harmless(c) { c } else { '_' }).collect()
}

fn unwritten(error: &io::Error) -> Failure {
    let directory = std::env::temp_dir();
    let text = format!("the message can't be kept in {}: {error}", directory.display());
    Failure::temporary("4.3.1", text)
}

impl From<StageError> for Failure {
    fn from(error: StageError) -> Self {
        match error {
            StageError::TooLarge(_) => Self::permanent("5.3.4", error),
            StageError::Spool(_) => Self::temporary("4.3.1", error),
        }
    }
}

/// A full mailbox is a failure for good or for now, as the operator wishes.
fn over_quota(config: &Config, error: mailbox::Error) -> Failure {
    let full = matches!(error, mailbox::Error::OverQuota { .. })
        || error.os_error() == Some(nix::libc::EDQUOT);
    match config.mailbox.over_quota {
        OverQuota::Refuse if full => Failure::permanent("5.2.2", error),
        _ => error.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::harmless;

    #[test]
    fn a_sender_is_one_word_to_a_shell() {
        assert_eq!(harmless("a'b;$(c) `d`|\"e\"@f.org"), "a_b___c___d___e_@f.org");
        assert_eq!(harmless("() { :;}; x"), "_____:____x");
    }
}

//! What each command does.

use super::{Dialect, LookUp, Session, State, Tls, too_big};
use crate::message::Address;
use crate::message::address::Mailbox;
use crate::smtp::command::{self, Chunk, Command, MailParameters, RcptParameters};
use crate::smtp::{Body, Recipient, Reply, Transaction, xclient};

impl Session {
    /// `more`: the client has sent more behind this command already.
    pub(super) fn command(&mut self, line: &[u8], more: bool) {
        // What comes behind STARTTLS in the clear may be somebody else's (CVE-2011-0411).
        let injects = self.tls == Tls::Offered && command::is_for(line, "STARTTLS");
        let is_early = more
            && (self.strict || injects)
            && (command::ends_group(line) || !self.extended)
            && !line.trim_ascii_end().eq_ignore_ascii_case(b"QUIT");
        if is_early {
            return self.hang_up(&Reply::new(
                503,
                "5.5.0",
                "Error: improper command pipelining: wait for the reply",
            ));
        }
        let command = match command::parse(line, self.extensions) {
            Ok(command) => command,
            // Where its chunk ends and commands go on, nobody knows.
            Err(reply) if self.extensions.chunking && command::is_for(line, "BDAT") => {
                return self.hang_up(&reply);
            }
            Err(reply) => return self.refuse(&reply),
        };
        if self.needs_login(&command) {
            let needs_tls = self.tls == Tls::Offered && self.mechanisms().is_none();
            let what = if needs_tls { "send STARTTLS first" } else { "authentication required" };
            let refusal = Reply::new(530, "5.7.0", format!("Error: {what}"));
            return match command {
                // The chunk comes whatever is said to it.
                Command::Bdat(chunk) if self.extensions.chunking => {
                    self.state = State::Skip(chunk.size, Some(refusal));
                }
                _ => self.refuse(&refusal),
            };
        }
        match command {
            Command::Helo(name) => self.hello(Dialect::Smtp, name, false),
            Command::Ehlo(name) => self.hello(Dialect::Smtp, name, true),
            Command::Lhlo(name) => self.hello(Dialect::Lmtp, name, true),
            Command::Mail { from, parameters } => self.mail(from, parameters),
            Command::Rcpt { to, parameters } => self.rcpt(to, parameters),
            Command::Data => self.data(),
            Command::Bdat(chunk) => self.bdat(chunk),
            Command::StartTls => self.starttls(),
            Command::Auth { mechanism, initial } => self.auth(&mechanism, initial),
            Command::Rset => {
                self.reset();
                self.reply(&Reply::new(250, "2.0.0", "Ok"));
            }
            Command::Noop => self.reply(&Reply::new(250, "2.0.0", "Ok")),
            Command::Vrfy(whom) if self.vrfy => self.look_up(&whom, LookUp::Verify),
            Command::Vrfy(_) => self.reply(&Reply::new(
                252,
                "2.0.0",
                "Send some mail, and the recipient will be checked",
            )),
            Command::Expn(list) if self.expn => self.look_up(&list, LookUp::Expand),
            Command::Expn(_) => {
                self.refuse(&Reply::new(550, "5.7.2", "Error: lists are not expanded here"));
            }
            Command::Xclient(_) if self.transaction.is_some() => {
                self.refuse(&Reply::new(503, "5.5.1", "Error: MAIL transaction in progress"));
            }
            Command::Xclient(claim) => self.state = State::Claiming(claim),
            Command::Help => self.help(),
            Command::Quit => self.hang_up(&Reply::new(221, "2.0.0", "Bye")),
        }
    }

    fn hello(&mut self, dialect: Dialect, name: String, extended: bool) {
        if dialect != self.dialect {
            let text = "Error: command not recognized";
            return self.refuse(&Reply::new(500, "5.5.1", text));
        }
        self.reset();
        self.helo = Some(name);
        self.extended = extended;
        if !extended {
            return self.reply(&Reply::plain(250, self.hostname.clone()));
        }
        let extensions = self.extensions;
        let is_smtp = self.dialect == Dialect::Smtp;
        let announced = [
            (true, "8BITMIME"),
            (true, "SMTPUTF8"),
            (true, "ENHANCEDSTATUSCODES"),
            (true, "DSN"),
            (extensions.chunking, "CHUNKING"),
            (extensions.binarymime, "BINARYMIME"),
            (self.tls == Tls::Offered, "STARTTLS"),
            (is_smtp, "VRFY"),
            (self.expn, "EXPN"),
            (is_smtp, "HELP"),
        ];
        let size = format!("SIZE {}", self.limits.message_size);
        // RFC 9422. A session may have any number of messages: there is no MAILMAX.
        let limits = format!("LIMITS RCPTMAX={}", self.limits.recipients);
        let mut lines = vec![self.hostname.clone(), "PIPELINING".into(), size, limits];
        lines.extend(announced.iter().filter(|(is_on, _)| *is_on).map(|(_, word)| (*word).into()));
        if extensions.xclient {
            lines.push(format!("XCLIENT {}", xclient::ATTRIBUTES));
        }
        lines.extend(self.mechanisms().map(|names| format!("AUTH {names}")));
        self.lines(250, &lines);
    }

    fn help(&mut self) {
        let tls = if self.tls == Tls::Offered { " STARTTLS" } else { "" };
        let auth = if self.mechanisms().is_some() { " AUTH" } else { "" };
        let bdat = if self.extensions.chunking { " BDAT" } else { "" };
        let binary = if self.extensions.binarymime { "|BINARYMIME" } else { "" };
        let (hello, rfc) = match self.dialect {
            Dialect::Smtp => ("HELO EHLO", "RFC 5321"),
            Dialect::Lmtp => ("LHLO", "RFC 2033"),
        };
        let lines = [
            format!("Commands: {hello}{tls}{auth} MAIL RCPT DATA{bdat} RSET NOOP VRFY HELP QUIT"),
            format!(
                "MAIL FROM:<address> [SIZE=bytes] [BODY=7BIT|8BITMIME{binary}] [SMTPUTF8] \
                 [RET=FULL|HDRS] [ENVID=xtext]"
            ),
            "RCPT TO:<address> [NOTIFY=NEVER|SUCCESS,FAILURE,DELAY] [ORCPT=type;xtext]".into(),
            "DATA, then the text, then a line with a single dot".into(),
        ];
        let bdat = self.extensions.chunking.then(|| "BDAT bytes [LAST], then the bytes".into());
        let lines = lines.into_iter().chain(bdat).chain([format!("The rest is in {rfc}")]);
        let lines: Vec<String> = lines.map(|line| format!("2.0.0 {line}")).collect();
        self.lines(214, &lines);
    }

    fn look_up(&mut self, whom: &[u8], kind: impl FnOnce(Address) -> LookUp) {
        match command::asked_for(whom) {
            Ok(mailbox) => self.state = State::LookingUp(kind(mailbox.or_domain(&self.origin))),
            Err(reply) => self.refuse(&reply),
        }
    }

    fn starttls(&mut self) {
        let refusal = match self.tls {
            Tls::Offered => return self.state = State::StartingTls,
            Tls::On => Reply::new(503, "5.5.1", "Error: TLS is on already"),
            Tls::Unknown => Reply::new(502, "5.5.1", "Error: TLS is not offered here"),
        };
        self.refuse(&refusal);
    }

    fn mail(&mut self, from: Option<Mailbox>, parameters: MailParameters) {
        if self.helo.is_none() {
            let word = if self.dialect == Dialect::Lmtp { "LHLO" } else { "HELO" };
            return self.refuse(&Reply::new(503, "5.5.1", format!("Error: send {word} first")));
        }
        if self.transaction.is_some() {
            return self.refuse(&Reply::new(503, "5.5.1", "Error: nested MAIL command"));
        }
        if parameters.size.is_some_and(|size| size > self.limits.message_size) {
            let text = "Message size exceeds fixed limit";
            return self.refuse(&Reply::new(552, "5.3.4", text));
        }
        let sender = from.map(|mailbox| mailbox.or_domain(&self.origin));
        if !parameters.utf8 && sender.as_ref().is_some_and(|sender| !sender.is_ascii()) {
            return self.refuse(&command::not_ascii());
        }
        self.transaction = Some(Transaction {
            sender,
            recipients: Vec::new(),
            body: parameters.body,
            utf8: parameters.utf8,
            ret: parameters.ret,
            envelope_id: parameters.envelope_id,
        });
        self.reply(&Reply::new(250, "2.1.0", "Ok"));
    }

    fn rcpt(&mut self, to: Mailbox, parameters: RcptParameters) {
        let Some(transaction) = self.transaction.as_ref().filter(|_| !self.begun) else {
            return self.refuse(&Reply::new(503, "5.5.1", "Error: need MAIL command"));
        };
        if transaction.recipients.len() >= self.limits.recipients {
            return self.reply(&Reply::new(452, "4.5.3", "Error: too many recipients"));
        }
        let address = to.or_domain(&self.origin);
        if !transaction.utf8 && !address.is_ascii() {
            return self.refuse(&command::not_ascii());
        }
        let RcptParameters { notify, original } = parameters;
        self.state = State::CheckingRecipient(Recipient { address, notify, original });
    }

    fn bdat(&mut self, chunk: Chunk) {
        if !self.extensions.chunking {
            // What follows is taken for commands, and refused as such.
            let text = "Error: command not recognized";
            return self.refuse(&Reply::new(500, "5.5.1", text));
        }
        let so_far = if self.begun { self.size } else { 0 };
        let is_wanted = self.without_recipients().is_none() && self.refusal.is_none();
        if is_wanted && so_far.saturating_add(chunk.size) > self.limits.message_size {
            // Known before it comes: not a byte of it is kept (RFC 1870 section 6.3).
            self.begun = true;
            self.abandoned = true;
            self.refusal = Some(too_big());
        }
        self.state = match self.without_recipients() {
            None if self.begun => State::Chunk(chunk),
            None => State::Opening(Some(chunk)),
            // One reply for each recipient, and there is none (RFC 2033 section 4.3).
            Some(_) if chunk.last && self.dialect == Dialect::Lmtp => State::Skip(chunk.size, None),
            refusal => State::Skip(chunk.size, refusal),
        };
    }

    fn data(&mut self) {
        if self.begun {
            return self.refuse(&Reply::new(503, "5.5.1", "Error: DATA after BDAT"));
        }
        if self.transaction.as_ref().is_some_and(|message| message.body == Body::BinaryMime) {
            // Its text has no lines (RFC 3030 section 3).
            return self.refuse(&Reply::new(503, "5.5.1", "Error: BINARYMIME needs BDAT"));
        }
        match self.without_recipients() {
            None => self.state = State::Opening(None),
            Some(refusal) => self.refuse(&refusal),
        }
    }

    /// What is said to a text for nobody.
    fn without_recipients(&self) -> Option<Reply> {
        // RFC 2033 section 4.2 wants 503.
        let code = if self.dialect == Dialect::Lmtp { 503 } else { 554 };
        match &self.transaction {
            None => Some(Reply::new(503, "5.5.1", "Error: need MAIL command")),
            Some(transaction) if transaction.recipients.is_empty() => {
                Some(Reply::new(code, "5.5.1", "Error: no valid recipients"))
            }
            Some(_) => None,
        }
    }
}

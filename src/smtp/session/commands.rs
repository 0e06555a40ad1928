//! What each command does.

use super::{Dialect, Session, State, Tls};
use crate::message::address::Mailbox;
use crate::smtp::command::{self, Chunk, Command, MailParameters, RcptParameters};
use crate::smtp::{Recipient, Reply, Transaction};

impl Session {
    /// `more`: the client has sent more behind this command already.
    pub(super) fn command(&mut self, line: &[u8], more: bool) {
        let command = match command::parse(line, self.extensions()) {
            Ok(command) => command,
            Err(reply) => return self.refuse(&reply),
        };
        // Commands whose reply the client must wait for (RFC 2920 section 3.1).
        let ends_group = matches!(
            command,
            Command::Helo(_)
                | Command::Ehlo(_)
                | Command::Lhlo(_)
                | Command::Data
                | Command::StartTls
                | Command::Auth { .. }
        );
        // What comes behind STARTTLS in the clear may be somebody else's (CVE-2011-0411).
        let strict = self.strict || (command == Command::StartTls && self.tls == Tls::Offered);
        if strict && more && (ends_group || !self.extended) && command != Command::Quit {
            return self.hang_up(&Reply::new(
                503,
                "5.5.0",
                "Error: improper command pipelining: wait for the reply",
            ));
        }
        if self.needs_login(&command) {
            return self.refuse(&Reply::new(530, "5.7.0", "Error: authentication required"));
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
            Command::Vrfy => self.reply(&Reply::new(
                252,
                "2.0.0",
                "Send some mail, and the recipient will be checked",
            )),
            Command::Expn => {
                self.refuse(&Reply::new(502, "5.5.1", "Error: EXPN is not offered here"));
            }
            Command::Help => {
                let tls = if self.tls == Tls::Offered { " STARTTLS" } else { "" };
                let auth = if self.mechanisms().is_some() { " AUTH" } else { "" };
                let (hello, bdat, rfc) = match self.dialect {
                    Dialect::Smtp => ("HELO EHLO", "", "RFC 5321"),
                    Dialect::Lmtp => ("LHLO", " BDAT", "RFC 2033"),
                };
                let all =
                    format!("{hello}{tls}{auth} MAIL RCPT DATA{bdat} RSET NOOP VRFY HELP QUIT");
                self.reply(&Reply::new(214, "2.0.0", format!("Commands: {all}; see {rfc}")));
            }
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
        let extensions = self.extensions();
        let is_smtp = self.dialect == Dialect::Smtp;
        let announced = [
            (true, "8BITMIME"),
            (extensions.smtputf8, "SMTPUTF8"),
            (true, "ENHANCEDSTATUSCODES"),
            (extensions.dsn, "DSN"),
            (extensions.chunking, "CHUNKING"),
            (self.tls == Tls::Offered, "STARTTLS"),
            (is_smtp, "VRFY"),
            (is_smtp, "HELP"),
        ];
        let size = format!("SIZE {}", self.limits.message_size);
        let mut lines = vec![self.hostname.clone(), "PIPELINING".into(), size];
        lines.extend(announced.iter().filter(|(is_on, _)| *is_on).map(|(_, word)| (*word).into()));
        lines.extend(self.mechanisms().map(|names| format!("AUTH {names}")));
        self.lines(250, &lines);
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
            eight_bit: parameters.eight_bit,
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
        if !self.dialect.extensions().chunking {
            // What follows is taken for commands, and refused as such.
            let text = "Error: command not recognized";
            return self.refuse(&Reply::new(500, "5.5.1", text));
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

//! What each command does.

use super::{Dialect, Session, State, Tls};
use crate::message::address::Mailbox;
use crate::smtp::command::{self, Chunk, Command, MailParameters};
use crate::smtp::{Reply, Transaction};

impl Session {
    /// `more`: the client has sent more behind this command already.
    pub(super) fn command(&mut self, line: &[u8], more: bool) {
        let command = match command::parse(line) {
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
        match command {
            Command::Helo(name) => self.hello(Dialect::Smtp, name, false),
            Command::Ehlo(name) => self.hello(Dialect::Smtp, name, true),
            Command::Lhlo(name) => self.hello(Dialect::Lmtp, name, true),
            Command::Mail { from, parameters } => self.mail(from, parameters),
            Command::Rcpt(to) => self.rcpt(to),
            Command::Data => self.data(),
            Command::Bdat(chunk) => self.bdat(chunk),
            Command::StartTls => self.starttls(),
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
                let all = format!("HELO EHLO{tls} MAIL RCPT DATA RSET NOOP VRFY HELP QUIT");
                self.reply(&Reply::new(214, "2.0.0", format!("Commands: {all}; see RFC 5321")));
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
        let mut lines = vec![
            self.hostname.clone(),
            "PIPELINING".into(),
            format!("SIZE {}", self.limits.message_size),
            "8BITMIME".into(),
            "ENHANCEDSTATUSCODES".into(),
        ];
        if self.tls == Tls::Offered {
            lines.push("STARTTLS".into());
        }
        match self.dialect {
            Dialect::Smtp => lines.extend(["VRFY".into(), "HELP".into()]),
            Dialect::Lmtp => lines.push("CHUNKING".into()),
        }
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
        self.transaction = Some(Transaction {
            sender: from.map(|mailbox| mailbox.or_domain(&self.origin)),
            recipients: Vec::new(),
            eight_bit: parameters.eight_bit,
        });
        self.reply(&Reply::new(250, "2.1.0", "Ok"));
    }

    fn rcpt(&mut self, to: Mailbox) {
        let Some(transaction) = self.transaction.as_ref().filter(|_| !self.begun) else {
            return self.refuse(&Reply::new(503, "5.5.1", "Error: need MAIL command"));
        };
        if transaction.recipients.len() >= self.limits.recipients {
            return self.reply(&Reply::new(452, "4.5.3", "Error: too many recipients"));
        }
        self.state = State::CheckingRecipient(to.or_domain(&self.origin));
    }

    /// Only for LMTP: there the text comes from our own queue, whose line ends are clean.
    fn bdat(&mut self, chunk: Chunk) {
        let refusal = match &self.transaction {
            _ if self.dialect == Dialect::Smtp => {
                // It was not announced; what follows is taken for commands, and refused as such.
                let text = "Error: command not recognized";
                return self.refuse(&Reply::new(500, "5.5.1", text));
            }
            None => Reply::new(503, "5.5.1", "Error: need MAIL command"),
            Some(transaction) if transaction.recipients.is_empty() => {
                Reply::new(554, "5.5.1", "Error: no valid recipients")
            }
            Some(_) if self.begun => return self.state = State::Chunk(chunk),
            Some(_) => return self.state = State::Opening(Some(chunk)),
        };
        self.state = State::Skip(chunk.size, refusal);
    }

    fn data(&mut self) {
        match &self.transaction {
            Some(_) if self.begun => {
                self.refuse(&Reply::new(503, "5.5.1", "Error: DATA after BDAT"));
            }
            None => self.refuse(&Reply::new(503, "5.5.1", "Error: need MAIL command")),
            Some(transaction) if transaction.recipients.is_empty() => {
                self.refuse(&Reply::new(554, "5.5.1", "Error: no valid recipients"));
            }
            Some(_) => self.state = State::Opening(None),
        }
    }
}

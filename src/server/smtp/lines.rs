//! What the log says of a session's mail: one line a message, one a refusal.

use std::io;

use super::talk::{Stop, Talk};
use crate::message::Address;
use crate::queue::Id;
use crate::queue::entry::Path;
use crate::server::ask::Ask;
use crate::server::login::shown;
use crate::smtp::{Reply, Session, Transaction};

impl Talk<'_> {
    pub(super) fn log_accepted(&mut self, session: &Session, id: &Id) -> Result<(), Stop> {
        let Some(transaction) = session.transaction() else {
            return Ok(());
        };
        let tls = self.connection.tls_agreed();
        let tls = tls.map(|(version, cipher)| format!(" tls={version} cipher={cipher}"));
        let tls = tls.unwrap_or_default();
        let auth = shown_user(session);
        let client = self.shown_client();
        self.say(
            Ask::Info,
            &format!(
                "{id}: client={} helo=<{}> from=<{}> to={} nrcpt={} size={} proto={}{tls}{auth} \
                 status=accepted",
                client,
                session.helo(),
                Path(transaction.sender.as_ref()),
                recipients(transaction),
                transaction.recipients.len(),
                session.size(),
                session.protocol(),
            ),
        )
    }

    /// What broke TLS.
    pub(super) fn log_tls(&mut self, what: &str, error: &io::Error) -> Result<(), Stop> {
        let client = self.shown_client();
        self.say(Ask::Warning, &format!("NOQUEUE: TLS {what} with {client} failed: {error}"))
    }

    /// A recipient, or the whole message, was refused.
    pub(super) fn log_refusal(
        &mut self,
        session: &Session,
        to: Option<&Address>,
        reply: &Reply,
    ) -> Result<(), Stop> {
        let transaction = session.transaction();
        let from = transaction.and_then(|transaction| transaction.sender.as_ref());
        let (verb, to) = match to {
            Some(to) => ("RCPT", format!("<{to}>")),
            None => ("END-OF-MESSAGE", transaction.map(recipients).unwrap_or_default()),
        };
        let client = self.shown_client();
        let auth = shown_user(session);
        self.say(
            Ask::Warning,
            &format!(
                "NOQUEUE: reject: {verb} from {client}: {reply}; from=<{}> to={to} proto={} \
                 helo=<{}>{auth}",
                Path(from),
                session.protocol(),
                session.helo(),
            ),
        )
    }
}

/// The recipients as the log has them; of many the first ones.
fn recipients(transaction: &Transaction) -> String {
    let recipients = transaction.recipients.iter().take(20);
    recipients.map(|to| format!("<{}>", to.address)).collect::<Vec<_>>().join(",")
}

fn shown_user(session: &Session) -> String {
    session.user().map(|user| format!(" auth={}", shown(user.as_bytes()))).unwrap_or_default()
}

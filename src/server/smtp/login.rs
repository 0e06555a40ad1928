//! Logins by AUTH: the session child's questions, and the monitor that answers, counts and delays.
//!
//! A question is a byte for the mechanism, a byte for the kind, and a record of one size
//! ([`crate::server::record`]). SCRAM's exchange runs in the child, on keys that it is given. So does
//! the handshake that proves whose a certificate is, of which the monitor has the fingerprint.

use std::io;

use base64ct::{Base64, Encoding};

use super::Ask;
use crate::auth::certificates::{self, Fingerprint};
use crate::auth::{self, Scope, Verdict};
use crate::config::Config;
use crate::sasl::{self, Keys, MAX_FAILURES, Mechanism, Question, Secret};
use crate::server::pop3::{delay, shown};
use crate::server::record::{Answer, Credentials, Name, ScramKeys, mechanism};
use crate::sys::Log;
use crate::sys::channel::Channel;

/// Questions that a session may ask.
const MAX_QUESTIONS: u32 = 50;

/// Bytes of our part of a nonce.
const NONCE: usize = 18;

/// The kinds of questions.
const PASSWORD: u8 = 0;
const KEYS: u8 = 1;
const PROVEN: u8 = 2;
const CERTIFICATE: u8 = 3;

/// Asks the monitor.
pub(super) fn ask(
    monitor: &Channel,
    mechanism: Mechanism,
    question: Question,
) -> io::Result<sasl::Answer> {
    let put = |kind: u8, record: &[u8]| put(monitor, mechanism, kind, record);
    match question {
        Question::Password { user, password: Secret(password) } => {
            let asked = Credentials { user: user.into_bytes(), password };
            put(PASSWORD, &asked.encode().ok_or_else(misfit)?)?;
        }
        Question::Proven(is_right) => put(PROVEN, &[u8::from(is_right)])?,
        Question::Keys { user, hash } => {
            put(KEYS, &Name::encode(&user).ok_or_else(misfit)?)?;
            let mut record = [0; ScramKeys::LENGTH];
            let length = monitor.receive(&mut record)?;
            let record = record.get(..length).unwrap_or_default();
            let mut nonce = [0; NONCE];
            getrandom::fill(&mut nonce).map_err(io::Error::other)?;
            return Ok(match ScramKeys::decode(record, hash).ok_or_else(misfit)? {
                Some(keys) => sasl::Answer::Keys(keys, Base64::encode_string(&nonce)),
                None => sasl::Answer::Unavailable,
            });
        }
    }
    let mut record = [0; Answer::LENGTH];
    let length = monitor.receive(&mut record)?;
    let answer = record.get(..length).and_then(Answer::decode).ok_or_else(misfit)?;
    Ok(match answer {
        Answer::Accepted => sasl::Answer::Accepted,
        Answer::Refused => sasl::Answer::Refused,
        Answer::Unavailable => sasl::Answer::Unavailable,
    })
}

/// Asks the monitor whose certificate this is, if anybody's who may log in.
pub(super) fn owner(monitor: &Channel, fingerprint: &Fingerprint) -> io::Result<Option<String>> {
    put(monitor, Mechanism::External, CERTIFICATE, fingerprint)?;
    let mut record = [0; Name::LENGTH];
    let length = monitor.receive(&mut record)?;
    let name = record.get(..length).and_then(Name::decode).ok_or_else(misfit)?;
    Ok(Some(name.to_owned()).filter(|name| !name.is_empty()))
}

fn put(monitor: &Channel, by: Mechanism, kind: u8, record: &[u8]) -> io::Result<()> {
    super::ask(monitor, Ask::Login, [&[by as u8, kind], record].concat())
}

fn misfit() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "a record has another shape")
}

/// The logins of one session, in its monitor.
pub(super) struct Logins<'a> {
    config: &'a Config,
    log: &'a Log,
    questions: u32,
    failures: u32,
    /// Whose keys were given away last, and whether they are somebody's.
    pending: Option<(String, bool)>,
    /// Whose certificate the client has shown.
    certified: Option<String>,
}

impl<'a> Logins<'a> {
    pub(super) fn new(config: &'a Config, log: &'a Log) -> Self {
        Self { config, log, questions: 0, failures: 0, pending: None, certified: None }
    }

    /// The answer to a question; `None` ends the session. `client` is what the log calls it.
    pub(super) fn answer(
        &mut self,
        question: &[u8],
        client: impl FnOnce() -> String,
    ) -> Option<Vec<u8>> {
        self.questions += 1;
        let (&[by, kind], record) = question.split_first_chunk()?;
        let by = mechanism(by)?;
        if self.questions > MAX_QUESTIONS || self.failures >= MAX_FAILURES {
            return None;
        }
        let (name, verdict) = match kind {
            PASSWORD => {
                let asked = Credentials::decode(record)?;
                let name = String::from_utf8(asked.user).ok()?;
                let scope = Scope::Smtp;
                let verdict = match auth::authenticate(self.config, scope, &name, &asked.password) {
                    Verdict::Accepted(_) => Ok(true),
                    Verdict::Refused => Ok(false),
                    Verdict::Unavailable(why) => Err(why),
                };
                (name, verdict)
            }
            KEYS => {
                // Who asks again without having shown a proof has not had the right one.
                if let Some((name, _)) = self.pending.take() {
                    self.fail(by, &name, &client());
                }
                let name = Name::decode(record)?;
                return ScramKeys::encode(self.keys(by, name).as_ref());
            }
            CERTIFICATE => {
                self.certified = self.owner(record.try_into().ok()?);
                return Name::encode(self.certified.as_deref().unwrap_or_default());
            }
            PROVEN if by == Mechanism::External => (self.certified.clone()?, Ok(record == [1])),
            PROVEN => {
                let (name, is_known) = self.pending.take()?;
                (name, Ok(is_known && record == [1]))
            }
            _ => return None,
        };
        let answer = match verdict {
            Ok(true) => {
                let (client, name) = (client(), shown(name.as_bytes()));
                self.log.info(&format!(
                    "Login: client={client}, method={}, user=<{name}>, status=accepted",
                    by.name()
                ));
                Answer::Accepted
            }
            Ok(false) => {
                self.fail(by, &name, &client());
                Answer::Refused
            }
            Err(why) => {
                let (client, name) = (client(), shown(name.as_bytes()));
                self.log.error(&format!(
                    "Login: client={client}, method={}, user=<{name}>, status=unavailable: {why}",
                    by.name()
                ));
                Answer::Unavailable
            }
        };
        Some(answer.encode().to_vec())
    }

    fn keys(&mut self, by: Mechanism, name: &str) -> Option<Keys> {
        match auth::scram::keys(self.config, name, by.scram()?) {
            Ok((account, keys)) => {
                self.pending = Some((name.to_owned(), account.is_some()));
                Some(keys)
            }
            Err(error) => {
                self.log
                    .error(&format!("Login: method={}, status=unavailable: {error}", by.name()));
                None
            }
        }
    }

    fn owner(&self, fingerprint: &Fingerprint) -> Option<String> {
        match certificates::owner(self.config, fingerprint) {
            Ok(account) => account.map(|account| account.name),
            Err(error) => {
                self.log.error(&format!("Login: method=EXTERNAL, status=unavailable: {error}"));
                None
            }
        }
    }

    /// In the words that fail2ban's filter for Postfix knows. It has a list of mechanisms, in which only
    /// the oldest are; others are a "login" to it. The wait is here and not in the child,
    /// which might no longer be ours.
    fn fail(&mut self, by: Mechanism, name: &str, client: &str) {
        self.failures += 1;
        let word = if matches!(by, Mechanism::Plain) { by.name() } else { "login" };
        let (by, name) = (by.name(), shown(name.as_bytes()));
        self.log.warning(&format!(
            "warning: {client}: SASL {word} authentication failed: authentication failure, \
             sasl_username={name}, method={by}"
        ));
        std::thread::sleep(delay(self.failures));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::log::Target;

    /// A session child that is no longer ours may ask for what it likes, in any order.
    #[test]
    fn nothing_is_proven_about_somebody_who_was_not_asked_for() {
        let place = tempfile::tempdir().unwrap();
        let (users, file) = (place.path().join("users"), place.path().join("certificates"));
        let uid = match nix::unistd::geteuid() {
            root if root.is_root() => 1234,
            own => own.as_raw(),
        };
        std::fs::write(&users, format!("hunt:{{PLAIN}}x:{uid}:{uid}\n")).unwrap();
        std::fs::write(&file, format!("{} hunt\n{} root\n", "0a".repeat(32), "0b".repeat(32)))
            .unwrap();
        let mut config = Config::default();
        config.users.source = crate::config::Source::File;
        config.users.file = users;
        config.smtp.tls.client_certificates = file;
        let log = Log::open("test", Target::Stderr);
        let mut logins = Logins::new(&config, &log);
        let mut say = |by: Mechanism, kind, record: &[u8]| {
            logins.answer(&[&[by as u8, kind], record].concat(), || "client".into())
        };
        let (external, scram) = (Mechanism::External, Mechanism::ScramSha256);
        assert_eq!(say(external, PROVEN, &[1]), None);
        assert_eq!(say(scram, PROVEN, &[1]), None);
        assert_eq!(say(external, CERTIFICATE, &[10; 31]), None);
        for nobody in [[11; 32], [12; 32]] {
            assert_eq!(say(external, CERTIFICATE, &nobody), Name::encode(""));
            assert_eq!(say(external, PROVEN, &[1]), None);
        }
        assert_eq!(say(external, CERTIFICATE, &[10; 32]), Name::encode("hunt"));
        assert_eq!(say(scram, PROVEN, &[1]), None);
        assert_eq!(say(external, PROVEN, &[1]).unwrap(), Answer::Accepted.encode());
    }
}

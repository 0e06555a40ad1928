//! Logins: the questions of a process that speaks to a client, and the monitor that answers, counts
//! and delays.
//!
//! A question is a byte for the mechanism, a byte for the kind, and a record of one size
//! ([`crate::server::record`]). No hash and no key leaves the monitor: of SCRAM's exchange, which runs
//! in the child, it checks the proof. What the child is believed is whose certificate a client has the
//! key of ([`Scope::Smtp`] only: there it gains nothing by lying).

use std::io;
use std::time::Duration;

use base64ct::{Base64, Encoding};

use super::ask::Ask;
use super::record::{Answer, Challenge, Credentials, Name, Proven, Signature, mechanism};
use crate::auth::certificates::{self, Fingerprint};
use crate::auth::{self, Scope, Verdict};
use crate::config::Config;
use crate::sasl::scram::Hash;
use crate::sasl::{self, Keys, MAX_FAILURES, Mechanism, Question, Salt, Secret};
use crate::sys::channel::Channel;
use crate::sys::{Account, Log};

/// Questions that a session may ask.
const MAX_QUESTIONS: u32 = 50;

/// Bytes of our part of a nonce.
const NONCE: usize = 18;

/// The kinds of questions.
const PASSWORD: u8 = 0;
const SALT: u8 = 1;
const PROOF: u8 = 2;
const PROVEN: u8 = 3;
const CERTIFICATE: u8 = 4;

/// Asks the monitor.
pub(super) fn ask(
    monitor: &Channel,
    mechanism: Mechanism,
    question: Question,
) -> io::Result<sasl::Answer> {
    let put = |kind: u8, record: Option<Vec<u8>>| {
        put(monitor, mechanism, kind, &record.ok_or_else(misfit)?)
    };
    match question {
        Question::Password { user, password: Secret(password) } => {
            put(PASSWORD, Credentials { user: user.into_bytes(), password }.encode())?;
        }
        Question::Proven(is_right) => put(PROVEN, Some(vec![u8::from(is_right)]))?,
        Question::Salt { user, .. } => {
            put(SALT, Name::encode(&user))?;
            let answer = Challenge::decode(&receive::<{ Challenge::LENGTH }>(monitor)?);
            return Ok(match answer.ok_or_else(misfit)? {
                Some(salt) => sasl::Answer::Salt(salt),
                None => sasl::Answer::Unavailable,
            });
        }
        Question::Proof(proof) => {
            put(PROOF, Proven::encode(&proof))?;
            let answer = Signature::decode(&receive::<{ Signature::LENGTH }>(monitor)?);
            return Ok(match answer.ok_or_else(misfit)? {
                Some(signature) => sasl::Answer::Signature(signature),
                None => sasl::Answer::Refused,
            });
        }
    }
    let answer = Answer::decode(&receive::<{ Answer::LENGTH }>(monitor)?).ok_or_else(misfit)?;
    Ok(match answer {
        Answer::Accepted => sasl::Answer::Accepted,
        Answer::Refused => sasl::Answer::Refused,
        Answer::Unavailable => sasl::Answer::Unavailable,
    })
}

/// Asks the monitor whose certificate this is, if anybody's who may log in.
pub(super) fn owner(monitor: &Channel, fingerprint: &Fingerprint) -> io::Result<Option<String>> {
    put(monitor, Mechanism::External, CERTIFICATE, fingerprint)?;
    let record = receive::<{ Name::LENGTH }>(monitor)?;
    let name = Name::decode(&record).ok_or_else(misfit)?;
    Ok(Some(name.to_owned()).filter(|name| !name.is_empty()))
}

fn put(monitor: &Channel, by: Mechanism, kind: u8, record: &[u8]) -> io::Result<()> {
    Ask::Login.put(monitor, &[&[by as u8, kind], record].concat())
}

fn receive<const LENGTH: usize>(monitor: &Channel) -> io::Result<Vec<u8>> {
    let mut record = vec![0; LENGTH];
    let length = monitor.receive(&mut record)?;
    record.truncate(length);
    Ok(record)
}

pub(super) fn misfit() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "a record has another shape")
}

/// The logins of one session, in its monitor.
pub(super) struct Logins<'a> {
    config: &'a Config,
    log: &'a Log,
    scope: Scope,
    questions: u32,
    failures: u32,
    /// Who was challenged last.
    pending: Option<Pending>,
    /// Whose certificate the client has shown.
    certified: Option<String>,
    /// Who has logged in.
    accepted: Option<Account>,
}

/// Somebody who was challenged by SCRAM.
struct Pending {
    name: String,
    /// `None` where the keys are nobody's.
    account: Option<Account>,
    keys: Keys,
    nonce: String,
}

impl<'a> Logins<'a> {
    /// `scope` is what app passwords must be for.
    pub(super) fn new(config: &'a Config, log: &'a Log, scope: Scope) -> Self {
        Self {
            config,
            log,
            scope,
            questions: 0,
            failures: 0,
            pending: None,
            certified: None,
            accepted: None,
        }
    }

    /// Who has logged in, by a way that the monitor has seen.
    pub(super) fn accepted(&mut self) -> Option<Account> {
        self.accepted.take()
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
        // A session of smtpd forgets who it was when TLS begins.
        let is_over = self.accepted.is_some() && self.scope != Scope::Smtp;
        if self.questions > MAX_QUESTIONS || self.failures >= MAX_FAILURES || is_over {
            return None;
        }
        let (name, verdict) = match kind {
            PASSWORD => {
                let asked = Credentials::decode(record)?;
                let name = String::from_utf8(asked.user).ok()?;
                let given = &asked.password;
                let verdict = match auth::authenticate(self.config, self.scope, &name, given) {
                    Verdict::Accepted(account) => {
                        self.accepted = Some(account);
                        Ok(true)
                    }
                    Verdict::Refused => Ok(false),
                    Verdict::Unavailable(why) => Err(why),
                };
                (name, verdict)
            }
            SALT => {
                // Who asks again without having shown a proof has not had the right one.
                if let Some(pending) = self.pending.take() {
                    self.fail(by, &pending.name, &client());
                }
                let name = Name::decode(record)?;
                return Challenge::encode(self.challenge(by, name).as_ref());
            }
            PROOF => {
                let pending = self.pending.take()?;
                let proof = Proven::decode(record)?;
                let signature = pending.keys.check(&proof, &pending.nonce);
                let signature = signature.filter(|_| pending.account.is_some());
                if signature.is_some() {
                    self.accept(by, &pending.name, &client());
                    self.accepted = pending.account;
                } else {
                    self.fail(by, &pending.name, &client());
                }
                return Signature::encode(signature.as_deref());
            }
            CERTIFICATE if self.scope == Scope::Smtp => {
                self.certified = self.owner(record.try_into().ok()?);
                return Name::encode(self.certified.as_deref().unwrap_or_default());
            }
            PROVEN if by == Mechanism::External => (self.certified.clone()?, Ok(record == [1])),
            PROVEN if record == [0] => (self.pending.take()?.name, Ok(false)),
            _ => return None,
        };
        let answer = match verdict {
            Ok(true) => {
                self.accept(by, &name, &client());
                Answer::Accepted
            }
            Ok(false) => {
                self.fail(by, &name, &client());
                Answer::Refused
            }
            Err(why) => {
                let who = self.shown(by, &name, &client());
                self.log.error(&format!("Login: {who}, status=unavailable: {why}"));
                Answer::Unavailable
            }
        };
        Some(answer.encode().to_vec())
    }

    fn challenge(&mut self, by: Mechanism, name: &str) -> Option<Salt> {
        let nonce = || -> io::Result<String> {
            let mut bytes = [0; NONCE];
            getrandom::fill(&mut bytes).map_err(io::Error::other)?;
            Ok(Base64::encode_string(&bytes))
        };
        let found = auth::scram::keys(self.config, name, by.scram()?);
        match found.and_then(|found| Ok((found, nonce()?))) {
            Ok(((account, keys), nonce)) => {
                let salt = keys.salt(nonce.clone());
                self.pending = Some(Pending { name: name.to_owned(), account, keys, nonce });
                Some(salt)
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

    /// Who, in the words of Postfix, or of Dovecot.
    fn shown(&self, by: Mechanism, name: &str, client: &str) -> String {
        let (by, name) = (by.name(), shown(name.as_bytes()));
        match self.scope {
            Scope::Smtp => format!("client={client}, method={by}, user=<{name}>"),
            _ => format!("user=<{name}>, method={by}, rip={client}"),
        }
    }

    fn accept(&self, by: Mechanism, name: &str, client: &str) {
        let who = self.shown(by, name, client);
        self.log.info(&format!("Login: {who}, status=accepted"));
    }

    /// In the words that fail2ban's filters for Postfix and Dovecot know. That for Postfix has a list of
    /// mechanisms, in which only the oldest are; others are a "login" to it. The wait is here and
    /// not in the child, which might no longer be ours.
    fn fail(&mut self, by: Mechanism, name: &str, client: &str) {
        self.failures += 1;
        if self.scope == Scope::Smtp {
            let word = if matches!(by, Mechanism::Plain) { by.name() } else { "login" };
            let (by, name) = (by.name(), shown(name.as_bytes()));
            self.log.warning(&format!(
                "warning: {client}: SASL {word} authentication failed: authentication failure, \
                 sasl_username={name}, method={by}"
            ));
        } else {
            let (who, failures) = (self.shown(by, name, client), self.failures);
            self.log.warning(&format!(
                "Aborted login (auth failed, {failures} attempts): {who}, status=refused"
            ));
        }
        std::thread::sleep(delay(self.failures));
    }
}

/// The hash functions by which somebody can log in with SCRAM.
pub(super) fn scram(config: &Config, log: &Log) -> Vec<Hash> {
    auth::scram::stored(config).unwrap_or_else(|error| {
        log.error(&format!("SCRAM is not offered: {error}"));
        Vec::new()
    })
}

/// The wait after so many failures of a session.
fn delay(failures: u32) -> Duration {
    Duration::from_secs(2).saturating_mul(failures)
}

/// A name for the log: what a stranger typed must not look like the rest of the line.
pub(super) fn shown(name: &[u8]) -> String {
    let mut text = String::with_capacity(name.len());
    for &byte in name {
        match byte {
            b' ' | b'<' | b'>' | b',' | b'=' | b'\\' => text.push('?'),
            b if b.is_ascii_graphic() => text.push(char::from(b)),
            b => text.extend(b.escape_ascii().map(char::from)),
        }
    }
    text
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
        let mut logins = Logins::new(&config, &log, Scope::Smtp);
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

    #[test]
    fn a_name_in_the_log_does_not_look_like_the_rest_of_the_line() {
        assert_eq!(shown(b"alice"), "alice");
        assert_eq!(shown(b"x>, rip=192.0.2.9 \n"), "x???rip?192.0.2.9?\\n");
    }
}

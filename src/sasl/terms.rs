//! On what terms clients may log in, by POP3 and IMAP alike.

use super::{Binding, Facts, Mechanism};

/// Whether a session is encrypted, which decides whether passwords are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tls {
    /// It can't be.
    Unknown,
    /// The client may begin it.
    Offered,
    /// It is.
    On,
}

/// What a session is told at its start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Terms {
    /// The name of this host, for the greeting.
    pub hostname: String,
    /// What there is of TLS.
    pub tls: Tls,
    /// Whether clients may log in without TLS: over loopback, or where the operator allows it.
    pub plaintext_allowed: bool,
    /// What decides which mechanisms there are.
    pub sasl: Facts,
}

impl Terms {
    /// Whether clients may log in now.
    pub fn may_log_in(&self) -> bool {
        self.tls == Tls::On || self.plaintext_allowed
    }

    /// The names of the mechanisms that may be used now, the better ones first.
    pub fn mechanisms(&self) -> impl Iterator<Item = &'static str> {
        let allowed = Mechanism::ALL.into_iter().filter(|_| self.may_log_in());
        allowed.filter(|one| self.sasl.allow(*one)).map(Mechanism::name)
    }

    /// TLS has begun; this names the connection, and whose certificate the client has shown.
    pub fn encrypted(&mut self, bindings: Vec<Binding>, identity: Option<String>) {
        self.tls = Tls::On;
        self.sasl.bindings = bindings;
        self.sasl.identity = identity;
    }
}

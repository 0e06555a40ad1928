//! Values that are of their type, and yet can't be meant.

use std::path::Path;

use super::sections::Tls;
use super::value::{self, Interval, Source};
use super::{Config, expand};

/// A section of certificates, and its keys.
type Section = [&'static [&'static str]; 3];
const SMTP_TLS: Section =
    [&["smtp", "tls"], &["smtp", "tls", "certificate"], &["smtp", "tls", "key"]];
const POP3_TLS: Section =
    [&["pop3", "tls"], &["pop3", "tls", "certificate"], &["pop3", "tls", "key"]];
const IMAP_TLS: Section =
    [&["imap", "tls"], &["imap", "tls", "certificate"], &["imap", "tls", "key"]];

impl Config {
    /// The first value that can't be meant, as its key and what is wrong with it.
    pub(super) fn impossible(&self) -> Option<(&'static [&'static str], String)> {
        if !value::is_host_name(&self.hostname) {
            return Some((&["hostname"], "a host name like \"mx.example.org\" is wanted".into()));
        }
        for (key, names) in [
            (&["local_domains"] as &[_], &self.local_domains),
            (&["relay_domains"], &self.relay_domains),
            (&["smtp", "dnsbl"], &self.smtp.dnsbl),
        ] {
            if let Some(name) = names.iter().find(|name| !value::is_host_name(name)) {
                return Some((key, format!("{name:?} is no domain name")));
            }
        }
        if let Some(name) = self.relay_domains.iter().find(|name| self.is_local_domain(name)) {
            return Some((&["relay_domains"], format!("{name:?} is a local domain")));
        }
        if self.greylist.is_on() && self.greylist.retry_within <= self.greylist.delay {
            return Some((&["greylist", "retry_within"], "more than delay is wanted".into()));
        }
        for (key, pattern) in [
            (&["paths", "inbox"] as &[_], &self.paths.inbox),
            (&["paths", "folders"], &self.paths.folders),
            (&["paths", "index"], &self.paths.index),
        ] {
            match expand(pattern, "u", "d", Path::new("/h")) {
                Some(path) if path.is_absolute() => {}
                Some(_) => return Some((key, "an absolute path, or one in %h, is wanted".into())),
                None => return Some((key, "after % comes u, d, h or %".into())),
            }
        }
        for (key, path) in [
            (&["paths", "queue"] as &[_], &self.paths.queue),
            (&["paths", "aliases"], &self.paths.aliases),
            (&["paths", "virtual"], &self.paths.virtual_users),
            (&["paths", "access"], &self.paths.access),
            (&["paths", "libexec"], &self.paths.libexec),
            (&["users", "file"], &self.users.file),
            (&["users", "app_passwords"], &self.users.app_passwords),
        ] {
            if !path.is_absolute() {
                return Some((key, "an absolute path is wanted".into()));
            }
        }
        for (key, number) in [
            (&["smtp", "max_recipients"] as &[_], self.smtp.max_recipients),
            (&["smtp", "max_connections"], self.smtp.max_connections),
            (&["smtp", "max_connections_per_ip"], self.smtp.max_connections_per_ip),
            (&["pop3", "max_connections"], self.pop3.max_connections),
            (&["pop3", "max_connections_per_ip"], self.pop3.max_connections_per_ip),
            (&["imap", "max_connections"], self.imap.max_connections),
            (&["imap", "max_connections_per_ip"], self.imap.max_connections_per_ip),
            (&["lmtp", "max_connections"], self.lmtp.max_connections),
            (&["delivery", "concurrency"], self.delivery.concurrency),
            (&["delivery", "concurrency_per_domain"], self.delivery.concurrency_per_domain),
            (&["delivery", "port"], self.delivery.port.into()),
        ] {
            if number == 0 {
                return Some((key, "must be 1 or more".into()));
            }
        }
        if self.smtp.max_recipients < 100 {
            return Some((
                &["smtp", "max_recipients"],
                "must be 100 or more (RFC 5321 section 4.5.3.1.8)".into(),
            ));
        }
        if self.smtp.max_message_size < 65_536 {
            return Some((
                &["smtp", "max_message_size"],
                "must be 65536 or more (RFC 5321 section 4.5.3.1.7)".into(),
            ));
        }
        if self.queue.retry.is_empty() || self.queue.retry.iter().any(|wait| wait.seconds() == 0) {
            return Some((
                &["queue", "retry"],
                "one wait at least, none of them 0, is wanted".into(),
            ));
        }
        if matches!(self.delivery.alias_user.as_str(), "" | "root") {
            let what = "an account without rights, like \"nobody\", is wanted";
            return Some((&["delivery", "alias_user"], what.into()));
        }
        if self.delivery.recipient_delimiter.chars().count() > 1 {
            return Some((&["delivery", "recipient_delimiter"], "one character is wanted".into()));
        }
        let program = self.delivery.sendmail.first();
        if !program.is_some_and(|program| Path::new(program).is_absolute()) {
            let what = "a list like [\"/usr/sbin/sendmail\"] is wanted, with an absolute path";
            return Some((&["delivery", "sendmail"], what.into()));
        }
        // RFC 5321 section 4.5.3.2: a client waits five minutes for the greeting.
        if self.smtp.greet_delay.seconds() > 60 {
            return Some((&["smtp", "greet_delay"], "a minute at most is wanted".into()));
        }
        // As far as poll(2) counts.
        let may_wait = |time: Interval| (1..2_000_000).contains(&time.seconds());
        if !may_wait(self.smtp.command_time_limit) {
            let what = "a time above 0 and below 20d is wanted";
            return Some((&["smtp", "command_time_limit"], what.into()));
        }
        if self.smtp.session_time_limit.seconds() == 0 {
            return Some((&["smtp", "session_time_limit"], "a time above 0 is wanted".into()));
        }
        // mta-queue gives a delivery ten minutes.
        if !(1..600).contains(&self.delivery.command_time_limit.seconds()) {
            let what = "a time above 0 and below 10m is wanted";
            return Some((&["delivery", "command_time_limit"], what.into()));
        }
        if self.mailbox.quota_warning > 100 {
            return Some((&["mailbox", "quota_warning"], "a percentage is wanted".into()));
        }
        if self.mailbox.locks.is_empty() {
            return Some((&["mailbox", "locks"], "at least one lock is wanted".into()));
        }
        let credentials = &self.delivery.credentials;
        if !credentials.as_os_str().is_empty() {
            if !credentials.is_absolute() {
                return Some((&["delivery", "credentials"], "an absolute path is wanted".into()));
            }
            if self.delivery.smarthost.get().is_none() {
                return Some((&["delivery", "credentials"], "they are for a smarthost".into()));
            }
        }
        let service = &self.auth.pam_service;
        if !service.is_empty() {
            let name = &["auth", "pam_service"];
            // The library looks for it in lower case, in a file of this name.
            if !service.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_')) {
                let what = "the name of a file in /etc/pam.d, of a-z, 0-9, - and _, is wanted";
                return Some((name, what.into()));
            }
            if self.users.source != Source::System {
                return Some((name, "it is for [users] source = \"system\"".into()));
            }
            if !cfg!(feature = "pam") {
                let what = "PAM is not in this build: make all FEATURES=pam";
                return Some((name, what.into()));
            }
        }
        let Tls { certificate, key, client_certificates } = &self.smtp.tls;
        for (name, certificate, key) in [
            (SMTP_TLS, certificate, key),
            (POP3_TLS, &self.pop3.tls.certificate, &self.pop3.tls.key),
            (IMAP_TLS, &self.imap.tls.certificate, &self.imap.tls.key),
        ] {
            let [section, of_certificate, of_key] = name;
            if certificate.len() != key.len() {
                let what =
                    "certificate and key are given together, as many of the one as of the other";
                return Some((section, what.into()));
            }
            for (name, files) in [(of_certificate, certificate), (of_key, key)] {
                if files.iter().any(|path| !path.is_absolute()) {
                    return Some((name, "an absolute path is wanted".into()));
                }
            }
        }
        if !client_certificates.as_os_str().is_empty() {
            let name = &["smtp", "tls", "client_certificates"];
            if !client_certificates.is_absolute() {
                return Some((name, "an absolute path is wanted".into()));
            }
            if certificate.is_empty() {
                return Some((name, "they come by TLS: certificate and key are wanted".into()));
            }
        }
        None
    }
}

//! A private Postfix, of the installed package.

use std::fmt::Write;
use std::fs;

use super::super::find;
use super::{Local, MAILBOX_UID, Setting, Tls, USERS};

/// Writes its configuration, and gives the script that becomes it.
pub fn script(setting: &Setting) -> String {
    for name in ["spool", "log"] {
        setting.make(name, 0);
    }
    let postfix = nix::unistd::User::from_name("postfix").unwrap().unwrap();
    setting.make("data", postfix.uid.as_raw());
    setting.write("etc/main.cf", &main_cf(setting));
    setting.write("etc/master.cf", &master_cf(setting));
    let _ = fs::remove_file(setting.path("spool/pid/master.pid"));
    let etc = setting.path("etc");
    let mut script = String::new();
    if setting.local.is_some() {
        setting.write_accounts(&[]);
        for file in ["passwd", "group"] {
            writeln!(script, "mount --bind '{etc}/{file}' /etc/{file}").unwrap();
        }
    }
    script + &format!("exec {} -c {etc} start-fg", find("postfix").unwrap().display())
}

fn main_cf(setting: &Setting) -> String {
    let domain = setting.kind.domain();
    let mut mailboxes = String::new();
    for user in USERS {
        write!(mailboxes, "{{{user}@{domain}={user}/}} ").unwrap();
    }
    let mut later = String::new();
    for recipient in &setting.later {
        write!(later, "{{{recipient}=450 4.2.0 Greylisted, come back later}} ").unwrap();
    }
    // An inline table must not be empty.
    let put_off = if later.is_empty() {
        String::new()
    } else {
        format!("check_recipient_access inline:{{ {later}}},")
    };
    let (relays, networks) = match setting.next_hop {
        Some(next) => (format!("smtp:[{}]:{}", next.ip(), next.port()), "127.0.0.0/8"),
        None => ("error:5.7.1 nothing is relayed".to_owned(), ""),
    };
    let (own, virtual_domain, words) = match &setting.local {
        Some(Local { words, .. }) => (format!("{domain}, mx.{domain}"), "", words.as_str()),
        None => (String::new(), domain, ""),
    };
    let tls = match &setting.tls {
        Tls::May => "smtp_tls_security_level = may\nsmtp_tls_CAfile =".to_owned(),
        Tls::Encrypt => "smtp_tls_security_level = encrypt".to_owned(),
        // What it says to us is in the log.
        Tls::Verify(name, _) => format!(
            "smtp_tls_security_level = verify\nsmtp_tls_verify_cert_match = {name}\n\
             smtp_tls_CAfile = {}\ndebug_peer_list = 127.0.0.1\ndebug_peer_level = 1",
            setting.path("authority.pem")
        ),
        Tls::Fingerprint(print) => format!(
            "smtp_tls_security_level = fingerprint\nsmtp_tls_fingerprint_digest = sha256\n\
             smtp_tls_fingerprint_cert_match = {print}"
        ),
    };
    // What is put off for a second counts as due at once, when its agent has it open still; then it
    // is not looked at again for minutes.
    let usual = format!(
        "compatibility_level = 3.6
queue_directory = {at}/spool
data_directory = {at}/data
maillog_file = {at}/log/mainlog
maillog_file_prefixes = {at}
command_directory = /usr/sbin
daemon_directory = /usr/lib/postfix/sbin
mail_owner = postfix
setgid_group = postdrop
inet_interfaces = loopback-only
inet_protocols = ipv4
myhostname = {domain}
mydestination = {own}
mynetworks = {networks}
alias_maps =
alias_database =
virtual_mailbox_domains = {virtual_domain}
recipient_delimiter = +
virtual_mailbox_base = {at}/mail
virtual_mailbox_maps = inline:{{ {mailboxes}}}
virtual_uid_maps = static:{MAILBOX_UID}
virtual_gid_maps = static:{MAILBOX_UID}
virtual_minimum_uid = 1000
default_transport = {relays}
disable_dns_lookups = yes
smtpd_peername_lookup = no
smtpd_recipient_restrictions = {put_off} permit
smtpd_relay_restrictions = permit_mynetworks, reject_unauth_destination
smtpd_client_connection_count_limit = 0
smtpd_error_sleep_time = 0
smtpd_tls_security_level = may
smtpd_tls_chain_files = {at}/key.pem, {at}/certificate.pem
smtpd_tls_received_header = yes
smtpd_tls_loglevel = 1
smtp_tls_loglevel = 1
{tls}
smtp_line_length_limit = 0
queue_run_delay = 1s
minimal_backoff_time = 2s
",
        at = setting.at.display(),
    );
    // Each of its programs would warn of a word that stands twice.
    let key = |line: &str| line.split_once(" =").map(|(key, _)| key.to_owned());
    let keys: Vec<_> = words.lines().filter_map(key).collect();
    let kept = usual.lines().filter(|line| !key(line).is_some_and(|key| keys.contains(&key)));
    let kept: Vec<&str> = kept.chain(words.lines()).collect();
    kept.join("\n") + "\n"
}

fn master_cf(setting: &Setting) -> String {
    format!(
        "{} inet n - n - - smtpd
pickup unix n - n 60 1 pickup
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
verify unix - - n - 1 verify
proxymap unix - - n - - proxymap
smtp unix - - n - - smtp
virtual unix - n n - - virtual
local unix - n n - - local
lmtp unix - - n - - lmtp
error unix - - n - - error
retry unix - - n - - error
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
tlsmgr unix - - n 1000? 1 tlsmgr
flush unix n - n 1000? 0 flush
postlog unix-dgram n - n - 1 postlogd
",
        setting.address
    )
}

//! A private Exim, of a package that is unpacked and not installed.

use std::os::unix::fs::chown;

use super::{MAILBOX_UID, Setting, Tls, USERS, unpacked};

pub const PACKAGE: &str = "exim4-daemon-light";

const EXIM_UID: u32 = 64_101;

/// Writes its configuration, and gives the script that becomes it.
pub fn script(setting: &Setting) -> String {
    setting.write_accounts(&[("Debian-exim", EXIM_UID)]);
    setting.make("etc/exim4", 0);
    for name in ["spool", "log"] {
        setting.make(name, EXIM_UID);
    }
    // Read when root's rights are gone.
    chown(setting.path("key.pem"), Some(EXIM_UID), None).unwrap();
    // It is read anew for each recipient.
    setting.write("later", &setting.later.join("\n"));
    setting.write("etc/exim4/exim4.conf", &configuration(setting));
    format!(
        "mount -t overlay overlay -o 'lowerdir={}/usr:/usr' /usr
mount -t overlay overlay -o 'lowerdir={}:/etc' /etc
exec /usr/sbin/exim4 -bdf -q1s",
        unpacked(PACKAGE).display(),
        setting.path("etc"),
    )
}

fn configuration(setting: &Setting) -> String {
    let (route, relays) = match setting.next_hop {
        Some(next) => {
            (format!("* {}::{} byname", setting.next_name(next), next.port()), "127.0.0.0/8")
        }
        None => ("* 127.0.0.1 byname".to_owned(), ""),
    };
    let tls = match &setting.tls {
        Tls::May => String::new(),
        Tls::Encrypt => "hosts_require_tls = *\n  tls_verify_certificates =".to_owned(),
        Tls::Verify(..) => format!(
            "hosts_require_tls = *\n  tls_verify_hosts = *\n  tls_verify_certificates = {}",
            setting.path("authority.pem")
        ),
        Tls::Fingerprint(_) => panic!("Exim knows no fingerprints"),
    };
    format!(
        "primary_hostname = {domain}
domainlist local_domains = {domain} : [{ip}]
allow_domain_literals
spool_directory = {at}/spool
log_file_path = {at}/log/%slog
pid_file_path = {at}/pid
daemon_smtp_ports = {port}
local_interfaces = {ip}
tls_advertise_hosts = *
tls_certificate = {at}/certificate.pem
tls_privatekey = {at}/key.pem
acl_smtp_rcpt = recipient
acl_smtp_data = accept
host_lookup =
rfc1413_query_timeout = 0s
keep_environment =
smtp_accept_max = 200
smtp_accept_queue_per_connection = 0
log_selector = +tls_cipher +smtp_connection +pipelining +tls_certificate_verified
dsn_advertise_hosts = *
smtputf8_advertise_hosts = *

begin acl
recipient:
  defer message = 4.2.0 Greylisted, come back later
        recipients = lsearch;{at}/later
  deny  message = 5.1.1 No mailbox here by that name
        domains = +local_domains
        ! verify = recipient
  accept domains = +local_domains
  accept hosts = {relays}
  deny  message = 5.7.1 nothing is relayed

begin routers
next:
  driver = manualroute
  domains = ! +local_domains
  route_list = {route}
  transport = out
  self = send
  no_more
here:
  driver = accept
  local_parts = {users}
  transport = in

begin transports
out:
  driver = smtp
  message_linelength_limit = 1000000
  {tls}
in:
  driver = appendfile
  directory = {at}/mail/$local_part_data
  maildir_format
  create_directory
  user = {MAILBOX_UID}
  group = {MAILBOX_UID}
  envelope_to_add
  return_path_add
  check_string =
  escape_string =

begin retry
* * F,5d,1s
",
        domain = setting.kind.domain(),
        ip = setting.address.ip(),
        port = setting.address.port(),
        at = setting.at.display(),
        users = USERS.join(" : "),
    )
}

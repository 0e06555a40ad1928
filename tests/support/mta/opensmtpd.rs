//! A private OpenSMTPD, of a package that is unpacked and not installed.

use std::fmt::Write;
use std::fs;
use std::process::Command;

use super::super::run::run;
use super::{MAILBOX_UID, Setting, Tls, USERS, unpacked};

pub const PACKAGE: &str = "opensmtpd";

/// The group whose members may ask it for something.
const CONTROL_GID: u32 = 64_103;

/// Has the one that this process is do all that it has put off; it says no where nothing is left.
/// Its command is not setgid, as it would be where it is installed.
pub fn schedule_all(pid: i32) {
    let mut command = Command::new("nsenter");
    command.args(["--target", &pid.to_string(), "--mount", "--setgid", &CONTROL_GID.to_string()]);
    run(command.args(["/usr/sbin/smtpctl", "schedule", "all"]), b"");
}

/// Writes its configuration, and gives the script that becomes it.
pub fn script(setting: &Setting) -> String {
    setting.write_accounts(&[
        ("opensmtpd", 64_102),
        ("opensmtpq", CONTROL_GID),
        ("mailboxes", MAILBOX_UID),
    ]);
    for name in ["run", "spool"] {
        setting.make(name, 0);
    }
    setting.write("etc/smtpd.conf", &configuration(setting));
    // Its paths are compiled in.
    format!(
        "mount -t overlay overlay -o 'lowerdir={package}/usr:/usr' /usr
mount -t overlay overlay -o 'lowerdir={etc}:/etc' /etc
mount -t overlay overlay -o 'lowerdir={package}/var:/var' /var
mount --bind '{run}' /run
mount --bind '{spool}' /var/spool
rm -f /run/smtpd.sock
exec /usr/sbin/smtpd -d",
        package = unpacked(PACKAGE).display(),
        etc = setting.path("etc"),
        run = setting.path("run"),
        spool = setting.path("spool"),
    )
}

fn configuration(setting: &Setting) -> String {
    let domain = setting.kind.domain();
    let mut users = String::new();
    for user in USERS {
        write!(users, "\"{user}\" = \"mailboxes\", ").unwrap();
    }
    let mut later = String::new();
    for recipient in &setting.later {
        write!(later, "\"{recipient}\", ").unwrap();
    }
    let later = if later.is_empty() { "\"nobody\"" } else { later.trim_end_matches(", ") };
    let mail = setting.path("mail");
    let action = match &setting.local {
        Some(local) => format!("action \"in\" {}", local.words),
        None => format!("action \"in\" maildir \"{mail}/%{{dest.user}}\" virtual <users>"),
    };
    let mut text = format!(
        "pki {domain} cert \"{at}/certificate.pem\"
pki {domain} key \"{at}/key.pem\"
table users {{ {users} }}
table later {{ {later} }}
filter \"later\" phase rcpt-to match rcpt-to <later> reject \"451 4.2.0 Greylisted, come back later\"
smtp max-message-size 50M
listen on {ip} port {port} hostname {domain} tls pki {domain} filter \"later\"
{action}
match from any for domain \"{domain}\" action \"in\"
",
        users = users.trim_end_matches(", "),
        at = setting.at.display(),
        ip = setting.address.ip(),
        port = setting.address.port(),
    );
    if let Some(next) = setting.next_hop {
        let name = format!("{}:{}", setting.next_name(next), next.port());
        let (protocol, verify) = match &setting.tls {
            Tls::May => ("smtp", ""),
            Tls::Encrypt => ("smtp+tls", "tls no-verify"),
            Tls::Verify(..) => {
                // Where it looks for authorities is compiled in.
                setting.make("etc/ssl/certs", 0);
                let list = setting.path("etc/ssl/certs/ca-certificates.crt");
                fs::copy(setting.path("authority.pem"), list).unwrap();
                ("smtp+tls", "tls")
            }
            Tls::Fingerprint(_) => panic!("OpenSMTPD knows no fingerprints"),
        };
        write!(
            text,
            "action \"out\" relay host \"{protocol}://{name}\" {verify} helo \"{domain}\"\n\
             match from any for any action \"out\"\n"
        )
        .unwrap();
    }
    text
}

//! A `sendmail` for `[delivery] sendmail` that keeps what it is given and sends nothing.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use tempfile::TempDir;

use super::site::Plan;
use super::wait_until;

/// Each call has a file, complete from the moment that it has its name.
const SCRIPT: &str = r#"cd "${0%/*}" || exit 75
file=$(mktemp call.XXXXXX) || exit 75
{ printf '%s\n' "$@"; echo; cat; } > "$file" && chmod 644 "$file" && mv "$file" "sent.${file#call.}"
"#;

/// What was sent, and by which words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sent {
    pub arguments: Vec<String>,
    pub message: String,
}

/// All that is sent from a site.
pub struct Outbox(TempDir);

impl Outbox {
    pub fn new() -> Self {
        let directory = tempfile::Builder::new().prefix("hikyaku-outbox-").tempdir().unwrap();
        fs::write(directory.path().join("sendmail"), SCRIPT).unwrap();
        // Every user sends for themselves.
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o1777)).unwrap();
        Self(directory)
    }

    /// A site that sends into it.
    pub fn plan(&self, plan: Plan) -> Plan {
        let script = self.0.path().join("sendmail");
        plan.set("delivery", "sendmail", &format!("[\"/bin/sh\", \"{}\"]", script.display()))
    }

    /// What was sent until now.
    pub fn sent(&self) -> Vec<Sent> {
        let entries = fs::read_dir(self.0.path()).unwrap().map(|entry| entry.unwrap());
        let sent = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with("sent."));
        sent.map(|entry| {
            let text = String::from_utf8(fs::read(entry.path()).unwrap()).unwrap();
            let (arguments, message) = text.split_once("\n\n").unwrap();
            let arguments = arguments.lines().map(str::to_owned).collect();
            Sent { arguments, message: message.to_owned() }
        })
        .collect()
    }

    /// Waits until so many have been sent.
    #[track_caller]
    pub fn wait_for(&self, count: usize) -> Vec<Sent> {
        wait_until(&format!("{count} messages sent"), || {
            let sent = self.sent();
            (sent.len() >= count).then_some(sent)
        })
    }
}

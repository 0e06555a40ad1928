//! A Thunderbird that a test works with: its profile, its process, and Marionette, by which it is
//! told what to do.
//!
//! Marionette listens on loopback. A message is its length, a colon and JSON: `[0, number, command,
//! parameters]`, to which the answer is `[1, number, error, result]`.

use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::support::lan::Host;
use crate::support::run::Server;
use crate::support::{find, note, wait_until};

/// What it can be told to do, by names.
const HANDS: &str = include_str!("hands.js");

/// How long one of these may take, and how long until its answer must be here.
const LONGEST: Duration = Duration::from_secs(50);
const ANSWER: Duration = Duration::from_mins(1);

/// What keeps it at work, and off the network: it asks for no update, reports nothing, and starts no
/// process that it does not need. What it would fetch by HTTP, it would have to fetch from a port of
/// this host where nobody is.
const QUIET: &[(&str, &str)] = &[
    ("app.donation.eoy.version.viewed", "999"),
    ("app.update.enabled", "false"),
    ("browser.safebrowsing.blockedURIs.enabled", "false"),
    ("datareporting.healthreport.uploadEnabled", "false"),
    ("datareporting.policy.dataSubmissionEnabled", "false"),
    ("dom.ipc.processPrelaunch.enabled", "false"),
    ("dom.push.connection.enabled", "false"),
    ("extensions.systemAddon.update.enabled", "false"),
    ("extensions.update.enabled", "false"),
    ("mail.chat.enabled", "false"),
    ("mail.provider.suppress_dialog_on_startup", "true"),
    ("mail.shell.checkDefaultClient", "false"),
    ("mailnews.database.global.indexer.enabled", "false"),
    ("mailnews.start_page.enabled", "false"),
    ("marionette.port", "0"),
    ("media.gmp-manager.updateEnabled", "false"),
    ("media.rdd-process.enabled", "false"),
    ("network.captive-portal-service.enabled", "false"),
    ("network.connectivity-service.enabled", "false"),
    ("network.dns.disableIPv6", "true"),
    ("network.manage-offline-status", "false"),
    ("network.proxy.http", "\"127.0.0.1\""),
    ("network.proxy.http_port", "1"),
    ("network.proxy.ssl", "\"127.0.0.1\""),
    ("network.proxy.ssl_port", "1"),
    ("network.proxy.type", "1"),
    ("network.trr.mode", "5"),
    ("offline.autoDetect", "false"),
    ("offline.startup_state", "2"),
    ("security.OCSP.enabled", "0"),
    ("services.settings.server", "\"data:,none\""),
    ("toolkit.telemetry.enabled", "false"),
    ("ui.prefersReducedMotion", "1"),
];

/// Somebody's Thunderbird at work.
pub struct Thunderbird {
    process: Server,
    stream: BufReader<TcpStream>,
    number: u32,
    log: PathBuf,
}

impl Thunderbird {
    /// Starts it with the profile in a directory, which is made if it is missing, and with these
    /// settings; `host` is where it runs if not here.
    pub fn start(directory: &Path, settings: &[(&str, String)], host: Option<&Host>) -> Self {
        let profile = directory.join("profile");
        fs::create_dir_all(&profile).unwrap();
        let mut text = String::new();
        let quiet = QUIET.iter().map(|(name, value)| (*name, (*value).to_owned()));
        for (name, value) in quiet.chain(settings.iter().cloned()) {
            writeln!(text, "user_pref(\"{name}\", {value});").unwrap();
        }
        fs::write(profile.join("user.js"), text).unwrap();
        let port = profile.join("MarionetteActivePort");
        let _ = fs::remove_file(&port);
        let log = directory.join("log.moz_log");
        let _ = fs::remove_file(&log);
        let mut command = Command::new(find("thunderbird").unwrap());
        command
            .args(["--headless", "--no-remote", "--marionette", "--remote-allow-system-access"])
            .arg("--profile")
            .arg(&profile);
        command
            .env("HOME", directory)
            .env("TMPDIR", directory)
            .env("MOZ_CRASHREPORTER_DISABLE", "1")
            .env("MOZ_LOG", "sync,timestamp,IMAP:5")
            .env("MOZ_LOG_FILE", &log)
            .env("LC_ALL", "C.UTF-8")
            .env("TZ", "UTC")
            .env("DBUS_SESSION_BUS_ADDRESS", "disabled:")
            .env("DBUS_SYSTEM_BUS_ADDRESS", "disabled:");
        for name in ["DISPLAY", "WAYLAND_DISPLAY", "XDG_CONFIG_HOME", "XDG_CACHE_HOME"] {
            command.env_remove(name);
        }
        if let Some(host) = host {
            command = host.command(&command);
        }
        command.stdin(Stdio::null()).stdout(Stdio::null());
        let process = Server::start(&mut command);
        let address = wait_until("Marionette", || {
            let port = fs::read_to_string(&port).ok()?.parse().ok()?;
            Some(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))
        });
        let stream = match host {
            Some(host) => host.connect(address),
            None => TcpStream::connect(address).unwrap(),
        };
        stream.set_read_timeout(Some(ANSWER)).unwrap();
        let mut thunderbird = Self { process, stream: BufReader::new(stream), number: 0, log };
        thunderbird.message();
        thunderbird.command("WebDriver:NewSession", "{\"capabilities\": {}}");
        thunderbird.command("Marionette:SetContext", "{\"value\": \"chrome\"}");
        let timeouts = format!("{{\"script\": {}}}", LONGEST.as_millis());
        thunderbird.command("WebDriver:SetTimeouts", &timeouts);
        thunderbird.does("ready()");
        thunderbird
    }

    /// Has it do something of `hands.js`; what is to be seen then.
    #[track_caller]
    pub fn does(&mut self, what: &str) -> String {
        let script = format!("{HANDS}\nreturn (async () => `${{await {what} ?? \"\"}}`)();");
        let answer = self.command(
            "WebDriver:ExecuteScript",
            &format!("{{\"script\": {}, \"args\": [], \"newSandbox\": true}}", quoted(&script)),
        );
        let value = answer.strip_prefix("{\"value\":\"").and_then(|rest| rest.strip_suffix("\"}"));
        unquoted(value.unwrap_or_else(|| panic!("{what}: {answer}")))
    }

    /// Ends it as a person would.
    pub fn quit(mut self) {
        self.command("Marionette:Quit", "{\"flags\": [\"eAttemptQuit\"]}");
        let status = wait_until("the end of Thunderbird", || self.process.ended());
        assert!(status.success(), "{status}: {}", self.process.log());
    }

    /// What was said by IMAP, a line each, with which connection said it in front; a client's lines
    /// begin with `C: `.
    pub fn said(&self) -> Vec<String> {
        let log = fs::read(&self.log).unwrap_or_default();
        let lines = String::from_utf8_lossy(&log).replace('\r', "");
        let said = lines.lines().filter_map(|line| {
            let (_, line) = line.split_once("IMAP ")?;
            let (who, what) = line
                .split_once(":CreateNewLineFromSocket: ")
                .or_else(|| line.split_once(":SendData: "))?;
            let side = if line.contains(":SendData: ") { "C: " } else { "S: " };
            Some(format!("{who} {side}{what}"))
        });
        said.collect()
    }

    /// Whether it waits for news of the inbox.
    pub fn is_idle(&self) -> bool {
        let mut said = self.said().into_iter().filter(|line| line.contains(":S-INBOX "));
        said.next_back().is_some_and(|line| line.ends_with(" S: + idling"))
    }

    #[track_caller]
    fn command(&mut self, name: &str, parameters: &str) -> String {
        self.number += 1;
        let message = format!("[0,{},\"{name}\",{parameters}]", self.number);
        write!(self.stream.get_mut(), "{}:{message}", message.len()).unwrap();
        let answer = self.message();
        let result = answer.strip_prefix(&format!("[1,{},null,", self.number));
        result.and_then(|rest| rest.strip_suffix(']')).unwrap_or_else(|| panic!("{answer}")).into()
    }

    #[track_caller]
    fn message(&mut self) -> String {
        let mut length = Vec::new();
        self.stream.read_until(b':', &mut length).unwrap();
        length.pop();
        let length = String::from_utf8(length).unwrap();
        let mut message = vec![0; length.parse().unwrap()];
        self.stream.read_exact(&mut message).unwrap();
        String::from_utf8(message).unwrap()
    }
}

impl Drop for Thunderbird {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let said = self.said();
            let last = said.len().saturating_sub(80);
            note(&format!("what was said by IMAP:\n{}", said[last..].join("\n")));
        }
    }
}

/// A text as a string of JSON, and of JavaScript.
pub fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            '\0'..'\x20' => write!(quoted, "\\u{:04x}", u32::from(c)).unwrap(),
            _ => quoted.push(c),
        }
    }
    quoted + "\""
}

/// The text of a string of JSON, as they are written by those who escape only what they must.
fn unquoted(text: &str) -> String {
    let mut plain = String::new();
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        plain.push(match (c == '\\').then(|| chars.next().unwrap()) {
            None => c,
            Some('n') => '\n',
            Some('t') => '\t',
            Some('r') => '\r',
            Some('u') => {
                let digits: String = chars.by_ref().take(4).collect();
                u32::from_str_radix(&digits, 16).ok().and_then(char::from_u32).unwrap()
            }
            Some(other) => other,
        });
    }
    plain
}

//! The session of a user who has logged in, run as that user.

use crate::config::Config;
use crate::imap::CAPABILITIES;
use crate::server::Connection;
use crate::sys::{Account, Exit, Log};

/// Of the command that logged in, still to be answered.
pub struct LoggedIn {
    /// Its tag.
    pub tag: String,
    /// The input that came behind it.
    pub leftover: Vec<u8>,
}

/// So long, in milliseconds, a client may say nothing.
const IDLE: u32 = 30 * 60 * 1000;

/// A stand-in: NOOP and LOGOUT.
pub fn session(
    _config: &Config,
    client: &mut Connection,
    account: &Account,
    login: &LoggedIn,
    log: &Log,
) -> Exit {
    let mut out = format!("{} OK [CAPABILITY {CAPABILITIES}] logged in\r\n", login.tag);
    let mut text = login.leftover.clone();
    let mut buffer = [0; 4096];
    loop {
        while let Some(end) = text.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = text.drain(..=end).collect();
            let line = String::from_utf8_lossy(&line).trim().to_owned();
            let (tag, command) = line.split_once(' ').unwrap_or((&line, ""));
            if command.eq_ignore_ascii_case("logout") {
                out.extend(["* BYE bye\r\n", tag, " OK logged out\r\n"]);
                let _ = client.send(out.as_bytes(), IDLE);
                log.info(&format!("Disconnected: user=<{}>", account.name));
                return Exit::Ok;
            }
            out.extend([tag, " OK done\r\n"]);
        }
        if client.send(out.as_bytes(), IDLE).is_err() {
            return Exit::IoErr;
        }
        out.clear();
        match client.receive(&mut buffer, IDLE) {
            Ok(0) => return Exit::Ok,
            Ok(length) => text.extend_from_slice(buffer.get(..length).unwrap_or_default()),
            Err(_) => return Exit::IoErr,
        }
    }
}

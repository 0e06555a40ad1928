//! `mailctl`: the operator's single commands.

mod user;

use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use clap::{Parser, Subcommand};
use nix::unistd::{AccessFlags, access};

use super::{Common, Failure, load, run};
use crate::auth::{app_passwords, users_file};
use crate::config::{Config, Source};
use crate::mailbox::directory;
use crate::net::tls::identity::Identity;
use crate::net::tls::server::settings;
use crate::queue::{self, Spool};
use crate::route;
use crate::sys::Exit;

/// The operator's tool.
#[derive(Debug, Parser)]
#[command(name = "mailctl", version, disable_help_subcommand = true)]
pub(super) struct Args {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Check the configuration, the queue's directories and the accounts, and say what is wrong
    Check,
    /// Keep the users file
    #[command(subcommand)]
    User(user::Command),
}

/// Runs the program.
pub fn main() -> Exit {
    run(std::env::args_os(), mailctl)
}

fn mailctl(arguments: &Args) -> Result<Exit, Failure> {
    let config = load(&arguments.common)?;
    match &arguments.command {
        Command::Check => check(&config),
        Command::User(command) => user::run(&config, command),
    }
}

/// Prints what is wrong, a line each; `Exit::Config` where there is anything.
fn check(config: &Config) -> Result<Exit, Failure> {
    let mut problems = Vec::new();
    queue(config, &mut problems);
    tls(config, &mut problems);
    programs(config, &mut problems);
    users(config, &mut problems);
    inboxes(config, &mut problems);
    for problem in &problems {
        super::complain("mailctl", problem);
    }
    if !problems.is_empty() {
        return Ok(Exit::Config);
    }
    writeln!(io::stdout(), "The configuration of {} is sound.", config.hostname)
        .map_err(|error| Failure::new(Exit::IoErr, error))?;
    Ok(Exit::Ok)
}

fn queue(config: &Config, problems: &mut Vec<String>) {
    let spool = Spool::new(&config.paths.queue);
    let owner = match spool.owner() {
        Ok(owner) => owner,
        Err(error) => {
            problems.push(format!("[paths] queue: {}: {error}", spool.root().display()));
            return;
        }
    };
    for (name, mode) in queue::spool::DIRECTORIES {
        let path = spool.root().join(name);
        // What is missing is made by the first program that needs it.
        let Ok(found) = std::fs::symlink_metadata(&path) else {
            continue;
        };
        let path = path.display();
        if !found.is_dir() || found.uid() != owner.uid.as_raw() {
            problems
                .push(format!("{path}: is no directory of the queue's owner (uid {})", owner.uid));
        } else if found.mode() & 0o7777 != mode {
            let now = found.mode() & 0o7777;
            problems.push(format!("{path}: has mode {now:04o}; chmod {mode:04o} {path}"));
        }
    }
}

fn tls(config: &Config, problems: &mut Vec<String>) {
    let Some(mut identity) = Identity::of(&config.smtp.tls) else {
        return;
    };
    let errors = match identity.refresh() {
        Ok(()) => settings(&identity).1,
        Err(error) => vec![error],
    };
    problems.extend(errors.iter().map(|error| format!("[smtp.tls] {error}")));
}

fn programs(config: &Config, problems: &mut Vec<String>) {
    for name in ["local-deliver", "dotlock"] {
        let path = config.paths.libexec.join(name);
        if access(&path, AccessFlags::X_OK).is_err() {
            problems.push(format!("[paths] libexec: {}: no such program", path.display()));
        }
    }
}

fn users(config: &Config, problems: &mut Vec<String>) {
    if let Err(failure) = super::login_account(config) {
        problems.push(failure.what);
    }
    if config.users.source == Source::File {
        match users_file::read(&config.users.file) {
            Ok(lines) => {
                problems.extend(
                    lines.iter().filter_map(|line| line.as_ref().err()).map(ToString::to_string),
                );
            }
            Err(error) => problems.push(format!("{}: {error}", config.users.file.display())),
        }
    }
    match app_passwords::read(&config.users.app_passwords) {
        Ok(lines) => problems
            .extend(lines.iter().filter_map(|line| line.as_ref().err()).map(ToString::to_string)),
        Err(error) => problems.push(error.to_string()),
    }
    match route::account(config, "postmaster") {
        Ok(Some(_)) => {}
        Ok(None) => problems.push(
            "there is no account postmaster: mail for it is taken (RFC 5321) and waits in the queue"
                .into(),
        ),
        Err(error) => problems.push(format!("account postmaster: {error}")),
    }
}

fn inboxes(config: &Config, problems: &mut Vec<String>) {
    let Some(directory) = Path::new(&config.paths.inbox).parent() else {
        return;
    };
    if directory.to_str().is_none_or(|text| text.contains('%')) {
        return;
    }
    let shown = directory.display();
    match std::fs::metadata(directory) {
        Ok(found) if !found.is_dir() => {
            problems.push(format!("[paths] inbox: {shown} is no directory"));
        }
        Ok(found) if !directory::is_safe_directory(found.mode()) => problems.push(format!(
            "[paths] inbox: {shown} can be written by everybody and has no sticky bit; \
             chmod 1777 {shown}, or 2775 with group mail"
        )),
        Ok(_) => {}
        Err(error) => problems.push(format!("[paths] inbox: {shown}: {error}")),
    }
}

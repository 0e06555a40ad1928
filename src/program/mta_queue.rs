//! `mta-queue`: the delivery runner, and the queue's tool.

use std::os::fd::AsFd;
use std::time::Duration;

use clap::Parser;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use nix::unistd::Pid;

use super::{Common, Failure, load, login_account, prepare_queue, queue_view, run, start};
use crate::config::Config;
use crate::delivery::launcher::Launcher;
use crate::delivery::runner::{Ended, GATHER, MAX_DESCRIPTORS, PATIENCE, Runner};
use crate::queue::{Spool, Wake};
use crate::server::policy::greylist::Greylist;
use crate::sys::channel::Channel;
use crate::sys::signal::Signals;
use crate::sys::{Account, Exit, Log, clock, privilege, process};

/// A watching runner keeps its delivery agents for so long.
const LINGER: Duration = Duration::from_secs(1);

/// A watching runner looks again after so many seconds at the latest.
const MAX_NAP: u64 = 300;

/// Delivery runner: tries every message that is due once, then ends.
#[derive(Debug, Parser)]
#[command(name = "mta-queue", version, disable_help_subcommand = true)]
pub(super) struct Args {
    #[command(flatten)]
    common: Common,
    /// Try every message now, whether it is due or not
    #[arg(short, long, conflicts_with_all = ["list", "show"])]
    flush: bool,
    /// Stay and deliver what comes, until SIGTERM
    #[arg(short, long, conflicts_with_all = ["list", "show"])]
    watch: bool,
    /// List the queue
    #[arg(short, long, conflicts_with = "show")]
    list: bool,
    /// Show one message: its envelope, its history and its text
    #[arg(short, long, value_name = "ID")]
    show: Option<String>,
}

/// Runs the program.
pub fn main() -> Exit {
    run(std::env::args_os(), mta_queue)
}

fn mta_queue(arguments: &Args) -> Result<Exit, Failure> {
    let failed = |error| Failure::new(Exit::OsErr, error);
    start()?;
    let config = load(&arguments.common)?;
    let spool = Spool::new(&config.paths.queue);
    if arguments.list || arguments.show.is_some() {
        // Root parses no queue file.
        privilege::become_account(&owner_of(&spool)?).map_err(failed)?;
        return match &arguments.show {
            Some(id) => queue_view::show(&spool, id),
            None => queue_view::list(&spool),
        };
    }
    let log = Log::open("mta-queue", config.log.into());
    let owner = prepare_queue(&spool)?;
    let (ours, theirs) = Channel::pair().map_err(failed)?;
    let signals = Signals::take(&[Signal::SIGTERM, Signal::SIGINT, Signal::SIGCHLD]);
    let signals = signals.map_err(failed)?;
    let mut ours = Some(ours);
    let worker = process::fork(|| {
        // Or else the worker would not notice that the parent has gone.
        ours = None;
        match work(&config, &log, spool, &owner, &theirs, &signals, arguments) {
            Ok(exit) => exit,
            Err(error) => {
                log.error(&format!("{}: {error}", config.paths.queue.display()));
                Exit::TempFail
            }
        }
    });
    let worker = worker.map_err(failed)?;
    drop(theirs);
    let config_file = arguments.common.config.as_deref().map(std::path::absolute).transpose();
    let stranger = || login_account(&config).map_err(|failure| std::io::Error::other(failure.what));
    let launcher = Launcher {
        config: &config,
        config_file: config_file.map_err(failed)?,
        stranger: &stranger,
        log: &log,
    };
    match ours {
        Some(ours) => launch(&launcher, &ours, &signals, worker).map_err(failed),
        None => Ok(Exit::Software),
    }
}

/// The parent: starts delivery agents for the worker, and passes signals on, until it ends.
fn launch(
    launcher: &Launcher<'_>,
    worker: &Channel,
    signals: &Signals,
    pid: Pid,
) -> std::io::Result<Exit> {
    let mut exit = Exit::Software;
    loop {
        let mut fds = [
            PollFd::new(worker.as_fd(), PollFlags::POLLIN),
            PollFd::new(signals.as_fd(), PollFlags::POLLIN),
        ];
        match poll(&mut fds, PollTimeout::NONE) {
            Ok(_) | Err(nix::Error::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
        let asked = fds.first().and_then(PollFd::any) == Some(true);
        while let Some(signal) = signals.next() {
            if signal != Signal::SIGCHLD {
                let _ = nix::sys::signal::kill(pid, Signal::SIGTERM);
            }
        }
        let mut ended = false;
        while let Some((child, how)) = process::reap() {
            if child == pid {
                ended = true;
                if how == process::Ended::Exited(0) {
                    exit = Exit::Ok;
                } else if how == process::Ended::Exited(Exit::TempFail as i32) {
                    exit = Exit::TempFail;
                }
            }
        }
        if ended {
            return Ok(exit);
        }
        if asked {
            launcher.serve(worker)?;
        }
    }
}

/// The child: the queue's owner, who runs the queue.
fn work(
    config: &Config,
    log: &Log,
    spool: Spool,
    owner: &Account,
    launcher: &Channel,
    signals: &Signals,
    arguments: &Args,
) -> std::io::Result<Exit> {
    privilege::become_account(owner)?;
    process::raise_max_descriptors(MAX_DESCRIPTORS)?;
    spool.prepare()?;
    let wake = Wake::open(spool.root())?;
    let inlet = spool.incoming()?;
    let runner = Runner {
        config,
        log,
        spool,
        inlet,
        launcher,
        signals,
        wake: &wake,
        patience: PATIENCE,
        linger: if arguments.watch { LINGER } else { Duration::ZERO },
    };
    let mut flush = arguments.flush;
    loop {
        wake.drain();
        if config.greylist.is_on() {
            let swept = Greylist::open(runner.spool.root(), &config.greylist)
                .and_then(|greylist| greylist.sweep(clock::seconds()));
            if let Err(error) = swept {
                log.error(&format!("greylist: {error}"));
            }
        }
        match runner.run(std::mem::take(&mut flush)) {
            Ok(Ended::Stopped) => return Ok(Exit::Ok),
            Ok(Ended::Left) if !arguments.watch => return Ok(Exit::TempFail),
            ended if !arguments.watch => return ended.map(|_| Exit::Ok),
            Ok(Ended::Done | Ended::Left) => {}
            // What is short now (descriptors, memory) may be there again after a nap.
            Err(error) => log.error(&format!("{}: {error}", runner.spool.root().display())),
        }
        let due = runner.spool.next_due().unwrap_or_default();
        let left = due.map_or(MAX_NAP, |due| due.saturating_sub(clock::seconds()));
        let nap = u32::try_from(left.clamp(1, MAX_NAP) * 1000).unwrap_or(u32::MAX);
        let mut fds = [
            PollFd::new(wake.as_fd(), PollFlags::POLLIN),
            PollFd::new(signals.as_fd(), PollFlags::POLLIN),
            PollFd::new(launcher.as_fd(), PollFlags::POLLIN),
        ];
        match poll(&mut fds, PollTimeout::try_from(nap).unwrap_or(PollTimeout::MAX)) {
            Ok(_) | Err(nix::Error::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
        if fds.first().and_then(PollFd::any) == Some(true) {
            std::thread::sleep(GATHER);
        }
        // The launcher says nothing unasked: it has gone, and without it nothing can be delivered.
        let alone = fds.get(2).and_then(PollFd::any) == Some(true);
        if alone || signals.next().is_some() {
            return Ok(Exit::Ok);
        }
    }
}

fn owner_of(spool: &Spool) -> Result<Account, Failure> {
    spool
        .owner()
        .map_err(|error| Failure::new(Exit::NoPerm, format!("{}: {error}", spool.root().display())))
}

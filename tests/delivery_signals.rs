//! A delivery that is asked to end: it has delivered, and says so, or it has not. Whoever is told
//! that it was killed, or 75, tries again; a message that was delivered all the same would come
//! twice.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests and their helpers fail by panicking"
)]

mod support;

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use support::kill::{Attempt, CALLS, at_each};
use support::peer::stuffed;
use support::run::{Ran, finish, run, spawn};
use support::site::{Site, behind};
use support::store::{self, FORMS, Form, Who, behind_from_line, callers, directory, message};
use support::{Dice, need, need_root, wait_until};

const SIZE: usize = 6000;

const SIGNALS: [Signal; 3] = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP];

/// How long a process that is asked to end may take: far less than it would wait for anything.
const SOON: Duration = Duration::from_secs(5);

/// What an ended delivery says of a message: whether it is there.
fn told(ran: &Ran) -> Result<usize, String> {
    match (ran.code(), ran.signal()) {
        (Some(0), _) => Ok(1),
        (Some(75), _) | (None, Some(_)) => Ok(0),
        _ => Err(format!("it must be 0, 75 or the signal: {ran}")),
    }
}

/// Starts a command with this message on its stdin, all of it at once.
fn start(site: &Site, who: Who, command: &mut Command, message: &[u8]) -> Child {
    who.run_by(site, command);
    let mut input = tempfile::tempfile().unwrap();
    input.write_all(message).unwrap();
    std::io::Seek::rewind(&mut input).unwrap();
    command.stdin(input).stdout(Stdio::piped()).stderr(Stdio::piped());
    spawn(command)
}

fn pid(child: &Child) -> Pid {
    Pid::from_raw(i32::try_from(child.id()).unwrap())
}

#[test]
fn a_signal_at_any_call_leaves_the_mailbox_as_the_exit_status_says() {
    if !need("strace") {
        return;
    }
    for form in FORMS {
        for who in callers() {
            let name = format!("local-deliver into a {form:?}, by {who:?}");
            at_each(&name, "signal=TERM", &CALLS, |attempt: &Attempt| {
                let site = form.site();
                let mut command = attempt.wrap(&store::local_deliver(&site));
                who.run_by(&site, &mut command);
                let ran = run(&mut command, &message(1, SIZE));
                form.has(&form.inbox(&site), &message(1, SIZE), told(&ran)?)
            });
        }
    }
}

#[test]
fn a_signal_at_any_call_of_a_command_and_a_mailbox_is_told_truly() {
    if !need("strace") {
        return;
    }
    at_each("a .forward with a command", "signal=TERM", &CALLS, |attempt: &Attempt| {
        let site = Form::Mbox.site();
        store::forward(&site, "|exec cat > /dev/null\n\\hunt\n");
        let mut command = attempt.wrap(&store::local_deliver(&site));
        Who::User.run_by(&site, &mut command);
        let ran = run(&mut command, &message(1, SIZE));
        Form::Mbox.has(&site.inbox("hunt"), &message(1, SIZE), told(&ran)?)
    });
}

#[test]
fn a_client_is_told_of_all_that_was_delivered_before_a_signal_ends_lmtp() {
    // More than are put into the mailbox together.
    const MESSAGES: usize = 70;
    if !need("strace") {
        return;
    }
    let text = message(1, 300);
    let crlf = String::from_utf8(text.clone()).unwrap().replace('\n', "\r\n");
    let one = format!(
        "MAIL FROM:<a@example.org>\r\nRCPT TO:<hunt@smkwlab.net>\r\nBDAT {} LAST\r\n{crlf}",
        crlf.len()
    );
    let calls: Vec<&str> = CALLS.into_iter().filter(|call| *call != "fcntl").collect();
    at_each("LMTP for one user", "signal=TERM", &calls, |attempt: &Attempt| {
        let site = Form::Mbox.site();
        let mut command = site.command("local-deliver");
        command.args(["--lmtp", "-d", "hunt"]);
        let mut command = attempt.wrap(&command);
        site.become_user(&mut command, "hunt");
        let (server, mut peer) = Site::session_of(command);
        peer.send("LHLO client.example\r\n");
        peer.send(one.repeat(MESSAGES));
        peer.send("QUIT\r\n");
        let told = peer.rest().matches("250 2.0.0 delivered").count();
        drop(peer);
        server.join();
        if attempt.is_whole() && told != MESSAGES {
            return Err(format!("{told} were delivered"));
        }
        Form::Mbox.has(&site.inbox("hunt"), &text, told)
    });
}

/// The processes that have this configuration, but those that are dead and not waited for.
fn processes(site: &Site) -> Vec<String> {
    let configuration = site.configuration().display().to_string();
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let lines = processes.filter_map(|entry| fs::read_to_string(entry.path().join("cmdline")).ok());
    lines.filter(|line| line.contains(&configuration)).collect()
}

#[test]
fn an_agent_that_is_killed_is_answered_for_and_a_session_leaves_no_process() {
    if !need_root() {
        return;
    }
    let site = Form::Mbox.site();
    store::forward(&site, "|kill -9 $PPID; sleep 1\n");
    let mut command = site.command("local-deliver");
    command.arg("--lmtp");
    let (server, mut peer) = Site::session_of(command);
    peer.reply();
    peer.command("LHLO client.example");
    for _ in 0..2 {
        for command in [
            "MAIL FROM:<a@example.org>",
            "RCPT TO:<hunt@mx.smkwlab.net>",
            "RCPT TO:<toshi@mx.smkwlab.net>",
            "DATA",
        ] {
            let reply = peer.command(command);
            assert!(reply.starts_with(['2', '3']), "{reply}");
        }
        peer.send(stuffed(&message(1, SIZE)));
        let replies = [peer.reply(), peer.reply()];
        assert!(replies[0].starts_with("451 4.3.0 "), "{replies:?}");
        assert!(replies[1].starts_with("250 2.0.0 "), "{replies:?}");
    }
    peer.command("QUIT");
    server.join();
    wait_until("the session's processes to end", || processes(&site).is_empty().then_some(()));
    assert_eq!(site.messages("toshi").len(), 2);
}

/// Two hundred deliveries, to each of which a signal comes at some moment, into a mailbox that is
/// new when it has many: each time all of it is read.
fn at_random_moments(form: Form, who: Who, signal: Signal, seed: u64) -> [usize; 2] {
    const RUNS: usize = 200;
    const MANY: usize = 25;
    let site = form.site();
    let inbox = form.inbox(&site);
    let text = message(1, SIZE);
    let mut usual = Duration::MAX;
    let mut delivered = 0;
    for _ in 0..5 {
        let began = Instant::now();
        let mut command = store::local_deliver(&site);
        let child = start(&site, who, &mut command, &text);
        finish(&command, child).expect(0);
        usual = usual.min(began.elapsed());
        delivered += 1;
    }
    let mut dice = Dice::new(seed);
    let mut told_of = [0; 2];
    for number in 0..RUNS {
        let mut command = store::local_deliver(&site);
        let child = start(&site, who, &mut command, &text);
        let most = usize::try_from(usual.as_micros()).unwrap();
        std::thread::sleep(Duration::from_micros(u64::try_from(dice.below(most)).unwrap()));
        // Not waited for yet: the number is still its own.
        kill(pid(&child), signal).unwrap();
        let ran = finish(&command, child);
        let is_there = told(&ran).unwrap_or_else(|what| panic!("{signal}: {what}"));
        delivered += is_there;
        told_of[is_there] += 1;
        let has = form.has(&inbox, &text, delivered);
        has.unwrap_or_else(|what| panic!("{signal} in run {number}: {what}: {ran}"));
        if delivered >= MANY {
            form.fill(&inbox);
            delivered = 0;
        }
    }
    told_of
}

#[test]
fn a_signal_at_any_moment_leaves_the_mailbox_as_the_exit_status_says() {
    std::thread::scope(|scope| {
        for (form, seed) in FORMS.into_iter().zip(1..) {
            scope.spawn(move || {
                for signal in SIGNALS {
                    for who in callers() {
                        let [not, delivered] = at_random_moments(form, *who, signal, seed);
                        support::note(&format!(
                            "{signal} to a delivery into a {form:?}, by {who:?}: {delivered} \
                             delivered, {not} not"
                        ));
                    }
                }
            });
        }
    });
}

/// The processes of a delivery: itself, and the one that has become the user.
fn deliverer(child: &Child) -> Option<i32> {
    let children = format!("/proc/{0}/task/{0}/children", child.id());
    let forked = fs::read_to_string(children).unwrap_or_default();
    match forked.split_whitespace().next() {
        Some(pid) => pid.parse().ok(),
        None => Some(pid(child).as_raw()),
    }
}

/// Waits until a delivery has read its message: from then on it holds signals back.
fn wait_until_it_holds(child: &Child) {
    wait_until("the delivery to hold signals back", || {
        let status = fs::read_to_string(format!("/proc/{}/status", deliverer(child)?)).ok()?;
        let blocked = status.lines().find_map(|line| line.strip_prefix("SigBlk:\t"))?;
        let blocked = u64::from_str_radix(blocked, 16).ok()?;
        (blocked & (1 << (Signal::SIGTERM as u32 - 1)) != 0).then_some(())
    });
    // And has come to where it waits.
    std::thread::sleep(Duration::from_millis(100));
}

/// That a delivery which waits ends with 75 soon after this signal.
#[track_caller]
fn ends_soon(command: &Command, child: Child, signal: Signal) {
    let began = Instant::now();
    kill(pid(&child), signal).unwrap();
    let ran = finish(command, child);
    assert_eq!(ran.code(), Some(75), "{signal}: {ran}");
    assert!(began.elapsed() < SOON, "{signal}: it took {:?}", began.elapsed());
}

#[test]
fn a_signal_ends_the_waiting_for_a_lock() {
    for who in callers() {
        for signal in SIGNALS {
            let site = Form::Mbox.site();
            let inbox = site.inbox("hunt");
            let other = File::options().write(true).open(&inbox).unwrap();
            other.lock().unwrap();
            let mut command = store::local_deliver(&site);
            let child = start(&site, *who, &mut command, &message(1, SIZE));
            wait_until_it_holds(&child);
            ends_soon(&command, child, signal);
            drop(other);
            Form::Mbox.has(&inbox, &message(1, SIZE), 0).unwrap();
            // A dot lock of somebody who lives.
            let lock = inbox.with_extension("lock");
            fs::write(&lock, format!("{}\n", std::process::id())).unwrap();
            let mut command = store::local_deliver(&site);
            let child = start(&site, *who, &mut command, &message(1, SIZE));
            wait_until_it_holds(&child);
            ends_soon(&command, child, signal);
            assert!(lock.exists());
            fs::remove_file(&lock).unwrap();
            Form::Mbox.has(&inbox, &message(1, SIZE), 0).unwrap();
        }
    }
}

#[test]
fn a_signal_ends_the_waiting_for_another_copy_of_the_message() {
    let site = Form::Mbox.plan().set("mailbox", "drop_duplicates", "\"1h\"").build();
    Form::Mbox.fill(&site.inbox("hunt"));
    let text = [&b"Message-ID: <1@example.org>\n"[..], &message(1, SIZE)].concat();
    let mail = site.home("hunt").join("mail");
    directory(&mail);
    directory(&mail.join(".index"));
    let file = mail.join(".index/duplicates");
    fs::write(&file, b"").unwrap();
    store::give(&file, 0o600);
    let other = File::options().write(true).open(&file).unwrap();
    other.lock().unwrap();
    let mut command = store::local_deliver(&site);
    let child = start(&site, Who::User, &mut command, &text);
    wait_until_it_holds(&child);
    ends_soon(&command, child, Signal::SIGTERM);
    Form::Mbox.has(&site.inbox("hunt"), &text, 0).unwrap();
}

/// Whether a process of this group lives. (A dead one may wait for its parent for long.)
fn group_lives(group: i32) -> bool {
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let stats = processes.filter_map(|entry| fs::read_to_string(entry.path().join("stat")).ok());
    let mut stats = stats.filter_map(|stat| Some(stat.rsplit_once(") ")?.1.to_owned()));
    stats.any(|stat| {
        let mut words = stat.split(' ');
        let state = words.next();
        words.nth(1) == Some(&group.to_string()) && !matches!(state, Some("Z" | "X"))
    })
}

/// What a command has written into a file, once it has.
fn number_in(file: &Path) -> i32 {
    wait_until("the command to begin", || {
        fs::read_to_string(file).ok()?.strip_suffix('\n')?.parse().ok()
    })
}

#[test]
fn a_signal_ends_a_command_with_all_that_it_started() {
    for who in callers() {
        for signal in SIGNALS {
            let site = Form::Mbox.site();
            let file = site.home("hunt").join("pid");
            let command = format!("echo $$ > {}; sleep 300 & sleep 300; true", file.display());
            store::forward(&site, &format!("\"|{command}\"\n\\hunt\n"));
            let mut command = store::local_deliver(&site);
            let child = start(&site, *who, &mut command, &message(1, SIZE));
            let group = number_in(&file);
            assert!(group_lives(group));
            ends_soon(&command, child, signal);
            wait_until("the command's processes to end", || (!group_lives(group)).then_some(()));
            Form::Mbox.has(&site.inbox("hunt"), &message(1, SIZE), 0).unwrap();
        }
    }
}

/// The signals below the real-time ones, which libraries have for themselves.
fn masks(lines: &str) -> Vec<u64> {
    let digits = lines.lines().map(|line| line.split_once('\t').unwrap().1);
    digits.map(|digits| u64::from_str_radix(digits, 16).unwrap() & 0x7fff_ffff).collect()
}

const LOOK: &str = "grep -E '^Sig(Blk|Ign)' /proc/self/status";

#[test]
fn a_command_begins_with_no_signal_held_back_or_ignored() {
    for who in callers() {
        let site = Form::Mbox.site();
        let file = site.home("hunt").join("signals");
        let command = format!("{LOOK} > {}", file.display());
        store::forward(&site, &format!("\"|{command}\"\n"));
        let mut command = store::local_deliver(&site);
        who.run_by(&site, &mut command);
        run(&mut command, &message(1, SIZE)).expect(0);
        // As when the test runs the same: what it was itself told to ignore is not our matter.
        let usual = run(Command::new("sh").args(["-c", LOOK]), b"").expect(0).text();
        assert_eq!(masks(&fs::read_to_string(&file).unwrap()), masks(&usual), "{who:?}");
    }
}

#[test]
fn it_knows_how_its_processes_end_though_its_caller_did_not_care() {
    for who in callers() {
        for (forward, code, copies) in
            [("|exit 0\n\\hunt\n", 0, 1), ("|exit 67\n\\hunt\n", 67, 0), ("", 0, 1)]
        {
            let site = Form::Mbox.site();
            if !forward.is_empty() {
                store::forward(&site, forward);
            }
            let ignoring = ["env", "--ignore-signal=CHLD"];
            let mut command = behind(&ignoring, &store::local_deliver(&site));
            who.run_by(&site, &mut command);
            run(&mut command, &message(1, SIZE)).expect(code);
            Form::Mbox.has(&site.inbox("hunt"), &message(1, SIZE), copies).unwrap();
        }
    }
}

/// A pipe to which nobody listens.
fn unread() -> Stdio {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    writer.into()
}

#[test]
fn readers_of_its_output_that_have_gone_away_do_not_matter() {
    for who in callers() {
        for log in ["\"stderr\"", "\"syslog\""] {
            let site = Form::Mbox.plan().set("", "log", log).build();
            Form::Mbox.fill(&site.inbox("hunt"));
            store::forward(&site, "|echo said; echo more >&2; true\n\\hunt\n");
            let mut command = store::local_deliver(&site);
            command.arg("-v");
            let mut child = {
                who.run_by(&site, &mut command);
                let input = Stdio::piped();
                spawn(command.stdin(input).stdout(unread()).stderr(unread()))
            };
            child.stdin.take().unwrap().write_all(&message(1, SIZE)).unwrap();
            let ran = finish(&command, child);
            assert_eq!(ran.code(), Some(0), "{who:?}, log = {log}: {ran}");
            Form::Mbox.has(&site.inbox("hunt"), &message(1, SIZE), 1).unwrap();
        }
    }
}

#[test]
fn a_command_that_reads_nothing_succeeds_by_its_exit_status() {
    let site = Form::Mbox.site();
    let text = message(1, 1_000_000);
    for (command, code) in [("exec <&-; exit 0", 0), ("head -c 10 > /dev/null", 0), ("exit 69", 69)]
    {
        store::forward(&site, &format!("\"|{command}\"\n"));
        let mut command = store::local_deliver(&site);
        Who::User.run_by(&site, &mut command);
        run(&mut command, &text).expect(code);
    }
}

#[test]
fn a_command_that_is_given_the_message_gets_all_of_it() {
    let site = Form::Mbox.site();
    let out: PathBuf = site.home("hunt").join("out");
    store::forward(&site, &format!("|cat > {}\n", out.display()));
    let text = message(1, 1_000_000);
    let mut command = store::local_deliver(&site);
    Who::User.run_by(&site, &mut command);
    run(&mut command, &text).expect(0);
    let got = fs::read(&out).unwrap();
    assert_eq!(behind_from_line(&got), Some(&store::in_maildir(&text)[..]));
}

#[test]
fn a_signal_to_the_parent_of_several_deliveries_is_told_truly() {
    if !need_root() {
        return;
    }
    let text = message(1, 300);
    let (mut all, mut none) = (0, 0);
    for delay in 0..60 {
        let site = Form::Mbox.site();
        let before = ["hunt", "toshi"].map(|user| site.spool(user).len());
        let mut command = store::local_deliver(&site);
        command.arg("toshi").stdin(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(&text).unwrap();
        std::thread::sleep(Duration::from_micros(delay * 150));
        let _ = kill(Pid::from_raw(i32::try_from(child.id()).unwrap()), Signal::SIGTERM);
        let status = child.wait().unwrap();
        let after = ["hunt", "toshi"].map(|user| site.spool(user).len());
        let have = [after[0] > before[0], after[1] > before[1]];
        match status.code() {
            Some(0) => assert_eq!(have, [true, true]),
            // One may have it: both get it when it comes again.
            Some(75) => assert_ne!(have, [true, true]),
            None => assert_eq!(have, [false, false], "{status}"),
            _ => panic!("{status}"),
        }
        all += usize::from(have == [true, true]);
        none += usize::from(have == [false, false]);
    }
    support::note(&format!("of 60: {all} delivered to both, {none} to nobody"));
}

//! What "accepted" promises: the order of system calls in front of the promise, and what is left
//! when a program is killed, or the power cut, at any of them.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests and their helpers fail by panicking"
)]

mod support;

use std::fs::{self, File, FileTimes};
use std::path::Path;
use std::process::Command;
use std::time::SystemTime;

use support::entry::{self, Entry};
use support::kill::{Attempt, age_locks, kill_at_each};
use support::mbox;
use support::peer::{Heard, Peer};
use support::powercut::Recorder;
use support::run::run;
use support::site::{Site, queue_id};
use support::trace::{self, Call, Event};
use support::{find, is_root, need};

/// More than a block, so that a torn one shows, and with lines that need care on the way.
fn message() -> Vec<u8> {
    let mut text = b"From: toshi@example.org\nSubject: durable\n\n.\nFrom here on\n".to_vec();
    for number in 0..150 {
        text.extend_from_slice(format!("line {number} of the text that must last\n").as_bytes());
    }
    text
}

/// The message as the queue has it.
fn crlf(message: &[u8]) -> Vec<u8> {
    String::from_utf8_lossy(message).replace('\n', "\r\n").into_bytes()
}

/// One message by SMTP, with a server that may die at any moment; the reply to its end, if that
/// came whole.
fn send(peer: &mut Peer) -> Option<String> {
    send_to(peer, &["toshi", "hunt"])
}

fn send_to(peer: &mut Peer, users: &[&str]) -> Option<String> {
    let text = message();
    let mut said = peer.reply();
    let mut commands = vec!["EHLO client.example".to_owned()];
    commands.push("MAIL FROM:<toshi@example.org>".into());
    commands.extend(users.iter().map(|user| format!("RCPT TO:<{user}@smkwlab.net>")));
    commands.push("DATA".into());
    for command in commands {
        if said.is_empty() || said.starts_with(['4', '5']) {
            return None;
        }
        said = peer.command(command);
    }
    if !said.starts_with("354 ") {
        return None;
    }
    peer.send(support::peer::stuffed(&text));
    let reply = match peer.hear() {
        Heard::Line(line) => String::from_utf8_lossy(&line).into_owned(),
        _ => return None,
    };
    peer.command("QUIT");
    reply.starts_with("250 2.0.0 ").then_some(reply)
}

/// What is in a directory of the queue; every file must be whole and have a proper name.
fn entries(site: &Site, directory: &str) -> Result<Vec<Entry>, String> {
    let mut entries = Vec::new();
    for name in site.queued_in(directory) {
        if name.starts_with('.') {
            return Err(format!("{directory}/{name} is left"));
        }
        entries.push(entry::read(&site.queue().join(directory).join(name))?);
    }
    Ok(entries)
}

/// The rule of the accept path: nothing or a whole message, and after the promise a whole message.
fn nothing_or_whole(site: &Site, directory: &str, promised: bool) -> Result<(), String> {
    let entries = entries(site, directory)?;
    let text = crlf(&message());
    let header = text.windows(4).position(|end| end == b"\r\n\r\n").unwrap();
    let whole = |entry: &Entry| {
        // sendmail adds fields to the header.
        let content = &entry.content;
        let subject = content.windows(16).any(|field| field == b"Subject: durable");
        content.ends_with(&text[header..]) && subject && entry.recipients.len() == 2
    };
    match entries.as_slice() {
        [] if promised => Err("a message that was promised is not there".into()),
        [] => Ok(()),
        [entry] if whole(entry) => Ok(()),
        [entry] => {
            let content = entry.content.escape_ascii();
            Err(format!("not the message that was sent: {content}"))
        }
        _ => Err(format!("{} messages", entries.len())),
    }
}

/// Whether strace reads the calls of a process that is locked up: that one is not dumpable, and
/// shows its memory to root only.
fn may_look() -> bool {
    is_root() || support::skip("needs root to look into a locked up process")
}

/// The calls that make something last, and those that tell of it.
const LASTING: [&str; 17] = [
    "fsync",
    "fdatasync",
    "sync",
    "syncfs",
    "sync_file_range",
    "link",
    "linkat",
    "rename",
    "renameat",
    "renameat2",
    "write",
    "writev",
    "pwrite64",
    "pwritev",
    "sendto",
    "sendmsg",
    "openat",
];

/// Runs a command under strace, and gives the calls that matter to durability.
fn watch(command: &Command, go: impl FnOnce(Command)) -> Vec<Event> {
    let (_directory, output) = trace::output();
    go(support::site::behind(&trace::arguments(&output, &LASTING), command));
    trace::parse(&fs::read_to_string(&output).unwrap())
}

fn is_sync(call: &Call) -> bool {
    matches!(call.name.as_str(), "fsync" | "fdatasync") && !call.failed()
}

/// That `events` sync a file of `directory` once, name it, and sync the directory once, in this
/// order and before the event at `promise`.
fn assert_lasting(events: &[Event], directory: &Path, promise: usize) {
    let place = |wanted: &dyn Fn(&Call) -> bool| -> Vec<usize> {
        (0..)
            .zip(events)
            .filter(|(_, event)| matches!(event, Event::Call(call) if wanted(call)))
            .map(|(at, _)| at)
            .collect()
    };
    let text = directory.display().to_string();
    let file_syncs =
        place(&|call| is_sync(call) && call.descriptor(0).file.starts_with(&format!("{text}/")));
    let names = place(&|call| {
        let at = if call.name.starts_with("link") { 2 } else { 0 };
        !call.failed()
            && (matches!(call.name.as_str(), "linkat" | "renameat" | "renameat2")
                && call.descriptor(at).file == text
                || matches!(call.name.as_str(), "link" | "rename")
                    && call.text(1).starts_with(&text))
    });
    // Who may not read a directory can't fsync it: for sendmail, syncfs(2) stands in.
    let unreadable = is_root() && directory.ends_with("drop");
    let directory_syncs = place(&|call| {
        is_sync(call) && call.descriptor(0).file == text
            || unreadable && call.name == "syncfs" && !call.failed()
    });
    assert_eq!(file_syncs.len(), 1, "one fsync of the file: {file_syncs:?}");
    assert_eq!(names.len(), 1, "one name is made: {names:?}");
    assert_eq!(directory_syncs.len(), 1, "one fsync of the directory: {directory_syncs:?}");
    let others = place(&|call| call.name.starts_with("sync") && !unreadable);
    assert!(others.is_empty(), "no sync of everything");
    assert!(
        file_syncs[0] < names[0] && names[0] < directory_syncs[0] && directory_syncs[0] < promise,
        "fsync of the file at {}, name at {}, fsync of the directory at {}, promise at {promise}",
        file_syncs[0],
        names[0],
        directory_syncs[0],
    );
    let late = place(&|call| {
        call.written()
            .is_some_and(|(descriptor, _)| descriptor.file.starts_with(&format!("{text}/")))
    });
    assert!(
        late.iter().all(|write| *write < file_syncs[0]),
        "nothing is written to the file after its fsync"
    );
}

#[test]
fn smtpd_says_250_after_one_fsync_of_the_file_and_one_of_the_directory() {
    if !need("strace") || !may_look() {
        return;
    }
    let site = Site::plan().in_memory().build();
    let mut socket = String::new();
    let events = watch(&site.command("smtpd"), |command| {
        let (server, mut peer) = Site::session_of(command);
        socket.clone_from(&peer.other_end);
        send(&mut peer).unwrap_or_else(|| panic!("{}", peer.dialogue()));
        server.join();
    });
    let promise = events.iter().position(|event| {
        matches!(event, Event::Call(call) if call.written().is_some_and(
            |(descriptor, bytes)| descriptor.file == socket && bytes.starts_with(b"250 2.0.0 ")))
    });
    assert_lasting(&events, &site.queue().join("incoming"), promise.unwrap());
}

#[test]
fn sendmail_ends_with_0_after_one_fsync_of_the_file_and_one_of_the_directory() {
    if !need("strace") {
        return;
    }
    let site = Site::plan().in_memory().build();
    let mut command = site.command("sendmail");
    command.args(["-i", "toshi@smkwlab.net", "hunt@smkwlab.net"]);
    let events = watch(&command, |mut command| {
        site.become_user(&mut command, "alice");
        run(&mut command, &message()).expect(0);
    });
    let end = events.iter().rposition(|event| matches!(event, Event::Exit(_, 0)));
    assert_lasting(&events, &site.queue().join("drop"), end.unwrap());
}

#[test]
fn smtpd_killed_anywhere_leaves_nothing_or_a_whole_message() {
    if !need("strace") {
        return;
    }
    kill_at_each("smtpd", &[], |attempt: &Attempt| {
        let site = Site::plan().in_memory().build();
        let (server, mut peer) = Site::session_of(attempt.wrap(&site.command("smtpd")));
        let promised = send(&mut peer).is_some();
        drop(peer);
        server.join();
        if attempt.is_whole() && !promised {
            return Err("the message was not accepted".into());
        }
        nothing_or_whole(&site, "incoming", promised)
    });
}

#[test]
fn sendmail_killed_anywhere_leaves_nothing_or_a_whole_message() {
    if !need("strace") {
        return;
    }
    kill_at_each("sendmail", &[], |attempt: &Attempt| {
        let site = Site::plan().in_memory().build();
        let mut command = site.command("sendmail");
        command.args(["-i", "toshi@smkwlab.net", "hunt@smkwlab.net"]);
        let mut command = attempt.wrap(&command);
        site.become_user(&mut command, "alice");
        let ran = run(&mut command, &message());
        if attempt.is_whole() && ran.code() != Some(0) {
            return Err(ran.to_string());
        }
        nothing_or_whole(&site, "drop", ran.code() == Some(0))
    });
}

#[test]
fn a_power_cut_loses_nothing_that_smtpd_said_250_to() {
    if !need("strace") || !may_look() {
        return;
    }
    let site = Site::plan().in_memory().build();
    let recorder = Recorder::new(site.path()).owned_by(Site::owner);
    let (server, mut peer) = Site::session_of(recorder.wrap(&site.command("smtpd")));
    let reply = send(&mut peer).unwrap_or_else(|| panic!("{}", peer.dialogue()));
    let socket = peer.other_end.clone();
    drop(peer);
    server.join();
    let mut promises = 0;
    let report = recorder.finish(&socket).replay(&mut |moment| {
        let promised = String::from_utf8_lossy(moment.said).contains(&reply);
        promises += usize::from(promised);
        nothing_or_whole(&site, "incoming", promised)?;
        let name = queue_id(&reply);
        if promised && !site.queued_in("incoming").contains(&name) {
            return Err(format!("it is not there under {name}"));
        }
        Ok(())
    });
    report.expect_none("smtpd");
    assert!(promises > 0 && report.states > 2, "the model saw nothing");
}

#[test]
fn a_power_cut_loses_nothing_that_sendmail_ended_with_0_for() {
    if !need("strace") {
        return;
    }
    let site = Site::plan().in_memory().build();
    let recorder = Recorder::new(site.path()).owned_by(Site::owner);
    let mut command = site.command("sendmail");
    command.args(["-i", "toshi@smkwlab.net", "hunt@smkwlab.net"]);
    let mut command = recorder.wrap(&command);
    site.become_user(&mut command, "alice");
    run(&mut command, &message()).expect(0);
    let report = recorder
        .finish("")
        .replay(&mut |moment| nothing_or_whole(&site, "drop", moment.ended == Some(0)));
    report.expect_none("sendmail");
    assert!(report.states > 2, "the model saw nothing");
}

/// A mailbox that was there before, with what neighbours write.
fn older() -> Vec<u8> {
    b"From someone@example.org Mon Jun 21 03:15:20 2004\n\
      From: someone@example.org\nSubject: older\nStatus: RO\n\nAn older message.\n\n"
        .to_vec()
}

const SECOND: &[u8] = b"From: second@example.org\nSubject: second\n\nThe second one.\n";

/// That the mailbox is the older one, then the durable message `least` to `most` times, then the
/// second one `seconds` times, each of them whole.
fn mailbox_is(site: &Site, least: usize, most: usize, seconds: usize) -> Result<(), String> {
    let spool = site.spool("toshi");
    let shown = || spool.escape_ascii().to_string();
    let Some(rest) = spool.strip_prefix(older().as_slice()) else {
        return Err(format!("the older message was changed: {}", shown()));
    };
    let text = message();
    let body = String::from_utf8_lossy(&text);
    let (_, body) = body.split_once("\n\n").unwrap();
    let (mut durable, mut second) = (0, 0);
    for message in mbox::parse(rest) {
        match message.field("Subject") {
            Some("durable") if message.text() == body => durable += 1,
            Some("second") if message.text() == "The second one.\n" => second += 1,
            _ => return Err(format!("a torn message {message:?} in {}", shown())),
        }
        if message.from_line.is_empty() {
            return Err(format!("a message without its From_ line in {}", shown()));
        }
    }
    if (least..=most).contains(&durable) && second == seconds {
        return Ok(());
    }
    Err(format!(
        "the message is there {durable} times ({least} to {most} are right), the second one \
         {second} times ({seconds} is right)"
    ))
}

fn is_delivered(code: Option<i32>) -> usize {
    usize::from(code == Some(0))
}

#[test]
fn local_deliver_killed_anywhere_leaves_the_mailbox_whole_for_the_next_delivery() {
    if !need("strace") {
        return;
    }
    kill_at_each("local-deliver", &[], |attempt: &Attempt| {
        let site = Site::plan().in_memory().build();
        site.fill("toshi", &older());
        let mut command = site.command("local-deliver");
        command.args(["-f", "toshi@example.org", "-d", "toshi"]);
        let mut command = attempt.wrap(&command);
        site.become_user(&mut command, "toshi");
        let code = run(&mut command, &message()).code();
        if attempt.is_whole() && code != Some(0) {
            return Err(format!("exit status {code:?}"));
        }
        age_locks(&site);
        let next = site.local_deliver("toshi", "second@example.org", SECOND);
        if next.code() != Some(0) {
            return Err(format!("the next delivery: {next}"));
        }
        mailbox_is(&site, is_delivered(code), 1, 1)
    });
}

#[test]
fn local_deliver_as_root_killed_anywhere_leaves_the_mailbox_whole_for_the_next_delivery() {
    if !need("strace") || !support::need_root() {
        return;
    }
    kill_at_each("local-deliver as root", &[], |attempt: &Attempt| {
        let site = Site::plan().in_memory().build();
        site.fill("toshi", &older());
        let mut command = site.command("local-deliver");
        command.args(["-f", "toshi@example.org", "-d", "toshi"]);
        let code = run(&mut attempt.wrap(&command), &message()).code();
        if attempt.is_whole() && code != Some(0) {
            return Err(format!("exit status {code:?}"));
        }
        age_locks(&site);
        let next = site.local_deliver("toshi", "second@example.org", SECOND);
        if next.code() != Some(0) {
            return Err(format!("the next delivery: {next}"));
        }
        mailbox_is(&site, is_delivered(code), 1, 1)
    });
}

/// Delivers by procmail into the spool of a user.
fn procmail(site: &Site, user: &str, message: &[u8]) -> support::run::Ran {
    let rc = site.path().join("procmailrc");
    fs::write(&rc, format!("DEFAULT={}\nLOGFILE=/dev/null\n", site.inbox(user).display())).unwrap();
    let mut command = Command::new(find("procmail").unwrap());
    command.arg("-f").arg("second@example.org").arg("-m").arg(&rc);
    site.become_user(&mut command, user);
    run(&mut command, message)
}

/// As if nobody had read a file since it was changed: procmail sleeps for a second where somebody
/// has.
fn not_read_lately(path: &Path) {
    let file = File::options().write(true).open(path).unwrap();
    file.set_times(FileTimes::new().set_accessed(SystemTime::UNIX_EPOCH)).unwrap();
}

#[test]
fn local_deliver_killed_anywhere_harms_nothing_that_procmail_delivers_behind_it() {
    if !need("strace") || !need("procmail") {
        return;
    }
    // A dot lock of a dead process would make procmail wait for minutes, and is no danger.
    kill_at_each("local-deliver, then procmail", &[], |attempt: &Attempt| {
        let site = Site::plan().in_memory().build();
        site.fill("toshi", &older());
        let mut command = site.command("local-deliver");
        command.args(["-f", "toshi@example.org", "-d", "toshi"]);
        let mut command = attempt.wrap(&command);
        site.become_user(&mut command, "toshi");
        let code = run(&mut command, &message()).code();
        let _ = fs::remove_file(site.path().join("mail/toshi.lock"));
        not_read_lately(&site.inbox("toshi"));
        let between = procmail(&site, "toshi", SECOND);
        if between.code() != Some(0) {
            return Err(format!("procmail: {between}"));
        }
        let next = site.local_deliver("toshi", "second@example.org", SECOND);
        if next.code() != Some(0) {
            return Err(format!("the next delivery: {next}"));
        }
        mailbox_is(&site, is_delivered(code), 1, 2)
    });
}

#[test]
fn a_power_cut_in_local_deliver_leaves_a_whole_message_or_none() {
    if !need("strace") {
        return;
    }
    for attributes in [true, false] {
        power_cut_in_local_deliver(attributes);
    }
}

fn power_cut_in_local_deliver(attributes: bool) {
    let site = Site::plan().in_memory().build();
    site.fill("toshi", &older());
    let recorder = Recorder::new(site.path()).owned_by(Site::owner);
    let mut command = site.command("local-deliver");
    command.args(["-f", "toshi@example.org", "-d", "toshi"]);
    let mut command = if attributes {
        recorder.wrap(&command)
    } else {
        recorder.wrap_without_attributes(&command)
    };
    site.become_user(&mut command, "toshi");
    run(&mut command, &message()).expect(0);
    let report = recorder.finish("").replay(&mut |moment| {
        age_locks(&site);
        let next = site.local_deliver("toshi", "second@example.org", SECOND);
        if next.code() != Some(0) {
            return Err(format!("the next delivery: {next}"));
        }
        mailbox_is(&site, is_delivered(moment.ended), 1, 1)
    });
    report.expect_none(&format!("local-deliver, attributes {attributes}"));
    assert!(report.states > 2, "the model saw nothing");
}

/// A site with one message in the queue for toshi and hunt.
fn queued() -> Site {
    queued_to(&["toshi", "hunt"])
}

fn queued_to(users: &[&str]) -> Site {
    let site = Site::plan().in_memory().build();
    site.fill("toshi", &older());
    fs::write(site.path().join("aliases"), "team: toshi, hunt\n").unwrap();
    let (server, mut peer) = site.session("smtpd");
    send_to(&mut peer, users).unwrap_or_else(|| panic!("{}", peer.dialogue()));
    drop(peer);
    server.join();
    site
}

/// What must hold after a runner died and another one ran: both have the message, so many times at
/// most, and the queue is empty.
fn delivered(site: &Site, most: usize) -> Result<(), String> {
    age_locks(site);
    let ran = site.mta_queue(&["--flush"]);
    if ran.code() != Some(0) {
        return Err(format!("the next run: {ran}"));
    }
    if !site.queued().is_empty() {
        return Err(format!("{:?} is left: {ran}", site.queued()));
    }
    mailbox_is(site, 1, most, 0)?;
    let hunt = site.messages("hunt");
    let text = message();
    let text = String::from_utf8_lossy(&text);
    let (_, body) = text.split_once("\n\n").unwrap();
    let whole = |message: &mbox::Message| {
        message.field("Subject") == Some("durable") && message.text() == body
    };
    if (1..=most).contains(&hunt.len()) && hunt.iter().all(whole) {
        Ok(())
    } else {
        Err(format!("hunt has {hunt:?}"))
    }
}

#[test]
fn mta_queue_killed_anywhere_delivers_with_the_next_run() {
    if !need("strace") {
        return;
    }
    kill_at_each("mta-queue", &["close", "fcntl"], |attempt: &Attempt| {
        let site = queued();
        run(&mut attempt.wrap(&site.command("mta-queue")), b"");
        delivered(&site, 2)
    });
}

/// The members' messages are there before the list's recipient is done: killed in between, the list
/// is followed once more.
#[test]
fn mta_queue_killed_anywhere_forgets_no_member_of_an_alias() {
    if !need("strace") {
        return;
    }
    kill_at_each("mta-queue with an alias", &["close", "fcntl", "read"], |attempt: &Attempt| {
        let site = queued_to(&["team"]);
        run(&mut attempt.wrap(&site.command("mta-queue")), b"");
        delivered(&site, 2)
    });
}

#[test]
fn a_power_cut_in_mta_queue_loses_no_message() {
    power_cut_in_mta_queue(&["toshi", "hunt"]);
}

#[test]
fn a_power_cut_in_mta_queue_loses_no_message_to_an_alias() {
    power_cut_in_mta_queue(&["team"]);
}

fn power_cut_in_mta_queue(users: &[&str]) {
    if !need("strace") {
        return;
    }
    let site = queued_to(users);
    let recorder = Recorder::new(site.path()).owned_by(Site::owner);
    run(&mut recorder.wrap(&site.command("mta-queue")), b"").expect(0);
    assert_eq!(site.queued(), [""; 0], "the run delivered");
    let report = recorder.finish("").replay(&mut |_| delivered(&site, usize::MAX));
    report.expect_none("mta-queue");
    assert!(report.states > 2, "the model saw nothing");
}

/// The mailbox in which a session deletes: more than a block in front of, and behind, what goes.
fn five_messages() -> Vec<u8> {
    let mut mbox = String::new();
    for number in 1..=5 {
        let text = format!("line of message {number}\n").repeat(120);
        let date = format!("Mon Jun 21 03:15:2{number} 2004");
        mbox += &["From x@example.org ", &date, "\nSubject: "].concat();
        mbox += &[&number.to_string(), "\n\n", &text, "\n"].concat();
    }
    mbox.into_bytes()
}

/// Deletes messages 2 and 4 of the five; whether the answer to QUIT came.
fn delete_two(peer: &mut Peer) -> bool {
    if !peer.line().starts_with("+OK") {
        return false;
    }
    for command in ["USER hunt", "PASS Watts?Watt?", "DELE 2", "DELE 4"] {
        if !peer.pop(command).starts_with("+OK") {
            return false;
        }
    }
    peer.pop("QUIT").starts_with("+OK")
}

/// What the next session and the next delivery find: the five messages or the three, all whole,
/// and the new one behind them.
fn five_or_three(site: &Site, deleted: bool) -> Result<(), String> {
    age_locks(site);
    let (server, mut peer) = site.session("popd");
    peer.line();
    peer.pop("USER hunt");
    let answer = peer.pop("PASS Watts?Watt?");
    peer.pop("QUIT");
    drop(peer);
    let (_, log) = server.join();
    if !answer.starts_with("+OK") {
        return Err(format!("the next session: {answer}: {log}"));
    }
    let next = site.local_deliver("hunt", "second@example.org", SECOND);
    if next.code() != Some(0) {
        return Err(format!("the next delivery: {next}"));
    }
    let mut subjects = Vec::new();
    for message in site.messages("hunt") {
        let subject = message.field("Subject").unwrap_or_default().to_owned();
        let whole = match subject.as_str() {
            "second" => message.text() == "The second one.\n",
            number => message.text() == format!("line of message {number}\n").repeat(120),
        };
        if !whole || message.from_line.is_empty() {
            let body = message.body.escape_ascii();
            return Err(format!("message {subject} is torn: {body}"));
        }
        subjects.push(subject);
    }
    match subjects.join(" ").as_str() {
        "1 3 5 second" => Ok(()),
        "1 2 3 4 5 second" if !deleted => Ok(()),
        other => Err(format!("the messages are {other}, and QUIT was answered: {deleted}")),
    }
}

#[test]
fn popd_killed_anywhere_leaves_all_messages_or_those_not_deleted() {
    if !need("strace") {
        return;
    }
    kill_at_each("popd", &[], |attempt: &Attempt| {
        let site = Site::plan().in_memory().build();
        site.fill("hunt", &five_messages());
        let (server, mut peer) = Site::session_of(attempt.wrap(&site.command("popd")));
        let deleted = delete_two(&mut peer);
        drop(peer);
        server.join();
        if attempt.is_whole() && !deleted {
            return Err("QUIT was not answered".into());
        }
        five_or_three(&site, deleted)
    });
}

#[test]
fn a_power_cut_in_popd_leaves_all_messages_or_those_not_deleted() {
    if !need("strace") || !may_look() {
        return;
    }
    let site = Site::plan().in_memory().build();
    site.fill("hunt", &five_messages());
    let recorder = Recorder::new(site.path()).owned_by(Site::owner);
    let (server, mut peer) = Site::session_of(recorder.wrap(&site.command("popd")));
    assert!(delete_two(&mut peer), "{}", peer.dialogue());
    let socket = peer.other_end.clone();
    let answers = peer.dialogue().matches("S: +OK").count();
    drop(peer);
    server.join();
    let report = recorder.finish(&socket).replay(&mut |moment| {
        let said = String::from_utf8_lossy(moment.said);
        five_or_three(&site, said.matches("+OK").count() == answers)
    });
    report.expect_none("popd");
    assert!(report.states > 5, "the model saw nothing");
}

//! What is left of a delivery when it is killed at any of its system calls, or the power cut, for
//! what `durability.rs` does not have: Maildirs, a `.forward`, the queue, and LMTP for everybody.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests and their helpers fail by panicking"
)]

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;

use support::entry;
use support::kill::{Attempt, age_locks, kill_at_each};
use support::peer::{Peer, stuffed};
use support::powercut::Recorder;
use support::run::run;
use support::site::{Site, program};
use support::store::{
    self, Form, SENDER, Who, behind_from_line, callers, directory, in_maildir, message,
};
use support::{need, need_root};

/// More than a block, so that a torn one shows.
const SIZE: usize = 6000;

/// Delivers the second message, which must succeed whatever became of the first.
fn deliver_next(site: &Site) -> Result<(), String> {
    age_locks(site);
    let mut command = store::local_deliver(site);
    Who::User.run_by(site, &mut command);
    let ran = run(&mut command, &message(2, 500));
    if ran.code() == Some(0) { Ok(()) } else { Err(format!("the next delivery: {ran}")) }
}

/// That a mailbox has the first message whole, `least` to `most` times, and the second one once.
fn has_both(form: Form, path: &Path, least: usize, most: usize) -> Result<(), String> {
    let found = form.found(path, &[&message(1, SIZE), &message(2, 500)])?;
    let count = |number| found.iter().filter(|one| **one == number).count();
    if (least..=most).contains(&count(0)) && count(1) == 1 {
        return Ok(());
    }
    Err(format!("the messages are {found:?}; the first is wanted {least} to {most} times"))
}

fn is_delivered(code: Option<i32>) -> usize {
    usize::from(code == Some(0))
}

/// Runs `local-deliver` under strace; its exit status, which is 0 where nothing happens to it.
fn deliver(site: &Site, who: Who, attempt: &Attempt) -> Result<Option<i32>, String> {
    let mut command = attempt.wrap(&store::local_deliver(site));
    who.run_by(site, &mut command);
    let ran = run(&mut command, &message(1, SIZE));
    if attempt.is_whole() && ran.code() != Some(0) {
        return Err(ran.to_string());
    }
    Ok(ran.code())
}

#[test]
fn local_deliver_killed_anywhere_leaves_nothing_or_a_whole_message_in_a_maildir() {
    if !need("strace") {
        return;
    }
    for who in callers() {
        kill_at_each(&format!("local-deliver into a Maildir, by {who:?}"), &[], |attempt| {
            let site = Form::Maildir.site();
            let maildir = Form::Maildir.inbox(&site);
            let code = deliver(&site, *who, attempt)?;
            // Before anybody has mended anything: in new/ there is no torn file at any time.
            let found = Form::Maildir.found(&maildir, &[&message(1, SIZE)])?;
            if found.len() < is_delivered(code) {
                return Err("what was told to be delivered is not there".into());
            }
            deliver_next(&site)?;
            has_both(Form::Maildir, &maildir, is_delivered(code), 1)
        });
    }
}

#[test]
fn local_deliver_killed_anywhere_leaves_nothing_or_a_whole_message_in_an_mbox() {
    if !need("strace") {
        return;
    }
    let has = |path: &Path| {
        let mut bytes = [0; 100];
        rustix::fs::getxattr(path, "user.hikyaku", &mut bytes).is_ok()
    };
    let kept = AtomicUsize::new(0);
    for (who, attributes) in callers().iter().flat_map(|who| [(*who, true), (*who, false)]) {
        let name = format!("local-deliver into an mbox, by {who:?}, attributes {attributes}");
        // The attribute's calls fail already where there are none.
        let skip: &[&str] = if attributes { &[] } else { &["fsetxattr"] };
        kill_at_each(&name, skip, |attempt| {
            let site = Form::Mbox.site();
            let inbox = Form::Mbox.inbox(&site);
            let code = if attributes {
                deliver(&site, who, attempt)?
            } else {
                deliver(&site, who, &attempt.without_attributes())?
            };
            kept.fetch_add(usize::from(has(&inbox)), Relaxed);
            deliver_next(&site)?;
            if has(&inbox) {
                return Err("the attribute is still there".into());
            }
            has_both(Form::Mbox, &inbox, is_delivered(code), 1)
        });
        let kept = kept.swap(0, Relaxed);
        assert_eq!(kept > 0, attributes, "{kept} intents were found in the attribute");
    }
}

#[test]
fn a_maildir_that_was_killed_while_it_was_made_takes_the_next_message() {
    if !need("strace") {
        return;
    }
    kill_at_each("local-deliver makes a Maildir", &["read", "close"], |attempt| {
        let site = Form::Maildir.plan().build();
        let code = deliver(&site, Who::User, attempt)?;
        deliver_next(&site)?;
        let found = store::in_directories(
            &Form::Maildir.inbox(&site),
            &[&message(1, SIZE), &message(2, 500)],
        )?;
        let first = found.iter().filter(|one| **one == 0).count();
        if first >= is_delivered(code) && first <= 1 && found.contains(&1) {
            return Ok(());
        }
        Err(format!("the messages are {found:?} after {code:?}"))
    });
}

/// A `.forward` with a command, which keeps each message in a file of its own, and the inbox.
fn with_command(site: &Site) {
    let out = site.home("hunt").join("out");
    directory(&out);
    store::forward(site, &format!("|exec cat > {}/$$\n\\hunt\n", out.display()));
}

/// How many whole copies the command of [`with_command`] was given.
fn taken(site: &Site, message: &[u8]) -> usize {
    let files = fs::read_dir(site.home("hunt").join("out")).unwrap();
    let texts = files.map(|file| fs::read(file.unwrap().path()).unwrap());
    texts.filter(|text| behind_from_line(text) == Some(&in_maildir(message)[..])).count()
}

#[test]
fn a_forward_with_a_command_killed_anywhere_delivers_whole_or_not_at_all() {
    if !need("strace") {
        return;
    }
    for who in callers() {
        kill_at_each(&format!("a .forward with a command, by {who:?}"), &[], |attempt| {
            let site = Form::Mbox.site();
            with_command(&site);
            let code = deliver(&site, *who, attempt)?;
            let commanded = taken(&site, &message(1, SIZE));
            deliver_next(&site)?;
            let inbox = site.inbox("hunt");
            has_both(Form::Mbox, &inbox, is_delivered(code), 1)?;
            // The command comes first: what is in the mailbox has been through it.
            let found = Form::Mbox.found(&inbox, &[&message(1, SIZE), &message(2, 500)])?;
            if found.contains(&0) && commanded != 1 {
                return Err(format!("the command was given {commanded} whole messages"));
            }
            Ok(())
        });
    }
}

/// A site whose user sends mail on to another host, by the queue.
fn with_queue() -> Site {
    let plan = Form::Mbox.plan();
    let site = plan.build();
    let text = fs::read_to_string(site.configuration()).unwrap();
    let sendmail = format!(
        "[delivery]\nsendmail = [{:?}, \"-C\", {:?}]",
        program("sendmail"),
        site.configuration().display().to_string()
    );
    fs::write(site.configuration(), text.replace("[delivery]", &sendmail)).unwrap();
    // Nobody makes sendmail setgid here: the files get their group from the directory.
    let drop = site.queue().join("drop");
    fs::set_permissions(&drop, fs::Permissions::from_mode(0o3733)).unwrap();
    store::forward(&site, "friend@example.net\n");
    site
}

/// How many messages are in the queue; each must be the one that was sent on, and whole.
fn sent_on(site: &Site, message: &[u8]) -> Result<usize, String> {
    let drop = site.queue().join("drop");
    let names = site.queued_in("drop");
    for name in &names {
        let entry = entry::read(&drop.join(name))?;
        let text = String::from_utf8_lossy(message).replace('\n', "\r\n");
        let (_, body) = text.split_once("\r\n\r\n").unwrap();
        let content = String::from_utf8_lossy(&entry.content).into_owned();
        let whole = content.ends_with(&format!("\r\n\r\n{body}"))
            && content.contains("Delivered-To: hunt@smkwlab.net\r\n")
            && entry.recipients.len() == 1;
        if !whole {
            return Err(format!("drop/{name} is not the message: {content}"));
        }
    }
    Ok(names.len())
}

#[test]
fn sending_on_killed_anywhere_puts_nothing_or_a_whole_message_into_the_queue() {
    if !need("strace") {
        return;
    }
    for who in callers() {
        let skip = ["close", "fcntl", "poll", "ppoll"];
        kill_at_each(&format!("a .forward to another host, by {who:?}"), &skip, |attempt| {
            let site = with_queue();
            let code = deliver(&site, *who, attempt)?;
            let sent = sent_on(&site, &message(1, SIZE))?;
            if sent < is_delivered(code) || sent > 1 {
                return Err(format!("{sent} messages are in the queue after {code:?}"));
            }
            Ok(())
        });
    }
}

/// Two messages for two users in one LMTP session; how many 250 each user's deliveries got.
fn converse(peer: &mut Peer) -> [usize; 2] {
    let mut delivered = [0; 2];
    let mut said = peer.reply();
    for number in [1, 2] {
        let hello = if number == 1 { "LHLO client.example" } else { "NOOP" };
        for command in [
            hello,
            "MAIL FROM:<a@example.org>",
            "RCPT TO:<hunt@smkwlab.net>",
            "RCPT TO:<toshi@smkwlab.net>",
            "DATA",
        ] {
            if said.is_empty() || said.starts_with(['4', '5']) {
                return delivered;
            }
            said = peer.command(command);
        }
        if !said.starts_with("354 ") {
            return delivered;
        }
        peer.send(stuffed(&message(number, SIZE)));
        for count in &mut delivered {
            said = peer.reply();
            if said.is_empty() {
                return delivered;
            }
            *count += usize::from(said.starts_with("250 2.0.0 "));
        }
        said = "250 ".into();
    }
    peer.command("QUIT");
    delivered
}

#[test]
fn lmtp_for_everybody_killed_anywhere_has_what_it_said_250_to() {
    if !need("strace") || !need_root() {
        return;
    }
    let skip = ["close", "fcntl", "read"];
    kill_at_each("LMTP for everybody", &skip, |attempt: &Attempt| {
        let site = Form::Mbox.site();
        site.fill("toshi", &store::older());
        let mut command = site.command("local-deliver");
        command.arg("--lmtp");
        let (server, mut peer) = Site::session_of(attempt.wrap(&command));
        let promised = converse(&mut peer);
        drop(peer);
        server.join();
        if attempt.is_whole() && promised != [2, 2] {
            return Err(format!("{promised:?} were accepted"));
        }
        deliver_next(&site)?;
        site.local_deliver("toshi", SENDER, &message(3, 500)).expect(0);
        let texts = [message(1, SIZE), message(2, SIZE), message(2, 500)];
        let texts: Vec<&[u8]> = texts.iter().map(Vec::as_slice).collect();
        let hunt = Form::Mbox.found(&site.inbox("hunt"), &texts)?;
        let count = |number| hunt.iter().filter(|one| **one == number).count();
        if count(0) > 1 || count(1) > 1 || count(0) + count(1) < promised[0] || count(2) != 1 {
            return Err(format!("hunt has {hunt:?} after {promised:?}"));
        }
        let toshi = site.messages("toshi");
        let whole = toshi.iter().filter(|found| {
            let wanted = [message(1, SIZE), message(2, SIZE), message(3, 500)];
            wanted.iter().any(|wanted| {
                let text = String::from_utf8_lossy(wanted);
                text.split_once("\n\n").unwrap().1 == found.text()
            })
        });
        // The older one, and what was delivered behind the session.
        if whole.count() + 1 != toshi.len() || toshi.len() < promised[1] + 2 {
            return Err(format!("toshi has {} messages after {promised:?}", toshi.len()));
        }
        Ok(())
    });
}

#[test]
fn a_power_cut_loses_nothing_that_was_delivered_into_a_maildir() {
    if !need("strace") {
        return;
    }
    for (who, exists) in callers().iter().flat_map(|who| [(*who, true), (*who, false)]) {
        let site = if exists { Form::Maildir.site() } else { Form::Maildir.plan().build() };
        let maildir = Form::Maildir.inbox(&site);
        let recorder = Recorder::new(site.path()).owned_by(Site::owner);
        let mut command = recorder.wrap(&store::local_deliver(&site));
        who.run_by(&site, &mut command);
        run(&mut command, &message(1, SIZE)).expect(0);
        let report = recorder.finish("").replay(&mut |moment| {
            let (first, second) = (message(1, SIZE), message(2, 500));
            let found = |messages: &[&[u8]]| {
                if exists {
                    Form::Maildir.found(&maildir, messages)
                } else {
                    store::in_directories(&maildir, messages)
                }
            };
            if found(&[&first])?.len() < is_delivered(moment.ended) {
                return Err("what was told to be delivered is not there".into());
            }
            deliver_next(&site)?;
            let both = found(&[&first, &second])?;
            if both.contains(&1) { Ok(()) } else { Err(format!("{both:?} is there")) }
        });
        report.expect_none(&format!("local-deliver into a Maildir, by {who:?}"));
        assert!(report.states > 2, "the model saw nothing");
    }
}

//! What happens between this host and a mail exchange: extensions, TLS, many messages, refusals at
//! every step, and peers that hang up, flood or lie.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests and their helpers fail by panicking"
)]

mod support;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use support::exchange::{Act, Exchange, Script, Step, Tls};
use support::network::Network;
use support::peer::stuffed;
use support::report::{self, Report};
use support::run::Ran;
use support::site::{HOST, Site};

const NONE: [&str; 0] = [];
const SENDER: &str = "toshi@smkwlab.net";
const TEXT: &str = "Subject: far\n\nHello.\n";

/// A host, and one that takes the mail of there.test.
struct Pair {
    network: Network,
    exchange: Exchange,
    site: Site,
}

impl Pair {
    fn new(script: Script) -> Self {
        Self::with(script, &[])
    }

    /// With these keys in `[delivery]`.
    fn with(script: Script, keys: &[(&str, &str)]) -> Self {
        let network = Network::new();
        network.dns.set("there.test MX 10 mx.there.test");
        network.dns.set("mx.there.test A 127.0.0.3");
        let exchange = network.exchange(3, script);
        let plan = keys.iter().fold(network.plan().in_memory(), |plan, (key, value)| {
            plan.set("delivery", key, value)
        });
        Self { exchange, site: plan.build(), network }
    }

    fn submit(&self, to: &[&str]) {
        self.site.submit(SENDER, to, TEXT);
    }

    #[track_caller]
    fn run(&self) -> Ran {
        self.site.mta_queue(&["--flush"]).expect(0)
    }

    /// One run, after which nothing waits.
    #[track_caller]
    fn run_to_the_end(&self) -> Ran {
        let ran = self.run();
        assert_eq!(self.site.queued(), NONE, "{ran}\n{:?}", self.exchange.sessions());
        ran
    }

    /// One run, after which the message waits with this code.
    #[track_caller]
    fn run_and_wait(&self, code: &str) -> Ran {
        let ran = self.run();
        let sessions = self.exchange.sessions();
        assert_eq!(self.site.queued_in("deferred").len(), 1, "{ran}\n{sessions:?}");
        assert!(ran.stderr.contains(&format!("dsn={code}")), "{code} {ran}");
        assert!(ran.stderr.contains("status=deferred"), "{ran}");
        assert_eq!(self.site.messages("toshi").len(), 0, "{ran}");
        ran
    }

    /// One run, after which the message is back at its sender.
    #[track_caller]
    fn run_and_bounce(&self) -> Report {
        let ran = self.run_to_the_end();
        let messages = self.site.messages("toshi");
        assert_eq!(messages.len(), 1, "{ran}");
        let report = report::of_message(&messages[0]);
        assert_eq!(report.action, "failed", "{ran}");
        report
    }
}

// Extensions.

#[test]
fn a_server_that_knows_no_ehlo_is_greeted_with_helo_and_given_no_parameters() {
    for refusal in ["500 5.5.1 What?", "502 5.5.1 Not here"] {
        let script = Script::polite().rule(move |turn| match turn.step {
            Step::Connect => Act::reply("220 mx.there.test SMTP"),
            Step::Ehlo => Act::reply(refusal),
            _ => Act::Polite,
        });
        let pair = Pair::new(script);
        pair.submit(&["a@there.test"]);
        pair.run_to_the_end();
        assert_eq!(pair.exchange.only_message().parameters, "");
        let commands = &pair.exchange.sessions()[0].commands;
        assert_eq!(commands[..2], [format!("EHLO {HOST}"), format!("HELO {HOST}")]);
        assert_eq!(pair.exchange.complaints(), NONE);
    }
}

#[test]
fn commands_are_sent_together_only_where_that_is_offered() {
    for offered in [true, false] {
        let extensions: &[&str] = if offered { &["PIPELINING", "SIZE"] } else { &["SIZE"] };
        let pair = Pair::new(Script::polite().extensions(extensions));
        pair.submit(&["a@there.test", "b@there.test", "c@there.test"]);
        pair.run_to_the_end();
        assert_eq!(pair.exchange.only_message().recipients.len(), 3);
        assert_eq!(pair.exchange.sessions()[0].pipelined, offered);
        assert_eq!(pair.exchange.complaints(), NONE);
    }
}

#[test]
fn a_message_that_is_larger_than_the_server_takes_is_returned_without_being_sent() {
    let pair = Pair::new(Script::polite().extensions(&["PIPELINING", "SIZE 2000"]));
    let text = format!("Subject: large\n\n{}", "x".repeat(70).repeat(40));
    pair.site.submit(SENDER, &["a@there.test"], &text);
    let report = pair.run_and_bounce();
    assert_eq!(report.status, "5.3.4");
    let session = &pair.exchange.sessions()[0];
    assert_eq!((session.count("MAIL"), session.count("DATA")), (0, 0));
    // A smaller one goes, and says how large it is.
    pair.submit(&["a@there.test"]);
    pair.run_to_the_end();
    let message = pair.exchange.only_message();
    let size = message.text.len();
    assert!(message.parameters.contains(&format!("SIZE={size}")), "{}", message.parameters);
}

#[test]
fn eight_bits_arrive_as_they_are_and_are_announced_where_that_is_offered() {
    let text = b"Subject: eight\n\n\xe3\x81\x93\xe3\x82\x93 \xff\x80\n";
    for offered in [true, false] {
        let extensions: &[&str] = if offered { &["8BITMIME"] } else { &[] };
        let pair = Pair::new(Script::polite().extensions(extensions));
        let (_smtpd, mut client) = pair.site.session("smtpd");
        client.greet();
        client.command(format!("MAIL FROM:<{SENDER}> BODY=8BITMIME"));
        client.command("RCPT TO:<a@there.test>");
        client.command("DATA");
        client.send(stuffed(text));
        assert!(client.reply().starts_with("250 "), "{}", client.dialogue());
        pair.run_to_the_end();
        let message = pair.exchange.only_message();
        assert!(message.text.ends_with(b"\xe3\x81\x93\xe3\x82\x93 \xff\x80\r\n"));
        assert_eq!(message.parameters, if offered { "BODY=8BITMIME" } else { "" });
        assert_eq!(pair.exchange.complaints(), NONE);
    }
}

// TLS.

#[test]
fn a_connection_is_encrypted_where_that_is_offered_whoever_signed() {
    let pair = Pair::new(Script::polite().tls(Tls::SelfSigned));
    pair.submit(&["a@there.test"]);
    pair.run_to_the_end();
    assert!(pair.exchange.only_message().tls);
    let session = &pair.exchange.sessions()[0];
    assert_eq!(session.count("EHLO"), 2);
    assert_eq!(session.count("QUIT"), 1);
    assert_eq!(pair.exchange.sessions().len(), 1);
    assert_eq!(pair.exchange.complaints(), NONE);
}

#[test]
fn where_tls_fails_the_mail_goes_in_clear_by_another_connection() {
    for tls in [Tls::Broken, Tls::HangsUp] {
        let pair = Pair::new(Script::polite().tls(tls));
        pair.submit(&["a@there.test"]);
        pair.run_to_the_end();
        assert!(!pair.exchange.only_message().tls);
        let sessions = pair.exchange.sessions();
        let tries: Vec<usize> = sessions.iter().map(|session| session.count("STARTTLS")).collect();
        assert_eq!(tries, [1, 0], "{tls:?}: {sessions:?}");
        assert_eq!(pair.exchange.complaints(), NONE);
    }
}

#[test]
fn where_starttls_is_refused_the_mail_goes_in_clear() {
    for refusal in ["454 4.7.0 TLS not available", "501 5.5.4 No"] {
        let script = Script::polite().tls(Tls::SelfSigned).at(Step::StartTls, Act::reply(refusal));
        let pair = Pair::new(script);
        pair.submit(&["a@there.test"]);
        pair.run_to_the_end();
        assert!(!pair.exchange.only_message().tls);
    }
}

#[test]
fn what_stands_in_clear_behind_the_answer_to_starttls_is_no_reply() {
    // The injected reply says that nothing larger than one byte is taken: who believes it returns
    // the message. Somebody stands between us and the host; the next host gets it.
    let pair = Pair::new(Script::polite().tls(Tls::Injects));
    pair.submit(&["a@there.test"]);
    let ran = pair.run_and_wait("4.5.0");
    assert!(ran.stderr.contains("STARTTLS"), "{ran}");
    assert_eq!(pair.exchange.attempts().len(), 0);
    pair.network.dns.set("there.test MX 20 spare.there.test");
    pair.network.dns.set("spare.there.test A 127.0.0.4");
    let spare = pair.network.exchange(4, Script::polite());
    pair.run_to_the_end();
    spare.only_message();
}

// Many messages, many recipients.

#[test]
fn many_messages_to_one_host_share_a_connection() {
    let pair = Pair::with(Script::polite(), &[("concurrency_per_domain", "1")]);
    for _ in 0..30 {
        pair.submit(&["a@there.test"]);
    }
    pair.run_to_the_end();
    assert_eq!(pair.exchange.count(), 30);
    assert_eq!(pair.exchange.most_at_once(), 1);
    assert!(pair.exchange.sessions().len() <= 3, "{} connections", pair.exchange.sessions().len());
    assert_eq!(pair.exchange.complaints(), NONE);
}

#[test]
fn no_domain_gets_more_connections_at_once_than_configured() {
    let slow = Act::After(Duration::from_millis(50), Box::new(Act::Polite));
    let script = Script::polite().at(Step::End, slow);
    let pair = Pair::with(script, &[("concurrency_per_domain", "3")]);
    for _ in 0..30 {
        pair.submit(&["a@there.test"]);
    }
    pair.run_to_the_end();
    assert_eq!(pair.exchange.count(), 30);
    assert_eq!(pair.exchange.most_at_once(), 3);
}

#[test]
fn every_one_of_many_recipients_gets_one_copy() {
    let all: Vec<String> = (0..250).map(|number| format!("user{number}@there.test")).collect();
    let to: Vec<&str> = all.iter().map(String::as_str).collect();
    for limit in [1000, 100, 30] {
        let script = Script::polite().rule(move |turn| match turn.step {
            Step::Rcpt if turn.recipients.len() >= limit => {
                Act::reply("452 4.5.3 Too many recipients")
            }
            _ => Act::Polite,
        });
        let pair = Pair::new(script);
        pair.submit(&to);
        for _ in 0..10 {
            pair.run();
        }
        assert_eq!(pair.site.queued(), NONE);
        let messages = pair.exchange.messages();
        let got: Vec<&String> = messages.iter().flat_map(|message| &message.recipients).collect();
        assert_eq!(got.len(), 250);
        assert_eq!(got.into_iter().collect::<BTreeSet<_>>().len(), 250);
        assert!(messages.iter().all(|message| message.recipients.len() <= 100));
    }
}

#[test]
fn each_recipient_has_a_fate_of_its_own() {
    let script = Script::polite().rule(|turn| match turn.step {
        Step::Rcpt if turn.line.contains("later") => Act::reply("450 4.2.1 Come back at six"),
        Step::Rcpt if turn.line.contains("nobody") => {
            Act::reply("550-5.1.1 Nobody of that name\n550 5.1.1 lives in this house")
        }
        _ => Act::Polite,
    });
    let pair = Pair::new(script);
    pair.submit(&["later@there.test", "a@there.test", "nobody@there.test"]);
    let ran = pair.run();
    assert_eq!(pair.exchange.only_message().recipients, ["a@there.test"]);
    assert_eq!(pair.site.queued_in("deferred").len(), 1, "{ran}");
    assert!(ran.stderr.contains("dsn=4.2.1, status=deferred"), "{ran}");
    assert!(ran.stderr.contains("Come back at six"), "{ran}");
    let messages = pair.site.messages("toshi");
    assert_eq!(messages.len(), 1);
    let report = report::of_message(&messages[0]);
    assert_eq!(report.recipient, "nobody@there.test");
    assert_eq!(report.others, NONE);
    assert_eq!(report.status, "5.1.1");
    assert_eq!(report.remote_mta, "dns; mx.there.test");
    assert!(report.diagnostic.starts_with("smtp; 550"), "{report:?}");
    for words in ["Nobody of that name", "lives in this house"] {
        assert!(report.diagnostic.contains(words), "{report:?}");
        assert!(report.words.contains(words), "{report:?}");
    }
    // Who has it does not get it again.
    let ran = pair.run();
    assert_eq!(pair.site.queued_in("deferred").len(), 1, "{ran}");
    assert_eq!(pair.site.messages("toshi").len(), 1, "{ran}");
    assert_eq!(pair.exchange.count(), 1);
}

#[test]
fn a_message_that_nobody_may_have_is_not_sent() {
    // The second server answers 354 although it has accepted no one, as some do when the commands
    // come together: it gets an empty text (RFC 2920 section 3.1).
    for careless in [false, true] {
        let script = Script::polite().rule(move |turn| match turn.step {
            Step::Rcpt => Act::reply("550 5.1.1 Nobody"),
            Step::Data if careless => Act::reply("354 Go on"),
            Step::End => Act::reply("554 5.5.1 No valid recipients"),
            _ => Act::Polite,
        });
        let pair = Pair::new(script);
        pair.submit(&["a@there.test", "b@there.test"]);
        let report = pair.run_and_bounce();
        assert_eq!(report.status, "5.1.1");
        assert_eq!(report.others.len(), 1);
        assert!(pair.exchange.attempts().iter().all(|message| message.text.is_empty()));
    }
}

// Refusals at every step.

/// The steps where a reply can be wrong, with what they normally wait for.
const STEPS: [Step; 5] = [Step::Connect, Step::Mail, Step::Rcpt, Step::Data, Step::End];

#[test]
fn what_is_refused_for_now_waits_and_is_delivered_later() {
    for step in STEPS {
        let script = Script::polite().rule(move |turn| {
            if turn.step == step && turn.session == 0 {
                Act::reply("451 4.7.1 Greylisted, come back")
            } else {
                Act::Polite
            }
        });
        let pair = Pair::new(script);
        pair.submit(&["a@there.test"]);
        let ran = pair.run_and_wait("4.7.1");
        assert!(ran.stderr.contains("Greylisted, come back"), "{step:?}: {ran}");
        assert_eq!(pair.exchange.count(), 0, "{step:?}: {ran}");
        pair.run_to_the_end();
        pair.exchange.only_message();
    }
}

#[test]
fn what_is_refused_for_good_comes_back_with_the_servers_words() {
    for step in [Step::Mail, Step::Rcpt, Step::Data, Step::End] {
        let refusal = Act::reply("554 5.7.1 We know your kind");
        let pair = Pair::new(Script::polite().at(step, refusal));
        pair.submit(&["a@there.test"]);
        let report = pair.run_and_bounce();
        assert_eq!(report.status, "5.7.1", "{step:?}");
        assert_eq!(report.remote_mta, "dns; mx.there.test", "{step:?}");
        assert_eq!(report.diagnostic, "smtp; 554 5.7.1 We know your kind", "{step:?}");
        assert!(report.words.contains("We know your kind"), "{step:?}: {report:?}");
    }
}

#[test]
fn a_code_without_an_enhanced_one_gets_the_general_one() {
    let pair = Pair::new(Script::polite().at(Step::End, Act::reply("554 No")));
    pair.submit(&["a@there.test"]);
    let report = pair.run_and_bounce();
    assert_eq!((report.status.as_str(), report.diagnostic.as_str()), ("5.0.0", "smtp; 554 No"));
}

#[test]
fn a_server_that_goes_away_loses_nothing() {
    let ends = [Act::HangUp, Act::Reset, Act::Last("421 4.3.2 Shutting down".into())];
    for step in [Step::Connect, Step::Ehlo, Step::Mail, Step::Rcpt, Step::Data, Step::End] {
        for end in &ends {
            let act = end.clone();
            let script = Script::polite().rule(move |turn| {
                if turn.step == step && turn.session == 0 { act.clone() } else { Act::Polite }
            });
            let pair = Pair::new(script);
            pair.submit(&["a@there.test"]);
            let ran = pair.run();
            if !pair.site.queued().is_empty() {
                let code = match (step, end) {
                    (_, Act::Last(_)) => "dsn=4.3.2",
                    // The connection may be gone before the client knows that it was there.
                    (Step::Connect, Act::Reset) if ran.stderr.contains("dsn=4.4.1") => "dsn=4.4.1",
                    _ => "dsn=4.4.2",
                };
                assert!(ran.stderr.contains(code), "{step:?} {end:?}: {ran}");
                assert_eq!(pair.site.queued_in("deferred").len(), 1, "{step:?} {end:?}: {ran}");
                pair.run_to_the_end();
            }
            pair.exchange.only_message();
            assert_eq!(pair.site.messages("toshi").len(), 0, "{step:?} {end:?}: {ran}");
        }
    }
}

#[test]
fn a_connection_that_ends_between_two_messages_loses_nothing() {
    for end in [Act::HangUp, Act::Reset, Act::Last("421 4.4.2 That was enough".into())] {
        let script = Script::polite().rule(move |turn| match turn.step {
            Step::Mail if turn.nth == 2 => end.clone(),
            _ => Act::Polite,
        });
        let pair = Pair::with(script, &[("concurrency_per_domain", "1")]);
        for number in 0..7 {
            let text = format!("Subject: {number}\n\nx\n");
            pair.site.submit(SENDER, &["a@there.test"], text);
        }
        for _ in 0..4 {
            pair.run();
        }
        assert_eq!(pair.site.queued(), NONE);
        let messages = pair.exchange.messages();
        let subjects: BTreeSet<String> =
            messages.iter().filter_map(|message| message.field("Subject")).collect();
        assert_eq!((subjects.len(), messages.len()), (7, 7));
    }
}

#[test]
fn a_server_that_answers_nothing_to_the_last_dot_may_get_the_message_twice_but_gets_it() {
    // It has the message, and nobody can know.
    let script = Script::polite().rule(|turn| match turn.step {
        Step::End if turn.session == 0 => Act::HangUp,
        _ => Act::Polite,
    });
    let pair = Pair::new(script);
    pair.submit(&["a@there.test"]);
    pair.run_and_wait("4.4.2");
    pair.run_to_the_end();
    assert_eq!(pair.exchange.attempts().len(), 2);
    pair.exchange.only_message();
}

// Peers that flood or lie.

#[test]
fn a_server_that_floods_is_left_and_the_mail_waits() {
    let floods: [&[u8]; 4] = [
        b"250-and so on\r\n",
        b"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
        b"\x00\x01\xff\xfe\r\n\x80\n",
        b"220 mx.there.test\r\n",
    ];
    for step in [Step::Connect, Step::Ehlo, Step::Mail, Step::End] {
        for flood in floods {
            // Any 2yz is the wanted answer to these (RFC 5321 section 4.2.1).
            if matches!(step, Step::Connect | Step::End) && flood.starts_with(b"220 ") {
                continue;
            }
            let pair = Pair::new(Script::polite().at(step, Act::Flood(flood.to_vec())));
            pair.submit(&["a@there.test"]);
            let ran = pair.run();
            // A wrong code is a refusal, if a strange one; a flood is none.
            let bounced = pair.site.messages("toshi").len();
            let waits = pair.site.queued_in("deferred").len();
            assert_eq!((bounced, waits), (0, 1), "{step:?} {}: {ran}", flood.escape_ascii());
        }
    }
}

#[test]
fn what_is_no_reply_is_taken_for_none() {
    let lies: [&[u8]; 7] = [
        b"hello\r\n",
        b"2\r\n",
        b"25\r\n",
        b"2500 Ok\r\n",
        b"\r\n",
        b"\xff\xfe\r\n",
        b"999 Ok\r\n",
    ];
    for step in [Step::Ehlo, Step::Rcpt, Step::End] {
        for lie in lies {
            let raw = lie.to_vec();
            let lying = Arc::new(AtomicBool::new(true));
            let lies_now = Arc::clone(&lying);
            let script = Script::polite().rule(move |turn| {
                if turn.step == step && lies_now.load(Ordering::Relaxed) {
                    Act::Raw(raw.clone())
                } else {
                    Act::Polite
                }
            });
            let pair = Pair::new(script);
            pair.submit(&["a@there.test"]);
            let ran = pair.run();
            let waits = pair.site.queued_in("deferred").len();
            let bounced = pair.site.messages("toshi").len();
            assert_eq!((bounced, waits), (0, 1), "{step:?} {}: {ran}", lie.escape_ascii());
            lying.store(false, Ordering::Relaxed);
            pair.run_to_the_end();
        }
    }
}

#[test]
fn a_servers_words_forge_nothing_in_the_log_or_the_report() {
    let words = "550 5.1.1 no\x1b[31m\x00\u{85}\r250 status=sent <b@there.test>: fine";
    let pair = Pair::new(Script::polite().at(Step::Rcpt, Act::Raw(format!("{words}\r\n").into())));
    pair.submit(&["a@there.test"]);
    let ran = pair.run();
    assert!(!ran.stderr.contains(['\x1b', '\0', '\r', '\u{85}']), "{:?}", ran.stderr);
    for message in pair.site.messages("toshi") {
        let text = message.text();
        assert!(!text.contains(['\x1b', '\0', '\r']), "{text:?}");
    }
}

// The text.

#[test]
fn a_message_arrives_byte_for_byte() {
    let long = format!("Subject: long\n\n{}\n{}\n", "x".repeat(998), "y".repeat(5000));
    let messages: [&[u8]; 9] = [
        b"Subject: dots\n\n.\n..\n...\n.x\n\n.\n",
        b"Subject: eight\n\n\x80\xff\xfe\xc3\xa4\n",
        b"Subject: no body\n\n",
        b"Subject: no empty line\n",
        b"no header\n",
        b"\nno header but a body\n",
        b"Subject: from\n\nFrom here\n>From there\n",
        b"Subject: controls\n\n\x00\x01\x7f\t\x0b\n",
        long.as_bytes(),
    ];
    let pair = Pair::with(Script::polite(), &[("concurrency_per_domain", "1")]);
    for message in messages {
        pair.site.submit(SENDER, &["a@there.test"], message);
    }
    pair.run_to_the_end();
    let mut got: Vec<Vec<u8>> = pair.exchange.messages().into_iter().map(|got| got.text).collect();
    assert_eq!(got.len(), messages.len());
    for message in messages {
        // As DATA has it, without its dots: the reference is the test's own client.
        let wire = stuffed(message);
        let wire = wire.strip_suffix(b".\r\n").unwrap();
        let wanted: Vec<u8> = wire
            .split_inclusive(|byte| *byte == b'\n')
            .flat_map(|line| line.strip_prefix(b".").unwrap_or(line).to_vec())
            .collect();
        let found = got.iter().position(|text| {
            text.ends_with(&wanted) && text[..text.len() - wanted.len()].starts_with(b"Received: ")
        });
        let found = found.unwrap_or_else(|| panic!("{} is lost", message.escape_ascii()));
        let head = got.swap_remove(found);
        let head = String::from_utf8_lossy(&head[..head.len() - wanted.len()]).into_owned();
        let fields = head.lines().filter(|line| !line.starts_with([' ', '\t']) && !line.is_empty());
        assert_eq!(fields.count(), 1, "nothing but Received is put before it: {head}");
    }
}

#[test]
fn a_large_message_arrives_whole_over_tls_and_in_clear() {
    let mut text = b"Subject: large\n\n".to_vec();
    for number in 0.. {
        if text.len() > 5_000_000 {
            break;
        }
        text.extend_from_slice(
            format!(".{number} {}\n", "\u{3042}".repeat(number % 20)).as_bytes(),
        );
    }
    for script in [Script::polite(), Script::polite().tls(Tls::SelfSigned)] {
        let pair = Pair::new(script);
        pair.site.submit(SENDER, &["a@there.test"], &text);
        pair.run_to_the_end();
        let got = pair.exchange.only_message().text;
        let got: Vec<u8> = got.into_iter().filter(|byte| *byte != b'\r').collect();
        assert!(got.ends_with(&text), "{} bytes arrived, {} were sent", got.len(), text.len());
    }
}

#[test]
fn a_server_that_reads_slowly_gets_the_message_all_the_same() {
    let pause = |act| Act::After(Duration::from_millis(300), Box::new(act));
    let script = Script::polite().rule(move |turn| match turn.step {
        Step::Connect | Step::Ehlo | Step::Mail | Step::Rcpt | Step::End => pause(Act::Polite),
        _ => Act::Polite,
    });
    let pair = Pair::new(script);
    pair.submit(&["a@there.test"]);
    pair.run_to_the_end();
    pair.exchange.only_message();
}

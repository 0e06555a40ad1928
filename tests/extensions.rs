//! What a client of smtpd asks for by an extension, and what becomes of it on the way: in the queue, at
//! the next host, in the mailbox, and in the reports to the sender.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests and their helpers fail by panicking"
)]

mod support;

use std::process::Command;

use support::entry;
use support::exchange::{Act, Exchange, Script, Step};
use support::network::Network;
use support::outbox::Outbox;
use support::run::Ran;
use support::site::Site;

const NONE: [&str; 0] = [];
const SENDER: &str = "toshi@smkwlab.net";
const ALL: [&str; 7] =
    ["PIPELINING", "SIZE 0", "8BITMIME", "SMTPUTF8", "DSN", "CHUNKING", "BINARYMIME"];

/// A host, and one that takes the mail of there.test.
struct Pair {
    _network: Network,
    exchange: Exchange,
    site: Site,
    /// What local-deliver sends.
    outbox: Outbox,
}

impl Pair {
    fn new(script: Script) -> Self {
        Self::with(script, &[])
    }

    /// With these keys in `[queue]`.
    fn with(script: Script, keys: &[(&str, &str)]) -> Self {
        let network = Network::new();
        network.dns.set("there.test MX 10 mx.there.test");
        network.dns.set("mx.there.test A 127.0.0.3");
        let exchange = network.exchange(3, script);
        let outbox = Outbox::new();
        let plan = outbox.plan(network.plan().in_memory());
        let plan = keys.iter().fold(plan, |plan, (key, value)| plan.set("queue", key, value));
        let site = plan.build();
        Self { exchange, site, outbox, _network: network }
    }

    /// A message by SMTP: the parameters of MAIL, each RCPT as it is, and the text as one chunk.
    fn send(&self, sender: &str, mail: &str, recipients: &[&str], text: &[u8]) {
        let (_server, address) = self.site.serve("smtpd");
        let mut client = support::peer::Peer::connect(address);
        client.greet();
        client.command(format!("MAIL FROM:<{sender}> {mail}"));
        for recipient in recipients {
            let reply = client.command(format!("RCPT TO:{recipient}"));
            assert!(reply.starts_with("250 "), "{}", client.dialogue());
        }
        client.send([format!("BDAT {} LAST\r\n", text.len()).as_bytes(), text].concat());
        assert!(client.reply().starts_with("250 "), "{}", client.dialogue());
    }

    /// The envelope's lines of the only message of the queue, from the sender on.
    fn envelope(&self) -> Vec<String> {
        let path = self.site.queued_in("incoming").pop().expect("a message in the queue");
        let path = self.site.queue().join("incoming").join(path);
        let lines = entry::read(&path).unwrap().envelope;
        lines.iter().skip(2).map(|(key, value)| format!("{key} {value}")).collect()
    }

    fn run(&self) -> Ran {
        self.site.mta_queue(&["--flush"]).expect(0)
    }

    fn run_to_the_end(&self) -> Ran {
        let ran = self.run();
        assert_eq!(self.site.queued(), NONE, "{ran}\n{:?}", self.exchange.sessions());
        assert_eq!(self.exchange.complaints(), NONE);
        ran
    }

    /// What the sender was told.
    fn reports(&self) -> Vec<String> {
        let messages = self.site.messages("toshi");
        messages.iter().map(|message| String::from_utf8_lossy(&message.body).into_owned()).collect()
    }

    fn commands(&self) -> Vec<String> {
        self.exchange.sessions().iter().flat_map(|session| session.commands.clone()).collect()
    }
}

#[test]
fn what_a_sender_asks_for_is_queued_and_passed_on_to_who_understands_it() {
    let pair = Pair::new(Script::polite().extensions(&ALL));
    let mail = "RET=HDRS ENVID=QQ+20+2Bx";
    let recipients =
        ["<a@there.test> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;Bob+2Bx@c.example", "<b@there.test>"];
    pair.send(SENDER, mail, &recipients, b"Subject: x\r\n\r\nt\r\n");
    let wanted = [
        "sender <toshi@smkwlab.net>",
        "ret HDRS",
        "envid QQ+20+2Bx",
        "recipient <a@there.test>",
        "notify SUCCESS,DELAY",
        "orcpt rfc822;Bob+2Bx@c.example",
        "recipient <b@there.test>",
    ];
    assert_eq!(pair.envelope(), wanted);
    pair.run_to_the_end();
    let commands = pair.commands();
    let has = |wanted: &str| commands.iter().any(|line| line.ends_with(wanted));
    assert!(has(" RET=HDRS ENVID=QQ+20+2Bx"), "{commands:?}");
    assert!(has("RCPT TO:<a@there.test> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;Bob+2Bx@c.example"));
    assert!(has("RCPT TO:<b@there.test>"));
    // The other host tells of the success, not we.
    assert_eq!(pair.reports(), NONE);
}

#[test]
fn where_the_next_host_does_not_know_dsn_we_say_that_it_was_relayed() {
    let pair = Pair::new(Script::polite());
    let recipients = [
        "<a@there.test> NOTIFY=SUCCESS ORCPT=rfc822;a+2Bb@c",
        "<b@there.test>",
        "<c@there.test> NOTIFY=NEVER",
    ];
    pair.send(SENDER, "ENVID=QQ+20x", &recipients, b"Subject: x\r\n\r\nsecret\r\n");
    pair.run_to_the_end();
    pair.run_to_the_end();
    let reports = pair.reports();
    assert_eq!(reports.len(), 1, "{reports:?}");
    for line in [
        "Original-Envelope-Id: QQ x\n",
        "Original-Recipient: rfc822; a+b@c\n",
        "Final-Recipient: rfc822; a@there.test\n",
        "Action: relayed\n",
        "Status: 2.",
    ] {
        assert!(reports[0].contains(line), "{line} {}", reports[0]);
    }
    assert!(!reports[0].contains("b@there.test") && !reports[0].contains("secret"));
}

#[test]
fn notify_and_ret_rule_the_report_of_a_failure() {
    let refuses = || Script::polite().at(Step::Rcpt, Act::reply("550 5.1.1 no such user"));
    for (parameters, count) in
        [("", 1), ("NOTIFY=FAILURE", 1), ("NOTIFY=NEVER", 0), ("NOTIFY=SUCCESS,DELAY", 0)]
    {
        for (ret, whole) in [("RET=FULL", true), ("RET=HDRS", false), ("", false)] {
            let pair = Pair::new(refuses());
            let recipient = format!("<a@there.test> {parameters}");
            pair.send(SENDER, ret, &[&recipient], b"Subject: x\r\n\r\nsecret\r\n");
            pair.run_to_the_end();
            pair.run_to_the_end();
            let reports = pair.reports();
            assert_eq!(reports.len(), count, "{parameters}: {reports:?}");
            for report in reports {
                assert_eq!(report.contains("secret"), whole, "{ret}: {report}");
                assert_eq!(report.contains("Content-Type: message/rfc822"), whole, "{report}");
            }
        }
    }
}

#[test]
fn a_success_in_a_mailbox_is_told_once_for_each_who_wanted_that() {
    let pair = Pair::new(Script::polite());
    // Both mean one mailbox, which gets one copy.
    let recipients = ["<hunt@smkwlab.net> NOTIFY=SUCCESS", "<HUNT@smkwlab.net> NOTIFY=SUCCESS"];
    pair.send(SENDER, "ENVID=e1", &recipients, b"Subject: x\r\n\r\nt\r\n");
    pair.run_to_the_end();
    pair.run_to_the_end();
    assert_eq!(pair.site.messages("hunt").len(), 1);
    let ours = pair.reports();
    let agents: Vec<String> = pair.outbox.sent().into_iter().map(|sent| sent.message).collect();
    assert_eq!((ours.len(), agents.len()), (1, 1), "{ours:?} {agents:?}");
    assert!(!ours[0].contains("mailbox="), "{}", ours[0]);
    for report in [&ours[0], &agents[0]] {
        assert!(report.contains("Action: delivered\n"), "{report}");
        assert!(report.contains("Original-Envelope-Id: e1\n"), "{report}");
    }
}

#[test]
fn utf8_goes_to_those_who_know_it_and_comes_back_from_others() {
    let sender = "jos\u{e9}@smkwlab.net";
    let text = "Subject: \u{e9}\r\n\r\nt\r\n".as_bytes();
    let pair = Pair::new(Script::polite().extensions(&ALL));
    pair.send(sender, "SMTPUTF8 BODY=8BITMIME", &["<\u{fc}@there.test>"], text);
    assert!(pair.envelope().contains(&"smtputf8 yes".to_owned()));
    pair.run_to_the_end();
    let message = pair.exchange.only_message();
    assert_eq!(
        (message.sender.as_str(), &message.recipients[0]),
        (sender, &"\u{fc}@there.test".to_owned())
    );
    assert!(message.parameters.ends_with("BODY=8BITMIME SMTPUTF8"), "{}", message.parameters);

    let pair = Pair::new(Script::polite());
    pair.send(SENDER, "SMTPUTF8", &["<\u{fc}@there.test>"], text);
    pair.run_to_the_end();
    pair.run_to_the_end();
    let reports = pair.reports();
    assert_eq!(reports.len(), 1);
    assert!(reports[0].contains("Status: 5.6.7\n"), "{}", reports[0]);
    assert!(reports[0].contains("Final-Recipient: utf-8; \u{fc}@there.test\n"), "{}", reports[0]);
    assert!(pair.commands().iter().all(|line| !line.starts_with("MAIL")));
}

#[test]
fn a_binary_text_goes_on_by_bdat_byte_for_byte_or_comes_back() {
    let binary: Vec<u8> = (0..=255).chain(*b"\r\n.\r\n\n.\n\r").collect();
    let header =
        b"Subject: x\r\nContent-Type: application/x\r\nContent-Transfer-Encoding: binary\r\n\r\n";
    let text = [&header[..], &binary].concat();
    let pair = Pair::new(Script::polite().extensions(&ALL));
    pair.send(SENDER, "BODY=BINARYMIME", &["<a@there.test>"], &text);
    assert!(pair.envelope().contains(&"body binarymime".to_owned()));
    pair.run_to_the_end();
    assert!(pair.exchange.only_message().text.ends_with(&text));
    assert!(pair.commands().iter().all(|line| line != "DATA"));

    for extensions in [&["CHUNKING", "8BITMIME"][..], &["BINARYMIME"], &[]] {
        let pair = Pair::new(Script::polite().extensions(extensions));
        pair.send(SENDER, "BODY=BINARYMIME RET=FULL", &["<a@there.test>"], &text);
        pair.run_to_the_end();
        pair.run_to_the_end();
        let reports = pair.reports();
        assert_eq!(reports.len(), 1);
        assert!(reports[0].contains("Status: 5.6.3\n"), "{}", reports[0]);
        assert!(pair.commands().iter().all(|line| !line.starts_with("MAIL")));
    }

    // A mailbox has lines: there it becomes base64.
    let pair = Pair::new(Script::polite());
    pair.send(SENDER, "BODY=BINARYMIME", &["<hunt@smkwlab.net>"], &text);
    pair.run_to_the_end();
    let message = pair.site.messages("hunt").pop().expect("a message");
    assert_eq!(message.field("Content-Transfer-Encoding"), Some("base64"));
    let mut part = b"Content-Transfer-Encoding: base64\r\n\r\n".to_vec();
    part.extend_from_slice(&message.body);
    assert_eq!(mailparse::parse_mail(&part).unwrap().get_body_raw().unwrap(), binary);
}

#[test]
fn no_second_message_comes_out_of_a_chunk() {
    for end in ["\r\n.\r\n", "\n.\n", "\n.\r\n", "\r\n.\n", "\r.\r", "\0\r\n.\r\n"] {
        let pair = Pair::new(Script::polite());
        let text = format!(
            "Subject: x\r\n\r\nt{end}MAIL FROM:<x@y>\r\nRCPT TO:<b@there.test>\r\nDATA\r\nu\r\n.\r\n"
        );
        pair.send(SENDER, "", &["<a@there.test>"], text.as_bytes());
        assert_eq!(pair.site.queued_in("incoming").len(), 1);
        pair.run_to_the_end();
        assert_eq!(pair.exchange.only_message().recipients, ["a@there.test"], "{end:?}");
    }
}

#[test]
fn sendmail_takes_the_wishes_of_its_caller() {
    let pair = Pair::new(Script::polite().extensions(&ALL));
    let sendmail =
        |arguments: &[&str]| pair.site.sendmail("toshi", arguments, b"Subject: x\n\nt\n");
    let done = sendmail(&["-N", "success,delay", "-Rhdrs", "-V", "QQ+2B", "a@there.test"]);
    done.expect(0);
    pair.run_to_the_end();
    let commands = pair.commands();
    let has = |wanted: &str| commands.iter().any(|line| line.ends_with(wanted));
    assert!(has(" RET=HDRS ENVID=QQ+2B"), "{commands:?}");
    assert!(has("RCPT TO:<a@there.test> NOTIFY=SUCCESS,DELAY"), "{commands:?}");
    for bad in [["-N", "sometimes"], ["-R", "body"], ["-V", "a b"], ["-V", "a+0Ab"]] {
        sendmail(&[bad[0], bad[1], "a@there.test"]).expect(64);
    }
}

/// Python's smtplib: a client that shares nothing with us and uses what EHLO offers.
#[test]
fn python_sends_with_utf8_and_asks_for_a_receipt() {
    if !support::need("python3") {
        return;
    }
    let pair = Pair::new(Script::polite());
    let (server, address) = pair.site.serve("smtpd");
    let script = "
import smtplib, sys
from email.message import EmailMessage
message = EmailMessage()
message['From'] = 'toshi@smkwlab.net'
message['To'] = 'hunt@smkwlab.net'
message['Subject'] = 'h\\u00e9llo'
message.set_content('t')
with smtplib.SMTP('127.0.0.1', int(sys.argv[1])) as client:
    client.ehlo()
    for word in ('smtputf8', 'dsn', 'chunking', 'binarymime', 'limits', 'size', 'pipelining'):
        assert client.has_extn(word), word
    client.send_message(message, mail_options=['SMTPUTF8', 'RET=HDRS', 'ENVID=py'],
        rcpt_options=['NOTIFY=SUCCESS'])
";
    let port = address.port().to_string();
    let done = Command::new("python3").args(["-c", script, &port]).output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    drop(server);
    pair.run_to_the_end();
    assert_eq!(pair.site.messages("hunt").len(), 1);
    let sent = pair.outbox.sent();
    assert!(sent.len() == 1 && sent[0].message.contains("Original-Envelope-Id: py\n"), "{sent:?}");
    assert_eq!(pair.reports(), NONE);
}

#[test]
fn only_who_wants_that_is_told_of_a_delay() {
    for (parameters, count) in
        [("", 1), ("NOTIFY=DELAY", 1), ("NOTIFY=FAILURE", 0), ("NOTIFY=NEVER", 0)]
    {
        let waits = Script::polite().at(Step::Rcpt, Act::reply("450 4.2.0 later"));
        let pair = Pair::with(waits, &[("warn_after", "\"1s\"")]);
        let recipient = format!("<a@there.test> {parameters}");
        pair.send(SENDER, "", &[&recipient], b"Subject: x\r\n\r\nt\r\n");
        std::thread::sleep(std::time::Duration::from_millis(2100));
        pair.run();
        pair.run();
        let reports = pair.reports();
        assert_eq!(reports.len(), count, "{parameters}: {reports:?}");
        assert!(reports.iter().all(|report| report.contains("Action: delayed\n")), "{reports:?}");
    }
}

//! Python's smtplib, on which thousands of scripts stand.

use std::process::Command;

use super::support::need;
use super::support::run::{Ran, run};
use super::{Host, PASSWORD, SERVICES, below_received, letter, same};

/// Connects as a script would, and has these names: `s` the connection, logged in as `hunt`, `files`
/// what more was given.
const BEGIN: &str = r"
import email.message, email.policy, smtplib, ssl, sys
service, port, authority, password, *files = sys.argv[1:]
c = ssl.create_default_context(cafile=authority)
c.check_hostname = False
def connect():
    if service == 'submissions':
        return smtplib.SMTP_SSL('127.0.0.1', int(port), 'client.example', timeout=30, context=c)
    s = smtplib.SMTP('127.0.0.1', int(port), 'client.example', timeout=30)
    s.starttls(context=c)
    return s
def logged_in():
    s = connect()
    s.login('hunt', password)
    return s
read = lambda name: open(name, 'rb').read()
HUNT, A = 'hunt@smkwlab.net', 'a@example.org'
";

fn python(host: &Host, service: &str, script: &str, files: &[&str]) -> Ran {
    let mut command = Command::new("python3");
    command.args(["-c", &format!("{BEGIN}{script}"), service, &host.port(service)]);
    command.args([&host.certificate(), PASSWORD]).args(files);
    // What it encodes must not depend on who runs the tests.
    run(command.env("PYTHONUTF8", "1"), b"")
}

#[test]
fn it_logs_in_and_sends_at_every_service() {
    if !need("python3") {
        return;
    }
    let host = Host::new();
    let file = host.file("letter", &letter("hunt"));
    let script = "
s = connect()
s.ehlo_or_helo_if_needed()
for mechanism in ['PLAIN', 'LOGIN']:
    for initial in [True, False]:
        s.user, s.password = 'hunt', password
        word = getattr(s, 'auth_' + mechanism.lower())
        code, text = s.auth(mechanism, word, initial_response_ok=initial)
        assert code == 235, text
        s.quit()
        s = connect()
        s.ehlo_or_helo_if_needed()
s.login('hunt', password)
s.sendmail(HUNT, [A], read(files[0]), mail_options=['BODY=8BITMIME'])
s.quit()
";
    for service in SERVICES {
        python(&host, service, script, &[&file]).expect(0);
        let line = host.took(service, "hunt", &letter("hunt"));
        assert!(line.contains(" proto=ESMTPSA tls=TLSv1.3 "), "{line}");
    }
}

pub fn it_tries_one_mechanism_after_the_other_and_says_why_none_helped() {
    if !need("python3") {
        return;
    }
    let host = Host::new();
    // PLAIN, then LOGIN; the third failure would end the session.
    let script = "
s = connect()
try:
    s.login('hunt', 'wrong')
    sys.exit('taken')
except smtplib.SMTPAuthenticationError as error:
    print(error.smtp_code, error.smtp_error.decode())
print(s.docmd('AUTH', 'CRAM-MD5'))
print(s.login('hunt', password)[0])
";
    let ran = python(&host, "submission", script, &[]).expect(0);
    let said = ran.text();
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines[0], "535 5.7.8 Error: authentication failed");
    assert!(lines[1].starts_with("(504, b'5.5.4 "), "{said}");
    assert_eq!(lines[2], "235");
    let (server, _) = host.server("submission");
    for mechanism in ["PLAIN", "LOGIN"] {
        server.wait_for_log(&format!("sasl_username=hunt, method={mechanism}"));
    }
}

/// Addresses and header fields that are not ASCII.
#[test]
fn international_mail_is_queued_as_it_was_written() {
    if !need("python3") {
        return;
    }
    let host = Host::new();
    let script = "
m = email.message.EmailMessage()
m['From'] = '飛脚 <hunt@smkwlab.net>'
m['To'] = '用户@例え.example, ' + A
m['Subject'] = 'こんにちは'
m['Date'] = 'Mon, 21 Jun 2004 03:15:20 +0900'
m['Message-ID'] = '<m@smkwlab.net>'
m.set_content('Grüße\\n.\\n..こ\\n', cte='8bit')
s = logged_in()
assert s.send_message(m) == {}
sys.stdout.buffer.write(m.as_bytes(policy=email.policy.SMTPUTF8))
";
    for service in SERVICES {
        let written = python(&host, service, script, &[]).expect(0).stdout;
        let (_, entry) = host.take();
        let (received, rest) = below_received(&entry.content);
        same(rest, &written);
        assert!(received.contains(" with UTF8SMTPSA id "), "{received}");
        assert_eq!(entry.recipients, ["用户@例え.example", "a@example.org"]);
        let text = String::from_utf8_lossy(rest);
        assert!(
            text.contains("Subject: こんにちは\r\n") && text.contains("\r\n.\r\n..こ\r\n"),
            "{text}"
        );
        assert!(format!("{:?}", entry.envelope).contains("smtputf8"), "{:?}", entry.envelope);
    }
    // Encoded words need no extension.
    let script = script.replace("用户@例え.example, ", "").replace("SMTPUTF8", "SMTP");
    let written = python(&host, "submission", &script, &[]).expect(0).stdout;
    let (_, entry) = host.take();
    let (received, rest) = below_received(&entry.content);
    same(rest, &written);
    assert!(received.contains(" with ESMTPSA id "), "{received}");
}

#[test]
fn what_it_asks_of_reports_is_kept() {
    if !need("python3") {
        return;
    }
    let host = Host::new();
    let file = host.file("letter", &letter("hunt"));
    let script = "
s = logged_in()
s.sendmail(HUNT, [A], read(files[0]),
    mail_options=['BODY=8BITMIME', 'RET=HDRS', 'ENVID=QQ314159'],
    rcpt_options=['NOTIFY=SUCCESS,DELAY', 'ORCPT=rfc822;a+2Bb@example.org'])
for wrong in ['RET=ALL', 'ENVID=', 'BODY=9BIT', 'COLOUR=blue', 'RET=HDRS RET=FULL']:
    code, text = s.mail(HUNT, [wrong])
    assert code in (501, 555), (wrong, code, text)
s.mail(HUNT)
for wrong in ['NOTIFY=NEVER,SUCCESS', 'NOTIFY=', 'ORCPT=a@example.org', 'COLOUR=blue']:
    code, text = s.rcpt(A, [wrong])
    assert code in (501, 555), (wrong, code, text)
s.quit()
";
    python(&host, "submission", script, &[&file]).expect(0);
    let (_, entry) = host.take();
    same(below_received(&entry.content).1, &letter("hunt"));
    let envelope = format!("{:?}", entry.envelope);
    for said in ["QQ314159", "HDRS", "SUCCESS,DELAY", "rfc822;a+2Bb@example.org"] {
        assert!(envelope.to_lowercase().contains(&said.to_lowercase()), "{said}: {envelope}");
    }
}

#[test]
fn of_many_recipients_those_who_are_refused_are_told_and_the_others_have_it() {
    if !need("python3") {
        return;
    }
    let host = Host::new();
    let file = host.file("letter", &letter("hunt"));
    let script = "
s = logged_in()
to = ['r%d@example.org' % n for n in range(300)]
to[100:100] = ['stranger%d@smkwlab.net' % n for n in range(5)]
refused = s.sendmail(HUNT, to, read(files[0]))
print(sorted(refused), {code for code, text in refused.values()})
try:
    s.sendmail(HUNT, ['x@smkwlab.net', 'y@smkwlab.net'], read(files[0]))
    sys.exit('taken')
except smtplib.SMTPRecipientsRefused as error:
    print(len(error.recipients))
# The session goes on.
print(s.sendmail(HUNT, 'bob@smkwlab.net', read(files[0])))
s.quit()
";
    let ran = python(&host, "submission", script, &[&file]).expect(0);
    let refused: Vec<String> =
        (0..5).map(|number| format!("'stranger{number}@smkwlab.net'")).collect();
    assert_eq!(ran.text(), format!("[{}] {{550}}\n2\n{{}}\n", refused.join(", ")));
    let mut counts = Vec::new();
    for name in host.site.queued_in("incoming") {
        let entry = super::entry::read(&host.site.queue().join("incoming").join(name)).unwrap();
        assert!(entry.recipients.iter().all(|to| !to.starts_with("stranger")), "{entry:?}");
        same(below_received(&entry.content).1, &letter("hunt"));
        counts.push(entry.recipients.len());
    }
    counts.sort_unstable();
    assert_eq!(counts, [1, 300]);
}

#[test]
fn large_messages_arrive_whole_and_those_too_large_not_at_all() {
    if !need("python3") {
        return;
    }
    let plan = super::Site::plan().set("smtp", "max_message_size", "4194304");
    let host = Host::with(plan);
    let large = [&letter("hunt")[..], &b".. a line of many\r\n.\r\n".repeat(150_000)].concat();
    let file = host.file("large", &large);
    let script = "
s = logged_in()
s.sendmail(HUNT, [A], read(files[0]))
try:
    s.sendmail(HUNT, [A], read(files[0]) * 2)
    sys.exit('taken')
except smtplib.SMTPSenderRefused as error:
    print(error.smtp_code)
# One that does not say its size before.
s.esmtp_features.pop('size')
try:
    s.sendmail(HUNT, [A], read(files[0]) * 2)
    sys.exit('taken')
except smtplib.SMTPDataError as error:
    print(error.smtp_code)
s.noop()
";
    let ran = python(&host, "submissions", script, &[&file]).expect(0);
    assert_eq!(ran.text(), "552\n552\n");
    host.took("submissions", "hunt", &large);
}

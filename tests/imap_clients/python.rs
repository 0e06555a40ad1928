//! Python's imaplib, in the three ways of working with mail on a server: off-line, on-line and
//! disconnected.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use super::host::{Host, NAME, PASSWORD, client, flags, has, same};
use super::letters::{crlf, delivered, id, id_of};
use super::support::run::run;
use super::support::store::{FORMS, Form, SENDER, USER};
use super::support::{mutt, need};
use super::work::Work;

/// Has these names: `begun` and `encrypted` make sessions, `files` is what more was given.
const BEGIN: &str = r"
import email, imaplib, json, os, re, ssl, sys
name, port, tls_port, authority, user, password, *files = sys.argv[1:]
c = ssl.create_default_context(cafile=authority)
def begun():
    m = imaplib.IMAP4(name, int(port), 30)
    assert 'STARTTLS' in m.capabilities
    m.starttls(c)
    return m
def encrypted():
    return imaplib.IMAP4_SSL(name, int(tls_port), ssl_context=c, timeout=30)
def logged_in(connect):
    m = connect()
    ok(m.login(user, password))
    return m
def ok(answer):
    assert answer[0] == 'OK', answer
    return answer[1]
# What FETCH tells of each message: a line, and what stands in literals.
def fetched(data):
    return [one if type(one) is tuple else (one, b'') for one in data if one and one != b')']
def number(word, line):
    return int(re.search(word + rb' (\d+)', line)[1])
def marks(line):
    told = re.search(rb'FLAGS \(([^)]*)\)', line)[1].decode().split()
    return sorted(set(told) - {'\\Recent'})
";

fn python(host: &Host, script: &str, files: &[&str]) -> Command {
    let mut command = client("python3", host.site.path());
    command.args(["-c", &format!("{BEGIN}{script}"), NAME]);
    command.args([host.port().to_string(), host.tls_port().to_string()]);
    command.args([&host.certificate(), USER, PASSWORD]).args(files);
    command.env("PYTHONUTF8", "1");
    command
}

/// As by POP. What comes meanwhile is for the next time.
#[test]
fn off_line_all_is_fetched_and_deleted_and_nothing_else() {
    if !need("python3") {
        return;
    }
    let script = r"
m = logged_in(begun)
count = int(ok(m.select())[0])
data = fetched(ok(m.fetch('1:*', '(UID BODY.PEEK[])')))
assert len(data) == count
for n, (line, text) in enumerate(data):
    with open('%s/%d' % (files[0], n), 'wb') as file:
        file.write(text)
uids = b','.join(b'%d' % number(b'UID', line) for line, _ in data).decode()
print('fetched', flush=True)
input()
ok(m.uid('STORE', uids, '+FLAGS.SILENT', r'(\Deleted)'))
ok(m.expunge())
ok(m.close())
m.logout()
";
    for form in FORMS {
        let host = Host::new(form);
        host.deliver(0..7);
        let here = host.home("here");
        let mut work = Work::start(&mut python(&host, script, &[here.to_str().unwrap()]));
        work.hears("fetched");
        host.deliver(7..9);
        let mut other = host.session();
        other.ok("SELECT INBOX");
        other.expunge(2);
        other.of("STORE", 8, "+FLAGS.SILENT (\\Flagged)");
        other.log_out();
        work.say("");
        work.end();
        for number in 0..7 {
            same(&fs::read(here.join(number.to_string())).unwrap(), &crlf(&delivered(number)));
        }
        let left = host.folder("INBOX");
        has(&left, 7..9);
        assert_eq!([flags(&left, 7), flags(&left, 8)], ["", "\\Flagged"]);
        host.ends_well();
    }
}

/// As with files on another host: of a large message only the part that is read comes over the
/// network, and what is searched is searched there.
#[test]
fn on_line_only_what_is_looked_at_is_fetched() {
    if !need("python3") {
        return;
    }
    let script = r"
m = logged_in(encrypted)
ok(m.select(readonly=True))
# The lecture's letter, by its author, in its charset and in another one.
m.literal = '下川'.encode()
assert ok(m.uid('SEARCH', 'CHARSET', 'UTF-8', 'FROM')) == [b'1']
m.literal = 'テスト'.encode('iso-2022-jp')
assert ok(m.uid('SEARCH', 'CHARSET', 'ISO-2022-JP', 'BODY')) == [b'1']
assert ok(m.search(None, 'SUBJECT', 'pictures', 'LARGER', '1000000')) == [b'2']
assert ok(m.search(None, 'SUBJECT', 'nowhere')) == [b'']
# What there is, and of the large one: its text, the beginning of the picture, and its end.
[(line, _)] = fetched(ok(m.uid('FETCH', '2', '(RFC822.SIZE BODYSTRUCTURE)')))
assert number(b'RFC822.SIZE', line) > 1000000
assert b'IMAGE' in line.upper() and b'dot.png' in line, line
[(_, text)] = fetched(ok(m.uid('FETCH', '2', '(BODY.PEEK[1])')))
assert text == b'Look!', text
[(_, part)] = fetched(ok(m.uid('FETCH', '2', '(BODY.PEEK[2]<0.4>)')))
assert part == b'AAAA', part
[(_, part)] = fetched(ok(m.uid('FETCH', '2', '(BODY.PEEK[2.MIME])')))
assert email.message_from_bytes(part).get_filename() == 'dot.png'
[(line, part)] = fetched(ok(m.uid('FETCH', '2', '(BODY.PEEK[2]<1300000.1000>)')))
print(len(part))
[(_, header)] = fetched(ok(m.uid('FETCH', '1', '(BODY.PEEK[HEADER.FIELDS (FROM SUBJECT)])')))
assert email.message_from_bytes(header)['Subject'] == 'lecture', header
[(line, _)] = fetched(ok(m.uid('FETCH', '1', '(FLAGS ENVELOPE)')))
assert marks(line) == [] and b'toshi' in line, line
m.logout()
";
    for form in FORMS {
        let host = Host::new(form);
        let lecture = "From: Toshihiko SHIMOKAWA / =?ISO-2022-JP?B?GyRCMjxAbj1TSScbKEI=?= \
             <toshi@tenbin.org>\nSubject: lecture\nMIME-Version: 1.0\n\
             Content-Type: text/plain; charset=ISO-2022-JP\nContent-Transfer-Encoding: 7bit\n\
             Content-Disposition: inline\n\n\
             \x1b$B$3$s$K$A$O!#$3$l$O%F%9%H$N%a%$%k$G$9!#\x1b(B\n";
        let picture = format!("{}\n", "A".repeat(76)).repeat(17_000);
        let large = format!(
            "Subject: pictures\nMIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=b\n\n\
             --b\n\nLook!\n--b\nContent-Type: image/png; name=dot.png\n\
             Content-Disposition: attachment; filename=dot.png\n\
             Content-Transfer-Encoding: base64\n\n{picture}\n--b--\n"
        );
        for message in [lecture, &large] {
            host.site.local_deliver(USER, SENDER, message.as_bytes()).expect(0);
        }
        let ran = run(&mut python(&host, script, &[]), b"").expect(0);
        // Lines of 78 octets, and one more.
        assert_eq!(ran.text(), "1000\n");
        let log = host.encrypted_log("Disconnected: ");
        let sent = log.split_once("bytes=").unwrap().1.split_once(',').unwrap().0;
        assert!(sent.parse::<u64>().unwrap() < 10_000, "{log}");
        host.ends_well();
    }
}

/// A client that has been away: it plays what its user did meanwhile, asks what is new and what has
/// become of what it knows (RFC 4549), and knows the same as the server then.
const DISCONNECTED: &str = r"
state, *wishes = files
known = json.load(open(state)) if os.path.exists(state) else {'validity': None, 'uids': {}}
m = logged_in(begun)
ok(m.select())
validity = m.response('UIDVALIDITY')[1][0].decode()
assert known['validity'] in (None, validity)
by_id = {id: uid for uid, (id, _) in known['uids'].items()}
for wish in wishes:
    word, id, *rest = wish.split(' ')
    if word == 'APPEND':
        ok(m.append('INBOX', rest[0], None, open(id, 'rb').read()))
    elif word == 'MOVE':
        ok(m.uid('MOVE', by_id[id], rest[0]))
    else:
        ok(m.uid('STORE', by_id[id], word, rest[0]))
# What is new, and what it knew; the largest one is always told of, new or not.
last = max(map(int, known['uids']), default=0)
old, new = dict(known['uids']), {}
for line, header in fetched(ok(m.uid('FETCH', '%d:*' % (last + 1),
        '(FLAGS BODY.PEEK[HEADER.FIELDS (MESSAGE-ID)])'))):
    uid = number(b'UID', line)
    if uid > last:
        new[str(uid)] = [email.message_from_bytes(header)['Message-ID'], marks(line)]
still = {}
if last:
    for line, _ in fetched(ok(m.uid('FETCH', '1:%d' % last, '(FLAGS)'))):
        uid = str(number(b'UID', line))
        still[uid] = [old[uid][0], marks(line)]
known = {'validity': validity, 'uids': still | new}
json.dump(known, open(state, 'w'))
m.logout()
for id, marks in sorted(known['uids'].values()):
    print(id, *marks)
";

#[test]
fn disconnected_it_knows_after_each_look_what_others_know() {
    if !need("python3") {
        return;
    }
    for form in FORMS {
        let host = Host::new(form);
        let state = host.site.path().join("state");
        let draft = host.site.path().join("draft");
        fs::write(&draft, crlf(&delivered(50))).unwrap();
        let look = |wishes: &[String]| {
            let state = [state.to_str().unwrap()];
            let wishes: Vec<&str> = wishes.iter().map(String::as_str).collect();
            let mut command = python(&host, DISCONNECTED, &[&state[..], &wishes].concat());
            let told = run(&mut command, b"").expect(0).text();
            let told: Vec<&str> = told.lines().collect();
            let there = host.folder("INBOX");
            let there: Vec<String> = there
                .iter()
                .map(|(id, (flags, _))| {
                    let words = std::iter::once(id).chain(flags);
                    words.map(String::as_str).collect::<Vec<_>>().join(" ")
                })
                .collect();
            assert_eq!(told, there);
        };
        look(&[]);
        host.deliver(0..8);
        look(&[]);
        look(&[]);
        let mut other = host.session();
        other.ok("CREATE Archive");
        other.ok("SELECT INBOX");
        other.of("STORE", 0, "+FLAGS.SILENT (\\Answered work)");
        other.of("MOVE", 1, "Archive");
        other.expunge(7);
        host.deliver(8..10);
        let is_flagged = neighbour(&host, form);
        look(&[
            format!("+FLAGS {} (\\Seen)", id(0)),
            format!("-FLAGS {} (\\Flagged)", id(2)),
            // It is gone, which is not known here.
            format!("+FLAGS {} (\\Flagged)", id(7)),
            format!("MOVE {} Archive", id(3)),
            format!("APPEND {} (\\Draft)", draft.display()),
        ]);
        let inbox = host.folder("INBOX");
        has(&inbox, [0, 2, 4, 5, 6, 8, 9, 50]);
        assert_eq!(flags(&inbox, 0), "\\Answered \\Seen work");
        assert_eq!(flags(&inbox, 50), "\\Draft");
        assert_eq!(flags(&inbox, 4).contains("\\Flagged"), is_flagged);
        has(&host.folder("Archive"), [1, 3]);
        other.of("STORE", 50, "-FLAGS.SILENT (\\Draft)");
        other.expunge(0);
        look(&[format!("+FLAGS {} (\\Seen)", id(2))]);
        look(&[]);
        other.log_out();
        host.ends_well();
    }
}

/// Flags message 4 as another program of this host does it; whether there is one.
fn neighbour(host: &Host, form: Form) -> bool {
    if form == Form::Mbox {
        let keys = "<limit>~s \"letter 4\"<enter><flag-message><limit>all<enter><quit>";
        let inbox = host.site.inbox(USER);
        let is_there = mutt::possible_as_user();
        if is_there {
            mutt::press_as(&host.site, USER, &inbox, "", keys);
        }
        return is_there;
    }
    let cur = host.site.home(USER).join("Maildir/cur");
    let mut paths = fs::read_dir(&cur).unwrap().map(|entry| entry.unwrap().path());
    let is_it = |path: &PathBuf| id_of(&fs::read(path).unwrap()) == id(4);
    let path = paths.find(is_it).unwrap();
    let name = path.file_name().unwrap().to_str().unwrap();
    let name = name.split(":2,").next().unwrap();
    fs::rename(&path, cur.join(format!("{name}:2,FS"))).unwrap();
    true
}

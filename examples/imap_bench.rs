//! What tests/bench/imap asks IMAP servers: it logs in, works, and prints lines of a name and a
//! number; milliseconds where nothing else is said.
//!
//! It looks at no more of what it is sent than where that ends, so that it is not what is measured.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a tool for the terminal, whose output is what it is for"
)]

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

type Outcome<T = ()> = Result<T, Box<dyn std::error::Error>>;

const USAGE: &str = "\
usage: imap_bench PORT USER CERTIFICATE|- WHAT
WHAT: login N
      first | mailbox | texts | expunge
      delivery MESSAGE PROGRAM [ARGUMENT ...]
      sessions N inbox|none UID PROCESS";

/// So many times is done what is quick; the median counts.
const TIMES: usize = 100;
/// So much is read at once.
const WINDOW: usize = 1 << 18;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let [port, user, certificate, what @ ..] = words.as_slice() else {
        eprintln!("{USAGE}");
        return ExitCode::from(64);
    };
    match Server::new(port, user, certificate).and_then(|server| run(&server, what)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("imap_bench: {port}: {}: {error}", what.join(" "));
            ExitCode::FAILURE
        }
    }
}

fn run(server: &Server, what: &[&str]) -> Outcome {
    match what {
        ["login", times] => median("login", times.parse()?, |_| server.log_in()?.leave()),
        ["first"] => {
            let mut client = server.log_in()?;
            tell("first", client.timed("SELECT INBOX")?);
            client.leave().map(drop)
        }
        ["mailbox"] => mailbox(server),
        ["texts"] => {
            let mut client = server.log_in()?;
            client.command("SELECT INBOX")?;
            let all = "FETCH 1:* BODY.PEEK[]";
            median("texts", 3, |_| client.timed(all))?;
            client.leave().map(drop)
        }
        ["expunge"] => {
            let mut client = server.log_in()?;
            client.command("SELECT INBOX")?;
            client.command("STORE 6:16 +FLAGS.SILENT (\\Deleted)")?;
            tell("expunge", client.timed("EXPUNGE")?);
            client.leave().map(drop)
        }
        ["delivery", message, program, arguments @ ..] => {
            delivery(server, message, program, arguments)
        }
        ["sessions", number, mailbox, uid, root] => {
            sessions(server, number.parse()?, *mailbox == "inbox", uid.parse()?, root.parse()?)
        }
        _ => Err(USAGE.into()),
    }
}

/// What leaves the messages where they are.
fn mailbox(server: &Server) -> Outcome {
    let mut client = server.log_in()?;
    median("again", 9, |_| {
        let took = client.timed("SELECT INBOX")?;
        std::mem::replace(&mut client, server.log_in()?).leave()?;
        Ok(took)
    })?;
    client.command("SELECT INBOX")?;
    let count = client.exists;
    let middle = count / 2;
    median("flags", 9, |_| client.timed("FETCH 1:* (FLAGS)"))?;
    let envelopes = "FETCH 1:* (UID RFC822.SIZE ENVELOPE INTERNALDATE)";
    tell("envelopes", client.timed(envelopes)?);
    median("envelopes-again", 3, |_| client.timed(envelopes))?;
    tell("structures", client.timed("FETCH 1:* BODYSTRUCTURE")?);
    median("structures-again", 3, |_| client.timed("FETCH 1:* BODYSTRUCTURE"))?;
    median("texts", 3, |_| client.timed("FETCH 1:* BODY.PEEK[]"))?;
    let one = format!("FETCH {middle} BODY.PEEK[]");
    median("text", TIMES, |_| client.timed(&one))?;
    median("search-subject", 3, |_| client.timed("SEARCH SUBJECT qxzqxz"))?;
    tell("search-text", client.timed("SEARCH TEXT qxzqxz")?);
    tell("store", client.timed("STORE 1:* +FLAGS (\\Flagged)")?);
    let text = [&b"Subject: appended\r\n\r\n"[..], &[&[b'X'; 78][..], b"\r\n"].concat().repeat(50)];
    let text = text.concat();
    median("append", TIMES, |_| client.append(&text))?;
    client.command("CREATE Copies")?;
    tell("copy", client.timed(&format!("COPY {middle}:{} Copies", middle + 999))?);
    client.leave().map(drop)
}

/// How long an idle client waits for the word of a message, from the start of who delivers it.
fn delivery(server: &Server, message: &str, program: &str, arguments: &[&str]) -> Outcome {
    let mut client = server.log_in()?;
    client.command("SELECT INBOX")?;
    client.send("IDLE")?;
    client.until(|line| line.starts_with(b"+"))?;
    median("delivery", 9, |_| {
        let message = File::open(message)?;
        let mut delivery = Command::new(program).args(arguments).stdin(message).spawn()?;
        let began = Instant::now();
        client.until(|line| line.ends_with(b" EXISTS"))?;
        let took = began.elapsed();
        if !delivery.wait()?.success() {
            return Err("it was not delivered".into());
        }
        std::thread::sleep(Duration::from_millis(100));
        Ok(took)
    })
}

/// The memory of idle sessions: of the processes that are this user's, of the others that have come
/// with them, a session each; and of all that were there before. `root` is the server's first process.
fn sessions(server: &Server, number: usize, selects: bool, uid: u32, root: u32) -> Outcome {
    let before: HashSet<u32> = descendants(root)?.into_iter().collect();
    let mut clients = Vec::new();
    for _ in 0..number {
        let mut client = server.log_in()?;
        if selects {
            client.command("SELECT INBOX")?;
        }
        client.send("IDLE")?;
        client.until(|line| line.starts_with(b"+"))?;
        clients.push(client);
    }
    std::thread::sleep(Duration::from_secs(1));
    let (mut own, mut others, mut shared) = (0, 0, 0);
    for process in descendants(root)? {
        let path = Path::new("/proc").join(process.to_string());
        let pss = pss(&path)?;
        if before.contains(&process) {
            shared += pss;
        } else if path.metadata()?.uid() == uid {
            own += pss;
        } else {
            others += pss;
        }
    }
    let each = u64::try_from(number)?;
    println!("session {}\nrelay {}\nshared {shared}", own / each, others / each);
    Ok(())
}

/// A process and all that came of it.
fn descendants(root: u32) -> Outcome<Vec<u32>> {
    let mut parents = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let path = entry?.path();
        // Others end meanwhile.
        let text = fs::read_to_string(path.join("stat")).unwrap_or_default();
        let mut words = text.rsplit(')').next().unwrap_or_default().split_whitespace().skip(1);
        let process = path.file_name().and_then(|name| name.to_str()?.parse().ok());
        let parent = words.next().and_then(|word| word.parse().ok());
        parents.extend(process.zip(parent));
    }
    let mut found = vec![root];
    let mut at = 0;
    while let Some(parent) = found.get(at).copied() {
        let children = parents.iter().filter(|(_, other): &&(u32, u32)| *other == parent);
        found.extend(children.map(|(process, _)| process));
        at += 1;
    }
    Ok(found)
}

/// KiB.
fn pss(process: &Path) -> Outcome<u64> {
    let text = fs::read_to_string(process.join("smaps_rollup"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:"));
    let number = line.and_then(|line| line.split_whitespace().next());
    Ok(number.ok_or("no such line")?.parse()?)
}

/// A server on this host.
struct Server {
    address: (&'static str, u16),
    user: String,
    tls: Option<Arc<ClientConfig>>,
}

impl Server {
    /// With TLS from the first byte on, where there is a certificate to trust.
    fn new(port: &str, user: &str, certificate: &str) -> Outcome<Self> {
        let tls = match certificate {
            "-" => None,
            path => {
                let mut roots = RootCertStore::empty();
                roots.add(CertificateDer::from_pem_file(path)?)?;
                let provider = Arc::new(rustls::crypto::ring::default_provider());
                let settings = ClientConfig::builder_with_provider(provider)
                    .with_safe_default_protocol_versions()?
                    .with_root_certificates(roots)
                    .with_no_client_auth();
                Some(Arc::new(settings))
            }
        };
        Ok(Self { address: ("127.0.0.1", port.parse()?), user: user.to_owned(), tls })
    }

    /// A client that has heard that it is logged in.
    fn log_in(&self) -> Outcome<Client> {
        let began = Instant::now();
        let stream = TcpStream::connect(self.address)?;
        stream.set_nodelay(true)?;
        let stream: Box<dyn Stream> = match &self.tls {
            None => Box::new(stream),
            Some(settings) => {
                let name = ServerName::try_from("bench.test")?;
                let session = ClientConnection::new(Arc::clone(settings), name)?;
                Box::new(StreamOwned::new(session, stream))
            }
        };
        let (window, took) = (vec![0; WINDOW], Duration::ZERO);
        let mut client = Client { stream, window, from: 0, to: 0, exists: 0, log_in: took };
        client.until(|line| line.starts_with(b"* OK"))?;
        client.command(&format!("LOGIN {} x", self.user))?;
        client.log_in = began.elapsed();
        Ok(client)
    }
}

trait Stream: Read + Write {}
impl<T: Read + Write> Stream for T {}

struct Client {
    stream: Box<dyn Stream>,
    window: Vec<u8>,
    from: usize,
    to: usize,
    /// What the last EXISTS has said.
    exists: u32,
    /// From before the connection until LOGIN was answered.
    log_in: Duration,
}

impl Client {
    fn send(&mut self, command: &str) -> io::Result<()> {
        self.stream.write_all(format!("a {command}\r\n").as_bytes())?;
        self.stream.flush()
    }

    /// Until it was answered with OK.
    fn command(&mut self, command: &str) -> Outcome {
        self.send(command)?;
        self.until_done()
    }

    fn timed(&mut self, command: &str) -> Outcome<Duration> {
        timed(|| self.command(command))
    }

    fn until_done(&mut self) -> Outcome {
        let mut said = String::new();
        self.until(|line| {
            let is_end = line.starts_with(b"a ");
            if is_end {
                said = String::from_utf8_lossy(line).into_owned();
            }
            is_end
        })?;
        if said.starts_with("a OK") { Ok(()) } else { Err(said.into()) }
    }

    /// From when the server wants the text until it has it.
    fn append(&mut self, text: &[u8]) -> Outcome<Duration> {
        self.send(&format!("APPEND INBOX {{{}}}", text.len()))?;
        self.until(|line| line.starts_with(b"+"))?;
        let text = [text, b"\r\n"].concat();
        timed(|| {
            self.stream.write_all(&text)?;
            self.stream.flush()?;
            self.until_done()
        })
    }

    /// Logs out, and waits until the server has gone; how long the login took.
    fn leave(mut self) -> Outcome<Duration> {
        self.command("LOGOUT")?;
        // A server under TLS may go without a word.
        while self.stream.read(&mut self.window).is_ok_and(|length| length > 0) {}
        Ok(self.log_in)
    }

    /// Reads until a line of which this is true; literals are passed over.
    fn until(&mut self, mut is_it: impl FnMut(&[u8]) -> bool) -> Outcome {
        loop {
            let line = self.line()?;
            let line = self.window.get(line).unwrap_or_default();
            if let Some(number) = line.strip_suffix(b" EXISTS") {
                let number = std::str::from_utf8(number)?.trim_start_matches("* ");
                self.exists = number.parse()?;
            }
            if is_it(line) {
                return Ok(());
            }
            let literal = line.strip_suffix(b"}").and_then(|line| {
                let start = memchr::memrchr(b'{', line)?;
                std::str::from_utf8(line.get(start + 1..)?).ok()?.parse().ok()
            });
            self.skip(literal.unwrap_or(0))?;
        }
    }

    /// The next line, without its end, in the window.
    fn line(&mut self) -> Outcome<std::ops::Range<usize>> {
        let mut looked = self.from;
        loop {
            let rest = self.window.get(looked..self.to).unwrap_or_default();
            if let Some(end) = memchr::memchr(b'\n', rest) {
                let (start, end) = (self.from, looked + end);
                self.from = end + 1;
                return Ok(start..end.saturating_sub(1));
            }
            looked = self.to;
            if self.to == self.window.len() {
                looked -= self.from;
                self.window.copy_within(self.from..self.to, 0);
                self.to -= self.from;
                self.from = 0;
                if self.to == self.window.len() {
                    self.window.resize(2 * self.to, 0);
                }
            }
            self.fill()?;
        }
    }

    fn skip(&mut self, mut octets: usize) -> Outcome {
        while octets > self.to - self.from {
            octets -= self.to - self.from;
            (self.from, self.to) = (0, 0);
            self.fill()?;
        }
        self.from += octets;
        Ok(())
    }

    fn fill(&mut self) -> Outcome {
        let room = self.window.get_mut(self.to..).unwrap_or_default();
        match self.stream.read(room)? {
            0 => Err("the server has gone".into()),
            length => {
                self.to += length;
                Ok(())
            }
        }
    }
}

fn timed<T>(action: impl FnOnce() -> Outcome<T>) -> Outcome<Duration> {
    let began = Instant::now();
    action()?;
    Ok(began.elapsed())
}

fn median(name: &str, times: usize, mut action: impl FnMut(usize) -> Outcome<Duration>) -> Outcome {
    let mut all = (0..times).map(&mut action).collect::<Outcome<Vec<Duration>>>()?;
    all.sort();
    tell(name, all.get(times / 2).copied().unwrap_or_default());
    Ok(())
}

fn tell(name: &str, took: Duration) {
    println!("{name} {:.3}", took.as_secs_f64() * 1000.0);
}

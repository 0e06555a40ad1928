//! A mail exchange that does what it is told: a polite one that keeps all it is sent, or one that
//! refuses, hangs up, floods or lies at the step that the test names.
//!
//! It knows SMTP from RFC 5321 and shares nothing with the programs that are tested. What a client
//! does that it should not do is kept as a complaint.

mod talk;

use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use super::{PATIENCE, wait_until};
use talk::Talk;

/// Where a session is when the script is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Step {
    /// The greeting.
    Connect,
    Ehlo,
    Helo,
    StartTls,
    Mail,
    Rcpt,
    Data,
    /// The lone dot.
    End,
    Rset,
    Quit,
}

/// What a script may know when it decides.
pub struct Turn<'a> {
    pub step: Step,
    /// The command, without its line end.
    pub line: &'a str,
    /// Which connection this is, from 0.
    pub session: usize,
    /// How often this step has come on this connection before.
    pub nth: usize,
    pub tls: bool,
    /// The envelope until now.
    pub sender: &'a str,
    pub recipients: &'a [String],
}

/// What the exchange does.
#[derive(Clone, Debug)]
pub enum Act {
    /// What a polite one does.
    Polite,
    /// A reply (lines without CRLF, parted by `\n`). The session goes on as its code says.
    Reply(String),
    /// A reply, and the end of the connection.
    Last(String),
    /// The end of the connection, without a word.
    HangUp,
    /// The same as a reset.
    Reset,
    /// Nothing, until the client hangs up.
    Silence,
    /// These bytes as they are, and then on as if the reply had been polite.
    Raw(Vec<u8>),
    /// These bytes again and again, until the client hangs up.
    Flood(Vec<u8>),
    /// Another one, after a while.
    After(Duration, Box<Act>),
}

impl Act {
    pub fn reply(text: &str) -> Self {
        Self::Reply(text.to_owned())
    }
}

/// How STARTTLS goes, where it is offered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tls {
    /// With a certificate that nobody signed.
    SelfSigned,
    /// 220, and then bytes that are no TLS.
    Broken,
    /// 220, and then the connection ends.
    HangsUp,
    /// Behind the 220, in the same segment, stand replies that nobody asked for; then as usual.
    Injects,
}

type Rule = Box<dyn Fn(&Turn<'_>) -> Act + Send + Sync>;

/// How an exchange behaves. Without a word about it, it is polite and offers what Hikyaku's own
/// server does.
pub struct Script {
    name: String,
    extensions: Vec<String>,
    tls: Option<Tls>,
    ends: Vec<String>,
    rule: Rule,
}

impl Script {
    pub fn polite() -> Self {
        Self {
            name: "exchange.test".to_owned(),
            extensions: ["PIPELINING", "SIZE 0", "8BITMIME", "ENHANCEDSTATUSCODES"]
                .map(str::to_owned)
                .to_vec(),
            tls: None,
            ends: Vec::new(),
            rule: Box::new(|_| Act::Polite),
        }
    }

    /// The name it gives itself.
    #[must_use]
    pub fn name(mut self, name: &str) -> Self {
        name.clone_into(&mut self.name);
        self
    }

    /// What it offers in its reply to EHLO, besides STARTTLS.
    #[must_use]
    pub fn extensions(mut self, extensions: &[&str]) -> Self {
        self.extensions = extensions.iter().map(|&word| word.to_owned()).collect();
        self
    }

    /// Offers STARTTLS.
    #[must_use]
    pub fn tls(mut self, tls: Tls) -> Self {
        self.tls = Some(tls);
        self
    }

    /// Takes each of these for the end of a text, too, as servers have done that let messages be
    /// smuggled through them.
    #[must_use]
    pub fn lenient(mut self, ends: Vec<String>) -> Self {
        self.ends = ends;
        self
    }

    /// What it does at each step; asked before anything is answered.
    #[must_use]
    pub fn rule(mut self, rule: impl Fn(&Turn<'_>) -> Act + Send + Sync + 'static) -> Self {
        self.rule = Box::new(rule);
        self
    }

    /// At one step always this, else what is polite.
    #[must_use]
    pub fn at(self, step: Step, act: Act) -> Self {
        self.rule(move |turn| if turn.step == step { act.clone() } else { Act::Polite })
    }
}

/// A message as it was sent.
#[derive(Clone, Debug)]
pub struct Message {
    /// The reverse-path, without its brackets.
    pub sender: String,
    /// What stood behind it: `SIZE=123 BODY=8BITMIME`.
    pub parameters: String,
    /// Those that were accepted.
    pub recipients: Vec<String>,
    /// The text with its CRLF, without dot transparency.
    pub text: Vec<u8>,
    /// What was said to it; empty where nothing was.
    pub reply: String,
    /// Which connection it came by, from 0.
    pub session: usize,
    pub tls: bool,
}

impl Message {
    /// The first header field of this name, unfolded as it stands.
    pub fn field(&self, name: &str) -> Option<String> {
        self.fields(name).into_iter().next()
    }

    /// All header fields of this name, the first one first; line ends are LF.
    pub fn fields(&self, name: &str) -> Vec<String> {
        let text = String::from_utf8_lossy(&self.text).replace("\r\n", "\n");
        let header = text.split("\n\n").next().unwrap_or_default();
        let mut fields: Vec<String> = Vec::new();
        let mut inside = false;
        for line in header.lines() {
            if line.starts_with([' ', '\t']) {
                if let (true, Some(last)) = (inside, fields.last_mut()) {
                    last.push('\n');
                    last.push_str(line);
                }
                continue;
            }
            let (field, value) = line.split_once(':').unwrap_or((line, ""));
            inside = field.eq_ignore_ascii_case(name);
            if inside {
                fields.push(value.trim_start().to_owned());
            }
        }
        fields
    }

    /// Whether the exchange took responsibility for it.
    pub fn accepted(&self) -> bool {
        self.reply.starts_with('2')
    }
}

/// A connection.
#[derive(Clone, Debug)]
pub struct Session {
    pub peer: IpAddr,
    /// Every command as it came, without its line end.
    pub commands: Vec<String>,
    /// Whether it was encrypted in the end.
    pub tls: bool,
    /// Whether a command ever came before the reply to the one before it.
    pub pipelined: bool,
}

impl Session {
    /// How many of its commands begin with this word.
    pub fn count(&self, verb: &str) -> usize {
        self.commands.iter().filter(|line| verb_of(line) == verb).count()
    }
}

#[derive(Default)]
struct Record {
    sessions: Vec<Session>,
    messages: Vec<Message>,
    complaints: Vec<String>,
    open: usize,
    most_open: usize,
}

struct Shared {
    script: Script,
    record: Mutex<Record>,
    stopping: AtomicBool,
    /// Every connection there is, so that dropping the exchange ends them.
    streams: Mutex<Vec<TcpStream>>,
}

/// A mail exchange; it ends when it is dropped.
pub struct Exchange {
    address: SocketAddr,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Exchange {
    pub fn start(listener: TcpListener, script: Script) -> Self {
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            script,
            record: Mutex::default(),
            stopping: AtomicBool::new(false),
            streams: Mutex::default(),
        });
        let server = Arc::clone(&shared);
        let thread = std::thread::spawn(move || accept(&listener, &server));
        Self { address, shared, thread: Some(thread) }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The messages that it accepted, in order.
    pub fn messages(&self) -> Vec<Message> {
        let mut all = self.attempts();
        all.retain(Message::accepted);
        all
    }

    /// All messages whose text came to its end, whatever was replied.
    pub fn attempts(&self) -> Vec<Message> {
        self.shared.record.lock().unwrap().messages.clone()
    }

    /// How many messages it accepted.
    pub fn count(&self) -> usize {
        let record = self.shared.record.lock().unwrap();
        record.messages.iter().filter(|message| message.accepted()).count()
    }

    /// Waits until no connection is open.
    #[track_caller]
    pub fn wait_until_idle(&self) {
        wait_until("the end of all connections", || {
            (self.shared.record.lock().unwrap().open == 0).then_some(())
        });
    }

    /// The one message that it accepted.
    #[track_caller]
    pub fn only_message(&self) -> Message {
        let mut messages = self.messages();
        assert_eq!(messages.len(), 1, "{messages:?} of {:?}", self.sessions());
        messages.remove(0)
    }

    /// Waits until it has accepted so many messages.
    #[track_caller]
    pub fn wait_for(&self, count: usize) {
        wait_until(&format!("{count} messages at {}", self.address), || {
            (self.count() >= count).then_some(())
        });
    }

    /// All connections, the first one first.
    pub fn sessions(&self) -> Vec<Session> {
        self.shared.record.lock().unwrap().sessions.clone()
    }

    /// The most connections that were open at once. One counts until its QUIT is answered or its
    /// end is seen.
    pub fn most_at_once(&self) -> usize {
        self.shared.record.lock().unwrap().most_open
    }

    /// What clients did that they should not do.
    pub fn complaints(&self) -> Vec<String> {
        self.shared.record.lock().unwrap().complaints.clone()
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.shared.stopping.store(true, Ordering::SeqCst);
        // Wakes the thread that accepts.
        let _ = TcpStream::connect_timeout(&self.address, PATIENCE);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        for stream in self.shared.streams.lock().unwrap().iter() {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    while let Ok((stream, peer)) = listener.accept() {
        if shared.stopping.load(Ordering::SeqCst) {
            return;
        }
        let mut record = shared.record.lock().unwrap();
        let number = record.sessions.len();
        let peer = peer.ip();
        record.sessions.push(Session { peer, commands: Vec::new(), tls: false, pipelined: false });
        record.open += 1;
        record.most_open = record.most_open.max(record.open);
        drop(record);
        let _ = stream.set_nodelay(true);
        shared.streams.lock().unwrap().push(stream.try_clone().unwrap());
        let shared = Arc::clone(shared);
        std::thread::spawn(move || Talk::new(stream, number, shared).hold());
    }
}

/// The first word, in capitals.
fn verb_of(line: &str) -> String {
    line.split_whitespace().next().unwrap_or_default().to_ascii_uppercase()
}

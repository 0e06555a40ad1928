//! A name server inside the test: it knows what the test tells it, and fails as the test wants.
//!
//! It answers for the whole tree. A name that was never set does not exist (NXDOMAIN), also where
//! names below it do; one that was set has no records of the other types (NOERROR and the SOA).

use std::collections::BTreeMap;
use std::future::Future;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::pin::Pin;
use std::str::FromStr;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use hickory_server::Server;
use hickory_server::net::runtime::Time;
use hickory_server::net::xfer::Protocol;
use hickory_server::proto::op::{Header, HeaderCounts, Metadata, ResponseCode};
use hickory_server::proto::rr::rdata::{A, AAAA, CNAME, MX, PTR, SOA, TXT};
use hickory_server::proto::rr::{Name, RData, Record, RecordType};
use hickory_server::server::{Request, RequestHandler, ResponseHandler, ResponseInfo};
use hickory_server::zone_handler::MessageResponseBuilder;

use super::transcript::unescape;

/// What can be wrong with a name server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// It answers SERVFAIL.
    ServFail,
    /// It answers REFUSED.
    Refused,
    /// It never answers.
    Silent,
    /// It says that the name does not exist, whatever was set.
    NxDomain,
    /// By UDP it answers with the TC bit and no record; by TCP all is well.
    Truncated,
    /// Its UDP answers are no DNS messages; by TCP it is silent.
    Garbage,
}

/// The name server; it ends when it is dropped.
pub struct Dns {
    address: SocketAddr,
    zone: Arc<Mutex<Zone>>,
    stop: Box<dyn Fn() + Send + Sync>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Zone {
    records: BTreeMap<String, Vec<Record>>,
    trouble: BTreeMap<String, Trouble>,
    trouble_everywhere: Option<Trouble>,
    asked: BTreeMap<(String, RecordType), usize>,
}

impl Dns {
    /// Starts it on a free port of 127.0.0.1.
    pub fn start() -> Self {
        let (udp, tcp) = sockets();
        let address = udp.local_addr().unwrap();
        let zone = Arc::<Mutex<Zone>>::default();
        let handler = Handler { zone: Arc::clone(&zone), raw: udp.try_clone().unwrap() };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let mut server = Server::new(handler);
        {
            let _inside = runtime.enter();
            server.register_socket(tokio::net::UdpSocket::from_std(udp).unwrap());
            let tcp = tokio::net::TcpListener::from_std(tcp).unwrap();
            server.register_listener(tcp, Duration::from_secs(10), 32);
        }
        let token = server.shutdown_token().clone();
        let thread = std::thread::spawn(move || {
            let _ = runtime.block_on(server.block_until_done());
        });
        Self { address, zone, stop: Box::new(move || token.cancel()), thread: Some(thread) }
    }

    /// Where it listens, by UDP and TCP.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Adds a record: `smkwlab.net MX 10 mx.smkwlab.net`. The types are A, AAAA, CNAME, MX, PTR
    /// and TXT; the end of a name may have its dot or not.
    #[track_caller]
    pub fn set(&self, line: &str) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let data = match words[1..] {
            ["A", address] => RData::A(A(address.parse().unwrap())),
            ["AAAA", address] => RData::AAAA(AAAA(address.parse().unwrap())),
            ["CNAME", target] => RData::CNAME(CNAME(name(target))),
            ["MX", preference, host] => RData::MX(MX::new(preference.parse().unwrap(), name(host))),
            ["PTR", host] => RData::PTR(PTR(name(host))),
            ["TXT", text] => RData::TXT(TXT::new(vec![text.to_owned()])),
            _ => panic!("no record: {line}"),
        };
        let owner = name(words[0]);
        let mut zone = self.zone.lock().unwrap();
        let records = zone.records.entry(key(&owner)).or_default();
        records.push(Record::from_rdata(owner, 1, data));
    }

    /// A host: its address, and the name of that address.
    pub fn host(&self, host: &str, address: &str) {
        self.set(&format!("{host} A {address}"));
        let mut parts: Vec<&str> = address.split('.').collect();
        parts.reverse();
        self.set(&format!("{}.in-addr.arpa PTR {host}", parts.join(".")));
    }

    /// Takes away all records of a name: it does not exist any more.
    pub fn forget(&self, owner: &str) {
        self.zone.lock().unwrap().records.remove(&key(&name(owner)));
    }

    /// Goes wrong for one name, from now on.
    pub fn fail(&self, owner: &str, trouble: Trouble) {
        self.zone.lock().unwrap().trouble.insert(key(&name(owner)), trouble);
    }

    /// Goes wrong for every name that has no trouble of its own.
    pub fn fail_everywhere(&self, trouble: Trouble) {
        self.zone.lock().unwrap().trouble_everywhere = Some(trouble);
    }

    /// All is well again.
    pub fn mend(&self) {
        let mut zone = self.zone.lock().unwrap();
        zone.trouble.clear();
        zone.trouble_everywhere = None;
    }

    /// How often a name was asked for, with this type.
    pub fn asked(&self, owner: &str, kind: &str) -> usize {
        let question = (key(&name(owner)), RecordType::from_str(kind).unwrap());
        self.zone.lock().unwrap().asked.get(&question).copied().unwrap_or(0)
    }

    /// How many questions it got.
    pub fn asked_at_all(&self) -> usize {
        self.zone.lock().unwrap().asked.values().sum()
    }
}

impl Drop for Dns {
    fn drop(&mut self) {
        (self.stop)();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A port that is free by UDP and by TCP.
fn sockets() -> (UdpSocket, TcpListener) {
    for _ in 0..50 {
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        if let Ok(tcp) = TcpListener::bind(udp.local_addr().unwrap()) {
            udp.set_nonblocking(true).unwrap();
            tcp.set_nonblocking(true).unwrap();
            return (udp, tcp);
        }
    }
    panic!("no port is free by UDP and TCP");
}

/// A name; `\xNN` stands for a byte that no host name has.
fn name(text: &str) -> Name {
    let mut name = if text.contains('\\') {
        Name::from_labels(text.split('.').map(|label| unescape(label).unwrap())).unwrap()
    } else {
        Name::from_ascii(text).unwrap()
    };
    name.set_fqdn(true);
    name
}

/// How a name is looked up: without regard to case.
fn key(name: &Name) -> String {
    name.to_lowercase().to_ascii()
}

impl Zone {
    /// The records of a name and a type; a CNAME leads on.
    fn answer(&self, owner: &Name, kind: RecordType) -> (ResponseCode, Vec<Record>) {
        let mut owner = owner.clone();
        let mut answers = Vec::new();
        for _ in 0..8 {
            let Some(records) = self.records.get(&key(&owner)) else {
                return (ResponseCode::NXDomain, answers);
            };
            let wanted = records.iter().filter(|record| record.record_type() == kind);
            let before = answers.len();
            answers.extend(wanted.cloned());
            let alias = records.iter().find_map(|record| match &record.data {
                RData::CNAME(target) => Some((record.clone(), target.0.clone())),
                _ => None,
            });
            match alias {
                Some((record, target)) if answers.len() == before => {
                    answers.push(record);
                    owner = target;
                }
                _ => return (ResponseCode::NoError, answers),
            }
        }
        (ResponseCode::ServFail, Vec::new())
    }
}

struct Handler {
    zone: Arc<Mutex<Zone>>,
    /// The same UDP socket once more, for answers that are none.
    raw: UdpSocket,
}

type Answering<'a> = Pin<Box<dyn Future<Output = ResponseInfo> + Send + 'a>>;

impl RequestHandler for Handler {
    fn handle_request<'s, 'r, 'a, R, T>(
        &'s self,
        request: &'r Request,
        response: R,
    ) -> Answering<'a>
    where
        's: 'a,
        'r: 'a,
        Self: 'a,
        R: ResponseHandler + 'a,
        T: Time + 'a,
    {
        Box::pin(self.answer(request, response))
    }
}

impl Handler {
    async fn answer<R: ResponseHandler>(&self, request: &Request, mut to: R) -> ResponseInfo {
        let mut metadata = Metadata::response_from_request(&request.metadata);
        metadata.authoritative = true;
        metadata.recursion_available = true;
        let none = ResponseInfo::from(Header { metadata, counts: HeaderCounts::default() });
        let Ok(info) = request.request_info() else {
            return none;
        };
        let (owner, kind) = (Name::from(info.query.name()), info.query.query_type());
        let (trouble, (code, answers)) = {
            let mut zone = self.zone.lock().unwrap();
            *zone.asked.entry((key(&owner), kind)).or_default() += 1;
            let trouble = zone.trouble.get(&key(&owner)).copied().or(zone.trouble_everywhere);
            (trouble, zone.answer(&owner, kind))
        };
        let by_udp = info.protocol == Protocol::Udp;
        let (code, answers) = match trouble {
            Some(Trouble::Truncated) if by_udp => {
                metadata.truncation = true;
                (ResponseCode::NoError, Vec::new())
            }
            None | Some(Trouble::Truncated) => (code, answers),
            Some(Trouble::ServFail) => (ResponseCode::ServFail, Vec::new()),
            Some(Trouble::Refused) => (ResponseCode::Refused, Vec::new()),
            Some(Trouble::NxDomain) => (ResponseCode::NXDomain, Vec::new()),
            Some(Trouble::Silent) => return none,
            Some(Trouble::Garbage) => {
                if by_udp {
                    // Begins like an answer to this question, so that it isn't just overlooked.
                    let id = &request.as_slice()[..2];
                    let garbage = [id, b"\x81\x80\x00\x01\xff\xff\xc0\xff\xfegarbage"].concat();
                    let _ = self.raw.send_to(&garbage, info.src);
                }
                return none;
            }
        };
        metadata.response_code = code;
        let negative = matches!(code, ResponseCode::NoError | ResponseCode::NXDomain)
            && answers.last().is_none_or(|last| last.record_type() != kind)
            && !metadata.truncation;
        let authority = negative.then(authority);
        let builder = MessageResponseBuilder::from_message_request(request);
        let message = builder.build(metadata, &answers, [], authority.as_ref(), []);
        to.send_response(message).await.unwrap_or(none)
    }
}

/// The SOA record of the whole tree: "there is no such thing" may be believed for a second.
fn authority() -> Record {
    let soa = SOA::new(name("ns.test"), name("hostmaster.test"), 1, 3600, 600, 86400, 1);
    Record::from_rdata(Name::root(), 1, RData::SOA(soa))
}

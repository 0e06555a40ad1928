//! What the name servers say: mail exchanges, addresses, the name of an address.
//!
//! A [`Resolver`] is made before its process enters its cell, as it reads resolv.conf and the hosts
//! file; it needs a tokio runtime to be asked. What DNS did not say is told apart from what it said
//! is not there: mail is returned for the second only.

use std::net::IpAddr;
use std::time::Duration;

use tokio::sync::Semaphore;
use trust_dns_resolver::config::{
    ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts,
};
use trust_dns_resolver::net::runtime::TokioRuntimeProvider;
use trust_dns_resolver::net::{DnsError, NetError};
use trust_dns_resolver::proto::op::{Query, ResponseCode};
use trust_dns_resolver::proto::rr::{Name, RData, RecordType};
use trust_dns_resolver::{Hosts, TokioResolver};

use crate::config;
use crate::message::address::{self, Alphabet};
use crate::route::mx::Missing;

/// How long an answer is waited for, with all repetitions.
const PATIENCE: Duration = Duration::from_secs(30);
/// Queries that may begin at once, and how long one that has no answer yet counts as beginning.
const MAX_STARTING: usize = 100;
const BURST: Duration = Duration::from_millis(20);
/// The port of name servers.
const PORT: u16 = 53;
/// Names of an address that are checked.
const MAX_NAMES: usize = 5;
/// Queries that may wait for one server.
const MAX_QUERIES: usize = 4096;

/// Asks the name servers.
pub struct Resolver {
    inner: TokioResolver,
    hosts: Hosts,
    /// Queries that begin: a burst of hundreds would overrun a server's buffer, and what is lost so
    /// is asked again after seconds only.
    starting: Semaphore,
}

/// The TCP ports of the name servers: what a cell must allow.
pub fn ports(config: &config::Dns) -> Vec<u16> {
    if config.servers.is_empty() {
        return vec![PORT];
    }
    config.servers.iter().map(std::net::SocketAddr::port).collect()
}

impl Resolver {
    /// With the servers of the configuration, else those of resolv.conf, else one on this host, as
    /// resolver(5) says.
    pub fn new(config: &config::Dns) -> std::io::Result<Self> {
        let (servers, mut options) = if config.servers.is_empty() {
            match trust_dns_resolver::system_conf::read_system_conf() {
                Ok((read, options)) => (read.name_servers().to_vec(), options),
                Err(_) => (vec![local_server()], ResolverOpts::default()),
            }
        } else {
            (
                config.servers.iter().map(|server| configured(*server)).collect(),
                ResolverOpts::default(),
            )
        };
        // Mail exchanges are what DNS says they are; the hosts file is asked where a person has
        // written the name. And a domain of mail is never completed from a search list.
        options.use_hosts_file = ResolveHosts::Never;
        options.max_active_requests = MAX_QUERIES;
        let config = ResolverConfig::from_parts(None, Vec::new(), servers);
        let mut builder =
            TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
        *builder.options_mut() = options;
        let inner = builder.build().map_err(std::io::Error::other)?;
        let hosts = Hosts::from_system().unwrap_or_default();
        Ok(Self { inner, hosts, starting: Semaphore::new(MAX_STARTING) })
    }

    /// The mail exchanges of a domain: preference and host name.
    pub async fn mx(&self, domain: &str) -> Result<Vec<(u16, String)>, Missing> {
        let records = self.lookup(domain, RecordType::MX).await?;
        let exchanges: Vec<(u16, String)> = records
            .into_iter()
            .filter_map(|data| match data {
                RData::MX(mx) => Some((mx.preference, mx.exchange.to_ascii())),
                _ => None,
            })
            .collect();
        if exchanges.is_empty() { Err(Missing::Records) } else { Ok(exchanges) }
    }

    /// The addresses of a host, in the order to be tried. What only one of the two families brings
    /// is enough; without any, trouble outweighs "there is none".
    pub async fn addresses(&self, host: &str) -> Result<Vec<IpAddr>, Missing> {
        let (six, four) =
            tokio::join!(self.lookup(host, RecordType::AAAA), self.lookup(host, RecordType::A));
        let mut addresses = Vec::new();
        let mut missing = Missing::Records;
        for answer in [six, four] {
            match answer {
                Ok(records) => addresses.extend(records.iter().filter_map(RData::ip_addr)),
                Err(other) if !matches!(missing, Missing::Trouble(_)) => missing = other,
                Err(_) => {}
            }
        }
        if addresses.is_empty() { Err(missing) } else { Ok(addresses) }
    }

    /// As [`Resolver::addresses`], for a name that a person has configured: the hosts file first.
    pub async fn host(&self, name: &str) -> Result<Vec<IpAddr>, Missing> {
        let known = absolute(name).into_iter().flat_map(|name| {
            [RecordType::AAAA, RecordType::A].map(|kind| Query::query(name.clone(), kind))
        });
        let mut addresses = Vec::new();
        for query in known {
            if let Some(found) = self.hosts.lookup_static_host(&query) {
                addresses.extend(found.answers().iter().filter_map(|record| record.data.ip_addr()));
            }
        }
        if addresses.is_empty() { self.addresses(name).await } else { Ok(addresses) }
    }

    /// What an address is called, where the name leads back to the address: a name that its owner
    /// only claims is none.
    pub async fn name_of(&self, address: IpAddr) -> Option<String> {
        let reverse = Name::from(address).to_ascii();
        let records = self.lookup(&reverse, RecordType::PTR).await.ok()?;
        let names = records.into_iter().filter_map(|data| match data {
            RData::PTR(name) => Some(name.0.to_ascii()),
            _ => None,
        });
        for name in names.take(MAX_NAMES) {
            let name = name.trim_end_matches('.');
            if is_host_name(name)
                && self.addresses(name).await.is_ok_and(|found| found.contains(&address))
            {
                return Some(name.to_owned());
            }
        }
        None
    }

    /// What a list of unwelcome clients says of an address (RFC 5782): its text, empty where it has
    /// none. An answer outside 127.0.0.0/8 is none: the list is gone, and its domain another's.
    pub async fn listed(&self, address: IpAddr, list: &str) -> Result<String, Missing> {
        let reverse = Name::from(address).to_ascii();
        let digits = reverse.trim_end_matches("in-addr.arpa.").trim_end_matches("ip6.arpa.");
        let name = format!("{digits}{list}");
        let found = self.lookup(&name, RecordType::A).await?;
        let is_listed = |data: &RData| data.ip_addr().is_some_and(|address| address.is_loopback());
        if !found.iter().any(is_listed) {
            return Err(Missing::Records);
        }
        let texts = self.lookup(&name, RecordType::TXT).await.unwrap_or_default();
        Ok(texts.iter().find_map(text).unwrap_or_default())
    }

    async fn lookup(&self, name: &str, kind: RecordType) -> Result<Vec<RData>, Missing> {
        // What can't be a name in DNS is in no zone.
        let name = absolute(name).ok_or(Missing::Name)?;
        let permit = self.starting.acquire().await;
        let answer = async {
            let mut lookup = std::pin::pin!(self.inner.lookup(name, kind));
            if let Ok(answer) = tokio::time::timeout(BURST, &mut lookup).await {
                return answer;
            }
            drop(permit);
            lookup.await
        };
        match tokio::time::timeout(PATIENCE, answer).await {
            // A code that nobody has heard of is no answer.
            Ok(Ok(found)) if !is_known(found.message().response_code) => {
                Err(Missing::Trouble(found.message().response_code.to_string()))
            }
            Ok(Ok(found)) => Ok(found.answers().iter().map(|record| record.data.clone()).collect()),
            Ok(Err(error)) => Err(missing(&error)),
            Err(_) => Err(Missing::Trouble("no answer".into())),
        }
    }
}

/// Whether what somebody claims to be called can stand in a header field as a name.
fn is_host_name(name: &str) -> bool {
    let is_address = name.starts_with('[') || name.parse::<IpAddr>().is_ok();
    !is_address && name.len() <= 255 && address::domain(name.as_bytes(), Alphabet::Ascii).is_ok()
}

/// A name that is never completed from a search list.
fn absolute(name: &str) -> Option<Name> {
    // With UTF-8 it is asked for as IDNA has it (RFC 6531 section 3.7.1).
    let parse = if name.is_ascii() { Name::from_ascii } else { Name::from_utf8 };
    let mut name = parse(name).ok()?;
    name.set_fqdn(true);
    Some(name)
}

/// The text of a TXT record.
fn text(data: &RData) -> Option<String> {
    match data {
        RData::TXT(txt) => Some(String::from_utf8_lossy(&txt.txt_data.concat()).into_owned()),
        _ => None,
    }
}

fn local_server() -> NameServerConfig {
    NameServerConfig::udp_and_tcp(IpAddr::from([127, 0, 0, 1]))
}

fn configured(server: std::net::SocketAddr) -> NameServerConfig {
    let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()].map(|mut connection| {
        connection.port = server.port();
        connection
    });
    NameServerConfig::new(server.ip(), true, connections.into())
}

fn is_known(code: ResponseCode) -> bool {
    matches!(code, ResponseCode::NoError | ResponseCode::NXDomain)
}

/// Only a server that says so makes a name missing: everything else is trouble.
fn missing(error: &NetError) -> Missing {
    match error {
        NetError::Dns(DnsError::NoRecordsFound(none)) => match none.response_code {
            ResponseCode::NXDomain => Missing::Name,
            ResponseCode::NoError => Missing::Records,
            code => Missing::Trouble(code.to_string()),
        },
        error => Missing::Trouble(error.to_string()),
    }
}

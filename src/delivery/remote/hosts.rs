//! The hosts of a destination, found one after the other as they are needed.

use std::collections::VecDeque;
use std::fmt;
use std::net::IpAddr;

use crate::config::{self, Config};
use crate::message::address::address_literal;
use crate::net::dns::Resolver;
use crate::route::mx::{self, Missing, Unroutable};

/// Addresses that are tried for one destination, at most.
const MAX_ADDRESSES: usize = 10;

/// Mail exchanges that are looked up for one domain, at most.
const MAX_NAMES: usize = 10;

/// A host that can be called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// Its name; an address literal where it was found without one.
    pub name: String,
    /// Its address.
    pub address: IpAddr,
    /// Its port.
    pub port: u16,
}

impl fmt::Display for Host {
    /// As Postfix logs it: `mx.example.org[192.0.2.1]:25`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name.strip_prefix('[') {
            Some(_) => write!(f, "{}:{}", self.name, self.port),
            None => write!(f, "{}[{}]:{}", self.name, self.address, self.port),
        }
    }
}

/// Walks through a destination's hosts.
pub struct Hosts<'a> {
    resolver: &'a Resolver,
    domain: &'a str,
    port: u16,
    /// Whether a person has written the names.
    configured: bool,
    names: VecDeque<String>,
    addresses: VecDeque<Host>,
    tried: usize,
    trouble: Option<Unroutable>,
}

impl<'a> Hosts<'a> {
    /// The hosts of the smarthost where there is one, else of `domain`, by MX.
    pub async fn of(
        config: &Config,
        resolver: &'a Resolver,
        domain: &'a str,
    ) -> Result<Self, Unroutable> {
        let mut hosts = Hosts {
            resolver,
            domain,
            port: config.delivery.port,
            configured: false,
            names: VecDeque::new(),
            addresses: VecDeque::new(),
            tried: 0,
            trouble: None,
        };
        let literal = domain.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        match (config.delivery.smarthost.get(), literal.map(address_literal)) {
            (Some((config::Host::Name(name), port)), _) => {
                hosts.configured = true;
                hosts.port = port;
                hosts.names.push_back(name.clone());
            }
            (Some((config::Host::Address(address), port)), _) => {
                hosts.port = port;
                hosts.push(format!("[{address}]"), *address);
            }
            (None, Some(Some(address))) => hosts.push(domain.to_owned(), address),
            (None, Some(None)) => return Err(Unroutable::NoDomain(domain.to_owned())),
            (None, None) => {
                let answer = resolver.mx(domain).await;
                let mut names = mx::exchanges(domain, &config.hostname, answer, pick)?;
                names.truncate(MAX_NAMES);
                hosts.names = names.into();
            }
        }
        Ok(hosts)
    }

    fn push(&mut self, name: String, address: IpAddr) {
        self.addresses.push_back(Host { name, address, port: self.port });
    }

    /// The next one to try; `None` when all were tried. An error where none was found at all.
    pub async fn next(&mut self) -> Result<Option<Host>, Unroutable> {
        loop {
            if self.tried >= MAX_ADDRESSES {
                return Ok(None);
            }
            if let Some(host) = self.addresses.pop_front() {
                self.tried += 1;
                return Ok(Some(host));
            }
            let Some(name) = self.names.pop_front() else {
                return match self.trouble.take() {
                    // Whether there are others, or just these, is not known.
                    Some(trouble) if self.tried == 0 => Err(trouble),
                    None if self.tried == 0 => Err(Unroutable::NoAddress(self.domain.to_owned())),
                    _ => Ok(None),
                };
            };
            let found = if self.configured {
                self.resolver.host(&name).await
            } else {
                self.resolver.addresses(&name).await
            };
            match found {
                Ok(addresses) => {
                    for address in addresses {
                        self.push(name.clone(), address);
                    }
                }
                Err(Missing::Trouble(why)) => {
                    self.trouble = Some(Unroutable::Trouble { name, why });
                }
                // What a person has written may be mended by them: their mail waits.
                Err(_) if self.configured => {
                    let why = "the smarthost has no address".into();
                    self.trouble = Some(Unroutable::Trouble { name, why });
                }
                Err(Missing::Name | Missing::Records) => {}
            }
        }
    }
}

/// One of so many, by chance. Without chance the first: still a right order.
fn pick(count: usize) -> usize {
    let random = getrandom::u32().unwrap_or(0);
    usize::try_from(random).unwrap_or(0).checked_rem(count).unwrap_or(0)
}

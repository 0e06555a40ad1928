//! The rules: what is said to a client that wants to send to a recipient.
//!
//! What costs nothing is looked at first, and all that is said to a stranger before anybody is
//! asked whether there is such a user: lists of users are not for strangers.

use std::net::IpAddr;

use super::greylist::Greylist;
use super::{PATIENCE, Trust};
use crate::config::{Config, HeloCheck};
use crate::message::Address;
use crate::message::address;
use crate::net::dns::Resolver;
use crate::route::access::{self, Access};
use crate::route::forward::{self, Entry};
use crate::route::mx::Missing;
use crate::route::resolve::{Virtual, alias, virtual_user};
use crate::route::{self, Destination, Files, Tables, Verdict};
use crate::smtp::Reply;
use crate::sys::clock;

/// What the rules are made of.
pub struct Rules {
    /// The configuration.
    pub config: Config,
    /// Aliases, virtual users and access, as they were when the process began.
    pub tables: Tables,
    /// Who has come before.
    pub greylist: Option<Greylist>,
}

/// Who wants to send.
pub struct Client {
    /// Its address.
    pub address: IpAddr,
    /// Its verified name; `Err` where that can't be told now.
    pub name: Result<Option<String>, ()>,
    /// The list of unwelcome clients that it is in, and what that says.
    pub listed: Option<String>,
}

/// A message to a recipient, as [`super::Mail`].
pub struct Mail {
    /// What the client calls itself.
    pub helo: String,
    /// The envelope's sender.
    pub sender: Option<Address>,
    /// The recipient.
    pub recipient: Address,
    /// What is known of the client.
    pub trust: Trust,
}

/// What the access table says of a message that it does not refuse.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Welcome {
    /// It goes on.
    Neutral,
    /// No further check for strangers.
    Always,
}

impl Rules {
    /// Whether mail for this recipient may come from this client by what the tables say of it. An
    /// error says what has to be mended.
    pub fn known(&self, mail: &Mail) -> Result<Result<Verdict, Reply>, String> {
        let verdict = route::verify(&self.config, &self.tables, &mail.recipient)?;
        let to = &mail.recipient;
        let refuse =
            |code, enhanced, what| Err(Reply::new(code, enhanced, format!("<{to}>: {what}")));
        Ok(match verdict {
            Verdict::Foreign if mail.trust == Trust::Stranger => {
                refuse(554, "5.7.1", "Relay access denied")
            }
            other => Ok(other),
        })
    }

    /// What the access table says.
    pub fn access(&self, client: &Client, mail: &Mail) -> Result<Result<Welcome, Reply>, String> {
        let (config, table) = (&self.config, &self.tables.access);
        let mut welcome = Welcome::Neutral;
        let name = client.name.as_ref().ok().and_then(Option::as_ref);
        let by_name = name.map(|name| access::name_keys(name)).unwrap_or_default();
        // A user comes from anywhere.
        let client_keys = match mail.trust {
            Trust::User => Vec::new(),
            _ => [access::address_keys(client.address), by_name].concat(),
        };
        let sender = mail.sender.as_ref().map_or("<>".into(), |sender| format!("<{sender}>"));
        for (keys, who, spares) in [
            (client_keys, format!("client [{}]", client.address), true),
            (access::sender_keys(config, mail.sender.as_ref()), sender, false),
            (
                access::recipient_keys(config, &mail.recipient),
                format!("<{}>", mail.recipient),
                true,
            ),
        ] {
            match access::find(table, keys)? {
                // Anybody may say that he is somebody.
                Some(Access::Ok) if spares => welcome = Welcome::Always,
                Some(Access::Ok) | None => {}
                Some(Access::Refuse(reply)) => return Ok(Err(reply.about(&who))),
            }
        }
        Ok(Ok(welcome))
    }

    /// What strangers must be like.
    pub async fn stranger(
        &self,
        client: &Client,
        mail: &Mail,
        resolver: &Resolver,
    ) -> Option<Reply> {
        let address = client.address;
        let smtp = &self.config.smtp;
        if smtp.require_client_name && client.name == Ok(None) {
            let text =
                format!("Client host rejected: [{address}] has no name that leads back to it");
            return Some(Reply::new(450, "4.7.25", text));
        }
        if smtp.helo_check >= HeloCheck::Syntax
            && let Err(what) = self.helo(client, &mail.helo)
        {
            let text = format!("<{}>: Helo command rejected: {what}", mail.helo);
            return Some(Reply::new(550, "5.7.1", text));
        }
        if smtp.helo_check == HeloCheck::Dns && !mail.helo.starts_with('[') {
            let text = |what| format!("<{}>: Helo command rejected: {what}", mail.helo);
            let found = tokio::time::timeout(PATIENCE, exists(resolver, &mail.helo)).await;
            match found.unwrap_or(None) {
                Some(true) => {}
                Some(false) => {
                    return Some(Reply::new(550, "5.7.1", text("there is no such host in DNS")));
                }
                None => return Some(Reply::new(450, "4.7.1", text("it can't be looked up now"))),
            }
        }
        let list = client.listed.as_ref()?;
        let text = format!("Service unavailable; client [{address}] blocked using {list}");
        Some(Reply::new(554, "5.7.1", text))
    }

    fn helo(&self, client: &Client, helo: &str) -> Result<(), &'static str> {
        if let Some(literal) = helo.strip_prefix('[') {
            let literal = literal.strip_suffix(']').and_then(address::address_literal);
            let own = literal.map(|said| said.to_canonical());
            return match own {
                Some(said) if said == client.address => Ok(()),
                _ => Err("this is not your address"),
            };
        }
        let helo = helo.strip_suffix('.').unwrap_or(helo);
        if !helo.contains('.') || helo.parse::<IpAddr>().is_ok() {
            return Err("a full host name is wanted, or your address in brackets");
        }
        let config = &self.config;
        if helo.eq_ignore_ascii_case(&config.hostname) || config.is_local_domain(helo) {
            return Err("this is our name");
        }
        Ok(())
    }

    /// What a stranger is told that has to come again.
    pub fn greylist(&self, client: IpAddr, mail: &Mail) -> Option<Reply> {
        let greylist = self.greylist.as_ref().filter(|_| mail.trust == Trust::Stranger)?;
        let text = |address: &Address| address.to_string();
        let sender = mail.sender.as_ref().map(text).unwrap_or_default();
        let wait = greylist.wait(clock::seconds(), client, &sender, &mail.recipient.to_string());
        // What can't be told costs no mail.
        let seconds = wait.ok().flatten()?;
        let text = format!("<{}>: Greylisted, come again in {seconds} seconds", mail.recipient);
        Some(Reply::new(451, "4.7.1", text))
    }

    /// The members of the list at an address, a line each, one step deep. What a program does is
    /// nobody's business.
    pub fn members(&self, address: &Address) -> Result<Result<String, Reply>, String> {
        let config = &self.config;
        let lookups = Files { tables: &self.tables, has_account: |_: &str| Ok(false) };
        let none = || Reply::new(550, "5.1.1", format!("<{address}>: there is no such list"));
        let value = match virtual_user(config, &lookups, address)? {
            Virtual::User { value, .. } => Some(value),
            Virtual::No if config.is_local_domain(address.domain()) => {
                alias(config, &lookups, address.local())?.map(|(_, value)| value)
            }
            Virtual::No | Virtual::Unknown => None,
        };
        let Some(value) = value else {
            return Ok(Err(none()));
        };
        let entries = forward::parse_at_most(&value.text, config.origin(), route::MAX_MEMBERS)
            .map_err(|error| value.at(error.line, error.what))?;
        if entries.is_empty() {
            return Ok(Err(none()));
        }
        let shown = entries.iter().map(|entry| match entry {
            Entry::Address(address) | Entry::Mailbox(address) => format!("<{address}>"),
            Entry::Include(_) => "further members".into(),
            Entry::Command(_) | Entry::File(_) => "a program".into(),
        });
        Ok(Ok(shown.collect::<Vec<_>>().join("\n")))
    }

    /// Whether mail for an address reaches this account: its own name, or an alias or a virtual user
    /// of whom it is a member.
    pub fn is_owner(&self, user: &str, address: &Address) -> Result<bool, String> {
        let config = &self.config;
        let is_user = |address: &Address| {
            config.is_local_domain(address.domain())
                && route::extension(config, user, address.local()).is_some()
        };
        // Which account a name is, is not the question here.
        let lookups = Files { tables: &self.tables, has_account: |_: &str| Ok(true) };
        Ok(match route::resolve(config, &lookups, address)? {
            Destination::Account => is_user(address),
            Destination::Remote | Destination::Unknown => false,
            Destination::Expanded(expansion) => {
                expansion.groups.iter().flat_map(|group| &group.members).any(is_user)
            }
        })
    }
}

/// Whether there is a host or a mail domain of this name; `None` where that can't be told.
async fn exists(resolver: &Resolver, name: &str) -> Option<bool> {
    let mut known = Some(false);
    let (addresses, exchanges) = tokio::join!(resolver.addresses(name), resolver.mx(name));
    for missing in [addresses.err(), exchanges.err()] {
        match missing {
            None => return Some(true),
            Some(Missing::Name | Missing::Records) => {}
            Some(_) => known = None,
        }
    }
    known
}

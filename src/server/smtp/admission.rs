//! Who the client is, and what may be sent by it: the session child's questions to the policy
//! process and to its monitor.

use std::net::{IpAddr, Ipv4Addr};

use super::incoming::Submitter;
use super::talk::{Stop, Talk};
use super::{Answer, UNKNOWN};
use crate::message::Address;
use crate::server::ask::Ask;
use crate::server::policy::{self, Mail, Trust};
use crate::smtp::xclient::{Claim, Known};
use crate::smtp::{LookUp, Reply, Session, Verdict};

impl Talk<'_> {
    /// Who the client is, where a load balancer stands before it.
    pub(super) fn learn_client(&mut self) -> Result<(), Stop> {
        let Some(balancer) = self.connection.peer.address else {
            return Ok(());
        };
        if !self.server.config.smtp.is_proxy(balancer) {
            return Ok(());
        }
        match self.connection.client_behind() {
            Ok(None) => Ok(()),
            Ok(Some(client)) => self.speaks_for(client, None),
            Err(what) => {
                let hint = "it is among [smtp] proxies";
                self.say(Ask::Error, &format!("load balancer [{balancer}] {what}; {hint}"))?;
                Err(Stop::Client)
            }
        }
    }

    /// From here on the client is another one; `name` where that is not DNS's to say.
    fn speaks_for(&mut self, client: IpAddr, name: Option<Known<String>>) -> Result<(), Stop> {
        self.connection.peer.address = Some(client);
        self.policy.client(client, name.as_ref());
        self.name = name.map(|name| name.value().unwrap_or_else(|| UNKNOWN.into()));
        self.say(Ask::Client, &client.to_string())
    }

    /// Whether the client may say by XCLIENT whom it speaks for.
    pub(super) fn may_claim(&self) -> bool {
        let smtp = &self.server.config.smtp;
        self.connection.peer.address.is_some_and(|client| smtp.may_claim(client))
    }

    /// The client, who may, has said whom it speaks for.
    pub(super) fn claim(&mut self, claim: &Claim) -> Result<(), Stop> {
        let old = self.connection.peer.address_or_local();
        let client = match claim.address {
            None => old,
            Some(Known::As(client)) => client,
            Some(Known::Not) => Ipv4Addr::UNSPECIFIED.into(),
        };
        if claim.address.is_some() || claim.name.is_some() {
            self.speaks_for(client, claim.name.clone())?;
        }
        Ok(())
    }

    pub(super) fn may_relay(&self) -> bool {
        let address = self.connection.peer.address;
        address.is_none_or(|client| self.server.config.smtp.may_relay(client))
    }

    /// Is this recipient ours, or may this client, or this user, send elsewhere through us?
    pub(super) fn check(&mut self, session: &Session, address: &Address) -> Result<Verdict, Stop> {
        let config = self.server.config;
        if !self.server.knows_users {
            let is_ours = config.is_local_domain(address.domain()) || self.may_relay();
            let denied = || Reply::new(554, "5.7.1", format!("<{address}>: Relay access denied"));
            return Ok(if is_ours { Verdict::Accept } else { Verdict::Refuse(denied()) });
        }
        let mail = Mail {
            helo: session.helo(),
            sender: session.transaction().and_then(|transaction| transaction.sender.as_ref()),
            recipient: address,
            trust: self.trust(session),
        };
        if let (Some(user), Some(sender)) = (session.user(), mail.sender)
            && config.smtp.senders_must_be_own
        {
            match self.policy.is_owner(user, sender) {
                Ok(true) => {}
                Ok(false) => {
                    let text = format!("<{sender}> is no address of user {user}");
                    return Ok(Verdict::Refuse(Reply::new(553, "5.7.1", text)));
                }
                Err(what) => return self.lookup_failed(sender, &what).map(Verdict::Refuse),
            }
        }
        let known = match self.policy.recipient(&mail) {
            Ok(policy::Verdict::Accept) => Ok(true),
            Ok(policy::Verdict::Account) => self.has_account(address.local())?,
            Ok(policy::Verdict::Refuse(reply)) => return Ok(Verdict::Refuse(reply)),
            Err(what) => Err(what),
        };
        match known {
            Ok(true) => {}
            Ok(false) => return Ok(Verdict::Refuse(Reply::unknown_user(address))),
            Err(what) => return self.lookup_failed(address, &what).map(Verdict::Refuse),
        }
        let greylists = config.greylist.is_on() && mail.trust == Trust::Stranger;
        let later = if greylists { self.policy.greylisted(&mail) } else { None };
        Ok(later.map_or(Verdict::Accept, Verdict::Refuse))
    }

    fn lookup_failed(&self, address: &Address, what: &str) -> Result<Reply, Stop> {
        self.say(Ask::Error, &format!("looking up {address}: {what}"))?;
        Ok(Reply::new(451, "4.3.0", format!("<{address}>: Temporary lookup failure")))
    }

    /// Lets `work` ask whose the message is that is coming in.
    pub(super) fn submitter<T>(
        &mut self,
        session: &Session,
        work: impl FnOnce(&mut Submitter<'_>) -> T,
    ) -> T {
        let config = self.server.config;
        let (policy, monitor) = (&mut self.policy, self.monitor);
        let user = session.user().unwrap_or_default();
        let mut is_owner = |address: &Address| {
            if !config.smtp.senders_must_be_own {
                return Ok(true);
            }
            policy.is_owner(user, address).inspect_err(|what| {
                let _ = Ask::Error.say(monitor, format!("looking up {address}: {what}"));
            })
        };
        let sender = session.transaction().and_then(|transaction| transaction.sender.clone());
        let own = || Address::new(user, config.origin()).ok();
        work(&mut Submitter {
            user,
            address: sender.or_else(own),
            origin: config.origin(),
            hostname: &config.hostname,
            is_owner: &mut is_owner,
        })
    }

    /// Whether a local-part leads to an account; the monitor logs why it can't tell.
    fn has_account(&self, local: &str) -> Result<Result<bool, String>, Stop> {
        self.say(Ask::User, local)?;
        let mut answer = [0];
        let length = self.monitor.receive(&mut answer).map_err(|_| Stop::Monitor)?;
        match answer {
            _ if length != 1 => Err(Stop::Monitor),
            [yes] if yes == Answer::Yes as u8 => Ok(Ok(true)),
            [no] if no == Answer::No as u8 => Ok(Ok(false)),
            _ => Ok(Err("the account can't be looked up now".into())),
        }
    }

    fn trust(&self, session: &Session) -> Trust {
        match session.user() {
            Some(_) => Trust::User,
            None if self.may_relay() => Trust::Network,
            None => Trust::Stranger,
        }
    }

    /// What is said to VRFY or EXPN: lines of one code, or a refusal.
    pub(super) fn look_up(
        &mut self,
        session: &Session,
        what: &LookUp,
    ) -> Result<Result<Vec<Reply>, Reply>, Stop> {
        let address = match what {
            LookUp::Verify(address) | LookUp::Expand(address) => address,
        };
        let found = match what {
            LookUp::Verify(_) => self.policy.verify(address),
            LookUp::Expand(_) if self.trust(session) == Trust::Stranger => {
                return Ok(Err(Reply::new(
                    550,
                    "5.7.2",
                    "Error: lists are not expanded for strangers",
                )));
            }
            LookUp::Expand(_) => self.policy.expand(address),
        };
        let known = match found {
            Ok(policy::Found::Members(members)) => {
                let line = |member: &String| Reply::new(250, "2.1.5", member.clone());
                return Ok(Ok(members.iter().map(line).collect()));
            }
            Ok(policy::Found::Known) => Ok(true),
            Ok(policy::Found::Account) => self.has_account(address.local())?,
            Ok(policy::Found::Elsewhere) => {
                let text = format!("<{address}> is not of this host; send some mail");
                return Ok(Ok(vec![Reply::new(252, "2.1.5", text)]));
            }
            Ok(policy::Found::Refused(reply)) => return Ok(Err(reply)),
            Err(what) => Err(what),
        };
        Ok(match known {
            Ok(true) => Ok(vec![Reply::new(250, "2.1.5", format!("<{address}>"))]),
            Ok(false) => Err(Reply::unknown_user(address)),
            Err(what) => Err(self.lookup_failed(address, &what)?),
        })
    }
}

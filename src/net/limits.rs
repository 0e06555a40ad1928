//! How many sessions there may be at once, in all and from one address, and how many may begin in a
//! minute.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, Instant};

use crate::config::Network;

const MINUTE: Duration = Duration::from_mins(1);

/// What is allowed; 0 is no limit for what may begin in a minute.
#[derive(Clone, Debug)]
pub struct Most {
    /// At once, in all.
    pub sessions: usize,
    /// At once from one address.
    pub per_address: usize,
    /// Begun within a minute from one address.
    pub per_minute: usize,
    /// Addresses from which others speak: only what is allowed in all holds for them.
    pub proxies: Vec<Network>,
}

/// Counts sessions. A client's address is the address, or the network of 64 bits that an IPv6
/// address is in: its owner has all of them.
#[derive(Debug)]
pub struct Connections {
    most: Most,
    total: usize,
    open: HashMap<IpAddr, usize>,
    /// Those that have begun in the minute since this moment.
    begun: HashMap<IpAddr, usize>,
    minute: Instant,
}

impl Connections {
    /// Nobody is there yet.
    pub fn new(most: Most) -> Self {
        let (open, begun) = (HashMap::new(), HashMap::new());
        Self { most, total: 0, open, begun, minute: Instant::now() }
    }

    /// Counts one more from this address; false where it would be one too many.
    pub fn enter(&mut self, address: IpAddr) -> bool {
        self.enter_at(address, Instant::now())
    }

    fn enter_at(&mut self, address: IpAddr, now: Instant) -> bool {
        if now.saturating_duration_since(self.minute) >= MINUTE {
            self.begun.clear();
            self.minute = now;
        }
        let is_proxy = self.most.proxies.iter().any(|network| network.contains(address));
        let client = client(address);
        let open = self.open.entry(client).or_default();
        let mut allowed = self.total < self.most.sessions;
        if !is_proxy {
            allowed &= *open < self.most.per_address;
        }
        if !is_proxy && self.most.per_minute > 0 {
            let begun = self.begun.entry(client).or_default();
            allowed &= *begun < self.most.per_minute;
            *begun += usize::from(allowed);
        }
        if allowed {
            *open += 1;
            self.total += 1;
        } else if *open == 0 {
            self.open.remove(&client);
        }
        allowed
    }

    /// One less.
    pub fn leave(&mut self, address: IpAddr) {
        let client = client(address);
        if let Some(count) = self.open.get_mut(&client) {
            self.total -= 1;
            *count -= 1;
            if *count == 0 {
                self.open.remove(&client);
            }
        }
    }
}

/// What counts as one client.
fn client(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) | IpAddr::V6(Ipv6Addr::LOCALHOST) => address,
        IpAddr::V6(address) => {
            Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into()
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;
    use std::time::{Duration, Instant};

    use super::{Connections, Most};

    fn most(sessions: usize, per_address: usize, per_minute: usize) -> Most {
        Most { sessions, per_address, per_minute, proxies: Vec::new() }
    }

    #[test]
    fn both_limits_hold_and_places_come_back() {
        let mut connections = Connections::new(most(3, 2, 0));
        let (a, b) = ([10, 0, 0, 1].into(), [10, 0, 0, 2].into());
        assert!(connections.enter(a) && connections.enter(a) && !connections.enter(a));
        assert!(connections.enter(b) && !connections.enter(b));
        connections.leave(a);
        assert!(connections.enter(b));
        connections.leave([10, 0, 0, 3].into());
        assert!(!connections.enter(a));
    }

    #[test]
    fn so_many_begin_in_a_minute_whether_or_not_they_end() {
        let mut connections = Connections::new(most(9, 9, 2));
        let (a, b) = ([10, 0, 0, 1].into(), [10, 0, 0, 2].into());
        let now = Instant::now();
        for _ in 0..2 {
            assert!(connections.enter_at(a, now));
            connections.leave(a);
        }
        assert!(!connections.enter_at(a, now));
        assert!(connections.enter_at(b, now));
        assert!(connections.enter_at(a, now + Duration::from_secs(61)));
    }

    #[test]
    fn a_network_of_ipv6_is_one_client_and_a_proxy_none() {
        let mut connections = Connections::new(Most {
            proxies: vec!["192.0.2.9".to_owned().try_into().unwrap()],
            ..most(4, 1, 1)
        });
        let address = |text: &str| text.parse::<IpAddr>().unwrap();
        assert!(connections.enter(address("2001:db8::1")));
        assert!(!connections.enter(address("2001:db8::2:1")));
        assert!(connections.enter(address("2001:db8:0:1::1")));
        assert!(connections.enter(address("192.0.2.9")) && connections.enter(address("192.0.2.9")));
        assert!(!connections.enter(address("192.0.2.9")), "in all");
    }
}

//! How many sessions there may be at once, in all and from one address.

use std::collections::HashMap;
use std::net::IpAddr;

/// Counts sessions.
#[derive(Debug)]
pub struct Connections {
    max: usize,
    max_per_ip: usize,
    total: usize,
    by_address: HashMap<IpAddr, usize>,
}

impl Connections {
    /// At most `max` in all and `max_per_ip` from one address.
    pub fn new(max: usize, max_per_ip: usize) -> Self {
        Self { max, max_per_ip, total: 0, by_address: HashMap::new() }
    }

    /// Counts one more from this address; false where it would be one too many.
    pub fn enter(&mut self, address: IpAddr) -> bool {
        let count = self.by_address.get(&address).copied().unwrap_or(0);
        if self.total >= self.max || count >= self.max_per_ip {
            return false;
        }
        self.total += 1;
        self.by_address.insert(address, count + 1);
        true
    }

    /// One less.
    pub fn leave(&mut self, address: IpAddr) {
        if let Some(count) = self.by_address.get_mut(&address) {
            self.total -= 1;
            *count -= 1;
            if *count == 0 {
                self.by_address.remove(&address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Connections;

    #[test]
    fn both_limits_hold_and_places_come_back() {
        let mut connections = Connections::new(3, 2);
        let (a, b) = ([10, 0, 0, 1].into(), [10, 0, 0, 2].into());
        assert!(connections.enter(a) && connections.enter(a) && !connections.enter(a));
        assert!(connections.enter(b) && !connections.enter(b));
        connections.leave(a);
        assert!(connections.enter(b));
        connections.leave([10, 0, 0, 3].into());
        assert!(!connections.enter(a));
    }
}

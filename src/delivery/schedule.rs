//! When a message is tried again, and when it is given up; pure.

use crate::config;

/// What becomes of a message that could not be delivered this time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// It is tried again at this time, seconds since 1970.
    Retry(u64),
    /// It is returned to its sender.
    Expire,
}

/// Judges a message that arrived at `arrived` and has failed `attempts` times, this one included.
/// All times are seconds since 1970.
pub fn next(queue: &config::Queue, arrived: u64, attempts: usize, now: u64) -> Next {
    let expires = arrived.saturating_add(queue.expire_after.seconds());
    if now >= expires {
        return Next::Expire;
    }
    let wait = queue.retry.get(attempts.saturating_sub(1)).or(queue.retry.last());
    let due = now.saturating_add(wait.map_or(300, |wait| wait.seconds()));
    // The last attempt is made when the time is over, not long before.
    Next::Retry(due.min(expires))
}

/// The longest wait between two tries, in seconds.
pub fn longest(queue: &config::Queue) -> u64 {
    let waits = queue.retry.iter().map(|wait| wait.seconds());
    waits.max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_waits_grow_as_configured_and_the_last_one_repeats() {
        let queue = config::Queue::default();
        let wait = |attempts, now| match next(&queue, 0, attempts, now) {
            Next::Retry(due) => due - now,
            Next::Expire => 0,
        };
        let waits: Vec<u64> = (1..9).map(|attempts| wait(attempts, 1000)).collect();
        assert_eq!(waits, [300, 900, 1800, 3600, 7200, 14400, 14400, 14400]);
    }

    #[test]
    fn a_message_is_tried_a_last_time_when_it_expires_and_then_returned() {
        let queue = config::Queue::default();
        let end = queue.expire_after.seconds();
        assert_eq!(next(&queue, 0, 9, end - 10), Next::Retry(end));
        assert_eq!(next(&queue, 0, 9, end), Next::Expire);
        // A clock that went back must not make a message wait for ever or panic.
        assert_eq!(next(&queue, 100, 1, 50), Next::Retry(350));
        assert_eq!(next(&queue, u64::MAX, 1, u64::MAX), Next::Expire);
    }
}

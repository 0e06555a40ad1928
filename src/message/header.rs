//! The header of a message, looked at as it streams by.

/// Counts the Received fields of a header, for the hop limit (RFC 5321 section 6.3), from pieces of
/// any cut.
#[derive(Debug, Default)]
pub struct HopCounter {
    hops: usize,
    state: State,
}

#[derive(Debug, Default)]
enum State {
    /// At the start of a line.
    #[default]
    Start,
    /// So many bytes of the field's name have matched.
    Matching(usize),
    /// Somewhere in a line.
    Inside,
    /// The header has ended.
    Body,
}

const NAME: &[u8] = b"received:";

impl HopCounter {
    /// Looks at the next piece of the message.
    pub fn push(&mut self, mut piece: &[u8]) {
        while let Some((&byte, rest)) = piece.split_first() {
            self.state = match self.state {
                State::Body => return,
                State::Start if byte == b'\r' => State::Start,
                State::Start if byte == b'\n' => State::Body,
                State::Start => self.matched(0, byte),
                State::Matching(_) if byte == b'\n' => State::Start,
                State::Matching(count) => self.matched(count, byte),
                State::Inside => match memchr::memchr(b'\n', piece) {
                    Some(at) => {
                        piece = piece.get(at + 1..).unwrap_or_default();
                        self.state = State::Start;
                        continue;
                    }
                    None => return,
                },
            };
            piece = rest;
        }
    }

    /// Fields seen so far.
    pub fn hops(&self) -> usize {
        self.hops
    }

    fn matched(&mut self, count: usize, byte: u8) -> State {
        if NAME.get(count) != Some(&byte.to_ascii_lowercase()) {
            return State::Inside;
        }
        if count + 1 < NAME.len() {
            return State::Matching(count + 1);
        }
        self.hops += 1;
        State::Inside
    }
}

#[cfg(test)]
mod tests {
    use super::HopCounter;

    #[test]
    fn received_fields_of_the_header_count_and_those_of_the_body_do_not() {
        let message =
            b"Received: a\r\n b\r\nRECEIVED: c\r\nX-Received: d\r\n Received: e\r\n\r\nReceived: f\r\n";
        for cut in 0..message.len() {
            let mut counter = HopCounter::default();
            let (first, second) = message.split_at(cut);
            counter.push(first);
            counter.push(second);
            assert_eq!(counter.hops(), 2, "cut at {cut}");
        }
    }
}

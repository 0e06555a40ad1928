//! Samples of the RFCs, what is limited, and what holds for every message.

use super::*;
use crate::imap::structure::{Revision, body_text, envelope_text};

fn parse(message: &[u8]) -> Structure {
    let mut parser = Parser::default();
    parser.push(message);
    parser.finish()
}

fn crlf(text: &str) -> Vec<u8> {
    text.replace('\n', "\r\n").into_bytes()
}

//! The Internet Message Access Protocol: RFC 9051 and RFC 3501.
//!
//! ```text
//!                    login::Session                 session::Session
//! connection ──► not authenticated ──LOGIN, ──► authenticated ◄──CLOSE──  selected
//!                  │  │  ▲           AUTHENTICATE     │      ──SELECT──►     │
//!                  │  └──┘ STARTTLS                   │                      │
//!                  └────────────LOGOUT────────────────┴──────────────────────┴──► logout
//! ```
//!
//! Pure: bytes and answers go in, and what is to be done comes out. [`input`] makes commands of
//! bytes, [`command`] what they mean, [`reply`] writes the answers.

pub mod command;
pub mod input;
pub mod login;
pub mod reply;
pub mod session;
pub mod structure;

/// The most input that may wait before login, and so be handed over after it.
pub const MAX_LEFTOVER: usize = 8 * 1024;

/// What is announced before login, beside the ways to log in.
const CAPABILITIES_BEFORE_LOGIN: &str = "IMAP4rev1 IMAP4rev2 LITERAL+ SASL-IR ID ENABLE";

/// What is announced after login.
pub const CAPABILITIES: &str = "IMAP4rev1 IMAP4rev2 LITERAL+ SASL-IR ID ENABLE IDLE NAMESPACE \
                                UNSELECT UIDPLUS ESEARCH SEARCHRES LIST-EXTENDED LIST-STATUS MOVE \
                                BINARY SPECIAL-USE CREATE-SPECIAL-USE STATUS=SIZE CHILDREN";

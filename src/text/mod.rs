//! Text on the wire: lines, CRLF and dot transparency, modified UTF-7.

pub mod canonical;
pub mod data;
pub mod dot;
pub mod fold;
pub mod line;
pub mod utf7;

//! Text on the wire: lines, CRLF and dot transparency.

pub mod data;
pub mod line;

//! Text on the wire: lines, CRLF and dot transparency.

pub mod canonical;
pub mod data;
pub mod dot;
pub mod line;

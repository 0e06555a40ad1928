//! Text on the wire: lines, CRLF and dot transparency, modified UTF-7, charsets, and texts as they are
//! compared.

pub mod canonical;
pub mod charset;
pub mod data;
pub mod dot;
pub mod fold;
pub mod line;
pub mod utf7;

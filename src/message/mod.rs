//! Messages as values: addresses, dates, fields of the header.

pub mod address;
pub mod date;
pub mod header;
pub mod received;

pub use address::Address;

//! Messages as values: addresses, dates, fields of the header.

pub mod address;
pub mod binary;
pub mod date;
pub mod encoded_word;
pub mod header;
pub mod list;
pub mod received;
pub mod structure;
pub mod submission;
pub mod transfer;

pub use address::Address;

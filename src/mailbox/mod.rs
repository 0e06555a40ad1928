//! Stand-in until the mbox store is merged.

pub mod mbox;

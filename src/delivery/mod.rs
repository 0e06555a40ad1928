//! delivery.

pub mod local;

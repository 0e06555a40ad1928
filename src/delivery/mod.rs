//! What happens to a message after the queue: delivery agents, reports, and when to try again.

pub mod agent;
pub mod failure;
pub mod fate;
pub mod flight;
pub mod launcher;
pub mod local;
pub mod remote;
pub mod report;
pub mod runner;
pub mod schedule;

pub use failure::Failure;

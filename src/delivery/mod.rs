//! What happens to a message after the queue: delivery agents, bounces, and when to try again.

pub mod agent;
pub mod bounce;
pub mod failure;
pub mod fate;
pub mod flight;
pub mod launcher;
pub mod local;
pub mod remote;
pub mod runner;
pub mod schedule;

pub use failure::Failure;

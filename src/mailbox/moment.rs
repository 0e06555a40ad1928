pub use super::mbox::moment::*;

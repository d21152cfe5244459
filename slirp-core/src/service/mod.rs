//! The services that live on the virtual addresses themselves.
//!
//! Each service is a sibling of the others and of the flows: none imports another.

pub mod dns;

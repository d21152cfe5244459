//! Hostile guests and exhausted resources.
//!
//! A binary of its own, because floods keep a processor busy that tests with deadlines would miss.

mod packets;
mod robustness;

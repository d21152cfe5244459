//! Hostile guests and exhausted resources.
//!
//! These tests have a binary of their own, because floods take a processor away from tests with
//! deadlines.

mod packets;
mod robustness;

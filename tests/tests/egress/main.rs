//! Guests under an egress policy, and their ways around it.
//!
//! What each test asserts is what arrived outside, besides what the guest is told and how soon.

mod addresses;
mod ask;
mod audit;
mod clients;
mod control;
mod doors;
mod everyday;
mod first_bytes;
mod hello;
mod languages;
mod lookups;
mod members;
mod metrics;
mod policies;
mod published;
mod scene;
mod segments;
mod servers;
mod tool;

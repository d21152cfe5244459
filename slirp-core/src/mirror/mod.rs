//! The host's network as a template for a guest's: interface, addresses and routes.
//!
//! Owns [`Template`], which is read from the kernel once, and [`Guest`], what a guest gets of it:
//! the addresses for an [`AddressPlan`](crate::plan::AddressPlan) and the
//! [`Setup`](crate::netns::Setup) of its interface. Sending the setup is left to
//! [`netns`](crate::netns). What the guest is told of resolvers is in [`resolvers`].
//!
//! # Theory of operation
//! A guest that has the host's own addresses and routes needs no translation: what it sends leaves
//! from host sockets whose source the kernel chooses, which normally is the same address.
//!
//! *Reading.* Three lists of rtnetlink(7) are read: links, addresses and routes of the main table.
//! `dump` is the only part that touches the kernel. Everything behind it works on bytes, and the
//! tests work on recorded bytes.
//!
//! *Choice of the interface*, for each IP version: the one that the caller names. Otherwise the one
//! of the default route with the lowest metric, and then the one of any other route. `lo`, routes
//! to link-local and multicast prefixes, and interfaces without a usable address do not count. An
//! interface whose carrier is down comes last.
//!
//! *Local mode.* An IP version without such an interface gets made-up addresses of the link. The
//! guest's network works as soon as the host's does, because host sockets follow the host's routes.
//! For the same reason every guest gets a default route, whether the host has one or not: it leads
//! to us, and we need no router.
//!
//! *Changes.* A guest can be [`Following`] its host: `monitor` hears that something has changed,
//! the lists are read again, and the guest gets the difference. An IP version that the host loses
//! stays for a while, since it often comes back with the same addresses.
//!
//! *Routes* are sent again as the kernel has listed them, with another interface and without the
//! preferred source, state and lifetime. A gateway that is not on the link of the guest's addresses
//! and routes is marked as on the link. What the kernel refuses is a warning.

mod dump;
mod family;
pub(crate) mod following;
mod guest;
pub(crate) mod monitor;
pub mod resolvers;
mod route;
mod tables;
mod template;
pub(crate) mod thread;

#[cfg(test)]
mod tests;

pub use family::TemplateFamily;
pub use following::{Followed, Following};
pub use guest::{Choice, FamilyChoice, Guest, GuestFamily};
pub use template::{MirrorError, Template};

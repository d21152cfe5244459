//! Two sockets joined to one connection, past the guest's link.
//!
//! Owns the joining: [`lane`] moves the bytes of one direction, through a [`pipe`] if they are
//! many, [`tcp`] has the two directions of a connection with their ends, [`udp`] the datagrams of
//! one client, [`table`] all bridges with their names. Which sockets are joined, and when, is
//! decided by the [inner thread](super::inner).

pub(crate) mod lane;
pub(crate) mod pipe;
pub(crate) mod table;
pub(crate) mod tcp;
pub(crate) mod udp;

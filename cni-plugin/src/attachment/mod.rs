//! Attachments: containers with a network of ours, whoever asks for it.
//!
//! Owns the two verbs, [`attach`] and [`detach`], what they need ([`request`]), where attachments
//! are written down ([`store`], [`record`]) and how the processes behind them are found and stopped
//! ([`identity`], [`contact`], [`stop`]), without waiting for what has a name of theirs ([`open`]).
//! Knows neither CNI nor OCI hooks, which are two ways to ask, nor what the processes do, which is
//! in [`keeper`](crate::keeper).

pub(crate) mod attach;
pub(crate) mod contact;
pub(crate) mod detach;
pub(crate) mod error;
pub(crate) mod form;
pub(crate) mod frame;
pub(crate) mod identity;
pub(crate) mod key;
pub(crate) mod message;
mod mixture;
pub(crate) mod network;
pub(crate) mod open;
pub(crate) mod ports;
pub(crate) mod record;
pub(crate) mod request;
pub(crate) mod stop;
pub(crate) mod store;

//! Attachments: containers with a network that we provide.
//!
//! Owns the two verbs, [`attach`] and [`detach`], and their parts:
//!
//! ```text
//!  attach detach      the verbs
//!  mixture stop       one name, one configuration; ending the processes for certain
//!  contact network    talking to a keeper; the process of a shared network
//!  store record       where attachments are written down
//!  message frame      what processes say to each other, and how it is carried
//!  request form       what an attachment is to be like, and how it is written
//!  policy operator    where its container may go; what the operator watches and steers it by
//!  key identity       which container, which process
//!  open error ports   opening without waiting; failures; ports in words
//! ```
//!
//! Knows neither CNI nor OCI hooks, which are two callers of the verbs. The work of the processes
//! is in [`keeper`](crate::keeper).

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
pub(crate) mod operator;
pub(crate) mod policy;
pub(crate) mod ports;
pub(crate) mod record;
pub(crate) mod request;
pub(crate) mod stop;
pub(crate) mod store;

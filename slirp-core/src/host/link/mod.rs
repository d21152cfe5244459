//! The guest's link: what carries its Ethernet frames.
//!
//! Owns the kinds of [`Link`] (a TAP device, a socket to one virtual machine or to one after the
//! other, the devices of several members on one network, or nothing), their place in the event loop
//! (`port`), and the recording of what crosses them. What the frames say is decided on the pure
//! side.

mod acceptance;
pub(crate) mod frame_server;
mod frame_socket;
pub(crate) mod frame_stream;
pub(crate) mod nothing;
pub(crate) mod port;
pub(crate) mod recording;
pub(crate) mod switchboard;
pub(crate) mod tap;

pub use frame_server::FrameServer;
pub use frame_socket::{FrameListener, FrameSocket, FrameSocketError, Framing};
pub use nothing::NoLink;
pub use port::Link;
pub use recording::{Recording, RecordingError};
pub use switchboard::Switchboard;
pub use tap::{OffloadCeiling, Tap, TapError};

#[cfg(test)]
mod tests;

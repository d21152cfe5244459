//! Giving up an offload that the kernel offered, once it refuses a frame that relies on it.
//!
//! Owns the way of a frame with a virtio-net header into a device ([`Acceptance`]): as it is where
//! the device has the offloads for it, otherwise as the packets that it stands for. It leaves the
//! choice of offloads, when the device is opened, to [`tap`](super::tap), and the cutting to
//! [`segmentation`](crate::wire::segmentation).
//!
//! # Theory of operation
//!
//! `TUNSETOFFLOAD` says what the reader of a device understands. What its writer may leave to the
//! kernel is not asked anywhere: a kernel checks each header, by rules that differ from version to
//! version (`virtio_net_hdr_to_skb`), and refuses the frame with `EINVAL` or `EOPNOTSUPP`. Every
//! further frame of that kind would be refused as well, and a connection with it would stand still.
//!
//! *The proof.* A refused frame is cut, and its packets are written. Where the device takes the
//! first packet, it was the offload that it did not like: the offload is given up for this device,
//! with one logged warning, and later frames are cut at once. Where it does not, the frame was bad
//! in itself: it is lost, and nothing is concluded.
//!
//! *One offload at a time.* Segmentation of UDP, segmentation of TCP and checksums are given up
//! separately, so that a kernel which refuses one keeps the speed of the others.
//!
//! *Whose frame.* On a network of several members, only frames of the stack prove anything. A
//! member chooses every byte of its own frames, and could otherwise look for one that slows down
//! another member for good. Its frames are cut for the moment.
//!
//! *A device that is full* before the first packet makes the whole frame wait. Packets that find
//! it full later are lost, as they may be on any link.

use std::io;

use nix::errno::Errno;

use crate::config::Offload;
use crate::discard::DiscardReason;
use crate::wire::segmentation::{cut, is_covered};
use crate::wire::vnet::{Gso, VNET_HEADER_LEN, VnetHeader};

/// A device to which nothing is left.
const BARE: Offload = Offload { vnet_header: true, ..Offload::NOTHING };

/// The maker of a frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Author {
    /// We did: the kernel's refusal is a word about the kernel.
    Stack,
    /// A guest did, for another guest.
    Member,
}

/// Why a frame was not written as a whole.
#[derive(Debug)]
pub(crate) enum Unwritten {
    /// It cannot be cut into packets.
    Discarded(DiscardReason),
    /// What the device said.
    Refused(io::Error),
}

impl From<Unwritten> for io::Error {
    fn from(unwritten: Unwritten) -> Self {
        match unwritten {
            Unwritten::Discarded(reason) => Self::new(io::ErrorKind::InvalidData, reason.as_str()),
            Unwritten::Refused(error) => error,
        }
    }
}

/// What one device takes.
#[derive(Debug)]
pub(crate) struct Acceptance {
    /// Name of the interface.
    device: String,
    offload: Offload,
}

impl Acceptance {
    /// A device that offers `offload`.
    pub(crate) const fn new(device: String, offload: Offload) -> Self {
        Self { device, offload }
    }

    /// Name of the interface.
    pub(crate) fn device(&self) -> &str {
        &self.device
    }

    /// What it offered, without what it has been found to refuse.
    pub(crate) const fn offload(&self) -> Offload {
        self.offload
    }

    /// Gives `frame`, which begins with a virtio-net header, to `write` in a form that the device
    /// takes. `room` is where packets are put together.
    ///
    /// # Errors
    /// [`Unwritten`]. Nothing has been written where the device said `EAGAIN`.
    pub(crate) fn write(
        &mut self,
        author: Author,
        frame: &[u8],
        room: &mut Vec<u8>,
        mut write: impl FnMut(&[u8]) -> io::Result<()>,
    ) -> Result<(), Unwritten> {
        let truncated = Unwritten::Discarded(DiscardReason::FrameTruncated);
        let (bytes, behind) = frame.split_first_chunk().ok_or(truncated)?;
        let vnet = VnetHeader::parse(bytes).map_err(Unwritten::Discarded)?;
        if !is_covered(&vnet, self.offload) {
            return self.write_packets(&vnet, behind, room, write).1;
        }
        let refusal = match write(frame) {
            Err(error) if is_refusal(&error) && !is_covered(&vnet, BARE) => error,
            written => return written.map_err(Unwritten::Refused),
        };
        let (taken, written) = self.write_packets(&vnet, behind, room, write);
        if taken > 0 && author == Author::Stack {
            self.give_up(vnet.gso, &refusal);
        }
        written
    }

    /// Writes the packets that a frame stands for, up to the first that is not taken. Returns how
    /// many were.
    fn write_packets(
        &self,
        vnet: &VnetHeader,
        behind: &[u8],
        room: &mut Vec<u8>,
        mut write: impl FnMut(&[u8]) -> io::Result<()>,
    ) -> (usize, Result<(), Unwritten>) {
        let mut whole = VnetHeader::default().emit().to_vec();
        let (mut taken, mut written) = (0, Ok(()));
        let outcome = cut(vnet, behind, room, |packet| {
            if written.is_err() {
                return;
            }
            written = if self.offload.vnet_header {
                whole.truncate(VNET_HEADER_LEN);
                whole.extend_from_slice(packet);
                write(&whole)
            } else {
                write(packet)
            };
            taken += usize::from(written.is_ok());
        });
        if let Err(reason) = outcome {
            return (0, Err(Unwritten::Discarded(reason)));
        }
        let written = written.map_err(|error: io::Error| {
            // What `EAGAIN` means to the caller is that the whole frame has to be written again.
            let is_tail = taken > 0 && error.kind() == io::ErrorKind::WouldBlock;
            Unwritten::Refused(if is_tail { Errno::ENOBUFS.into() } else { error })
        });
        (taken, written)
    }

    fn give_up(&mut self, gso: Gso, error: &io::Error) {
        let (flag, name) = match gso {
            Gso::None => (&mut self.offload.checksum, "checksums"),
            Gso::TcpV4 | Gso::TcpV6 => (&mut self.offload.tcp_segmentation, "TCP segmentation"),
            Gso::Udp => (&mut self.offload.udp_segmentation, "UDP segmentation"),
        };
        *flag = false;
        tracing::warn!(
            device = self.device,
            offload = name,
            %error,
            "the kernel offers an offload but refuses its frames; going on without it, slower"
        );
    }
}

/// Whether the kernel does not like the frame, rather than the moment.
fn is_refusal(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EINVAL | libc::EOPNOTSUPP))
}

#[cfg(test)]
#[path = "tests/acceptance.rs"]
mod tests;

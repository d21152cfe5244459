//! A TAP device: one end of the guest's Ethernet link.
//!
//! Owns the descriptor, the negotiation of its offloads, and reading and writing of frames. How the
//! device is opened inside the guest's namespaces is in [`netns`](crate::netns), what is in a frame
//! in [`wire`](crate::wire).
//!
//! Offloads are asked for in steps, from everything that a current kernel knows down to nothing,
//! because the kernel refuses a set of features as a whole when it does not know one of them
//! (`Documentation/networking/tuntap.rst`, `TUNSETOFFLOAD`). What it refuses later, with a frame,
//! is given up then (`acceptance`). A descriptor that another program opened keeps the header that
//! it was opened with: that can only be chosen when the device is made.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;

use super::acceptance::{Acceptance, Author, Unwritten};
use crate::config::Offload;
use crate::mac::MacAddr;
use crate::sys::errno::text_of;
use crate::sys::{ifreq, make_ours, tun};
use crate::wire::vnet::VNET_HEADER_LEN;

/// Why a descriptor cannot serve as the guest's link.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TapError {
    /// It is not a TUN/TAP descriptor, or one without an interface.
    #[error("the file descriptor is not an open TAP device: {}", text_of(.0))]
    NotADevice(#[source] io::Error),
    /// It is a TUN device, which carries IP packets instead of Ethernet frames.
    #[error("{name} is a TUN device, but a TAP device is needed")]
    NotTap {
        /// Name of the interface.
        name: String,
    },
    /// It puts packet information in front of each frame.
    #[error("{name} was opened without IFF_NO_PI")]
    PacketInformation {
        /// Name of the interface.
        name: String,
    },
    /// The kernel refused a setting that every kernel accepts.
    #[error("cannot set up the TAP device: {}", text_of(.0))]
    Setting(#[source] io::Error),
}

/// The most that is asked of a TAP device; less is taken where the kernel offers less.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
#[non_exhaustive]
pub enum OffloadCeiling {
    /// No virtio-net header: each frame is one packet with its checksums. A descriptor that
    /// another program opened with a header keeps it.
    Nothing,
    /// A virtio-net header, but nothing is left to it.
    Header,
    /// Checksums may be left to the other side.
    Checksum,
    /// TCP in frames of up to 64 KiB as well.
    TcpSegmentation,
    /// Several UDP datagrams in a frame as well (Linux 6.2): everything there is.
    #[default]
    UdpSegmentation,
}

/// An open TAP device, non-blocking and close-on-exec.
#[derive(Debug)]
pub struct Tap {
    fd: OwnedFd,
    acceptance: Acceptance,
}

impl Tap {
    /// Takes over a TAP device, whoever opened it, and asks for all offloads.
    ///
    /// # Errors
    /// [`TapError`] when it is no TAP device, or one whose frames we cannot read.
    pub fn adopt(fd: OwnedFd) -> Result<Self, TapError> {
        Self::adopt_up_to(fd, OffloadCeiling::default())
    }

    /// Takes over a TAP device, whoever opened it, and asks for no more than `ceiling`.
    ///
    /// # Errors
    /// [`TapError`] when it is no TAP device, or one whose frames we cannot read.
    pub fn adopt_up_to(fd: OwnedFd, ceiling: OffloadCeiling) -> Result<Self, TapError> {
        let (interface, flags) =
            tun::interface(fd.as_fd()).map_err(|errno| TapError::NotADevice(errno.into()))?;
        let name = String::from_utf8_lossy(interface.name()).into_owned();
        if flags & tun::TAP == 0 {
            return Err(TapError::NotTap { name });
        }
        if flags & tun::NO_PACKET_INFORMATION == 0 {
            return Err(TapError::PacketInformation { name });
        }
        make_ours(&fd).map_err(TapError::Setting)?;
        let vnet_header = flags & tun::VNET_HEADER != 0;
        let offload = negotiate(fd.as_fd(), vnet_header, ceiling)
            .map_err(|errno| TapError::Setting(errno.into()))?;
        Ok(Self { fd, acceptance: Acceptance::new(name, offload) })
    }

    /// What the device does for us, less what it has been found to refuse.
    pub const fn offload(&self) -> Offload {
        self.acceptance.offload()
    }

    /// Name of the interface at the time of adoption.
    pub fn name(&self) -> &str {
        self.acceptance.device()
    }

    /// The Ethernet address of the interface: the guest's, unless it uses another.
    ///
    /// # Errors
    /// Those of `SIOCGIFHWADDR` (netdevice(7)); `EBADFD` when the interface is gone.
    pub fn mac(&self) -> io::Result<Option<MacAddr>> {
        Ok(ifreq::mac_of_device(self.fd.as_fd())?)
    }

    /// Reads one frame, preceded by its virtio-net header when [`Offload::vnet_header`] says so.
    ///
    /// A frame longer than `buf` loses its end.
    ///
    /// # Errors
    /// `EAGAIN` when there is none; `EINVAL` for a frame that is lost because no virtio-net header
    /// can describe it; `EBADFD` when the interface is gone.
    pub fn read(&self, buf: &mut [u8]) -> io::Result<usize> {
        Ok(nix::unistd::read(&self.fd, buf)?)
    }

    /// Writes one frame, preceded by its virtio-net header when [`Offload::vnet_header`] says so.
    ///
    /// # Errors
    /// `EIO` while the interface is down, `EINVAL` for a frame that the kernel does not take,
    /// `EBADFD` when the interface is gone.
    pub fn write(&self, frame: &[u8]) -> io::Result<()> {
        Ok(write(&self.fd, frame)?)
    }

    /// Writes a frame that begins with a virtio-net header, or the packets that it stands for where
    /// the device does not take it. `room` is where they are put together.
    pub(crate) fn write_or_cut(
        &mut self,
        author: Author,
        frame: &[u8],
        room: &mut Vec<u8>,
    ) -> Result<(), Unwritten> {
        let fd = &self.fd;
        self.acceptance.write(author, frame, room, |bytes| Ok(write(fd, bytes)?))
    }
}

impl AsFd for Tap {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Whether a read failed for one frame only, which the kernel has thrown away: it has a type of
/// segmentation that no virtio-net header has (`tun_put_user`).
pub(crate) fn is_frame_lost(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::EINVAL)
}

fn write(fd: &OwnedFd, frame: &[u8]) -> Result<(), Errno> {
    // The device takes a frame as a whole or not at all.
    nix::unistd::write(fd, frame).map(drop)
}

fn negotiate(
    device: BorrowedFd<'_>,
    vnet_header: bool,
    ceiling: OffloadCeiling,
) -> Result<Offload, Errno> {
    const TCP: u8 = tun::OFFLOAD_CHECKSUM | tun::OFFLOAD_TSO4 | tun::OFFLOAD_TSO6;
    const TCP_ECN: u8 = TCP | tun::OFFLOAD_TSO_ECN;
    const UDP: u8 = TCP_ECN | tun::OFFLOAD_USO4 | tun::OFFLOAD_USO6;
    const STEPS: [(OffloadCeiling, u8); 4] = [
        (OffloadCeiling::UdpSegmentation, UDP),
        (OffloadCeiling::TcpSegmentation, TCP_ECN),
        (OffloadCeiling::TcpSegmentation, TCP),
        (OffloadCeiling::Checksum, tun::OFFLOAD_CHECKSUM),
    ];
    if !vnet_header {
        // The program that opened it may have left offloads on, which a frame cannot tell without a
        // header.
        tun::set_offload(device, 0)?;
        return Ok(Offload::default());
    }
    tun::use_native_byte_order(device);
    tun::set_vnet_header_len(device, HEADER_LEN)?;
    for (level, features) in STEPS.into_iter().filter(|&(level, _)| level <= ceiling) {
        if tun::set_offload(device, features).is_ok() {
            return Ok(Offload {
                vnet_header,
                checksum: level >= OffloadCeiling::Checksum,
                tcp_segmentation: level >= OffloadCeiling::TcpSegmentation,
                udp_segmentation: level >= OffloadCeiling::UdpSegmentation,
            });
        }
    }
    tun::set_offload(device, 0)?;
    Ok(Offload { vnet_header, ..Offload::default() })
}

crate::sys::calls::system_calls! {
    SYS_read => "frames of the guest";
    SYS_write => "frames to the guest";
}

/// The header's length as the kernel is told.
const HEADER_LEN: u8 = {
    assert!(VNET_HEADER_LEN == 10, "the kernel's virtio_net_hdr without num_buffers");
    10
};

#[cfg(test)]
impl Tap {
    /// A socket in a device's place: each packet is a frame.
    pub(crate) fn double(fd: OwnedFd, offload: Offload) -> Self {
        Self { fd, acceptance: Acceptance::new("double".to_owned(), offload) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_files_are_not_devices() {
        for path in ["/dev/null", "/proc/self/status"] {
            let fd = OwnedFd::from(std::fs::File::open(path).unwrap());
            let refused = Tap::adopt(fd).unwrap_err();
            assert!(matches!(refused, TapError::NotADevice(_)), "{path}: {refused}");
        }
    }
}

//! The members' devices of a shared network, which together are one link to the stack.
//!
//! Owns the devices, their poller, the passing of frames between them, and the share of time that
//! each of them gets. Which frame goes to whom is decided by the [`Switch`].
//!
//! # Theory of operation
//!
//! The devices are watched by an epoll instance of their own, which is what the event loop
//! watches: it is readable while any device is, so that the loop need not know how many there are.
//! Reading hands out the frames that are for the stack; those from member to member are passed on
//! inside, with their virtio-net header, so that 64 KiB of TCP cross in one call each way,
//! whatever the MTU. A device that lacks or refuses an offload gets the packets that the frame
//! stands for instead (`acceptance`).
//!
//! *Fairness.* A device is read until it has had `SHARE` frames. Then the others that have
//! something are read. A frame to a group costs as much as the frames that it becomes. After
//! `PASSED_CAP` frames the stack gets its turn. A device takes every frame or says at once that it
//! does not; then the frame is lost, as on any link, and nothing waits.
//!
//! *Loss of a device* is the end of one member: it is reported through the mailbox, and the loop
//! ends everything that belongs to it.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use super::acceptance::{Author, Unwritten};
use super::tap::{Tap, is_frame_lost};
use crate::discard::{DiscardCounters, DiscardReason};
use crate::host::mailbox::{Mailbox, Message, NewMember};
use crate::member::{Member, MemberError, MemberId};
use crate::plan::AddressPlan;
use crate::service::{arp, ndp};
use crate::stats::Stats;
use crate::switch::{PortIndex, Recipients, Released, Switch};
use crate::wire::frame::{ETHERTYPE_IPV6, EthernetHeader};
use crate::wire::vnet::{VNET_HEADER_LEN, VnetHeader};

/// Frames that one device may have passed on before the next one is read (arbitrary).
const SHARE: usize = 16;
/// Frames that are passed on before the event loop does something else (arbitrary: below a
/// millisecond for the largest ones).
const PASSED_CAP: usize = 64;
/// Devices that one wait reports at most; the others come next time.
const EVENTS_CAP: usize = 64;

crate::sys::calls::system_calls! {
    SYS_epoll_ctl => "the poller is told of a member's device";
    SYS_epoll_pwait => "which member's device has something";
    #[cfg(target_arch = "x86_64")]
    SYS_epoll_wait => "which member's device has something";
    SYS_read => "frames of members";
    SYS_write => "frames to members";
}

/// What a program asks of the kernel that is given members' devices over a socket once the filter
/// is in place, and adopts them.
pub(crate) mod adoption {
    use crate::sys::calls::{Arguments, system_calls};

    /// `TUNGETIFF`, `TUNSETOFFLOAD`, `TUNSETVNETHDRSZ`, `TUNSETVNETLE`, `TUNSETVNETBE`:
    /// `linux/if_tun.h`.
    const DEVICE: Arguments =
        Arguments::OneOf(1, &[0x8004_54d2, 0x4004_54d0, 0x4004_54d8, 0x4004_54dc, 0x4004_54de]);

    system_calls! {
        SYS_ioctl if DEVICE => "a member's device and its offloads";
        SYS_recvmsg => "a member's device arrives";
        SYS_accept4 => "a member's keeper connects";
        SYS_getsockopt => "who connects";
        SYS_geteuid => "whether that is our user";
        SYS_setsockopt => "how long it may take";
        SYS_sendto => "what a member's keeper is told";
        SYS_pipe2 => "the end of a membership";
    }
}

#[derive(Debug)]
struct Port {
    id: MemberId,
    member: Member,
    tap: Tap,
    /// How much it may still pass on before others get their turn.
    share: usize,
    /// Whether it is in the queue of ports that have something.
    is_queued: bool,
    is_lost: bool,
    _guard: Option<OwnedFd>,
}

/// The members' devices of a shared network, which together are one link. Given to
/// [`Builder::new`](crate::instance::Builder::new), it makes an instance whose members come and go
/// by [`Handle::add_member`](crate::instance::Handle::add_member).
#[derive(Debug)]
pub struct Switchboard {
    switch: Switch,
    ports: Vec<Option<Port>>,
    last_id: u64,
    epoll: Epoll,
    /// Ports that have something, as far as is known.
    ready: VecDeque<PortIndex>,
    reporter: Option<Mailbox>,
    /// Where packets are put together for a device that lacks or refuses an offload.
    room: Vec<u8>,
    discards: DiscardCounters,
    frames: u64,
    bytes: u64,
    /// The member whose frame was read last.
    sender: Option<MemberId>,
}

impl Switchboard {
    /// A switchboard without members.
    ///
    /// # Errors
    /// Those of epoll_create1(2).
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            switch: Switch::new(AddressPlan::default()),
            ports: Vec::new(),
            last_id: 0,
            epoll: Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?,
            ready: VecDeque::new(),
            reporter: None,
            room: Vec::new(),
            discards: DiscardCounters::default(),
            frames: 0,
            bytes: 0,
            sender: None,
        })
    }

    /// Begins to work on the network `plan`; what happens to members is told to `reporter`.
    pub(crate) fn start(&mut self, plan: AddressPlan, reporter: Mailbox) {
        self.switch = Switch::new(plan);
        self.reporter = Some(reporter);
    }

    /// Connects a member, and tells the others of its addresses, which may have been somebody
    /// else's a moment ago.
    pub(crate) fn add(&mut self, new: NewMember) -> Result<MemberId, MemberError> {
        let NewMember { tap, member, guard, egress: _, rates: _ } = new;
        let index = self.switch.connect(&member)?;
        let token = u64::try_from(index).unwrap_or(u64::MAX);
        if let Err(errno) = self.epoll.add(&tap, EpollEvent::new(EpollFlags::EPOLLIN, token)) {
            tracing::warn!(%errno, "a member's device cannot be watched");
            self.switch.disconnect(index);
            return Err(MemberError::Device);
        }
        self.last_id += 1;
        let id = MemberId(self.last_id);
        let announcements = announcements(&member);
        let port =
            Port { id, member, tap, share: SHARE, is_queued: false, is_lost: false, _guard: guard };
        if self.ports.len() <= index {
            self.ports.resize_with(index + 1, || None);
        }
        self.ports[index] = Some(port);
        for frame in announcements {
            self.deliver(Recipients::Others, Some(index), &frame);
        }
        Ok(id)
    }

    /// Disconnects a member; its device is closed.
    pub(crate) fn remove(&mut self, id: MemberId) -> Option<(Member, Released)> {
        let is_its = |port: &Option<Port>| port.as_ref().is_some_and(|port| port.id == id);
        let index = self.ports.iter().position(is_its)?;
        let port = self.ports[index].take()?;
        self.forget(index, &port);
        Some((port.member, self.switch.disconnect(index)))
    }

    /// All members, oldest first.
    pub(crate) fn members(&self) -> Vec<(MemberId, Member)> {
        let ports = self.ports.iter().flatten();
        let mut members: Vec<_> = ports.map(|port| (port.id, port.member.clone())).collect();
        members.sort_by_key(|(id, _)| *id);
        members
    }

    /// The names of all members, in no order.
    pub(crate) fn ids(&self) -> impl Iterator<Item = MemberId> {
        self.ports.iter().flatten().map(|port| port.id)
    }

    /// A member, if it is (still) there.
    pub(crate) fn member(&self, id: MemberId) -> Option<&Member> {
        self.ports.iter().flatten().find(|port| port.id == id).map(|port| &port.member)
    }

    /// Adds what was counted here.
    pub(crate) fn add_to(&self, stats: &mut Stats) {
        stats.discards.add(&self.discards);
        stats.frames_between_members += self.frames;
        stats.bytes_between_members += self.bytes;
        stats.members = self.ids().count() as u64;
    }

    /// Reads the next frame that is for the stack, and passes on those before it that are not.
    /// `EAGAIN` when there is none for now.
    pub(crate) fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let mut has_waited = false;
        let mut passed = 0;
        while passed < PASSED_CAP {
            let Some(&index) = self.ready.front() else {
                // The event loop will hear of what has come meanwhile.
                if has_waited || !self.find_ready()? {
                    break;
                }
                has_waited = true;
                continue;
            };
            let Some(port) = self.ports.get_mut(index).and_then(Option::as_mut) else {
                self.ready.pop_front();
                continue;
            };
            if port.share == 0 {
                port.share = SHARE;
                // Ports that became ready meanwhile come before it.
                self.find_ready()?;
                self.ready.rotate_left(1);
                continue;
            }
            match port.read(buf) {
                Ok(len) => {
                    let (is_for_stack, cost) = self.pass(index, &buf[..len]);
                    passed += cost;
                    if let Some(port) = self.ports.get_mut(index).and_then(Option::as_mut) {
                        port.share = port.share.saturating_sub(cost);
                        self.sender = Some(port.id);
                    }
                    if is_for_stack {
                        return Ok(len);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    port.is_queued = false;
                    port.share = SHARE;
                    self.ready.pop_front();
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if is_frame_lost(&error) => {
                    passed += 1;
                    port.share = port.share.saturating_sub(1);
                    self.discards.count(DiscardReason::VnetHeaderInvalid);
                }
                Err(error) => self.lose(index, &error),
            }
        }
        Err(io::ErrorKind::WouldBlock.into())
    }

    /// The member whose frame was read last.
    pub(crate) const fn sender(&self) -> Option<MemberId> {
        self.sender
    }

    /// Writes a frame of the stack to whom it is for.
    pub(crate) fn write(&mut self, frame: &[u8]) {
        match self.switch.route_from_stack(frame) {
            Ok(recipients) => {
                self.deliver(recipients, None, frame);
            }
            Err(reason) => self.discards.count(reason),
        }
    }

    fn find_ready(&mut self) -> io::Result<bool> {
        let mut events = [EpollEvent::empty(); EVENTS_CAP];
        let count = self.epoll.wait(&mut events, EpollTimeout::ZERO)?;
        for event in &events[..count] {
            let Ok(index) = usize::try_from(event.data()) else { continue };
            if let Some(port) = self.ports.get_mut(index).and_then(Option::as_mut)
                && !port.is_queued
            {
                port.is_queued = true;
                self.ready.push_back(index);
            }
        }
        Ok(count > 0)
    }

    /// Decides about a frame of a member and passes it on. Returns whether it is for the stack,
    /// too, and how many frames it was.
    fn pass(&mut self, from: PortIndex, frame: &[u8]) -> (bool, usize) {
        match self.switch.handle_frame(from, frame) {
            Ok(route) => {
                let written = self.deliver(route.to, Some(from), frame);
                if written > 0 {
                    self.frames += 1;
                    self.bytes += frame.len() as u64;
                }
                (route.to_stack, written.max(1))
            }
            Err(reason) => {
                self.discards.count(reason);
                (false, 1)
            }
        }
    }

    /// Writes `frame` to the recipients and returns how many there were.
    fn deliver(&mut self, to: Recipients, from: Option<PortIndex>, frame: &[u8]) -> usize {
        let range = match to {
            Recipients::Nobody => return 0,
            Recipients::Port(index) => index..index + 1,
            Recipients::Others => 0..self.ports.len(),
        };
        let author = if from.is_some() { Author::Member } else { Author::Stack };
        let mut written = 0;
        for index in range {
            let Some(port) = self.ports.get_mut(index).and_then(Option::as_mut) else {
                continue;
            };
            if Some(index) == from || port.is_lost {
                continue;
            }
            written += 1;
            match port.tap.write_or_cut(author, frame, &mut self.room) {
                Ok(()) => {}
                Err(Unwritten::Discarded(reason)) => self.discards.count(reason),
                Err(Unwritten::Refused(error)) if error.raw_os_error() == Some(libc::EBADFD) => {
                    self.lose(index, &error);
                }
                // The interface is down, or the kernel does not like the frame or has no memory.
                Err(Unwritten::Refused(_)) => self.discards.count(DiscardReason::TapWriteFailed),
            }
        }
        written
    }

    /// The device of a port is gone. Everything else about its member is ended by the event loop.
    fn lose(&mut self, index: PortIndex, error: &io::Error) {
        let Some(mut port) = self.ports.get_mut(index).and_then(Option::take) else {
            return;
        };
        if !port.is_lost {
            tracing::info!(member = port.id.0, %error, "a member's device is gone");
            port.is_lost = true;
            self.forget(index, &port);
            if let Some(reporter) = &self.reporter {
                reporter.send(Message::MemberLost(port.id));
            }
        }
        self.ports[index] = Some(port);
    }

    fn forget(&mut self, index: PortIndex, port: &Port) {
        // It is not there any more where the device was lost before.
        let _ = self.epoll.delete(&port.tap);
        self.ready.retain(|&ready| ready != index);
    }
}

impl AsFd for Switchboard {
    /// Readable while any member's device is.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.epoll.0.as_fd()
    }
}

impl Port {
    /// Reads a frame, with a virtio-net header in any case.
    fn read(&self, buf: &mut [u8]) -> io::Result<usize> {
        if self.tap.offload().vnet_header {
            return self.tap.read(buf);
        }
        let (header, frame) =
            buf.split_at_mut_checked(VNET_HEADER_LEN).ok_or(io::ErrorKind::InvalidInput)?;
        let len = self.tap.read(frame)?;
        header.copy_from_slice(&VnetHeader::default().emit());
        Ok(VNET_HEADER_LEN + len)
    }
}

/// Frames, with virtio-net headers, that tell everyone where a member's addresses are.
fn announcements(member: &Member) -> Vec<Vec<u8>> {
    let sealed = |frame: &[u8]| [&VnetHeader::default().emit()[..], frame].concat();
    let mut frames = vec![sealed(&arp::announcement(member.mac, member.address))];
    if let Some(address) = member.address6 {
        let ndp = ndp::announcement(member.mac, address);
        let ethernet = EthernetHeader {
            destination: ndp.destination_mac,
            source: ndp.source_mac,
            ethertype: ETHERTYPE_IPV6,
        };
        frames.push(sealed(&[&ethernet.emit()[..], &ndp.packet].concat()));
    }
    frames
}

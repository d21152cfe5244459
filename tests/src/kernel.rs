//! A kernel that can do less than the present one.
//!
//! Owns the means by which it refuses frames in either direction. The thread that makes the
//! instance belongs to others ([`Namespace::enter`](crate::Namespace::enter)).

use std::os::fd::{AsRawFd, BorrowedFd};
use std::process::Command;

use nix::libc;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule,
};

/// The longest frame of an MTU of 1500, with its virtio-net header.
const FRAME_LEN: u64 = 10 + 14 + 1500;
/// Length of the virtio-net header that an instance asks for.
pub const HEADER_LEN: u32 = 10;
/// Length of a virtio-net header that fits into no reader's buffer.
pub const BEYOND_ANY_READ: u32 = 1 << 20;

/// Has the kernel refuse with `EINVAL` what this thread, and those that it starts, write to
/// `device` in frames above the usual MTU: the offloads that it accepted before.
///
/// # Panics
/// When the kernel takes no filters.
pub fn refuse_large_frames(device: BorrowedFd<'_>) {
    let condition = |index, length, operator, value| {
        SeccompCondition::new(index, length, operator, value).expect("the argument exists")
    };
    let fd = u64::try_from(device.as_raw_fd()).expect("descriptors are positive");
    let rule = SeccompRule::new(vec![
        condition(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, fd),
        condition(2, SeccompCmpArgLen::Qword, SeccompCmpOp::Gt, FRAME_LEN),
    ]);
    let rules = [(libc::SYS_write, vec![rule.expect("the rule has conditions")])];
    let filter = SeccompFilter::new(
        rules.into_iter().collect(),
        SeccompAction::Allow,
        SeccompAction::Errno(libc::EINVAL.cast_unsigned()),
        std::env::consts::ARCH.try_into().expect("an architecture that is tested"),
    );
    let program: BpfProgram =
        filter.expect("the filter is sound").try_into().expect("the filter compiles");
    seccompiler::apply_filter(&program).expect("the kernel has filters");
}

/// Changes the length of the virtio-net header, as any holder of the device can. Where the reader
/// has no room for the header, the kernel does what it does for a frame that no header can
/// describe: it says `EINVAL` and throws the frame away.
///
/// # Panics
/// When it is no device with such a header.
pub fn set_header_len(device: BorrowedFd<'_>, len: u32) {
    const TUNSETVNETHDRSZ: u32 = 0x4004_54d8;
    control(device, TUNSETVNETHDRSZ, &format!("bytes({:?})", len.to_ne_bytes()));
}

/// Has the kernel hand out frames of several TCP segments, as any holder of the device can,
/// whatever the reader has asked for.
///
/// # Panics
/// When the kernel does not.
pub fn turn_on_offloads(device: BorrowedFd<'_>) {
    const TUNSETOFFLOAD: u32 = 0x4004_54d0;
    /// `TUN_F_CSUM`, `TUN_F_TSO4`, `TUN_F_TSO6` and `TUN_F_TSO_ECN`.
    const TCP: u32 = 0x0f;
    control(device, TUNSETOFFLOAD, &TCP.to_string());
}

fn control(device: BorrowedFd<'_>, request: u32, argument: &str) {
    let program = format!("import fcntl; fcntl.ioctl(0, {request}, {argument})");
    let device = device.try_clone_to_owned().expect("a duplicate");
    let status = Command::new("python3").args(["-c", &program]).stdin(device).status();
    assert!(status.expect("python3 runs").success());
}

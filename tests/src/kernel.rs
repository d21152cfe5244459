//! A kernel that is less than the one at hand.
//!
//! Owns what has it refuse frames . Leaves to others: on which thread the instance is
//! made ([`Namespace::enter`](crate::Namespace::enter)).

use std::os::fd::{AsRawFd, BorrowedFd};

use nix::libc;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule,
};

/// The longest frame of an MTU of 1500, with its virtio-net header.
const FRAME_LEN: u64 = 10 + 14 + 1500;

/// Has the kernel refuse with `EINVAL` what this thread, and those that it starts, write to `device` in
/// frames above the usual MTU: the offloads that it accepted before.
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

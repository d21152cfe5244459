//! Every `unsafe` line of the workspace.
//!
//! Owns what no safe crate offers: the ioctls of TUN/TAP devices ([`tun`]) and network interfaces
//! ([`ifreq`]), the kind of a namespace ([`nsfs`]), the adoption of file descriptors ([`fd`]), the
//! helper process that works inside the target's namespaces ([`fork`], and its work there,
//! [`attach`] in [steps](step) with [`changes`] over [`rtnetlink`]), the helper process that stays
//! outside of the sandbox ([`outside`]), capabilities ([`privilege`]), descriptors of processes
//! ([`process`]), where the client of a socket is ([`peer`]), path MTU discovery of a socket
//! ([`mtu_discovery`]), splice(2) ([`mod@splice`]), the allocator of the binaries ([`alloc`]), and
//! system calls as data
//! ([`calls`]). Beside them stand two small things that every floor above needs: the texts of
//! errors ([`errno`]) and files by device and inode ([`mod@file`]). Each function offered here is
//! safe to call; the reason is written at its `unsafe` block. Decisions are left to the floors
//! above.

#![expect(unsafe_code, reason = "system calls that no safe crate wraps; the only place for them")]

pub(crate) mod alloc;
pub(crate) mod attach;
pub(crate) mod calls;
pub(crate) mod changes;
pub(crate) mod errno;
mod fd;
pub(crate) mod file;
pub(crate) mod fork;
pub(crate) mod ifreq;
pub(crate) mod mtu_discovery;
pub(crate) mod nsfs;
pub(crate) mod outside;
pub(crate) mod peer;
pub(crate) mod privilege;
pub(crate) mod process;
mod rtnetlink;
pub(crate) mod splice;
pub(crate) mod step;
pub(crate) mod tun;

pub use alloc::LargeAlloc;
pub use fd::{InheritedFds, close_inherited_fds, inherited_fd, receive_fd, send_fd};
pub(crate) use fd::{make_ours, owner_of, receive_with_fd};
pub use process::{
    ProcessFd, close_descriptors_on_exec, fork_process, fork_sibling, reset_signals, set_ignored,
    try_wait,
};

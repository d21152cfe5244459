//! Every system call of an instance, for a filter.
//!
//! Owns the list of the lists: each module declares the calls that it makes.

use crate::sys::calls::SystemCall;

crate::sys::calls::system_calls! {
    SYS_epoll_create1 => "tokio on the control thread";
    SYS_epoll_ctl => "tokio on the control thread";
    SYS_epoll_pwait => "tokio on the control thread";
    #[cfg(target_arch = "x86_64")]
    SYS_epoll_wait => "tokio on the control thread";
    SYS_eventfd2 => "tokio on the control thread";
    SYS_socketpair if crate::sys::calls::STREAM_PAIR => "tokio's signals";
}

/// Every system call that an instance makes once it is started, for
/// [`seccomp::apply`](crate::sandbox::seccomp::apply).
pub fn system_calls() -> impl Iterator<Item = &'static SystemCall> {
    [
        crate::host::link::tap::SYSTEM_CALLS,
        crate::host::link::frame_stream::SYSTEM_CALLS,
        crate::host::link::frame_server::SYSTEM_CALLS,
        crate::host::link::switchboard::SYSTEM_CALLS,
        crate::host::socket::tcp::SYSTEM_CALLS,
        crate::host::socket::datagram::SYSTEM_CALLS,
        crate::host::socket::table::SYSTEM_CALLS,
        crate::host::forward::SYSTEM_CALLS,
        crate::host::forward::open::SYSTEM_CALLS,
        crate::host::reactor::SYSTEM_CALLS,
        crate::host::bridge::pipe::SYSTEM_CALLS,
        crate::host::inner::listeners::SYSTEM_CALLS,
        crate::host::inner::listening::SYSTEM_CALLS,
        crate::host::inner::worker::SYSTEM_CALLS,
        crate::host::addresses::SYSTEM_CALLS,
        crate::mirror::monitor::SYSTEM_CALLS,
        crate::host::audit::SYSTEM_CALLS,
        crate::host::dns::SYSTEM_CALLS,
        crate::control::metrics::SYSTEM_CALLS,
        crate::control::server::SYSTEM_CALLS,
        crate::control::socket::SYSTEM_CALLS,
        crate::sys::outside::SYSTEM_CALLS,
        crate::sys::alloc::SYSTEM_CALLS,
        super::background::SYSTEM_CALLS,
        SYSTEM_CALLS,
    ]
    .into_iter()
    .flatten()
}

/// The calls, besides [`system_calls`], of a program that receives members' devices over a socket,
/// adopts them and adds them while the filter applies.
pub fn member_system_calls() -> impl Iterator<Item = &'static SystemCall> {
    crate::host::link::switchboard::adoption::SYSTEM_CALLS.iter()
}

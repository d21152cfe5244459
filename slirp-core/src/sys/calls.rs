//! System calls as data: the calls that a module makes once the network runs.
//!
//! Owns the type, and the macro with which each module declares its calls beside the code that
//! makes them. [`sandbox::seccomp`](crate::sandbox::seccomp) turns the declarations into a filter.

use core::ffi::{c_int, c_long};

/// One system call and its purpose.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SystemCall {
    /// Its number on this architecture.
    pub(crate) number: c_long,
    /// Which arguments it has.
    pub(crate) arguments: Arguments,
    /// What it is for.
    pub(crate) reason: &'static str,
}

impl SystemCall {
    /// The call `number` (`SYS_` constants of libc) with any arguments, for `reason`.
    pub const fn new(number: c_long, reason: &'static str) -> Self {
        Self { number, arguments: Arguments::Any, reason }
    }

    /// Narrows the call to our own process id as the first argument.
    #[must_use]
    pub const fn on_ourselves(mut self) -> Self {
        self.arguments = Arguments::Ourselves;
        self
    }

    /// Its number on this architecture.
    pub const fn number(&self) -> c_long {
        self.number
    }

    /// What it is for.
    pub const fn reason(&self) -> &'static str {
        self.reason
    }
}

/// Which arguments a call has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Arguments {
    /// Any.
    Any,
    /// The argument of this index (from 0) is one of these.
    OneOf(u8, &'static [u64]),
    /// Each tuple is an index, a mask and a value: the argument's bits under the mask equal the
    /// value.
    Bits(&'static [(u8, u64, u64)]),
    /// The first argument is our own process id.
    Ourselves,
}

/// A constant of the kernel as a filter sees it: the low 32 bits of a register.
pub(crate) const fn word(number: c_int) -> u64 {
    number.cast_unsigned() as u64
}

/// An IP socket.
pub(crate) const IP: Arguments = Arguments::OneOf(0, &[word(libc::AF_INET), word(libc::AF_INET6)]);

/// `SIOCGIFINDEX` (netdevice(7)).
pub(crate) const INTERFACE_INDEX: Arguments = Arguments::OneOf(1, &[0x8933]);

/// A pair of stream sockets. Unlike datagram sockets, they cannot be connected elsewhere
/// afterwards. The mask is `SOCK_TYPE_MASK` of `linux/net.h`, so flags are allowed.
pub(crate) const STREAM_PAIR: Arguments =
    Arguments::Bits(&[(0, 0xffff_ffff, word(libc::AF_UNIX)), (1, 0xf, word(libc::SOCK_STREAM))]);

/// By name, not relative to a descriptor that may lead out of the root.
pub(crate) const BY_NAME: Arguments = Arguments::Bits(&[(0, 0xffff_ffff, word(libc::AT_FDCWD))]);

/// Memory that is not executable.
pub(crate) const WITHOUT_EXEC: Arguments = Arguments::Bits(&[(2, word(libc::PROT_EXEC), 0)]);

/// Declares the `SYSTEM_CALLS` of a module: `SYS_name => "reason";`, with `if ARGUMENTS` in between
/// when only some arguments are needed. Empty on architectures without a filter.
macro_rules! system_calls {
    ($($(#[$meta:meta])* $number:ident $(if $arguments:expr)? => $reason:literal;)*) => {
        /// The system calls of this module once the network runs.
        #[cfg(any(target_arch = "x86_64", target_arch = "aarch64", target_arch = "riscv64"))]
        pub(crate) const SYSTEM_CALLS: &[$crate::sys::calls::SystemCall] = &[$(
            $(#[$meta])*
            $crate::sys::calls::SystemCall {
                number: libc::$number,
                arguments: $crate::sys::calls::system_calls!(@arguments $($arguments)?),
                reason: $reason,
            },
        )*];
        /// There is no filter for this architecture.
        #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64", target_arch = "riscv64")))]
        pub(crate) const SYSTEM_CALLS: &[$crate::sys::calls::SystemCall] = &[];
    };
    (@arguments) => { $crate::sys::calls::Arguments::Any };
    (@arguments $arguments:expr) => { $arguments };
}

pub(crate) use system_calls;

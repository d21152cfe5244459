//! System calls as data: what a module asks of the kernel once the network runs.
//!
//! Owns the type and the macro with which each module declares its own, beside the code that makes
//! them. What becomes of the declarations is decided in
//! [`sandbox::seccomp`](crate::sandbox::seccomp).

use core::ffi::{c_int, c_long};

/// One system call and who needs it.
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

    /// The same, but only with our own process id as the first argument.
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
    /// Each argument of this index has, of the bits of the mask, exactly these.
    Bits(&'static [(u8, u64, u64)]),
    /// The first argument is our own process id.
    Ourselves,
}

/// A constant of the kernel as a filter sees it: the low 32 bits of a register.
pub(crate) const fn word(number: c_int) -> u64 {
    number.cast_unsigned() as u64
}

/// A socket of IP.
pub(crate) const IP: Arguments = Arguments::OneOf(0, &[word(libc::AF_INET), word(libc::AF_INET6)]);

/// A pair of stream sockets, which cannot be connected elsewhere afterwards, as datagram sockets
/// can. The mask is `SOCK_TYPE_MASK` of `linux/net.h`: flags may be there.
pub(crate) const STREAM_PAIR: Arguments =
    Arguments::Bits(&[(0, 0xffff_ffff, word(libc::AF_UNIX)), (1, 0xf, word(libc::SOCK_STREAM))]);

/// By name, not relative to a descriptor that may lead out of the root.
pub(crate) const BY_NAME: Arguments = Arguments::Bits(&[(0, 0xffff_ffff, word(libc::AT_FDCWD))]);

/// Memory that is not executable.
pub(crate) const WITHOUT_EXEC: Arguments = Arguments::Bits(&[(2, word(libc::PROT_EXEC), 0)]);

/// Declares the `SYSTEM_CALLS` of a module: `SYS_name => "reason";`, with `if ARGUMENTS` in between
/// where not all of them are needed. Empty where there is no filter.
macro_rules! system_calls {
    ($($(#[$meta:meta])* $number:ident $(if $arguments:expr)? => $reason:literal;)*) => {
        /// What this module asks of the kernel once the network runs.
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

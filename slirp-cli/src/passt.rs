//! `passt`: connects a virtual machine to the network of the host, without privileges, as
//! passt(1) does.

use std::env;
use std::process::ExitCode;

use slirp_core::internals::process::LargeAlloc;

#[global_allocator]
static ALLOC: LargeAlloc = LargeAlloc;

fn main() -> ExitCode {
    slirp_cli::pasta(env::args_os())
}

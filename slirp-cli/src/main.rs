//! `slirp4netns`: connects a network namespace to the network of the host, without privileges.

use std::env;
use std::process::ExitCode;

use slirp_core::internals::process::LargeAlloc;

#[global_allocator]
static ALLOC: LargeAlloc = LargeAlloc;

fn main() -> ExitCode {
    slirp_cli::slirp4netns(env::args_os())
}

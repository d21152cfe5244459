//! `pesto`: changes the ports of a network that `pasta` has made, as pesto(1) does.

use std::env;
use std::process::ExitCode;

fn main() -> ExitCode {
    slirp_cli::pesto(env::args_os())
}

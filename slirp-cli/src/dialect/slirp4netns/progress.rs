//! Output while a network starts, runs and ends.
//!
//! Owns the lines on stderr, and the summary on stdout once the network works.

use super::banner;
use crate::console::{eprint_line, print_line};
use crate::milestone::Milestone;
use crate::options::Options;
use crate::publish;

/// Prints the line for a milestone.
pub(super) fn report(options: &Options, milestone: Milestone<'_>) {
    match milestone {
        Milestone::ReadyFdClosed(number) => eprint_line(format_args!(
            "WARNING: --ready-fd={number} is not open for writing: it cannot be told that the \
             network is ready"
        )),
        Milestone::ExitFdClosed(number) => eprint_line(format_args!(
            "WARNING: --exit-fd={number} is not open, or is the ready descriptor: the network ends \
             as soon as it is ready"
        )),
        Milestone::PeerAwaited(path) => {
            eprint_line(format_args!("Waiting for connection to {}", path.display()));
        }
        Milestone::PeerConnected(path, fd) => {
            let path = path.display();
            eprint_line(format_args!("sent \"tapfd\"={fd} (not really TAP) for {path}"));
            eprint_line(format_args!("received tapfd={fd}"));
        }
        Milestone::DeviceOpened(name, fd) => {
            eprint_line(format_args!("sent tapfd={fd} for {name}"));
            eprint_line(format_args!("received tapfd={fd}"));
        }
        Milestone::Started { mac, picked, egress, handle: _ } => {
            for line in banner::lines(options, mac, egress) {
                print_line(line);
            }
            for rule in picked {
                print_line(format_args!("* Published:       {}", publish::spelled(rule)));
            }
        }
        Milestone::ExitFdHungUp => {
            eprint_line("exitfd event");
            eprint_line("do_slirp is exiting");
        }
        Milestone::TargetGone(what) => eprint_line(format_args!("{what} is gone")),
        Milestone::PeerGone(path) => {
            eprint_line(format_args!("the peer of {} has hung up", path.display()));
        }
    }
}

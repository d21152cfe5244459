//! `slirp run`: a command with a network of its own, as root and as an ordinary user.

mod identity;
mod leftovers;
mod network;
mod refusals;
mod scene;
mod signals;
mod status;
mod terminal;

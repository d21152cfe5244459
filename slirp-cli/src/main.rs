//! Drop-in replacement for slirp4netns.
fn main() {}

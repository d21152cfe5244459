//! CNI plugin of type slirp.
fn main() {}

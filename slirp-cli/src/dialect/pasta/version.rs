//! The text of `--version`.
//!
//! Podman repeats it in `podman info`, and scripts compare the date in the first line. So that line
//! begins with the date of the interface that we offer, and our own version follows.

/// The six lines.
pub(crate) const TEXT: &str = concat!(
    "pasta 2026_07_16.slirp-",
    env!("CARGO_PKG_VERSION"),
    "\n",
    "A dialect of slirp, rootless networking in Rust.\n",
    "MIT OR Apache-2.0 <https://spdx.org/licenses/>\n",
    "This is free software: you are free to change and redistribute it.\n",
    "There is NO WARRANTY, to the extent permitted by law.\n",
    "\n",
);

//! The text of `--version`.
//!
//! Programs read it: Docker takes the last line that has the word "version" in it, scripts compare
//! `SLIRP_CONFIG_VERSION_MAX`, others the numbers after `slirp4netns version` and `libslirp:`. So
//! the text has the five lines of slirp4netns, with the release whose interface we offer. Our own
//! name and version follow `commit:`.

macro_rules! interface {
    () => {
        "1.3.3"
    };
}

/// The release of slirp4netns whose interface we offer.
pub(crate) const INTERFACE: &str = interface!();

/// The five lines.
///
/// `libslirp` and `SLIRP_CONFIG_VERSION_MAX` name the library whose features we match; neither it
/// nor libseccomp is linked.
pub(crate) const TEXT: &str = concat!(
    "slirp4netns version ",
    interface!(),
    "\n",
    "commit: rust-slirp-",
    env!("CARGO_PKG_VERSION"),
    "\n",
    "libslirp: 4.9.1\n",
    "SLIRP_CONFIG_VERSION_MAX: 6\n",
    "libseccomp: none\n",
);

//! Command line dialects of the program, each in a folder of its own.
//!
//! A dialect owns its options, the order in which they are checked, and all texts: refusals,
//! progress, failures, the summary, the version. It turns `argv` into a
//! [`Target`](crate::options::Target) and [`Options`](crate::options::Options), lets
//! [`run`](crate::run) carry them out, and words the [`Milestone`](crate::milestone::Milestone)s of
//! the run. No code outside of its folder knows its texts,
//! but for those of values: `run` takes the values of `slirp4netns`.

mod getopt;
pub(crate) mod pasta;
pub(crate) mod pesto;
pub(crate) mod run;
pub(crate) mod slirp4netns;

//! Command lines that the program can be called with, each in a folder of its own.
//!
//! A dialect owns its options, the order in which they are checked, and everything that is said:
//! the texts of refusals, progress and failures, the summary, the version. It turns `argv` into a
//! [`Target`](crate::options::Target) and [`Options`](crate::options::Options), has
//! [`run`](crate::run) carry them out, and words the [`Milestone`](crate::milestone::Milestone)s of
//! the run. Nothing outside of its folder knows its words.

pub(crate) mod slirp4netns;

//! The OCI hook under the real runtimes, runc and crun.

mod hook;
mod two_stages;
mod walk;

//! The OCI hook under the real runtimes, runc and crun.

mod hook;
mod operator;
mod policy;
mod two_stages;
mod walk;

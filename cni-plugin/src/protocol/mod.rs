//! The language between a container runtime and a CNI plugin.
//!
//! Owns the parts that the CNI specification fixes for every plugin: versions, environment,
//! results, error objects. Knows no network.

pub(crate) mod environment;
pub(crate) mod error;
pub(crate) mod field;
pub(crate) mod result;
pub(crate) mod version;

//! Values that shells offer for options of several programs.

/// Levels of the log.
pub(crate) const LEVELS: &[&str] = &["error", "warn", "info", "debug", "trace"];
/// Sets of destinations that rules name.
pub(crate) const SETS: &[&str] =
    &["any", "internet", "private", "host-loopback", "link-local", "metadata", "multicast", "dns"];
/// Rates.
pub(crate) const RATES: &[&str] = &["1M", "10M", "100M", "1G"];

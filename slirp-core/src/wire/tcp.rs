//! Numbers of the TCP header (RFC 9293 section 3.1).
//!
//! Owns what other parts need to know of a segment. Segments are read and written by the `tcp`
//! module of the crate.

/// Length of a TCP header without options in bytes.
pub(crate) const TCP_HEADER_LEN: usize = 20;
/// Offset of the byte with the eight flags.
pub(crate) const TCP_FLAGS_AT: usize = 13;
/// Offset of the checksum.
pub(crate) const TCP_CHECKSUM_AT: u16 = 16;

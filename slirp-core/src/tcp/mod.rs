//! The TCP engine's fence: the only place that sees smoltcp's sockets.
//!
//! Owns one [`Engine`] (smoltcp's `Interface`, shared by all flows) and one [`Connection`] per
//! flow (a `SocketSet` with a single socket). It leaves to the flows when a connection is opened
//! and where its bytes go.
//!
//! # Theory of operation
//!
//! *One socket set per flow.* smoltcp looks for the socket of a segment by walking the set. The
//! flow table has found the socket already, so each set holds exactly one, and the cost of a
//! segment does not depend on the number of flows. The interface has no address, route or
//! neighbour; it accepts everything.
//!
//! *Super-segments.* A sender is bounded by the peer's MSS and the device's MTU. If the TAP device
//! segments for us, the MSS option of the guest's SYN is rewritten to the largest multiple of the
//! true MSS below 64 KiB, and the frame leaves with the true MSS as its `gso_size`. It is a
//! multiple so that no frame ends in a runt. smoltcp's own `segmentation-offload` drops IPv6.
//!
//! *The guard.* smoltcp 0.14 has defects that a hostile, and in one case an ordinary, guest
//! reaches. Each has a guard here, and a test that fails without the guard:
//!
//! * B1: The window of a SYN|ACK is taken as scaled: more than the ring is admitted, then a panic.
//!   *Guard:* segments are cut at the edge that was advertised.
//! * B2: A FIN after a cut payload is still taken: the tail of the stream is lost. *Guard:* cutting
//!   a segment takes its FIN away.
//! * B3: `Interface::poll` never returns with a probe timer that outlived its data. *Guard:* `poll`
//!   is never called; egress is one segment a call, and a connection that repeats an empty segment
//!   without being asked is ended.
//! * B4: IPv6 segments above the MTU vanish with `segmentation-offload`. *Guard:* the feature is
//!   off; MSS rewriting serves both families.
//! * B5: `pause_synack` spins. *Guard:* the feature is off; the guest's SYN is held by its flow.
//! * B6, B7: Data or a FIN that was never sent can be acknowledged. *Guard:* such acknowledgements
//!   are discarded before the engine sees them.
//! * B8: A socket that is reused keeps state of its former life. *Guard:* every connection is a new
//!   socket.
//! * B9: ICMPv4 errors carry four stale bytes. *Guard:* ICMP is not taken from smoltcp.
//! * B10: A FIN after a gap is forgotten but its payload is kept; when both are repeated they are
//!   outside of the window. *Guard:* if a FIN is repeated with payload that was acknowledged, the
//!   payload is removed.
//! * B11: Three duplicate acknowledgements while only a FIN is unacknowledged stop the timer that
//!   would repeat it. *Guard:* such acknowledgements do not reach the engine.
//! * B12: A retransmission that comes due while the window is shut leaves data without any timer.
//!   *Guard:* the last acknowledgement is repeated to the engine, which then starts to probe.
//! * B13: Bytes after the guest's own FIN are still taken. *Guard:* they do not reach the engine
//!   (RFC 9293 section 3.10.7.4).
//! * B14: A window that shuts and opens again while data is in flight takes the retransmission
//!   timer away. *Guard:* duplicate acknowledgements make the engine retransmit data that stays
//!   unacknowledged.
//! * B15: In LAST-ACK a window update that acknowledges nothing new is ignored. *Guard:* once the
//!   guest has ended, the flow closes only when everything is acknowledged.
//! * B16: A fast retransmission is a whole segment, whatever the guest's window. *Guard:* segments
//!   are cut at the edge of the window; segments wholly beyond it are cut to one byte.
//!
//! *Parking.* smoltcp's rings have a fixed size. A connection that is established and has nothing
//! queued or in flight is fully described by a few numbers ([`Parked`]), so an idle connection
//! gives up its socket and its rings. It wakes as a new socket that is led through a handshake with
//! itself; the engine's sequence numbers are then a constant away from the guest's, and the fence
//! adds that constant in both directions.
//!
//! *Memory.* The memory of all rings is counted and capped: see [`memory`]. A connection that ends
//! is [retired](Engine::retire), and its rings serve the next one: see [`rings`].
//!
//! *Time.* See [`clock`].

mod clock;
mod connection;
mod device;
mod engine;
mod memory;
mod rings;
mod segment;

pub(crate) use connection::{Connection, Parked};
pub(crate) use engine::{Engine, EngineConfig, LinkAddresses, checksum_and_segment};
pub(crate) use memory::TIGHT_LEN;
pub(crate) use segment::{Segment, Syn, emit_reset};

#[cfg(test)]
pub(crate) mod tests;

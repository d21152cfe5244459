//! Running a stack: the embedding API.
//!
//! Owns the two threads of an instance and their common life: they start together, and neither
//! outlives the [`Instance`]. The data thread runs the event loop (`host::reactor`), the
//! control thread [`dns`](crate::dns) and the [API socket](ApiSocket). There is no
//! global state; a process may run as many instances as it likes.
//!
//! ```no_run
//! use slirp_core::instance::Builder;
//! use slirp_core::netns::{Configuration, NamespaceTarget, TapRequest, open_tap};
//! use slirp_core::plan::SlirpNetwork;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let plan = SlirpNetwork::default();
//! let target = NamespaceTarget::of_pid(4711)?;
//! let request =
//!     TapRequest { name: "tap0".into(), configure: Some(Configuration::for_plan(&plan, 1500)) };
//! let instance = Builder::new(open_tap(&target, &request)?).plan(plan).mtu(1500).spawn()?;
//! let handle = instance.handle();
//! // … later, from any thread:
//! handle.shutdown();
//! instance.wait()?;
//! # Ok(())
//! # }
//! ```

#![expect(clippy::disallowed_methods, reason = "threads and the system's randomness start here")]

mod background;
mod builder;
mod calls;
mod resources;
mod running;
mod splicing;

pub use background::BackgroundInstance;
pub use builder::{BUSY_POLL, Builder, MTU_MAX, MTU_MIN, StartError};
pub use calls::{member_system_calls, system_calls};
pub use running::Instance;

pub use crate::Traffic;
pub use crate::control::metrics::MetricsSocket;
pub use crate::control::server::ApiSocket;
pub use crate::control::socket::ControlSocket;
pub use crate::event::{FlowId, ForwardId};
#[doc(no_inline)]
pub use crate::flow::{FlowState, FlowSummary, JudgedFlow};
pub use crate::host::audit::{AuditLevel, AuditLog};
pub use crate::host::events::{EventStream, Observed};
pub use crate::host::forward::{Forward, ForwardError, ForwardProtocol, OpenForwards, Opening};
pub use crate::host::handle::{Blocking, Handle};
pub use crate::host::inner::settings::{HostPorts, SpliceRules, Splices, SplicesError};
#[doc(no_inline)]
pub use crate::host::link::Switchboard;
pub use crate::host::mailbox::{EgressError, FlowPage, JudgedFlowPage, NamePage, NewMember};
pub use crate::host::reactor::RunError;
pub use crate::host::socket::outbound::{OutboundAddresses, OutboundError};
pub use crate::member::{Member, MemberError, MemberId, MemberName};
#[doc(no_inline)]
pub use crate::stack::{EgressState, Established, Revision};

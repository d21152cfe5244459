//! What the programs, tests and measurements of this workspace share with the library.
//!
//! Owns nothing: each item is defined and explained elsewhere. No version promises to keep any of
//! them.

pub use crate::rng::Rng;

/// What a process of ours does with itself and its children.
#[cfg(feature = "host")]
pub mod process {
    pub use crate::sys::{
        LargeAlloc, ProcessFd, close_descriptors_on_exec, close_inherited_fds, fork_process,
        fork_sibling, inherited_fd, receive_fd, reset_signals, send_fd, set_ignored, try_wait,
    };
}

/// How programs read policy files.
#[cfg(feature = "host")]
pub mod policy_file {
    pub use crate::host::policy_file::{PolicyFileError, VARIABLE, named_by, read, read_from};
}

/// What clients of the control socket say.
#[cfg(feature = "host")]
pub mod control {
    pub use crate::control::own_file::PrivateListener;
    pub use crate::control::refusal_of;
}

/// What answers of resolvers bind to a name.
pub mod dns {
    pub use crate::service::dns::{Chain, read_chain};
}

/// Who judges a guest, and what reads the first bytes of a connection.
pub mod egress {
    pub use crate::egress::judge::{Judge, JudgeConfig};
    pub use crate::egress::verdict::{Judged, Verification};
    pub use crate::egress::verifier::{Ask, Denial, HELLO_TIMEOUT, Peek, Verifier};
}

/// The switch between the members of a shared network.
pub mod switch {
    pub use crate::switch::{PortIndex, Recipients, Released, Route, Switch};
}

/// Wire formats.
pub mod wire {
    pub use crate::wire::fragmentation::{Fragments, fragments};
    pub use crate::wire::frame::{
        ETHERNET_HEADER_LEN, ETHERTYPE_ARP, ETHERTYPE_IPV4, ETHERTYPE_IPV6, EthernetHeader,
        IpHeader, is_transport_checksum_valid, pseudo_header_sum,
    };
    pub use crate::wire::ip::{FragmentInfo, HeaderFields, IpPair, Located};
    pub use crate::wire::segmentation::{SEGMENTS_CAP, cut, is_covered};
    pub use crate::wire::vnet::{
        FLAG_DATA_VALID, FLAG_NEEDS_CSUM, Gso, VNET_HEADER_LEN, VnetHeader,
    };
}

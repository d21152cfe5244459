//! Where a flow stands, in words for people and programs.

/// Where a flow stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum FlowState {
    /// Somebody is asked whether it may be opened, or its name is looked up.
    Asking,
    /// The host is connecting to the remote.
    Connecting,
    /// A remote has come, and the guest's link-layer address is asked for.
    Locating,
    /// The guest has not finished the handshake.
    Handshaking,
    /// Open; the only state of a UDP or echo flow.
    Open,
    /// Open and idle for so long that its memory has been given back.
    Parked,
    /// One direction has ended, or both.
    Closing,
}

impl FlowState {
    /// The word for it, in lower case.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Asking => "asking",
            Self::Connecting => "connecting",
            Self::Locating => "locating",
            Self::Handshaking => "handshaking",
            Self::Open => "open",
            Self::Parked => "parked",
            Self::Closing => "closing",
        }
    }
}

//! Versions of the CNI specification.

/// A supported version; later ones are greater.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Version {
    V010,
    V020,
    V030,
    V031,
    V040,
    V100,
    V110,
}

impl Version {
    /// The newest one.
    pub(crate) const NEWEST: Self = Self::V110;

    /// All of them, with their texts, oldest first.
    pub(crate) const ALL: [(Self, &str); 7] = [
        (Self::V010, "0.1.0"),
        (Self::V020, "0.2.0"),
        (Self::V030, "0.3.0"),
        (Self::V031, "0.3.1"),
        (Self::V040, "0.4.0"),
        (Self::V100, "1.0.0"),
        (Self::V110, "1.1.0"),
    ];

    /// Reads a `cniVersion`. A configuration without one is of the first version.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        if text.is_empty() {
            return Some(Self::V010);
        }
        Self::ALL.into_iter().find(|(_, known)| *known == text).map(|(version, _)| version)
    }

    pub(crate) fn as_str(self) -> &'static str {
        Self::ALL.into_iter().find(|(version, _)| *version == self).map_or("", |(_, text)| text)
    }

    /// The texts of all of them.
    pub(crate) fn texts() -> [&'static str; 7] {
        Self::ALL.map(|(_, text)| text)
    }
}

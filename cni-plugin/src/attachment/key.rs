//! The key of an attachment: container and interface.

use core::fmt;

use serde::{Deserialize, Serialize};

/// A container and one of its interfaces.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Key {
    #[serde(rename = "containerID")]
    pub(crate) container_id: String,
    pub(crate) ifname: String,
}

impl Key {
    /// The name of its files: 32 hexadecimal digits, since the path of a socket holds 107 bytes
    /// (unix(7)) and the id of a container may have more. Stems may collide, so a caller that finds
    /// a file by its stem compares the key itself.
    pub(crate) fn file_stem(&self) -> String {
        hash(self.container_id.bytes().chain([0]).chain(self.ifname.bytes()))
    }
}

/// 32 hexadecimal digits that stand for these bytes: FNV-1a with 128 bits (draft-eastlake-fnv-17
/// section 5).
pub(super) fn hash(bytes: impl IntoIterator<Item = u8>) -> String {
    const OFFSET_BASIS: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
    const PRIME: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013b;
    let step = |hash: u128, byte: u8| (hash ^ u128::from(byte)).wrapping_mul(PRIME);
    let hash = bytes.into_iter().fold(OFFSET_BASIS, step);
    format!("{hash:032x}")
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.container_id, self.ifname)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stems_have_one_length_and_where_the_names_part_matters() {
        let stem = |container_id: &str, ifname: &str| {
            Key { container_id: container_id.to_owned(), ifname: ifname.to_owned() }.file_stem()
        };
        assert_eq!(stem("a", "eth0").len(), 32);
        assert_ne!(stem("a", "eth0"), stem("a", "eth1"));
        assert_ne!(stem("ab", "c"), stem("a", "bc"));
    }
}

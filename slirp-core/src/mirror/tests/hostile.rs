//! Bytes that no kernel sends.

use proptest::prelude::*;

use super::*;

const ALL: [&[u8]; 11] = [
    PLAIN,
    SEVERAL,
    OFF_LINK,
    MULTIPATH,
    SPLIT_DEFAULT,
    NO_DEFAULT,
    POINT_TO_POINT,
    IPV6_ONLY,
    NEXT_HOP_OBJECTS,
    VIA_IPV6,
    LOOPBACK_ONLY,
];

proptest! {
    #[test]
    fn changed_messages_harm_nobody(
        which in 0..ALL.len(),
        changes in proptest::collection::vec((any::<u16>(), any::<u8>()), 0..32),
        len in any::<u16>(),
    ) {
        let mut bytes = ALL[which].to_vec();
        let whole = bytes.len();
        for (at, value) in changes {
            bytes[usize::from(at) % whole] = value;
        }
        bytes.truncate(usize::from(len) % (whole + 1));
        let _guest = guest(&bytes);
    }

    #[test]
    fn random_bytes_harm_nobody(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
        let _guest = guest(&bytes);
    }
}

#[test]
fn cut_lists_leave_what_came_before() {
    for recorded in ALL {
        for len in 0..recorded.len() {
            let _guest = guest(&recorded[..len]);
        }
    }
}

//! How large segments are, by what the guest and its device can take.

use super::*;
use crate::wire::vnet::{FLAG_NEEDS_CSUM, Gso};

fn mss_option(mss: u16) -> Vec<u8> {
    let [m0, m1] = mss.to_be_bytes();
    vec![2, 4, m0, m1, 1, 3, 3, 7]
}

/// Lets the host say `data` and the guest take all of it.
fn deliver(ladder: &mut Ladder, talk: &mut Talk, data: &[u8]) -> Vec<Heard> {
    let mut all = Vec::new();
    let mut arrived = Vec::new();
    let mut heard = ladder.host(talk.flow, |host| host.to_guest.extend(data));
    for _ in 0..10_000 {
        arrived.extend(talk.take(&heard));
        all.append(&mut heard);
        if arrived.len() == data.len() {
            break;
        }
        heard = talk.acknowledge(ladder);
    }
    assert!(arrived == data, "{} bytes", arrived.len());
    all.retain(|heard| !heard.tcp.as_ref().unwrap().payload.is_empty());
    all
}

fn open(offload: Offload, mtu: u16, is_ipv6: bool, mss: u16) -> (Ladder, Talk) {
    let mut ladder = Ladder::with(StackConfig { offload, mtu, ..config() });
    let talk = Talk::open_with(&mut ladder, &Talk::syn(is_ipv6, &mss_option(mss)));
    (ladder, talk)
}

#[test]
fn device_cuts_at_the_guests_mss_in_both_families() {
    for (is_ipv6, mss, gso) in
        [(false, 1460, Gso::TcpV4), (true, 1440, Gso::TcpV6), (false, 1000, Gso::TcpV4)]
    {
        let (mut ladder, mut talk) = open(Offload::FULL, 1500, is_ipv6, mss);
        let heard = deliver(&mut ladder, &mut talk, &stream(500_000));
        let mut large = 0;
        for Heard { vnet, tcp, packet, .. } in &heard {
            let len = tcp.as_ref().unwrap().payload.len();
            assert_eq!(vnet.flags, FLAG_NEEDS_CSUM);
            assert!(packet.len() <= 65_535);
            if len > usize::from(mss) {
                assert_eq!((vnet.gso, vnet.gso_size), (gso, mss));
                large += usize::from(len % usize::from(mss) == 0);
            } else {
                assert_eq!(vnet.gso, Gso::None);
            }
        }
        // Only where the ring wraps or the data ends a segment may be cut short.
        assert!(large * 2 >= heard.len(), "{large} of {} in multiples", heard.len());
        assert!(heard.len() < 40, "{} frames", heard.len());
    }
}

#[test]
fn guests_mtu_bounds_what_it_asks_for() {
    let (mut ladder, mut talk) = open(Offload::FULL, 1500, false, 9000);
    for heard in deliver(&mut ladder, &mut talk, &stream(100_000)) {
        assert!(heard.vnet.gso == Gso::None || heard.vnet.gso_size == 1460);
    }
}

#[test]
fn large_mtu_needs_no_cutting_and_leaves_no_runts() {
    let (mut ladder, mut talk) = open(Offload::FULL, 65_520, false, 65_480);
    let heard = deliver(&mut ladder, &mut talk, &stream(65_480 * 3));
    let lens: Vec<_> = heard.iter().map(|h| h.tcp.as_ref().unwrap().payload.len()).collect();
    assert_eq!(lens, [65_480; 3]);
    assert!(heard.iter().all(|heard| heard.vnet.gso == Gso::None));
}

#[test]
fn plain_device_gets_whole_checksums_and_no_more_than_its_mtu() {
    for (is_ipv6, mtu, mss) in [(false, 1500, 1460), (true, 1500, 1440), (false, 576, 1460)] {
        let (mut ladder, mut talk) = open(Offload::default(), mtu, is_ipv6, mss);
        for heard in deliver(&mut ladder, &mut talk, &stream(50_000)) {
            assert!(heard.packet.len() <= usize::from(mtu));
            assert!(heard.tcp.unwrap().is_checksum_valid);
        }
    }
}

#[test]
fn guest_with_a_tiny_mss_gets_tiny_segments() {
    for offload in [Offload::default(), Offload::FULL] {
        let (mut ladder, mut talk) = open(offload, 1500, false, 100);
        for heard in deliver(&mut ladder, &mut talk, &stream(5000)) {
            assert!(heard.tcp.unwrap().payload.len() <= 100);
            assert_eq!(heard.vnet.gso, Gso::None, "its kernel is not made to cut crumbs");
        }
    }
}

#[test]
fn guest_without_mss_option_gets_the_default() {
    for offload in [Offload::default(), Offload::FULL] {
        let mut ladder = Ladder::with(StackConfig { offload, ..config() });
        let mut talk = Talk::open_with(&mut ladder, &Talk::syn(false, &[]));
        for heard in deliver(&mut ladder, &mut talk, &stream(50_000)) {
            assert!(heard.tcp.unwrap().payload.len() <= 536);
        }
    }
}

#[test]
fn segments_keep_their_size_after_a_nap() {
    for mss in [100, 1460] {
        let (mut ladder, mut talk) = open(Offload::FULL, 1500, false, mss);
        let largest = |all: &[Heard]| {
            all.iter().map(|heard| heard.tcp.as_ref().unwrap().payload.len()).max().unwrap()
        };
        let before = largest(&deliver(&mut ladder, &mut talk, &stream(100_000)));
        talk.acknowledge(&mut ladder);
        ladder.pass(Duration::from_secs(60));
        assert_eq!(ladder.stack.stats().tcp_parked, 1);
        let after = largest(&deliver(&mut ladder, &mut talk, &stream(100_000)));
        assert_eq!(before, after);
    }
}

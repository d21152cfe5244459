//! A handle in front of a running instance.

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};

use super::*;
use crate::host::events::Observed;
use crate::host::link::FrameSocket;
use crate::instance::Builder;

#[test]
fn stream_of_events_is_bounded_and_says_what_it_has_lost() {
    let kind = SockType::SeqPacket;
    let (ours, _guest) =
        socketpair(AddressFamily::Unix, kind, None, SockFlag::SOCK_CLOEXEC).unwrap();
    let instance = Builder::new(FrameSocket::adopt(ours).unwrap()).spawn().unwrap();
    let handle = instance.handle();
    let (mut slow, mut quick) = (handle.events(2), handle.events(64));
    let policy = EgressPolicy::parse("allow any", "test").unwrap();
    for _ in 0..5 {
        let set = handle.blocking().set_egress(None, policy.clone(), Established::Keep);
        set.unwrap();
    }
    let revision = |observed: Option<Observed>| {
        let observed = observed.unwrap();
        let revision = observed.event.map(|event| {
            let Event::PolicySet { revision, .. } = event else { panic!("{event:?}") };
            revision
        });
        (observed.lost, revision)
    };
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        for number in 1..=5 {
            assert_eq!(revision(quick.next().await), (0, Some(number)));
        }
    });
    assert_eq!(revision(slow.blocking_next()), (0, Some(1)));
    assert_eq!(revision(slow.blocking_next()), (0, Some(2)));
    // No event follows.
    assert_eq!(revision(slow.blocking_next()), (3, None));
    drop(instance);
    assert!(slow.blocking_next().is_none());
    assert!(handle.events(1).blocking_next().is_none(), "the instance has ended");
}

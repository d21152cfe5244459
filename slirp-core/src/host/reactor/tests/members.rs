//! Members that join and leave, with their rules.

use std::os::fd::OwnedFd;

use tokio::sync::oneshot;

use super::scene::{free_port, rule};
use super::*;
use crate::config::Offload;
use crate::host::forward::{Forward, ForwardProtocol};
use crate::host::link::switchboard::Switchboard;
use crate::host::link::tap::Tap;
use crate::host::mailbox::NewMember;
use crate::mac::MacAddr;
use crate::member::{Member, MemberError, MemberId};

fn shared() -> (Reactor, Mailbox) {
    let config = StackConfig { is_shared: true, ..StackConfig::default() };
    let board = Switchboard::new().unwrap().into();
    reactor_on(board, config, BusyPoll::new(Duration::ZERO, 1))
}

/// The member 10.0.2.`last`, and its own end of its device.
fn member(last: u8) -> (NewMember, OwnedFd) {
    let (ours, own) = pair();
    let member = Member {
        mac: MacAddr([2, 0, 0, 0, 0, last]),
        address: [10, 0, 2, last].into(),
        address6: None,
        names: Vec::new(),
        aliases: Vec::new(),
    };
    (
        NewMember {
            tap: Tap::double(ours, Offload::FULL),
            member,
            egress: None,
            rates: None,
            guard: None,
        },
        own,
    )
}

/// A rule on 127.0.85.`last` that leads to 10.0.2.`last`.
fn rule_of(last: u8) -> Forward {
    let host = free_port([127, 0, 85, last], ForwardProtocol::Udp);
    let mut rule = rule(ForwardProtocol::Udp, host, 53);
    rule.guest.set_ip([10, 0, 2, last].into());
    rule
}

#[test]
fn rules_of_a_member_go_with_it_and_those_of_others_stay() {
    let (mut reactor, _) = shared();
    let (first, _own) = member(100);
    let (second, _other) = member(101);
    let ids = [first, second].map(|new| reactor.add_member(new).unwrap());
    let rules = [100, 101, 100].map(rule_of);
    reactor.add_forwards(&rules).unwrap();
    reactor.remove_member(ids[0]).unwrap();
    let left: Vec<_> = reactor.forwards.list().into_iter().map(|(_, rule)| rule.host).collect();
    assert_eq!(left, [rules[1].host]);
    let members: Vec<_> = reactor.members().into_iter().map(|(id, _)| id).collect();
    assert_eq!(members, [ids[1]]);
    assert_eq!(reactor.remove_member(ids[0]), Err(MemberError::Unknown));
    assert_eq!(reactor.forwards.list().len(), 1);
}

#[test]
fn network_of_one_guest_has_no_members() {
    let (mut reactor, _guest) = reactor(BusyPoll::new(Duration::ZERO, 1));
    let (new, _own) = member(100);
    assert_eq!(reactor.add_member(new), Err(MemberError::NotShared));
    assert_eq!(reactor.remove_member(MemberId(1)), Err(MemberError::NotShared));
    assert_eq!(reactor.members(), []);
}

#[test]
fn member_that_is_refused_takes_nothing_of_the_one_that_is_there() {
    let (mut reactor, _) = shared();
    let (new, _own) = member(100);
    let id = reactor.add_member(new).unwrap();
    reactor.add_forwards(&[rule_of(100)]).unwrap();
    let (twin, _other) = member(100);
    let taken = MemberError::MacTaken(MacAddr([2, 0, 0, 0, 0, 100]));
    assert_eq!(reactor.add_member(twin), Err(taken));
    assert_eq!(reactor.members().len(), 1);
    assert_eq!(reactor.forwards.list().len(), 1);
    reactor.remove_member(id).unwrap();
    assert!(reactor.forwards.list().is_empty());
}

#[test]
fn member_whose_asker_has_gone_is_not_kept() {
    let (mut reactor, mailbox) = shared();
    let (waited_for, _own) = member(100);
    let (forgotten, _other) = member(101);
    let (reply, mut answer) = oneshot::channel();
    mailbox.send(Message::AddMember { member: Box::new(waited_for), reply });
    let (reply, gone) = oneshot::channel();
    drop(gone);
    mailbox.send(Message::AddMember { member: Box::new(forgotten), reply });
    assert!(reactor.read_mail(Instant::ZERO) == Next::GoOn);
    let id = answer.try_recv().unwrap().unwrap();
    let members: Vec<_> = reactor.members().into_iter().map(|(id, _)| id).collect();
    assert_eq!(members, [id]);
    // Its device is lost; that may be reported twice.
    mailbox.send(Message::MemberLost(id));
    mailbox.send(Message::MemberLost(id));
    mailbox.send(Message::Shutdown);
    assert!(reactor.read_mail(Instant::ZERO) == Next::End);
    assert_eq!(reactor.members(), []);
}

//! Guests whose rates are limited.

use super::*;
use crate::config::Policy;
use crate::egress::EgressPolicy;
use crate::event::Datagram;
use crate::journal::{Detail, Event};
use crate::rates::{Rate, RateDirection, Rates};
use crate::stack::Established;
use crate::tcp::tests::packet::{FIN, RST};
use crate::wire::icmp::emit_echo_quote;
use crate::wire::udp::emit_datagram;

const MSS: usize = 1460;
const MILLISECOND: Duration = Duration::from_millis(1);

/// 1 Mbit/s and two packets at once.
const SLOW: Rate = Rate { bits_per_second: 1_000_000, burst: Some(3000) };

fn up(rate: Rate) -> Rates {
    Rates::new(None, Some(rate))
}

fn down(rate: Rate) -> Rates {
    Rates::new(Some(rate), None)
}

fn limited(rates: Rates) -> Ladder {
    Ladder::with(StackConfig { rates, ..config() })
}

fn bytes(len: usize) -> Vec<u8> {
    (0..len).map(|index| u8::try_from(index % 251).unwrap()).collect()
}

/// The guest says `data` at once.
fn upload(ladder: &mut Ladder, talk: &mut Talk, data: &[u8]) {
    for piece in data.chunks(MSS) {
        talk.say(ladder, ACK, piece);
    }
}

/// The guest takes what comes in `time`, and acknowledges it every millisecond. Returns it, and the
/// largest segment.
fn download(ladder: &mut Ladder, talk: &mut Talk, time: Duration) -> (Vec<u8>, usize) {
    let (mut taken, mut largest) = (Vec::new(), 0);
    let until = ladder.now + time;
    let mut heard = Vec::new();
    while ladder.now < until {
        heard.extend(ladder.pass(MILLISECOND));
        largest = largest
            .max(heard.iter().map(|it| it.tcp.as_ref().unwrap().payload.len()).max().unwrap_or(0));
        taken.append(&mut talk.take(&heard));
        heard = talk.acknowledge(ladder);
    }
    taken.append(&mut talk.take(&heard));
    (taken, largest)
}

/// The guest sends a datagram; returns whether it left at once.
fn send(ladder: &mut Ladder, port: u16, payload: &[u8]) -> bool {
    let from = SocketAddr::from(([10, 0, 2, 100], port));
    send_from(ladder, from, payload)
}

fn send_from(ladder: &mut Ladder, from: SocketAddr, payload: &[u8]) -> bool {
    let mut packet = Vec::new();
    emit_datagram(&mut packet, from, "192.0.2.1:9".parse().unwrap(), 64, 0, payload).unwrap();
    let mut frame = frame_around(&packet, MAC);
    match ladder.stack.handle_frame_of(ladder.member, &mut frame, ladder.now) {
        Some(Datagram::Udp { payload: lent, .. }) => {
            assert_eq!(lent, payload);
            true
        }
        None => false,
        Some(other) => panic!("{other:?}"),
    }
}

/// The first byte of each datagram that is released within `time`.
fn released(ladder: &mut Ladder, time: Duration) -> Vec<u8> {
    let mut released = Vec::new();
    let until = ladder.now + time;
    loop {
        while let Some(datagram) = ladder.stack.poll_datagram(ladder.now) {
            let (Datagram::Udp { payload, .. } | Datagram::Echo { payload, .. }) = datagram else {
                panic!("{datagram:?}");
            };
            released.push(payload[0]);
        }
        if ladder.now >= until {
            return released;
        }
        ladder.pass(MILLISECOND);
    }
}

fn limits_begun(ladder: &mut Ladder) -> Vec<(Option<MemberId>, RateDirection)> {
    core::iter::from_fn(|| ladder.stack.poll_event())
        .filter_map(|report| {
            let Event::RateLimited { member, direction } = report.event else { return None };
            Some((member, direction))
        })
        .collect()
}

#[test]
fn nothing_is_shaped_without_a_limit() {
    let mut ladder = Ladder::new();
    assert!(ladder.stack.shaping.is_none());
    assert_eq!(ladder.stack.rates(None), Rates::default());
    ladder.stack.set_rates(None, up(SLOW), ladder.now);
    assert_eq!(ladder.stack.rates(Some(MemberId(7))), up(SLOW));
    ladder.stack.set_rates(None, Rates::default(), ladder.now);
    assert!(ladder.stack.poll_datagram(ladder.now).is_none() && ladder.stack.shaping.is_none());
}

#[test]
fn upload_leaves_at_its_rate_and_whole() {
    let mut ladder = limited(up(SLOW));
    ladder.stack.set_detail(Detail::Flows);
    let mut talk = Talk::open(&mut ladder);
    let data = bytes(40 * MSS);
    upload(&mut ladder, &mut talk, &data);
    talk.say(&mut ladder, ACK | FIN, &[]);
    assert_eq!(ladder.taken(talk.flow).len(), 2 * MSS, "the burst");
    for millis in 1..=400 {
        ladder.pass(MILLISECOND);
        let allowed = 3000 + millis * 125;
        let taken = ladder.taken(talk.flow).len();
        assert!(taken + taken / MSS * 40 <= allowed, "{taken} after {millis} ms");
        assert!(taken + 3 * MSS >= allowed * MSS / 1500, "{taken} after {millis} ms");
        assert!(!ladder.hosts[&talk.flow].is_shut);
    }
    ladder.pass(Duration::from_millis(200));
    assert!(ladder.taken(talk.flow) == data && ladder.hosts[&talk.flow].is_shut);
    assert_eq!(limits_begun(&mut ladder), [(None, RateDirection::FromGuest)]);
    let micros = ladder.stack.stats().rate_limited_micros_from_guest;
    assert!((400_000..500_000).contains(&micros), "{micros}");
    assert_eq!(ladder.stack.stats().rate_limited_micros_to_guest, 0);
}

#[test]
fn download_comes_at_its_rate_whole_and_in_small_segments() {
    let rates = down(SLOW);
    let mut ladder = Ladder::with(StackConfig { offload: Offload::FULL, rates, ..config() });
    let mut talk = Talk::open(&mut ladder);
    let data = bytes(60 * MSS);
    let mut heard = ladder.host(talk.flow, |host| {
        host.to_guest.extend(&data);
        host.is_ended = true;
    });
    let mut taken = talk.take(&heard);
    assert_eq!(taken.len(), 2 * MSS, "the burst");
    talk.acknowledge(&mut ladder);
    let (more, largest) = download(&mut ladder, &mut talk, Duration::from_millis(400));
    taken.extend(more);
    assert_eq!(largest, MSS);
    assert!((33 * MSS..=36 * MSS).contains(&taken.len()), "{} segments", taken.len() / MSS);
    let (more, _) = download(&mut ladder, &mut talk, Duration::from_millis(400));
    taken.extend(more);
    assert!(taken == data, "{} of {}", taken.len(), data.len());
    heard = talk.say(&mut ladder, ACK | FIN, &[]);
    assert!(heard.iter().all(|heard| heard.tcp.as_ref().unwrap().payload.is_empty()));
    assert!(ladder.hosts[&talk.flow].is_shut);
}

#[test]
fn directions_are_limited_apart() {
    let mut ladder = limited(up(Rate { bits_per_second: 1, burst: Some(0) }));
    let mut talk = Talk::open(&mut ladder);
    upload(&mut ladder, &mut talk, &bytes(10 * MSS));
    let data = bytes(30 * MSS);
    let heard = ladder.host(talk.flow, |host| host.to_guest.extend(&data));
    assert_eq!(talk.take(&heard), data);
    assert_eq!(ladder.taken(talk.flow).len(), MSS);
}

#[test]
fn connections_share_the_rate() {
    let mut ladder = limited(up(SLOW));
    let mut talks: Vec<_> = (1..=4u16)
        .map(|port| {
            let mut syn = Talk::syn(false, LINUX_OPTIONS);
            syn.from.set_port(port);
            Talk::open_with(&mut ladder, &syn)
        })
        .collect();
    for talk in &mut talks {
        upload(&mut ladder, talk, &bytes(40 * MSS));
    }
    ladder.pass(Duration::from_secs(1));
    let parts: Vec<_> = talks.iter().map(|talk| ladder.taken(talk.flow).len() / MSS).collect();
    assert!(parts.iter().all(|part| (20..=23).contains(part)), "{parts:?}");
    // One is reset while it waits, one ends, and one does not take anything any more.
    talks[0].say(&mut ladder, RST, &[]);
    ladder.host(talks[1].flow, |host| host.is_broken = true);
    ladder.host(talks[2].flow, |host| host.room = 0);
    ladder.pass(Duration::from_secs(1));
    assert_eq!(ladder.taken(talks[3].flow).len(), 40 * MSS);
}

#[test]
fn datagrams_wait_for_their_rate_and_are_dropped_after_that() {
    let mut ladder = limited(up(SLOW));
    ladder.stack.set_detail(Detail::Flows);
    let left: Vec<_> =
        (1..=20).filter(|&number| send(&mut ladder, 5000, &[number; 1472])).collect();
    assert_eq!(left, [1, 2], "the burst");
    // One in 12 ms, for 50 ms.
    assert_eq!(released(&mut ladder, Duration::from_millis(500)), [3, 4, 5, 6]);
    let stats = ladder.stack.stats();
    assert_eq!((stats.rate_dropped_from_guest, stats.rate_dropped_to_guest), (14, 0));
    assert_eq!(ladder.discards(DiscardReason::RateExceeded), 14);
    assert_eq!(limits_begun(&mut ladder), [(None, RateDirection::FromGuest)]);
    assert!(!ladder.stack.has_work());
}

#[test]
fn datagrams_of_a_flow_that_has_ended_do_not_leave() {
    let mut ladder = limited(up(SLOW));
    for number in 1..=4 {
        send(&mut ladder, 5000, &[number; 1472]);
    }
    let id = ladder.stack.flows.iter().next().unwrap().meta.id;
    ladder.stack.set_rates(None, Rates::default(), ladder.now);
    assert!(ladder.stack.has_work());
    ladder.stack.close_flow(id, Ending::Idle, ladder.now);
    assert!(ladder.stack.poll_datagram(ladder.now).is_none());
    assert_eq!(ladder.discards(DiscardReason::RateExceeded), 2);
}

#[test]
fn newer_datagram_does_not_overtake_one_that_departs() {
    for is_lifted in [false, true] {
        let mut ladder = limited(up(SLOW));
        for number in 1..=4 {
            assert_eq!(send(&mut ladder, 5000, &[number; 1472]), number <= 2);
        }
        // Both may leave, and nobody has taken them yet.
        if is_lifted {
            ladder.stack.set_rates(None, Rates::default(), ladder.now);
        } else {
            ladder.pass(Duration::from_millis(49));
        }
        assert!(!send(&mut ladder, 5000, &[5; 20]), "it waits behind them");
        assert!(send(&mut ladder, 5001, &[6; 20]), "another flow need not");
        assert_eq!(released(&mut ladder, Duration::ZERO), [3, 4, 5]);
        assert!(send(&mut ladder, 5000, &[7; 20]));
    }
}

#[test]
fn held_datagram_is_judged_by_the_policy_of_the_time_when_it_leaves() {
    let (kept, cut) = ("allow 192.0.2.0/24", "allow 192.0.2.2");
    for (lines, is_late, expected) in [
        (kept, false, vec![3, 4]),
        (kept, true, vec![3, 4]),
        (cut, false, vec![]),
        (cut, true, vec![]),
    ] {
        let policy = |lines| EgressPolicy::parse(lines, "test").unwrap();
        let egress = Some(policy("allow 192.0.2.1"));
        let mut ladder = Ladder::with(StackConfig { rates: up(SLOW), egress, ..config() });
        for number in 1..=4 {
            send(&mut ladder, 5000, &[number; 1472]);
        }
        if is_late {
            ladder.pass(Duration::from_millis(49));
        }
        ladder.stack.set_egress(None, policy(lines), Established::Cut, ladder.now);
        let denied = 2 - expected.len() as u64;
        assert_eq!(released(&mut ladder, Duration::from_millis(49)), expected, "{lines}");
        assert_eq!(ladder.discards(DiscardReason::EgressDenied), denied);
    }
}

#[test]
fn held_answer_of_a_remote_that_is_denied_now_does_not_arrive() {
    let policy = |lines| EgressPolicy::parse(lines, "test").unwrap();
    let egress = Some(policy("allow 192.0.2.1"));
    let mut ladder = Ladder::with(StackConfig { rates: down(SLOW), egress, ..config() });
    assert!(send(&mut ladder, 5000, b"question"));
    let id = ladder.stack.flows.iter().next().unwrap().meta.id;
    let remote = "192.0.2.1:9".parse().unwrap();
    for number in 1..=4 {
        ladder.stack.handle_udp_from_host(id, remote, &[number; 1472], None, 0, ladder.now);
    }
    assert_eq!(ladder.turn().len(), 2, "the burst");
    assert_eq!(ladder.pass(Duration::from_millis(15)).len(), 1);
    ladder.stack.set_egress(None, policy(""), Established::Cut, ladder.now);
    assert!(ladder.pass(Duration::from_millis(100)).is_empty());
    assert_eq!(ladder.discards(DiscardReason::EgressDenied), 1);
}

#[test]
fn published_datagram_that_waited_waits_for_the_guests_place_too() {
    let mut ladder = limited(down(SLOW));
    let (client, guest) = ("192.0.2.7:7".parse().unwrap(), "10.0.2.100:9".parse().unwrap());
    for number in 1..=3 {
        let origin = came_through(1, client);
        ladder.stack.handle_inbound_udp(origin, guest, &[number; 1472], None, 0, ladder.now);
    }
    assert!(ladder.turn().iter().all(|asked| asked.packet[..2] == [0, 1]), "ARP requests");
    assert!(ladder.pass(Duration::from_millis(20)).is_empty());
    // Where the guest is: an answer to them.
    let gateway = [0x52, 0x55, 10, 0, 2, 2];
    let head: &[u8] = &[8, 6, 0, 1, 8, 0, 6, 4, 0, 2];
    let told = [&gateway[..], &MAC.0, head, &MAC.0, &[10, 0, 2, 100], &gateway, &[10, 0, 2, 2]];
    let heard = ladder.frame(&told.concat());
    assert_eq!(heard.iter().map(|it| it.packet[28]).collect::<Vec<_>>(), [1, 2, 3]);
    assert_eq!(ladder.discards(DiscardReason::GuestNotFound), 0);
}

#[test]
fn datagrams_to_the_guest_wait_as_well() {
    let mut ladder = limited(down(SLOW));
    assert!(send(&mut ladder, 5000, b"question"));
    let id = ladder.stack.flows.iter().next().unwrap().meta.id;
    let remote = "192.0.2.1:9".parse().unwrap();
    // Three at once, as the host's kernel may join them; the last is shorter.
    let payload = [vec![1; 1472], vec![2; 1472], vec![3; 100]].concat();
    ladder.stack.handle_udp_from_host(id, remote, &payload, Some(1472), 0, ladder.now);
    let first = ladder.turn();
    assert_eq!(first.iter().map(|it| it.packet.len()).collect::<Vec<_>>(), [1500, 1500]);
    let heard = ladder.pass(Duration::from_millis(5));
    assert_eq!(heard.iter().map(|it| it.packet.len()).collect::<Vec<_>>(), [128]);
    assert_eq!(&heard[0].packet[28..], [3; 100]);
}

#[test]
fn echoes_wait_as_well() {
    let mut ladder = limited(Rates::new(Some(SLOW), Some(SLOW)));
    let mut left = 0;
    let mut flow = None;
    for sequence in 0..200 {
        let mut packet = Vec::new();
        let (from, to) = ("10.0.2.100".parse().unwrap(), "192.0.2.1".parse().unwrap());
        emit_echo_quote(&mut packet, from, to, 77, sequence);
        let mut frame = frame_around(&packet, MAC);
        if let Some(Datagram::Echo { flow: id, .. }) =
            ladder.stack.handle_frame(&mut frame, ladder.now)
        {
            left += 1;
            flow = Some(id);
        }
    }
    assert!((100..110).contains(&left), "{left}");
    let remote = "192.0.2.1".parse().unwrap();
    for sequence in 0..3 {
        let payload = [7; 1472];
        let flow = flow.unwrap();
        ladder.stack.handle_echo_reply(flow, remote, sequence, &payload, None, ladder.now);
    }
    assert_eq!(ladder.turn().len(), 2);
    // 12 ms, and a tick at most: the requests have had theirs.
    assert_eq!(ladder.pass(Duration::from_millis(17)).len(), 1);
}

#[test]
fn lookups_are_not_limited() {
    let rates = Rates::new(Some(SLOW), Some(Rate { bits_per_second: 1, burst: Some(0) }));
    let policy = Policy { dns_service: true, ..Policy::default() };
    let mut ladder = Ladder::with(StackConfig { rates, policy, ..config() });
    // A header, one question for the root, of type A and class IN.
    let query = [0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 1];
    for port in 1..=200 {
        let mut packet = Vec::new();
        let from = SocketAddr::from(([10, 0, 2, 100], port));
        emit_datagram(&mut packet, from, "10.0.2.3:53".parse().unwrap(), 64, 0, &query).unwrap();
        ladder.frame(&frame_around(&packet, MAC));
    }
    assert_eq!(ladder.queries.len(), 200);
    for (query, message) in core::mem::take(&mut ladder.queries) {
        ladder.stack.handle_dns_answer(query, Some(message), ladder.now);
    }
    assert_eq!(ladder.turn().len(), 200);
}

#[test]
fn limit_is_exchanged_while_connections_wait() {
    let mut ladder = limited(up(Rate { bits_per_second: 1, burst: Some(0) }));
    let mut talk = Talk::open(&mut ladder);
    let data = bytes(40 * MSS);
    upload(&mut ladder, &mut talk, &data);
    ladder.pass(Duration::from_secs(10));
    assert_eq!(ladder.taken(talk.flow).len(), MSS);
    ladder.stack.set_rates(None, up(SLOW), ladder.now);
    ladder.turn();
    assert_eq!(ladder.taken(talk.flow).len(), MSS, "no new burst");
    ladder.pass(Duration::from_millis(120));
    let taken = ladder.taken(talk.flow).len() / MSS;
    assert!((9..=11).contains(&taken), "{taken}");
    ladder.stack.set_rates(None, Rates::default(), ladder.now);
    ladder.turn();
    assert!(ladder.taken(talk.flow) == data);
}

#[test]
fn each_member_has_a_bucket_of_its_own() {
    let mut ladder = Ladder::with(StackConfig { rates: up(SLOW), is_shared: true, ..config() });
    let fast = up(Rate { burst: Some(15_000), ..SLOW });
    ladder.stack.set_rates(Some(MemberId(3)), fast, ladder.now);
    for (id, last, expected) in [(1, 101, 2), (2, 102, 2), (3, 103, 10)] {
        ladder.member = Some(MemberId(id));
        let from = SocketAddr::from(([10, 0, 2, last], 5000));
        let left = (0..20).filter(|_| send_from(&mut ladder, from, &[0; 1472])).count();
        assert_eq!(left, expected, "member {id}");
    }
    assert_eq!(ladder.stack.rates(Some(MemberId(3))), fast);
    assert_eq!(ladder.stack.rates(Some(MemberId(1))), up(SLOW));
}

#[test]
fn member_without_limits_stays_so_when_there_are_limits_again() {
    let mut ladder = Ladder::with(StackConfig { rates: up(SLOW), is_shared: true, ..config() });
    ladder.stack.set_rates(Some(MemberId(1)), Rates::default(), ladder.now);
    ladder.stack.set_rates(None, Rates::default(), ladder.now);
    assert!(ladder.stack.poll_datagram(ladder.now).is_none());
    ladder.stack.set_rates(None, up(SLOW), ladder.now);
    assert_eq!(ladder.stack.rates(Some(MemberId(1))), Rates::default());
    assert_eq!(ladder.stack.rates(Some(MemberId(2))), up(SLOW));
    ladder.stack.set_rates(None, Rates::default(), ladder.now);
    ladder.stack.forget_rates(MemberId(1));
    assert!(ladder.stack.poll_datagram(ladder.now).is_none() && ladder.stack.shaping.is_none());
}

#[test]
fn broken_host_is_heard_out_at_the_rate_however_long_that_takes() {
    // 1,500 bytes in 3 s.
    let rate = Rate { bits_per_second: 4_000, burst: Some(3000) };
    let mut ladder = limited(down(rate));
    let mut talk = Talk::open(&mut ladder);
    let data = bytes(60 * MSS);
    let mut heard = ladder.host(talk.flow, |host| {
        host.to_guest.extend(&data);
        host.is_broken = true;
    });
    talk.say(&mut ladder, ACK, b"is it still there?");
    let mut taken = talk.take(&heard);
    while ladder.closes.is_empty() {
        talk.acknowledge(&mut ladder);
        heard = ladder.pass(Duration::from_secs(1));
        taken.append(&mut talk.take(&heard));
    }
    assert!(taken == data, "{} of {}", taken.len(), data.len());
    assert!(heard.last().unwrap().tcp.as_ref().unwrap().has(RST));
}

#[test]
fn timer_rests_while_nobody_waits() {
    let mut ladder = limited(Rates::new(Some(SLOW), Some(SLOW)));
    let mut talk = Talk::open(&mut ladder);
    talk.say(&mut ladder, ACK, b"x");
    assert_eq!(ladder.taken(talk.flow), b"x");
    for _ in 0..100 {
        let Some((at, owner)) = ladder.stack.poll_timeout() else { return };
        assert!(!matches!(owner, crate::timer::TimerOwner::Shaper));
        ladder.now = ladder.now.max(at);
        ladder.stack.handle_timeout(ladder.now);
        ladder.turn();
    }
}

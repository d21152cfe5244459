//! Flows that somebody is asked about.

use super::names::look_up;
use super::*;
use crate::egress::{
    Action, DecideError, Decided, Decision, Name, PendingQuestion, QuestionId, Scope, Subject,
};
use crate::journal::QuestionEnding;
use crate::tcp::tests::packet::RST;

pub(super) const ONCE: Decision =
    Decision { action: Action::Allow, scope: Scope::Once, all_ports: false, parent: false };
pub(super) const SESSION: Decision = Decision { scope: Scope::Session, ..ONCE };
pub(super) const DENIED: Decision = Decision { action: Action::Deny, ..ONCE };
pub(super) const SECOND: Duration = Duration::from_secs(1);
pub(super) const REFUSED: Fate = Fate::Refused(3, 13);

/// A guest whose policy has these lines, and somebody who may decide.
pub(super) fn attended(text: &str) -> Ladder {
    let mut ladder = under(text);
    ladder.stack.set_approvers(1, ladder.now);
    ladder
}

pub(super) fn questions(ladder: &Ladder) -> Vec<PendingQuestion> {
    ladder.stack.questions(ladder.now)
}

/// The only open question.
pub(super) fn question(ladder: &Ladder) -> PendingQuestion {
    let questions = questions(ladder);
    assert_eq!(questions.len(), 1, "{questions:?}");
    questions[0].clone()
}

/// Decides the oldest question; returns what the guest hears at once, too.
fn try_decide(
    ladder: &mut Ladder,
    decision: Decision,
) -> (Result<Decided, DecideError>, Vec<Heard>) {
    let id = questions(ladder).first().map_or(QuestionId(u64::MAX), |question| question.id);
    let decided = ladder.stack.decide(id, &decision, None, ladder.now);
    (decided, ladder.turn())
}

pub(super) fn decide(ladder: &mut Ladder, decision: Decision) -> Vec<Heard> {
    let (decided, heard) = try_decide(ladder, decision);
    decided.unwrap();
    heard
}

/// The same where it is not looked at what is connected.
fn settle(ladder: &mut Ladder, decision: Decision) {
    decide(ladder, decision);
    ladder.connects.clear();
}

pub(super) fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

/// The placeholder that the guest gets for `name`.
pub(super) fn placeholder(ladder: &mut Ladder, name: &str) -> IpAddr {
    let frame = datagram(address("10.0.2.100:4999"), "10.0.2.3:53", &query(name));
    let heard = ladder.frame(&frame);
    assert!(ladder.queries.is_empty(), "nothing goes upstream");
    assert_eq!(heard.len(), 1);
    let packet = &heard[0].packet;
    let (record, octets) = packet.split_last_chunk::<4>().unwrap();
    // A, IN, for one second, four bytes.
    assert!(record.ends_with(&[0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 1, 0, 4]), "{packet:?}");
    IpAddr::from(*octets)
}

/// Answers the own lookup of `name`: A with these addresses, AAAA without any.
pub(super) fn answer_lookup(ladder: &mut Ladder, name: &str, addresses: &[[u8; 4]]) -> Vec<Heard> {
    let queries = core::mem::take(&mut ladder.queries);
    assert_eq!(queries.len(), 2, "A and AAAA");
    for (number, (id, message)) in queries.into_iter().enumerate() {
        let kind = [1, 28][number];
        let mut asked = query(name);
        let len = asked.len();
        asked[len - 3] = kind;
        assert_eq!(message[2..], asked[2..], "a plain query");
        let mut answer = message;
        answer[2] |= 0x80;
        if kind == 1 {
            answer[7] = u8::try_from(addresses.len()).unwrap();
            for address in addresses {
                answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
                answer.extend(address);
            }
        }
        ladder.stack.handle_dns_answer(id, Some(answer), ladder.now);
    }
    ladder.turn()
}

fn endings(ladder: &mut Ladder) -> Vec<QuestionEnding> {
    core::iter::from_fn(|| ladder.stack.poll_event())
        .filter_map(|report| {
            let Event::QuestionEnded { ending, .. } = report.event else { return None };
            Some(ending)
        })
        .collect()
}

const TO: &str = "192.0.2.1:22";

#[test]
fn held_connection_goes_on_at_once_when_it_is_allowed() {
    let mut ladder = attended("ask 192.0.2.0/24");
    assert_eq!(connect(&mut ladder, TO, 40_000), Fate::Silence);
    let asked = question(&ladder);
    assert_eq!(asked.subject, Subject::Address(address(TO).ip()));
    assert_eq!((asked.port, asked.protocol, asked.flows), (22, Protocol::Tcp, 1));
    assert_eq!(asked.rule.map(|rule| rule.to_string()).as_deref(), Some("test:1"));
    // As Linux repeats it.
    for pause in [1, 1, 1, 1, 1, 2, 4, 8] {
        ladder.pass(pause * SECOND);
        assert_eq!(connect(&mut ladder, TO, 40_000), Fate::Silence);
    }
    assert_eq!(ladder.discards(DiscardReason::TcpSynRepeated), 8);
    let asked = question(&ladder);
    assert_eq!((asked.held, asked.expires_in), (19 * SECOND, 41 * SECOND));
    assert_eq!(ladder.stack.flows(0, 9, ladder.now).0.next().unwrap().state.as_str(), "asking");
    let heard = decide(&mut ladder, ONCE);
    assert!(heard.is_empty());
    let (flow, remote) = ladder.connects.pop().unwrap();
    assert_eq!(remote, address(TO));
    let heard = ladder.connected(flow, Ok(()));
    assert!(only(&heard).has(SYN | ACK), "without waiting for the next repeat");
    assert!(questions(&ladder).is_empty());
    // A retry passes for half a minute.
    ladder.pass(29 * SECOND);
    assert_eq!(connect(&mut ladder, TO, 40_001), Fate::Host(address(TO)));
    assert_eq!(connect(&mut ladder, "192.0.2.1:23", 40_002), Fate::Silence, "another port");
    ladder.pass(SECOND);
    assert_eq!(connect(&mut ladder, TO, 40_003), Fate::Silence);
    assert_eq!(questions(&ladder).len(), 2);
}

#[test]
fn every_held_syn_hears_of_a_denial_at_once() {
    let mut ladder = attended("ask any");
    for port in 40_000..40_010 {
        assert_eq!(connect(&mut ladder, TO, port), Fate::Silence);
    }
    assert_eq!(question(&ladder).flows, 10);
    let heard = decide(&mut ladder, DENIED);
    assert_eq!(heard.len(), 10);
    assert!(heard.iter().all(|heard| is_error(&heard.packet)));
    assert_eq!(ladder.stack.stats().flows, 0);
    let refused = refusals(&mut ladder);
    assert!(refused.iter().all(|(_, by)| *by == Refusal::Egress(Cause::Decision)), "{refused:?}");
    // Nobody is asked again for a minute.
    ladder.pass(59 * SECOND);
    assert_eq!(connect(&mut ladder, TO, 40_020), REFUSED);
    ladder.pass(SECOND);
    assert_eq!(connect(&mut ladder, TO, 40_021), Fate::Silence);
}

#[test]
fn nobody_there_is_a_refusal_at_once_and_a_short_absence_is_not() {
    let mut ladder = under("ask any");
    assert_eq!(connect(&mut ladder, TO, 40_000), REFUSED);
    assert_eq!(send(&mut ladder, TO, 40_000), REFUSED);
    let refused = refusals(&mut ladder);
    assert!(refused.iter().all(|(_, by)| *by == Refusal::Egress(Cause::NoApprover)), "{refused:?}");
    ladder.stack.set_approvers(2, ladder.now);
    assert_eq!(connect(&mut ladder, TO, 40_001), Fate::Silence);
    ladder.stack.set_approvers(1, ladder.now);
    ladder.pass(10 * SECOND);
    ladder.stack.set_approvers(0, ladder.now);
    assert!(ladder.pass(4 * SECOND).is_empty());
    ladder.stack.set_approvers(1, ladder.now);
    assert!(ladder.pass(10 * SECOND).is_empty());
    ladder.stack.set_approvers(0, ladder.now);
    assert!(ladder.pass(4 * SECOND).is_empty());
    assert_eq!(told(&ladder.pass(SECOND)), REFUSED);
    assert!(matches!(endings(&mut ladder)[..], [QuestionEnding::NoApprover]));
    assert_eq!(connect(&mut ladder, TO, 40_002), REFUSED);
}

#[test]
fn time_ends_a_question_and_nothing_is_remembered() {
    for (lines, time) in [("ask any", 60), ("ask any\nset ask-timeout 5", 5)] {
        let mut ladder = attended(lines);
        for _ in 0..2 {
            assert_eq!(connect(&mut ladder, TO, 40_000), Fate::Silence);
            let id = question(&ladder).id;
            assert!(ladder.pass((time - 1) * SECOND).is_empty());
            assert_eq!(told(&ladder.pass(SECOND)), REFUSED);
            assert!(matches!(endings(&mut ladder)[..], [QuestionEnding::TimedOut]));
            let late = ladder.stack.decide(id, &ONCE, None, ladder.now);
            assert_eq!(late, Err(DecideError::Unknown));
        }
    }
}

#[test]
fn first_decision_holds() {
    let mut ladder = attended("ask any");
    connect(&mut ladder, TO, 40_000);
    let id = question(&ladder).id;
    decide(&mut ladder, DENIED);
    let second = ladder.stack.decide(id, &SESSION, None, ladder.now);
    assert_eq!(second, Err(DecideError::AlreadyDecided(Action::Deny)));
    assert_eq!(connect(&mut ladder, TO, 40_001), REFUSED);
    let (unknown, _) = try_decide(&mut ladder, ONCE);
    assert_eq!(unknown, Err(DecideError::Unknown));
}

#[test]
fn decision_that_does_not_fit_changes_nothing() {
    let mut ladder = attended("ask any\nask host-loopback:80");
    connect(&mut ladder, "10.0.2.2:80", 40_000);
    for unfit in [
        Decision { action: Action::Ask, ..ONCE },
        Decision { parent: true, ..ONCE },
        Decision { all_ports: true, ..SESSION },
    ] {
        let (decided, _) = try_decide(&mut ladder, unfit);
        assert_eq!(decided, Err(DecideError::Unfit));
    }
    assert_eq!(question(&ladder).flows, 1);
    decide(&mut ladder, SESSION);
    assert_eq!(ladder.connects.pop().unwrap().1, address("127.0.0.1:80"));
    // The rule names no other port.
    assert_eq!(connect(&mut ladder, "10.0.2.2:81", 40_001), REFUSED);
}

#[test]
fn decisions_open_nothing_that_a_rule_or_a_protected_set_closes() {
    let mut ladder = attended("ask any\ndeny any:25\ndeny evil.example\nallow ok.example");
    connect(&mut ladder, TO, 40_000);
    settle(&mut ladder, Decision { all_ports: true, ..SESSION });
    assert_eq!(connect(&mut ladder, "192.0.2.1:80", 40_001), Fate::Host(address("192.0.2.1:80")));
    assert_eq!(connect(&mut ladder, "192.0.2.1:25", 40_002), REFUSED);
    for protected in ["10.0.2.2:22", "169.254.169.254:80"] {
        assert_eq!(connect(&mut ladder, protected, 40_003), REFUSED);
    }
    assert!(questions(&ladder).is_empty());
    // Where the default denies, a decision opens what the rule asks about.
    let mut ladder = attended("ask 192.0.2.1:22");
    connect(&mut ladder, TO, 40_000);
    settle(&mut ladder, Decision { all_ports: true, ..SESSION });
    assert_eq!(connect(&mut ladder, "192.0.2.1:23", 40_001), REFUSED);
}

#[test]
fn session_and_time_let_pass_what_is_equal() {
    for scope in [Scope::Session, Scope::For(100 * SECOND)] {
        let mut ladder = attended("ask any");
        connect(&mut ladder, TO, 40_000);
        settle(&mut ladder, Decision { scope, ..ONCE });
        ladder.pass(99 * SECOND);
        assert_eq!(connect(&mut ladder, TO, 40_001), Fate::Host(address(TO)));
        ladder.pass(SECOND);
        let fate = if scope == Scope::Session { Fate::Host(address(TO)) } else { Fate::Silence };
        assert_eq!(connect(&mut ladder, TO, 40_002), fate);
    }
}

#[test]
fn caps_hold_and_others_are_told_at_once() {
    let mut ladder = attended("ask any");
    for port in 1..=300 {
        let fate = connect(&mut ladder, TO, 40_000 + port);
        assert_eq!(fate, if port <= 256 { Fate::Silence } else { REFUSED });
    }
    assert_eq!(question(&ladder).flows, 256);
    let refused = refusals(&mut ladder);
    assert!(refused.iter().all(|(_, by)| *by == Refusal::Egress(Cause::AskFull)), "{refused:?}");
    let mut ladder = attended("ask any");
    for port in 1..=100 {
        let to = format!("192.0.2.1:{port}");
        let fate = connect(&mut ladder, &to, 40_000);
        // Port 53 is our service's.
        let is_asked = questions(&ladder).len() <= 64 && port != 53 && port <= 65;
        if port == 53 {
            assert_eq!(fate, Fate::Answered);
        } else {
            assert_eq!(fate, if is_asked { Fate::Silence } else { REFUSED }, "{port}");
        }
    }
    assert_eq!(questions(&ladder).len(), 64);
    assert_eq!(ladder.pass(60 * SECOND).iter().filter(|heard| is_error(&heard.packet)).count(), 64);
    assert!(questions(&ladder).is_empty());
}

#[test]
fn guest_that_gives_up_leaves_the_question_for_its_next_try() {
    let mut ladder = attended("ask any");
    connect(&mut ladder, TO, 40_000);
    ladder.guest(&Draft { flags: RST, seq: ISN + 1, ..syn_to(TO, 40_000) });
    assert_eq!((question(&ladder).flows, ladder.stack.stats().flows), (0, 0));
    decide(&mut ladder, ONCE);
    assert!(ladder.connects.is_empty());
    assert_eq!(connect(&mut ladder, TO, 40_001), Fate::Host(address(TO)));
}

#[test]
fn datagrams_are_dropped_until_somebody_has_decided() {
    let mut ladder = attended("ask any");
    let to = "192.0.2.1:5000";
    for _ in 0..3 {
        assert_eq!(send(&mut ladder, to, 40_000), Fate::Silence);
    }
    let asked = question(&ladder);
    assert_eq!((asked.protocol, asked.flows), (Protocol::Udp, 0));
    assert_eq!(ladder.discards(DiscardReason::EgressAsked), 3);
    decide(&mut ladder, SESSION);
    assert_eq!(send(&mut ladder, to, 40_000), Fate::Host(address(to)));
    assert_eq!(send(&mut ladder, "192.0.2.2:5000", 40_000), Fate::Silence);
    decide(&mut ladder, DENIED);
    assert_eq!(send(&mut ladder, "192.0.2.2:5000", 40_000), REFUSED);
    // Echo is never asked about.
    assert_eq!(ping(&mut ladder, "192.0.2.3:0", 7), Err(REFUSED));
    assert!(questions(&ladder).is_empty());
}

#[test]
fn ipv6_is_asked_about_as_well() {
    let mut ladder = attended("ask any");
    let to = "[2001:db8::1]:22";
    assert_eq!(connect(&mut ladder, to, 40_000), Fate::Silence);
    assert_eq!(connect(&mut ladder, to, 40_001), Fate::Silence);
    assert_eq!(question(&ladder).flows, 2);
    let heard = decide(&mut ladder, DENIED);
    assert_eq!(heard.len(), 2);
    assert!(heard.iter().all(|heard| is_error(&heard.packet)));
    ladder.pass(60 * SECOND);
    assert_eq!(connect(&mut ladder, to, 40_002), Fate::Silence);
    decide(&mut ladder, SESSION);
    assert_eq!(ladder.connects.pop().unwrap().1, address(to));
}

#[test]
fn another_policy_lets_held_connections_go_on_or_ends_them() {
    for (lines, fate) in [
        ("allow 192.0.2.1", Fate::Host(address(TO))),
        ("allow 192.0.2.2", REFUSED),
        ("ask 192.0.2.1", Fate::Silence),
    ] {
        for established in [Established::Cut, Established::Keep] {
            let mut ladder = attended("ask any");
            connect(&mut ladder, TO, 40_000);
            ladder.stack.set_egress(None, policy(lines), established, ladder.now);
            let mut heard = ladder.turn();
            heard.append(&mut ladder.pass(Duration::from_millis(1)));
            let connect = ladder.connects.pop();
            let found = connect.map_or_else(|| told(&heard), |(_, remote)| Fate::Host(remote));
            assert_eq!(found, fate, "{lines}");
            assert_eq!(questions(&ladder).len(), usize::from(fate == Fate::Silence));
        }
    }
    // What is open goes on where the new policy asks, and decisions stay.
    let mut ladder = attended("allow any");
    let mut talk = Talk::open_with(&mut ladder, &syn_to(TO, 40_000));
    ladder.stack.set_egress(None, policy("ask any"), Established::Cut, ladder.now);
    ladder.pass(SECOND);
    talk.say(&mut ladder, ACK, b"goes on");
    assert_eq!(ladder.taken(talk.flow), b"goes on");
    assert_eq!(connect(&mut ladder, TO, 40_001), Fate::Silence);
    settle(&mut ladder, SESSION);
    ladder.stack.set_egress(None, policy("ask any\ndeny any:25"), Established::Cut, ladder.now);
    assert_eq!(connect(&mut ladder, TO, 40_002), Fate::Host(address(TO)));
}

pub(super) const API: &str = "api.example";
pub(super) const REACHED: [u8; 4] = [203, 0, 113, 7];

pub(super) fn to(address: IpAddr, port: u16) -> String {
    SocketAddr::new(address, port).to_string()
}

#[test]
fn nothing_about_an_asked_name_leaves_before_the_yes() {
    let mut ladder = attended("ask api.example");
    let stands = placeholder(&mut ladder, API);
    assert_eq!(stands, IpAddr::from([198, 19, 192, 1]));
    assert_eq!(placeholder(&mut ladder, API), stands, "it is stable");
    let other_types: [(u8, u8); 4] = [(28, 0), (65, 0), (16, 3), (15, 3)];
    for (kind, code) in other_types {
        let mut asked = query(API);
        let len = asked.len();
        asked[len - 3] = kind;
        let frame = datagram(address("10.0.2.100:4999"), "10.0.2.3:53", &asked);
        let heard = ladder.frame(&frame);
        // Behind the headers of IPv4 and UDP.
        assert_eq!((heard[0].packet[28 + 3] & 15, heard[0].packet[28 + 7]), (code, 0), "{kind}");
    }
    assert_eq!(connect(&mut ladder, &to(stands, 443), 40_000), Fate::Silence);
    assert_eq!(question(&ladder).subject, Subject::Name(name(API)));
    assert!(ladder.queries.is_empty());
    assert!(decide(&mut ladder, ONCE).is_empty());
    assert!(answer_lookup(&mut ladder, API, &[REACHED]).is_empty());
    let (_, remote) = ladder.connects.pop().unwrap();
    assert_eq!(remote, SocketAddr::from((REACHED, 443)));
}

#[test]
fn guest_keeps_the_placeholder_as_its_remote() {
    let mut ladder = attended("ask api.example:22");
    let stands = placeholder(&mut ladder, API);
    let syn = syn_to(&to(stands, 22), 40_000);
    ladder.guest(&syn);
    decide(&mut ladder, ONCE);
    answer_lookup(&mut ladder, API, &[REACHED]);
    let (flow, _) = ladder.connects.pop().unwrap();
    let heard = ladder.connected(flow, Ok(()));
    assert_eq!(IpHeader::parse(&heard[0].packet).unwrap().source, stands);
    let mut talk = Talk::answering(&syn, only(&heard).clone(), flow);
    talk.acknowledge(&mut ladder);
    talk.say(&mut ladder, ACK, b"SSH-2.0-test\r\n");
    assert_eq!(ladder.taken(flow), b"SSH-2.0-test\r\n");
}

#[test]
fn addresses_are_tried_in_turn_and_unfit_ones_are_not() {
    let mut ladder = attended("ask api.example\ndeny 203.0.113.9");
    let stands = placeholder(&mut ladder, API);
    ladder.guest(&syn_to(&to(stands, 443), 40_000));
    decide(&mut ladder, ONCE);
    let addresses = [[10, 9, 9, 9], [203, 0, 113, 9], REACHED, [127, 0, 0, 1], [203, 0, 113, 8]];
    answer_lookup(&mut ladder, API, &addresses);
    for (tried, last) in [([203, 0, 113, 7], false), ([203, 0, 113, 8], true)] {
        let (flow, remote) = ladder.connects.pop().unwrap();
        assert_eq!(remote, SocketAddr::from((tried, 443)));
        let heard = ladder.connected(flow, Err(HostError::Refused));
        assert_eq!(!heard.is_empty(), last, "the last refusal is told");
    }
    assert!(ladder.connects.is_empty());
    assert_eq!(ladder.stack.stats().flows, 0);
}

#[test]
fn name_without_fit_addresses_is_refused() {
    for (addresses, fate) in [
        (&[[10, 9, 9, 9]][..], REFUSED),
        (&[[203, 0, 113, 9]], REFUSED),
        (&[], Fate::Refused(3, 1)),
    ] {
        let mut ladder = attended("ask api.example\ndeny 203.0.113.9");
        let stands = placeholder(&mut ladder, API);
        ladder.guest(&syn_to(&to(stands, 443), 40_000));
        decide(&mut ladder, ONCE);
        let heard = answer_lookup(&mut ladder, API, addresses);
        assert_eq!(told(&heard), fate, "{addresses:?}");
        assert!(ladder.connects.is_empty());
        // Nor does the yes about the name open the address to a guest that knows it.
        for &unfit in addresses {
            let direct = connect(&mut ladder, &to(unfit.into(), 443), 40_001);
            assert!(matches!(direct, Fate::Silence | Fate::Refused(..)), "{unfit:?}: {direct:?}");
            let about: Vec<_> = questions(&ladder).into_iter().map(|asked| asked.subject).collect();
            assert!(!about.contains(&Subject::Name(Name::new(API).unwrap())), "{about:?}");
        }
    }
}

#[test]
fn denied_address_behind_a_placeholder_ends_what_leads_there() {
    for (lines, is_cut) in
        [("ask api.example\ndeny 203.0.113.7", true), ("ask api.example\ndeny 203.0.113.8", false)]
    {
        let mut ladder = attended("ask api.example");
        let stands = placeholder(&mut ladder, API);
        ladder.guest(&syn_to(&to(stands, 443), 40_000));
        decide(&mut ladder, SESSION);
        answer_lookup(&mut ladder, API, &[REACHED, [203, 0, 113, 8]]);
        let (flow, remote) = ladder.connects.pop().unwrap();
        assert_eq!(remote, SocketAddr::from((REACHED, 443)));
        ladder.stack.set_egress(None, policy(lines), Established::Cut, ladder.now);
        let mut heard = ladder.turn();
        heard.append(&mut ladder.pass(Duration::from_millis(1)));
        assert_eq!(told(&heard), if is_cut { REFUSED } else { Fate::Silence }, "{lines}");
        if !is_cut {
            // The other address, which was found before the change, is not tried.
            ladder.connected(flow, Err(HostError::Refused));
            assert!(ladder.connects.is_empty(), "{:?}", ladder.connects);
        }
    }
}

#[test]
fn flows_of_one_name_share_the_question_and_the_lookup() {
    let mut ladder = attended("ask .example wide=yes");
    let stands = placeholder(&mut ladder, API);
    for port in 40_000..40_006 {
        assert_eq!(connect(&mut ladder, &to(stands, 443), port), Fate::Silence);
    }
    decide(&mut ladder, ONCE);
    answer_lookup(&mut ladder, API, &[REACHED]);
    assert_eq!(ladder.connects.len(), 6);
    ladder.connects.clear();
    // And the next one within the answer's time.
    let reached = SocketAddr::from((REACHED, 443));
    assert_eq!(connect(&mut ladder, &to(stands, 443), 40_010), Fate::Host(reached));
    assert!(ladder.queries.is_empty());
}

#[test]
fn first_bytes_have_to_name_the_name() {
    let request = |host: &str| format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n");
    for (host, is_passed) in [(API, true), ("other.test", false), ("203.0.113.7", false)] {
        let mut ladder = attended("ask .example wide=yes\nallow other.test");
        look_up(&mut ladder, "other.test", REACHED, 60);
        let stands = placeholder(&mut ladder, API);
        let syn = syn_to(&to(stands, 80), 40_000);
        ladder.guest(&syn);
        decide(&mut ladder, ONCE);
        answer_lookup(&mut ladder, API, &[REACHED]);
        let (flow, _) = ladder.connects.pop().unwrap();
        let heard = ladder.connected(flow, Ok(()));
        let mut talk = Talk::answering(&syn, only(&heard).clone(), flow);
        talk.acknowledge(&mut ladder);
        let heard = talk.say(&mut ladder, ACK, request(host).as_bytes());
        if is_passed {
            assert_eq!(ladder.taken(flow), request(host).as_bytes());
            // Long after the decision has ended: it is about the connection.
            ladder.pass(Duration::from_secs(120));
            talk.say(&mut ladder, ACK, request(host).as_bytes());
            assert_eq!(ladder.taken(flow).len(), 2 * request(host).len());
        } else {
            assert!(ladder.taken(flow).is_empty());
            assert!(talk.take(&heard).starts_with(b"HTTP/1.1 403"));
        }
    }
}

#[test]
fn lookups_are_ordinary_after_a_lasting_yes_and_old_placeholders_still_work() {
    let mut ladder = attended("ask .example wide=yes");
    let stands = placeholder(&mut ladder, API);
    ladder.guest(&syn_to(&to(stands, 443), 40_000));
    decide(&mut ladder, Decision { parent: true, ..SESSION });
    answer_lookup(&mut ladder, API, &[REACHED]);
    ladder.connects.clear();
    look_up(&mut ladder, API, [203, 0, 113, 8], 60);
    let named = address("203.0.113.8:443");
    assert_eq!(connect(&mut ladder, "203.0.113.8:443", 40_001), Fate::Host(named));
    assert_eq!(connect(&mut ladder, "203.0.113.8:80", 40_002), Fate::Silence, "another port");
    assert_eq!(question(&ladder).subject, Subject::Name(name(API)));
    ladder.pass(SECOND * 61);
    ladder.guest(&syn_to(&to(stands, 443), 40_003));
    answer_lookup(&mut ladder, API, &[REACHED]);
    assert_eq!(ladder.connects.pop().unwrap().1, SocketAddr::from((REACHED, 443)));
    // The parent was not one that anybody can have a name below.
    placeholder(&mut ladder, "other.example");
}

#[test]
fn placeholders_lead_nowhere_else() {
    let mut ladder = attended("ask api.example\nallow private\nallow internet");
    let stands = placeholder(&mut ladder, API);
    assert_eq!(connect(&mut ladder, "198.19.200.200:443", 40_000), REFUSED, "guessed");
    assert_eq!(send(&mut ladder, "198.19.200.200:443", 40_000), REFUSED);
    assert_eq!(ping(&mut ladder, &to(stands, 0), 7), Err(REFUSED));
    decide_about(&mut ladder, &to(stands, 443), SESSION);
    answer_lookup(&mut ladder, API, &[REACHED]);
    ladder.connects.clear();
    // Another port is another question.
    assert_eq!(connect(&mut ladder, &to(stands, 8443), 40_002), Fate::Silence);
    assert_eq!(question(&ladder).port, 8443);
}

fn decide_about(ladder: &mut Ladder, to: &str, decision: Decision) {
    assert_eq!(connect(ladder, to, 41_000), Fate::Silence);
    decide(ladder, decision);
}

#[test]
fn datagrams_to_a_placeholder_reach_the_name_and_answers_come_from_it() {
    let mut ladder = attended("ask udp:api.example:5000");
    let stands = placeholder(&mut ladder, API);
    let written = to(stands, 5000);
    assert_eq!(send(&mut ladder, &written, 5000), Fate::Silence);
    decide(&mut ladder, SESSION);
    assert_eq!(send(&mut ladder, &written, 5000), Fate::Silence, "it is looked up");
    answer_lookup(&mut ladder, API, &[REACHED]);
    let reached = SocketAddr::from((REACHED, 5000));
    let frame = datagram(address("10.0.2.100:5000"), &written, b"text");
    let (flow, remote) = lend(&mut ladder, frame).unwrap();
    assert_eq!(remote, reached);
    for (from, is_heard) in [(reached, true), (SocketAddr::from(([203, 0, 113, 8], 5000)), false)] {
        ladder.stack.handle_udp_from_host(flow, from, b"text", None, 0, ladder.now);
        let heard = ladder.turn();
        assert_eq!(heard.len(), usize::from(is_heard), "{from}");
        if let [heard] = &heard[..] {
            assert_eq!(IpHeader::parse(&heard.packet).unwrap().source, stands);
        }
    }
}

#[test]
fn mapping_keeps_its_remote_although_the_name_moves() {
    let mut ladder = attended("ask udp:api.example:5000");
    let stands = placeholder(&mut ladder, API);
    let written = to(stands, 5000);
    send(&mut ladder, &written, 5000);
    decide(&mut ladder, SESSION);
    send(&mut ladder, &written, 5000);
    answer_lookup(&mut ladder, API, &[REACHED]);
    let reached = Fate::Host(SocketAddr::from((REACHED, 5000)));
    assert_eq!(send(&mut ladder, &written, 5000), reached);
    // The answer is not believed any more.
    ladder.pass(61 * SECOND);
    assert_eq!(send(&mut ladder, &written, 5000), reached);
    assert!(ladder.queries.is_empty());
    // Another mapping looks it up.
    assert_eq!(send(&mut ladder, &written, 5001), Fate::Silence);
    answer_lookup(&mut ladder, API, &[[203, 0, 113, 8]]);
    let moved = Fate::Host(address("203.0.113.8:5000"));
    assert_eq!(send(&mut ladder, &written, 5001), moved);
    assert_eq!(send(&mut ladder, &written, 5000), reached);
}

#[test]
fn policy_that_allows_the_name_lets_what_waits_for_it_go_on() {
    for (lines, is_allowed) in [("allow api.example", true), ("allow other.example", false)] {
        let mut ladder = attended("ask api.example");
        let stands = placeholder(&mut ladder, API);
        ladder.guest(&syn_to(&to(stands, 443), 40_000));
        ladder.stack.set_egress(None, policy(lines), Established::Cut, ladder.now);
        let mut heard = ladder.turn();
        if is_allowed {
            answer_lookup(&mut ladder, API, &[REACHED]);
            let (_, remote) = ladder.connects.pop().unwrap();
            assert_eq!(remote, SocketAddr::from((REACHED, 443)));
        } else {
            heard.append(&mut ladder.pass(Duration::from_millis(1)));
            assert_eq!(told(&heard), REFUSED);
        }
        assert!(questions(&ladder).is_empty());
        assert!(matches!(endings(&mut ladder)[..], [QuestionEnding::PolicyChanged]));
    }
}

#[test]
fn failed_lookup_is_no_hang() {
    let mut ladder = attended("ask api.example");
    let stands = placeholder(&mut ladder, API);
    ladder.guest(&syn_to(&to(stands, 443), 40_000));
    decide(&mut ladder, ONCE);
    for (id, _) in core::mem::take(&mut ladder.queries) {
        ladder.stack.handle_dns_answer(id, None, ladder.now);
    }
    assert_eq!(told(&ladder.turn()), Fate::Refused(3, 1));
    assert_eq!(ladder.stack.stats().flows, 0);
    ladder.guest(&syn_to(&to(stands, 443), 40_001));
    assert_eq!(ladder.queries.len(), 2);
    assert_eq!(told(&ladder.pass(Duration::from_secs(60))), Fate::Refused(3, 1));
}

#[test]
fn reverse_names_of_what_is_asked_about_do_not_leave() {
    let mut ladder = attended("ask any");
    let mut asked = query("1.2.0.192.in-addr.arpa");
    let len = asked.len();
    asked[len - 3] = 12;
    let frame = datagram(address("10.0.2.100:4999"), "10.0.2.3:53", &asked);
    assert_eq!(ladder.frame(&frame).len(), 1);
    assert!(ladder.queries.is_empty());
}

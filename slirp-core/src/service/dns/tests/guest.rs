//! A guest with a policy, and the messages that it exchanges.

use core::net::SocketAddr;

use super::{tcp_origin, wire};
use crate::config::StackConfig;
use crate::egress::{Cause, EgressPolicy, FlowVerdict, Judge, JudgeConfig};
use crate::event::HostAction;
use crate::journal::{Event, Lookup};
use crate::policy::Protocol;
use crate::service::dns::DnsService;
use crate::time::Instant;

pub(super) const NOW: Instant = Instant::ZERO;
/// Type of an address record.
pub(super) const A: u16 = 1;

/// Policy of most tests.
pub(super) const POLICY: &str = "
    allow .index.example
    allow *.corp.example private=yes
    allow 10.9.8.7:5432
    deny admin.corp.example note=\"ask the admins\"
    ask api.example
";

/// A guest with a policy, and its service.
pub(super) struct Guest {
    pub(super) service: DnsService,
    pub(super) judge: Judge,
}

/// What became of a query.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Fate {
    /// This went upstream.
    Asked(Vec<u8>),
    /// This was answered, and told.
    Answered(Vec<u8>, Lookup),
}

impl Guest {
    pub(super) fn new(policy: &str) -> Self {
        let mut service = DnsService::new(&StackConfig::default());
        service.set_heard(true);
        Self { service, judge: judge(policy) }
    }

    pub(super) fn ask(&mut self, query: &[u8]) -> Fate {
        let judge = Some(&mut self.judge);
        self.service.handle_query(tcp_origin(), None, judge, query, NOW).unwrap();
        let told = core::iter::from_fn(|| self.service.poll_event()).last();
        match self.service.poll_action() {
            Some(HostAction::QueryDns { message, .. }) => {
                assert_eq!(self.service.poll_answer(), None);
                Fate::Asked(message)
            }
            Some(other) => panic!("{other:?}"),
            None => {
                let (_, answer) = self.service.poll_answer().expect("an answer");
                let Some(Event::Answered { lookup: Some(lookup), .. }) = told else {
                    panic!("{told:?}");
                };
                Fate::Answered(answer, lookup)
            }
        }
    }

    /// The response code of a lookup that is answered here without records; `None` if it is asked.
    pub(super) fn code(&mut self, name: &str, kind: u16) -> Option<u8> {
        match self.ask(&question(&wire(name), kind)) {
            Fate::Asked(_) => None,
            Fate::Answered(answer, lookup) => {
                assert_eq!(answer[6..12], [0; 6], "no record, so nothing to cache");
                let expected = match answer[3] & 15 {
                    0 => Lookup::NoData,
                    3 => Lookup::NoSuchName,
                    _ => Lookup::Refused,
                };
                assert_eq!(lookup, expected);
                Some(answer[3] & 15)
            }
        }
    }

    /// Asks for a name and hears these records.
    pub(super) fn look_up(&mut self, name: &str, records: &[Vec<u8>]) -> (Vec<u8>, Lookup) {
        let judge = Some(&mut self.judge);
        let query = question(&wire(name), A);
        let id = self.service.handle_query(tcp_origin(), None, judge, &query, NOW).unwrap();
        assert!(self.service.poll_action().is_some(), "{name} is asked for");
        let mut answer = query.clone();
        answer[2] = 0x81;
        answer[3] = 0x80;
        answer[6..8].copy_from_slice(&u16::try_from(records.len()).unwrap().to_be_bytes());
        answer.extend_from_slice(&records.concat());
        let judge = Some(&mut self.judge);
        let heard = self.service.handle_answer(id, Some(answer), |_| judge, NOW).unwrap().1;
        let told = core::iter::from_fn(|| self.service.poll_event()).last();
        let Some(Event::Answered { lookup: Some(lookup), .. }) = told else { panic!("{told:?}") };
        (heard, lookup)
    }

    pub(super) fn connect(&mut self, to: &str) -> Result<(), Cause> {
        self.connect_at(to.parse().unwrap(), NOW)
    }

    pub(super) fn connect_at(&mut self, to: SocketAddr, now: Instant) -> Result<(), Cause> {
        match self.judge.on_flow(Protocol::Tcp, to, to, now).verdict {
            FlowVerdict::Pass { .. } => Ok(()),
            FlowVerdict::Refuse(cause) => Err(cause),
            other @ (FlowVerdict::Named { .. } | FlowVerdict::Hold | FlowVerdict::Resolver) => {
                panic!("{other:?}")
            }
        }
    }
}

pub(super) fn judge(policy: &str) -> Judge {
    Judge::new(EgressPolicy::parse(policy, "policy").unwrap(), JudgeConfig::default())
}

pub(super) fn question(name: &[u8], kind: u16) -> Vec<u8> {
    let kind = kind.to_be_bytes();
    [&[0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0], name, &kind, &[0, 1]].concat()
}

pub(super) fn record(owner: &[u8], kind: u8, data: &[u8]) -> Vec<u8> {
    let len = u8::try_from(data.len()).unwrap();
    [owner, &[0, kind, 0, 1, 0, 0, 0, 60, 0, len], data].concat()
}

/// An address of the question's name.
pub(super) fn a(address: [u8; 4]) -> Vec<u8> {
    record(&[0xc0, 12], 1, &address)
}

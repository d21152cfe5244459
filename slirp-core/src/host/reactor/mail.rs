//! Messages of other threads to the loop, and their answers.
//!
//! Owns the reading of the [mailbox](crate::host::mailbox). Most messages come from a
//! [`Handle`](crate::host::handle::Handle), DNS answers from the control thread.

use super::Reactor;
use crate::event::DnsQueryId;
use crate::flow::{FlowSummary, JudgedFlow};
use crate::host::audit::Audit;
use crate::host::mailbox::{FlowPage, JudgedFlowPage, Message, NamePage};
use crate::stats::Stats;
use crate::time::Instant;

/// Slots of the flow table that one part of the list of flows covers: one getsockname(2) each,
/// together a fraction of a millisecond.
const FLOW_PAGE: u32 = 256;

/// Slots of a guest's table of names that one part of its list covers. One name has at most 1,024
/// addresses, but few have many.
const NAME_PAGE: u32 = 128;

/// Whether the loop goes on.
#[derive(PartialEq, Eq)]
pub(super) enum Next {
    GoOn,
    End,
}

impl Reactor {
    /// A part of the list of flows, small enough not to delay packets.
    pub(super) fn list_flows(&self, first: u32, now: Instant) -> FlowPage {
        let (flows, next) = self.stack.flows(first, FLOW_PAGE, now);
        let with_local = |mut flow: FlowSummary| {
            flow.local = self.sockets.local_address(flow.id);
            flow
        };
        FlowPage { flows: flows.map(with_local).collect(), next }
    }

    pub(super) fn list_judged_flows(&self, first: u32, now: Instant) -> JudgedFlowPage {
        let (flows, next) = self.stack.judged_flows(first, FLOW_PAGE, now);
        let with_local = |mut flow: JudgedFlow| {
            flow.summary.local = self.sockets.local_address(flow.summary.id);
            flow
        };
        JudgedFlowPage { flows: flows.map(with_local).collect(), next }
    }

    /// The counters, and what there is at this moment.
    fn stats(&mut self, by_member: bool) -> Stats {
        let mut stats = self.stack.snapshot();
        stats.audit = self.audit.as_ref().map(Audit::stats);
        if let Some(board) = self.link.switchboard() {
            board.add_to(&mut stats);
            if by_member {
                let members = board.ids().map(|id| self.stack.member_stats(id));
                stats.by_member = Some(members.collect());
            }
        }
        stats
    }

    /// Answers the messages that have arrived, until there are no more or a shutdown is requested.
    pub(super) fn read_mail(&mut self, now: Instant) -> Next {
        while let Ok(message) = self.inbox.try_recv() {
            match message {
                Message::DnsAnswer { query, answer } => self.on_dns_answer(query, answer, now),
                Message::Stats { by_member, reply } => {
                    let stats = self.stats(by_member);
                    self.tell_stats(stats, reply);
                }
                Message::AddForwards { forwards, reply } => {
                    let _ = reply.send(self.add_forwards(&forwards));
                }
                Message::OpenForwards { rules, reply } => {
                    let _ = reply.send(self.open_forwards(&rules));
                }
                Message::SetSplices { rules, reply } => self.set_splices(rules, reply),
                Message::RemoveForwards { ids, reply } => {
                    let _ = reply.send(self.remove_forwards(ids));
                }
                Message::ListFlows { first, reply } => self.list_all_flows(first, reply, now),
                Message::ListForwards(reply) => {
                    let _ = reply.send(self.forwards.list());
                }
                Message::AddMember { member, reply } => {
                    let added = self.add_member(*member);
                    if let Err(Ok(id)) = reply.send(added) {
                        // The requester has gone, and nothing else would ever remove the member.
                        let _ = self.remove_member(id);
                    }
                }
                Message::RemoveMember { id, reply } => {
                    let _ = reply.send(self.remove_member(id));
                }
                Message::SetEgress { member, policy, established, replaced, reply } => {
                    let _ = reply.send(self.set_egress(member, policy, established, replaced));
                }
                Message::Egress { member, reply } => {
                    let _ = reply.send(self.egress(member));
                }
                Message::Explain { attempt, guest, reply } => {
                    let _ = reply.send(self.stack.explain(&attempt, guest, now));
                }
                Message::ListNames { member, first, count, reply } => {
                    let count = count.min(NAME_PAGE);
                    let (names, next) = self.stack.learned_names(member, first, count, now);
                    let _ = reply.send(NamePage { names, next });
                }
                Message::ListJudgedFlows { first, reply } => {
                    self.list_all_judged_flows(first, reply, now);
                }
                Message::Cut { flow, reply } => self.cut(flow, reply, now),
                Message::ListQuestions(reply) => {
                    let _ = reply.send(self.stack.questions(now));
                }
                Message::Decide { question, decision, by, reply } => {
                    let decided = self.stack.decide(question, &decision, by.as_ref(), now);
                    let _ = reply.send(decided);
                }
                Message::SetApprovers { among, count, reply } => {
                    self.approvers[among as usize] = count;
                    let all = self.approvers.iter().fold(0, |sum: usize, &n| sum.saturating_add(n));
                    self.stack.set_approvers(all, now);
                    let _ = reply.send(());
                }
                Message::SetRates { member, rates, reply } => {
                    let _ = reply.send(self.set_rates(member, rates));
                }
                Message::Rates { member, reply } => {
                    let _ = reply.send(self.rates(member));
                }
                Message::ListMembers(reply) => {
                    let _ = reply.send(self.members());
                }
                Message::Observe(observer) => self.add_observer(observer),
                Message::ReopenAudit { file, reply } => {
                    let _ = reply.send(self.reopen_audit(file));
                }
                Message::SetPlan { plan, personality, search_domains } => {
                    self.sockets.adopt_plan(&plan);
                    self.stack.adopt_plan(*plan, personality, search_domains, now);
                }
                Message::Inner(ask) => {
                    if self.obey(ask, now) == Next::End {
                        return Next::End;
                    }
                }
                Message::MemberLost(id) => {
                    // The member may have been removed meanwhile.
                    let _ = self.remove_member(id);
                }
                Message::Shutdown => return Next::End,
            }
        }
        Next::GoOn
    }

    /// A query was answered or failed.
    pub(super) fn on_dns_answer(
        &mut self,
        query: DnsQueryId,
        answer: Option<Vec<u8>>,
        now: Instant,
    ) {
        self.wanted.remove(&query);
        self.stack.handle_dns_answer(query, answer, now);
    }
}

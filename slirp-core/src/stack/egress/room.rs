//! Room for the bindings of all guests together.
//!
//! Owns the bound on what all judges of a network remember, and which guest makes room. A member
//! has a quarter at most. In a full network the member with most bindings gives up those that end
//! first, even if they are in use: its open flows go on, and its next lookup binds the address
//! anew. What a judge lets go within its own cap is left to
//! [`egress`](crate::egress).

use super::Egress;
use crate::egress::Judge;
use crate::share::Holder;

/// Bindings for which there is room before an answer is looked at (arbitrary: more than most
/// answers have addresses). For the rest of a longer answer, its guest lets bindings of its own go.
const ROOM: usize = 64;

impl Egress {
    /// The judge of `holder` for an answer from the DNS, with room for what it binds; `None` if
    /// nobody judges.
    pub(in crate::stack) fn judge_of_answer(&mut self, holder: Holder) -> Option<&mut Judge> {
        if self.guests.len() > 1 {
            let total: usize = self.guests.values().map(|guest| guest.judge.bindings_len()).sum();
            let excess = (total + ROOM).saturating_sub(self.bindings_cap);
            // Among equals the one that wants more.
            let most = self
                .guests
                .iter_mut()
                .max_by_key(|(other, guest)| (guest.judge.bindings_len(), **other == holder));
            if let Some((_, most)) = most.filter(|_| excess > 0) {
                most.judge.give_up(excess);
            }
        }
        let total: usize = self.guests.values().map(|guest| guest.judge.bindings_len()).sum();
        let (part, cap) = (self.known.bindings_cap, self.bindings_cap);
        let judge = self.judge(holder)?;
        let of_others = total - judge.bindings_len();
        judge.set_bindings_cap(part.min(cap.saturating_sub(of_others)));
        Some(judge)
    }
}

#[cfg(test)]
mod tests {
    use core::net::{IpAddr, Ipv4Addr};

    use super::*;
    use crate::config::StackConfig;
    use crate::egress::{EgressPolicy, Name};
    use crate::member::MemberId;
    use crate::time::Instant;

    const NOW: Instant = Instant::ZERO;

    fn network() -> Egress {
        let policy = EgressPolicy::parse("allow .example wide=yes", "policy").unwrap();
        Egress::new(&StackConfig {
            egress: Some(policy),
            is_shared: true,
            ..StackConfig::default()
        })
    }

    /// A member looks names up until it has `count` addresses more.
    fn bind(egress: &mut Egress, member: u64, count: u32) {
        for first in (0..count).step_by(16) {
            let name = Name::new(&format!("n{first}.example")).unwrap();
            let address = |last| IpAddr::V4(Ipv4Addr::from_bits(0x0b00_0000 + first + last));
            let addresses: Vec<_> = (0..16).map(|last| (address(last), 60)).collect();
            let judge = egress.judge_of_answer(Some(MemberId(member))).unwrap();
            assert!(judge.on_answer(&name, &[], &addresses, NOW));
        }
    }

    fn held(egress: &Egress) -> Vec<usize> {
        egress.guests.values().map(|guest| guest.judge.bindings_len()).collect()
    }

    #[test]
    fn bindings_of_all_members_are_bounded_and_each_has_its_part() {
        let mut egress = network();
        let cap = egress.bindings_cap;
        for member in 0..8 {
            bind(&mut egress, member, 5000);
        }
        let all = held(&egress);
        assert!(all.iter().sum::<usize>() <= cap, "{all:?}");
        assert!(all.iter().all(|&held| held <= cap / 4), "{all:?}");
        let (least, most) = (all.iter().min().unwrap(), all.iter().max().unwrap());
        assert!(most - least <= 2 * ROOM, "no member is left with less: {all:?}");
    }

    #[test]
    fn member_whose_bindings_are_all_in_use_makes_room_all_the_same() {
        let mut egress = network();
        for member in 0..4 {
            bind(&mut egress, member, 5000);
            for address in 0..5008 {
                let ip = IpAddr::V4(Ipv4Addr::from_bits(0x0b00_0000 + address));
                let judge = egress.judge(Some(MemberId(member))).unwrap();
                judge.on_opened((ip, 443).into(), NOW);
            }
        }
        bind(&mut egress, 4, 160);
        assert_eq!(held(&egress)[4], 160);
        assert!(held(&egress).iter().sum::<usize>() <= egress.bindings_cap);
    }
}

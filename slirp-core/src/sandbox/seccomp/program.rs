//! From declared system calls to the kernel's filter programs.

use std::collections::BTreeMap;

use core::ffi::c_long;

use seccompiler::{
    BpfProgram, Error, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition,
    SeccompFilter, SeccompRule, TargetArch,
};

use super::SystemCall;
use crate::sys::calls::Arguments;

/// The filters; the stricter verdict counts. A call that is declared more than once is allowed with
/// the arguments of any of the declarations.
pub(super) fn compile<'c>(
    calls: impl Iterator<Item = &'c SystemCall>,
) -> Result<[BpfProgram; 2], Error> {
    // `None` allows any arguments.
    let mut merged: BTreeMap<c_long, Option<Vec<SeccompRule>>> = BTreeMap::new();
    for call in calls {
        let rules = rules(call.arguments)?;
        let entry = merged.entry(call.number).or_insert_with(|| Some(Vec::new()));
        match (entry.as_mut(), rules) {
            (Some(known), Some(rules)) => known.extend(rules),
            (Some(_), None) => *entry = None,
            (None, _) => {}
        }
    }
    let allowed =
        merged.into_iter().map(|(number, rules)| (number, rules.unwrap_or_default())).collect();
    let allowed = filter(allowed, SeccompAction::KillProcess, SeccompAction::Allow)?;
    let absent = BTreeMap::from([(libc::SYS_clone3, Vec::new())]);
    let absent =
        filter(absent, SeccompAction::Allow, SeccompAction::Errno(libc::ENOSYS.cast_unsigned()))?;
    Ok([absent, allowed])
}

fn filter(
    rules: BTreeMap<c_long, Vec<SeccompRule>>,
    otherwise: SeccompAction,
    matching: SeccompAction,
) -> Result<BpfProgram, Error> {
    let architecture = TargetArch::try_from(std::env::consts::ARCH)?;
    let filter = SeccompFilter::new(rules, otherwise, matching, architecture)?;
    Ok(BpfProgram::try_from(filter)?)
}

/// One rule must match as a whole; `None` matches always.
fn rules(arguments: Arguments) -> Result<Option<Vec<SeccompRule>>, Error> {
    let condition = |index, operator, value| {
        SeccompCondition::new(index, SeccompCmpArgLen::Dword, operator, value)
    };
    let mut rules = Vec::new();
    match arguments {
        Arguments::Any => return Ok(None),
        Arguments::OneOf(index, values) => {
            for &value in values {
                rules.push(SeccompRule::new(vec![condition(index, SeccompCmpOp::Eq, value)?])?);
            }
        }
        Arguments::Bits(all) => {
            let conditions = all
                .iter()
                .map(|&(index, mask, bits)| condition(index, SeccompCmpOp::MaskedEq(mask), bits))
                .collect::<Result<_, _>>()?;
            rules.push(SeccompRule::new(conditions)?);
        }
        Arguments::Ourselves => {
            let ourselves = u64::from(std::process::id());
            rules.push(SeccompRule::new(vec![condition(0, SeccompCmpOp::Eq, ourselves)?])?);
        }
    }
    Ok(Some(rules))
}

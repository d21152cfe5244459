//! The settings on which all members of a shared network must agree.

use serde_json::{Map, Value, json};

use crate::attachment::request::Request;

/// The common settings of a network's members, by the keys of the configuration.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Terms(Map<String, Value>);

impl Terms {
    pub(super) fn of(request: &Request) -> Self {
        let plan = &request.plan;
        let (audit, metrics) = (&request.operator.audit, &request.operator.metrics);
        let (audit, metrics) = (audit.as_ref(), metrics.as_ref());
        let shown = |value: Option<String>| value.map_or(Value::Null, Value::String);
        let pairs = [
            ("mtu", json!(request.mtu)),
            ("cidr", json!(format!("{}/{}", plan.network(), plan.prefix_len()))),
            ("cidr6", shown(plan.ipv6().map(|plan| format!("{}/64", plan.prefix())))),
            ("disableHostLoopback", json!(!request.policy.allow_host_loopback)),
            ("disableDNS", json!(!request.policy.dns_service)),
            ("outboundAddr", shown(request.outbound.ipv4.map(|address| address.to_string()))),
            ("outboundAddr6", shown(request.outbound.ipv6.map(|address| address.to_string()))),
            ("sandbox", json!(request.sandbox)),
            ("auditLog", shown(audit.map(|audit| audit.file.display().to_string()))),
            ("audit", json!(audit.map(|audit| audit.level))),
            ("auditRequired", json!(audit.map(|audit| audit.required))),
            ("controlSocket", json!(request.operator.control_socket)),
            ("metrics", shown(metrics.map(|metrics| metrics.address.to_string()))),
            ("metricsMembers", json!(metrics.map(|metrics| metrics.members))),
        ];
        Self(pairs.into_iter().map(|(key, value)| (key.to_owned(), value)).collect())
    }

    /// Names the keys in which `other` differs, for a person; `None` if there are none.
    pub(super) fn difference(&self, other: &Self) -> Option<String> {
        let shown = |value: Option<&Value>| match value {
            None | Some(Value::Null) => "none".to_owned(),
            Some(Value::String(text)) => text.clone(),
            Some(value) => value.to_string(),
        };
        let differing = self.0.iter().filter(|(key, value)| other.0.get(*key) != Some(*value));
        let words: Vec<String> = differing
            .map(|(key, value)| {
                format!("{key} is {}, not {}", shown(Some(value)), shown(other.0.get(key)))
            })
            .collect();
        (!words.is_empty()).then(|| words.join("; "))
    }
}

#[cfg(test)]
mod tests {
    use slirp_core::{Rate, Rates};

    use super::*;
    use crate::attachment::operator::{Address, Audit, Level, Metrics, Operator};
    use crate::attachment::request::tests::example;

    #[test]
    fn difference_names_the_keys_and_both_values() {
        let terms = Terms::of(&example());
        assert_eq!(terms.difference(&terms), None);
        let mut other = example();
        other.mtu = 9000;
        other.outbound.ipv4 = None;
        other.ports = Vec::new();
        // Each member has its own.
        other.rates = Rates::new(None, Some(Rate { bits_per_second: 1, burst: None }));
        assert_eq!(
            terms.difference(&Terms::of(&other)).unwrap(),
            "mtu is 1500, not 9000; outboundAddr is 192.0.2.1, not none"
        );
        other = example();
        let address = Address::Unix("/m".into());
        other.operator = Operator {
            audit: Some(Audit { file: "/a".into(), level: Level::All, required: false }),
            control_socket: Some("/c".into()),
            metrics: Some(Metrics { address, members: true }),
        };
        let difference = Terms::of(&other).difference(&terms).unwrap();
        let mut words: Vec<_> = difference.split("; ").collect();
        words.sort_unstable();
        assert_eq!(
            words,
            [
                "audit is all, not none",
                "auditLog is /a, not none",
                "auditRequired is false, not none",
                "controlSocket is /c, not none",
                "metrics is unix:/m, not none",
                "metricsMembers is true, not none",
            ]
        );
    }
}
